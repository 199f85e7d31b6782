"""The pages judged by axe-core in a real browser, and by pictures: both themes, desk and phone."""

import base64
import hashlib
from functools import cache
from pathlib import Path

import pytest

from tests.report.test_browser import DRAW_ALL

pytestmark = pytest.mark.browser

AXE = Path(__file__).parent / "axe-core" / "axe.min.js"
AXE_SHA256 = "29348999450cdf2849a8e70b7912fc2da85a849da39c0d0d5394f51d4a9ed95c"
RUN = """async () => {
  const found = await axe.run(document, { resultTypes: ["violations"] });
  return found.violations.map((v) => [v.id, v.impact, v.help, v.nodes.slice(0, 3).map((n) => n.target.join(" "))]);
}"""


@cache
def axe():
    text = AXE.read_bytes()
    assert hashlib.sha256(text).hexdigest() == AXE_SHA256
    return text.decode()


@pytest.mark.parametrize(
    ("kind", "scheme"),
    [("healthy", "light"), ("healthy", "dark"), ("all_diverged", "light"), ("one_trial", "light"), ("large", "light")],
)
def test_axe_finds_nothing_serious(opened, kind, scheme):
    page = opened(kind, scheme=scheme)
    page.evaluate(DRAW_ALL)
    page.evaluate("document.querySelectorAll('details').forEach((d) => { d.open = true; })")
    page.evaluate(axe())
    serious = [v for v in page.evaluate(RUN) if v[1] in ("serious", "critical")]
    assert serious == []


def test_axe_finds_what_is_planted(opened):
    page = opened("one_trial")
    page.evaluate("() => { const i = document.createElement('input'); document.body.append(i); }")
    page.evaluate(axe())
    assert "label" in [v[0] for v in page.evaluate(RUN)]


@pytest.mark.parametrize("width", [1280, 390])
def test_pictures_of_both_themes_differ_where_they_should(opened, width, tmp_path):
    """Paper is light in one and dark in the other; nearly no pixel is the same, figures included."""
    image = pytest.importorskip("PIL.Image", reason="Pillow is not installed")
    pictures = {}
    for scheme in ("light", "dark"):
        page = opened("healthy", width=width, scheme=scheme)
        page.evaluate(DRAW_ALL)
        page.evaluate("window.scrollTo(0, 0)")
        path = tmp_path / f"{scheme}.png"
        page.screenshot(path=path, full_page=True)
        pictures[scheme] = image.open(path).convert("L")
    light, dark = pictures["light"], pictures["dark"]
    assert light.size == dark.size and light.size[0] == width
    counts = [p.resize((width // 4, light.size[1] // 4)).histogram() for p in (light, dark)]
    bright = [sum(c[200:]) / sum(c) for c in counts]
    assert bright[0] > 0.8 and bright[1] < 0.15


def test_images_of_the_gallery_are_shown(opened):
    page = opened("healthy")
    sizes = page.evaluate("[...document.querySelectorAll('img.pixels')].map((i) => [i.complete, i.naturalWidth])")
    assert len(sizes) >= 8 and all(done and width == 8 for done, width in sizes)
    source = page.locator("img.pixels").first.get_attribute("src")
    assert base64.b64decode(source.split(",", 1)[1]).startswith(b"\x89PNG")
