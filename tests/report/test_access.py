"""The pages judged by axe-core in a real browser, and by pictures: both themes, desk and phone."""

import base64
import hashlib
import io
from functools import cache
from pathlib import Path

import pytest

from lab.report.live_page import live_page
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


@pytest.mark.parametrize(("kind", "scheme", "width"), [
    ("healthy", "light", 1280), ("healthy", "dark", 390), ("all_diverged", "light", 1280), ("one_trial", "light", 390),
    ("large", "dark", 1280),
])  # fmt: skip
def test_axe_finds_nothing_serious(opened, kind, scheme, width):
    page = opened(kind, scheme=scheme, width=width)
    page.evaluate(DRAW_ALL)
    page.evaluate("document.querySelectorAll('details').forEach((d) => { d.open = true; })")
    page.evaluate(axe())
    serious = [v for v in page.evaluate(RUN) if v[1] in ("serious", "critical")]
    assert serious == []


@pytest.mark.parametrize(("scheme", "width"), [("light", 1280), ("dark", 390)])
def test_axe_finds_nothing_serious_on_the_live_page(browser, made, tmp_path, scheme, width):
    status = {"study": "capacity_sweep", "question": "?", "n_planned": 60, "counts": {"finished": 40}, "in_use": True}
    path = tmp_path / "live.html"
    path.write_text(live_page(status, made("healthy")[0], report_note="made from 40 trials"), encoding="utf-8")
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme, bypass_csp=True)
    page = context.new_page()
    page.goto(path.as_uri())
    assert page.locator("svg.chart").count() == 2
    page.evaluate(axe())
    serious = [v for v in page.evaluate(RUN) if v[1] in ("serious", "critical")]
    context.close()
    assert serious == []


def test_axe_finds_what_is_planted(opened):
    page = opened("one_trial")
    page.evaluate("() => { const i = document.createElement('input'); document.body.append(i); }")
    page.evaluate(axe())
    assert "label" in [v[0] for v in page.evaluate(RUN)]


# contrast of what axe-core does not see: text inside drawings, against what lies behind it
CONTRAST = """() => {
  const parsed = (text) => text.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => [r, g, b].map((v) => v / 255)
    .map((v) => (v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4))
    .reduce((sum, v, k) => sum + v * [0.2126, 0.7152, 0.0722][k], 0);
  const paper = parsed(getComputedStyle(document.body).backgroundColor);
  const bad = [];
  let n = 0;
  for (const text of document.querySelectorAll(".plot svg text, svg.protocol text")) {
    const style = getComputedStyle(text);
    if (!text.textContent.trim() || !text.getBoundingClientRect().width) continue;
    if (text.closest(".heatmaplayer, .annotation")) continue; // on cells of their own colour
    n += 1;
    const [a, b] = [light(parsed(style.fill)), light(paper)].sort((x, y) => y - x);
    if ((a + 0.05) / (b + 0.05) < 4.5) bad.push([text.textContent, style.fill]);
  }
  return [n, bad];
}"""


@pytest.mark.parametrize(("scheme", "width"), [("light", 1280), ("dark", 1280), ("dark", 390)])
def test_text_inside_drawings_can_be_read_on_its_paper(opened, scheme, width):
    page = opened("healthy", scheme=scheme, width=width)
    page.evaluate(DRAW_ALL)
    n, bad = page.evaluate(CONTRAST)
    assert n > 100 and bad == []
    page.evaluate("() => { document.querySelector('.plot svg .xtick text').style.fill = 'rgb(120, 120, 120)'; }")
    assert len(page.evaluate(CONTRAST)[1]) == 1  # 4.4:1 on white, 4.2:1 on the dark page


def _drawing(shot, image):
    """Return, of a picture of a figure, the shares of pixels that are not paper and that have a hue, and the paper."""
    picture = image.open(io.BytesIO(shot)).convert("RGB")
    counts = picture.getcolors(picture.width * picture.height)
    paper, total = max(counts)[1], picture.width * picture.height
    drawn = sum(n for n, color in counts if max(abs(a - b) for a, b in zip(color, paper, strict=True)) > 24)
    hued = sum(n for n, color in counts if max(color) - min(color) > 40)  # axes and their labels are grey
    return drawn / total, hued / total, paper


@pytest.mark.parametrize(("scheme", "width", "paper"), [
    ("light", 1280, (255, 255, 255)), ("dark", 390, (20, 23, 27)),
])  # fmt: skip
def test_every_figure_shows_a_drawing_on_the_paper_of_its_theme(opened, scheme, width, paper):
    image = pytest.importorskip("PIL.Image", reason="Pillow is not installed")
    page = opened("healthy", width=width, scheme=scheme)
    page.evaluate(DRAW_ALL)
    figures = page.locator(".plot")
    for k in range(figures.count()):
        drawn, hued, behind = _drawing(figures.nth(k).screenshot(), image)
        name = figures.nth(k).get_attribute("data-figure")
        assert drawn > 0.01, (name, drawn)
        assert hued > 0.0005 or name == "data-learning", (name, hued)  # the risk has the colour of the text
        if name != "data-confusion":  # its cells cover the paper
            assert behind == paper, name
    page.evaluate("() => { const box = document.querySelector('.plot'); Plotly.react(box, [], box.layout); }")
    assert _drawing(figures.first.screenshot(), image)[1] < 0.0005  # axes alone are no drawing


def test_images_of_the_gallery_are_shown(opened):
    page = opened("healthy")
    sizes = page.evaluate("[...document.querySelectorAll('img.pixels')].map((i) => [i.complete, i.naturalWidth])")
    assert len(sizes) >= 8 and all(done and width == 8 for done, width in sizes)
    source = page.locator("img.pixels").first.get_attribute("src")
    assert base64.b64decode(source.split(",", 1)[1]).startswith(b"\x89PNG")
