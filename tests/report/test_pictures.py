"""Small pictures: what is in the PNG is the image, and nothing in a name becomes markup."""

import base64
import re
import xml.etree.ElementTree as ET

import numpy as np
import pytest

from lab.report.pictures import overlay, picture, png, vote_bars


@pytest.mark.parametrize("channels", [1, 3])
def test_a_png_holds_the_pixels(channels, tmp_path):
    image_module = pytest.importorskip("PIL.Image", reason="Pillow is not installed")
    image_CHW = np.random.default_rng(0).integers(0, 256, (channels, 5, 7), np.uint8)
    (tmp_path / "x.png").write_bytes(png(image_CHW))
    with image_module.open(tmp_path / "x.png") as opened:
        read = np.asarray(opened)
    np.testing.assert_array_equal(read, image_CHW.transpose(1, 2, 0) if channels == 3 else image_CHW[0])


def test_an_image_lies_in_the_page_and_says_what_it_is():
    markup = str(picture(np.zeros((1, 4, 4), np.uint8), 'labelled "<8>"'))
    source = re.search(r'src="data:image/png;base64,([^"]+)"', markup).group(1)
    assert base64.b64decode(source).startswith(b"\x89PNG") and "<8>" not in markup and "style" not in markup


def test_an_image_of_one_row_is_drawn_as_a_line():
    signal = np.array([[[0, 255, 0]]], np.uint8)
    line = ET.fromstring(str(picture(signal, "a signal"))).find("polyline")
    assert line.get("points") == "0,48 50,2 100,48"


def test_votes_are_bars_as_high_as_their_share_and_the_label_is_marked():
    svg = ET.fromstring(str(vote_bars([1, 0, 3], 0, ["a", "b", "<c>"])))
    bars = [r for r in svg.findall("rect") if r.get("class") != "label"]
    assert [r.get("class") for r in bars] == ["right", "wrong", "wrong"]
    heights = [float(r.get("height")) for r in bars]
    assert heights[2] == pytest.approx(3 * heights[0]) and heights[1] == 0
    [mark] = [r for r in svg.findall("rect") if r.get("class") == "label"]
    assert mark.get("x") == bars[0].get("x")
    assert svg.get("aria-label") == "Votes: <c>: 3, a: 1"


def test_of_many_classes_only_those_with_a_vote_and_the_label_have_a_bar():
    votes = [0] * 100
    votes[4], votes[77] = 5, 2
    svg = ET.fromstring(str(vote_bars(votes, 50, [str(c) for c in range(100)])))
    assert len([r for r in svg.findall("rect") if r.get("class") != "label"]) == 3


def test_a_map_colours_what_is_under_it_and_leaves_the_rest_grey():
    image = np.array([[[0, 100, 200]]] * 3, np.uint8)
    drawn = overlay(image, np.array([[0, 255, 0]], np.uint8))
    np.testing.assert_array_equal(drawn[:, 0, [0, 2]], [[0, 200]] * 3)
    np.testing.assert_allclose(drawn[:, 0, 1], 0.2 * 100 + 0.8 * np.array([0xD5, 0x5E, 0]), atol=0.5)
