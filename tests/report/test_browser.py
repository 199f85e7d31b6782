"""The page in a real browser: nothing fails, nothing is loaded, all is drawn, on a desk and on a phone."""

import pytest

from tests.waiting import until

pytestmark = pytest.mark.browser

DRAW_ALL = """async () => {
  const plots = [...document.querySelectorAll(".plot")];
  for (const plot of plots) {
    plot.scrollIntoView({ behavior: "instant", block: "center" });
    for (let k = 0; k < 15000 && !plot.querySelector("svg.main-svg"); k++) await new Promise((r) => setTimeout(r, 20));
  }
  return plots.map((plot) => plot.querySelectorAll("svg.main-svg").length > 0);
}"""


@pytest.mark.parametrize("kind", ["healthy", "posterior", "one_trial", "all_diverged", "partial", "large"])
@pytest.mark.parametrize("width", [1280, 390])
def test_every_figure_is_drawn_and_nothing_is_wider_than_the_screen(opened, kind, width):
    page = opened(kind, width=width)
    drawn = page.evaluate(DRAW_ALL)
    assert all(drawn) and len(drawn) == page.locator(".plot").count()
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    wide = page.evaluate("""() => [...document.querySelectorAll("main *")]
        .filter((e) => !e.closest(".scroll, .js-plotly-plot, svg"))
        .filter((e) => e.getBoundingClientRect().right > innerWidth + 0.5)
        .map((e) => e.tagName + "." + e.className)""")
    assert wide == []


@pytest.mark.parametrize("width", [1280, 390])
def test_labels_of_axes_do_not_run_into_each_other_or_out_of_the_figure(opened, width):
    page = opened("healthy", width=width)
    page.evaluate(DRAW_ALL)
    bad = page.evaluate("""() => {
      const found = [];
      for (const plot of document.querySelectorAll(".plot")) {
        const frame = plot.getBoundingClientRect();
        for (const axis of [".xaxislayer-above", ".yaxislayer-above"]) {
          const boxes = [...plot.querySelectorAll(axis + " text")].map((t) => t.getBoundingClientRect());
          boxes.forEach((a, k) => boxes.slice(k + 1).forEach((b) => {
            if (a.left < b.right && b.left < a.right && a.top + 2 < b.bottom && b.top + 2 < a.bottom)
              found.push([plot.dataset.figure, axis, "overlap"]);
          }));
        }
        for (const text of plot.querySelectorAll("text")) {
          const box = text.getBoundingClientRect();
          if (box.width && (box.left < frame.left - 2 || box.right > frame.right + 2))
            found.push([plot.dataset.figure, text.textContent, "outside"]);
        }
      }
      return found;
    }""")
    assert bad == []


def test_the_page_does_not_jump_when_figures_are_drawn(opened):
    page = opened("healthy")
    before = page.evaluate("document.documentElement.scrollHeight")
    page.evaluate(DRAW_ALL)
    assert page.evaluate("document.documentElement.scrollHeight") == before


def test_a_figure_is_drawn_only_when_it_comes_near(opened):
    page = opened("healthy")
    page.wait_for_timeout(200)
    assert page.locator(".plot[data-drawn]").count() < page.locator(".plot").count() / 2


def test_the_table_of_trials_sorts_and_filters(opened):
    page = opened("healthy")
    table = page.locator("table.sortable")
    column = table.locator("thead th").all_inner_texts()
    place = next(k for k, text in enumerate(column) if text.startswith("variance"))

    def values():
        raw = table.locator(f"tbody tr td:nth-child({place + 1})").evaluate_all("cells => cells.map(c => c.dataset.v)")
        return [float(v) for v in raw if v], [k for k, v in enumerate(raw) if not v]

    head = table.locator("thead th").nth(place)
    for direction, sign in (("ascending", 1), ("descending", -1)):
        head.locator("button").click()
        numbers, missing = values()
        assert head.get_attribute("aria-sort") == direction
        assert numbers == sorted(numbers, key=lambda v: sign * v) and len(numbers) == 39
        assert missing == [39]  # the diverged trial stays at the end
    page.locator("#filter").fill("diverged")
    assert table.locator("tbody tr:visible").count() == 2
    assert page.locator("#shown").inner_text() == "2 of 40 shown"
    page.locator("#filter").fill("00000000000000000000000000000007")
    assert table.locator("tbody tr:visible").count() == 1


def test_the_table_is_sorted_from_the_keyboard(opened):
    page = opened("healthy")
    page.locator("table.sortable thead button").first.focus()
    page.keyboard.press("Enter")
    assert page.locator("table.sortable thead th").first.get_attribute("aria-sort") == "ascending"
    assert page.locator("table.sortable tbody th").first.inner_text() == "0"


def test_dark_mode_changes_page_and_figures_also_while_it_is_open(opened):
    page = opened("healthy", scheme="dark")
    page.evaluate(DRAW_ALL)
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(20, 23, 27)"
    lines = "[...document.querySelectorAll('[data-figure=data-epochs-parts] .js-line')]"
    colors = f"() => {lines}.map(e => getComputedStyle(e).stroke)"
    assert "rgb(255, 139, 61)" in page.evaluate(colors)
    page.emulate_media(color_scheme="light")
    # polled from here: a predicate that the page itself polls is a string to evaluate, which the page's policy refuses
    until(lambda: "rgb(255, 139, 61)" not in page.evaluate(colors))
    assert "rgb(213, 94, 0)" in page.evaluate(colors)


def test_without_javascript_numbers_can_be_read_and_nothing_empty_takes_room(opened):
    page = opened("healthy", javascript=False)
    assert page.locator(".no-js").first.is_visible()
    labels = page.locator(".plot").evaluate_all("plots => plots.map((p) => p.getAttribute('aria-label'))")
    assert all(page.locator(".no-js").nth(k).inner_text().startswith(label) for k, label in enumerate(labels))
    assert not page.locator("#filter").is_visible() and not page.locator("button.copy").first.is_visible()
    assert page.locator(".plot").first.bounding_box()["height"] < 5
    page.locator("#capacity details summary").click()
    assert page.locator("#capacity table tbody tr").first.is_visible()


def test_in_print_every_section_is_there_with_its_answer_and_what_only_a_screen_needs_is_not(opened):
    page = opened("healthy", width=794)  # A4 at 96 dots an inch
    page.emulate_media(media="print")
    shown = page.evaluate("""() => [...document.querySelectorAll("main section")].map((s) => [
      s.id, s.querySelector("h2").checkVisibility(), s.querySelector(".answer").getBoundingClientRect().height > 10,
      s.getBoundingClientRect().right <= innerWidth + 0.5,
    ])""")
    assert len(shown) == page.locator("main section").count() >= 13
    assert [row for row in shown if not all(row)] == []
    assert page.locator(".cmd code").first.is_visible()
    assert not any(page.locator(what).first.is_visible() for what in ("nav", "button.copy", "#filter"))
    page.evaluate("document.querySelectorAll('details').forEach((d) => { d.open = true; })")
    assert page.evaluate("document.documentElement.scrollWidth") <= 794  # a wider one is printed smaller as a whole


@pytest.mark.parametrize("width", [1280, 390])
def test_nothing_is_drawn_outside_the_frame_of_its_figure(opened, width):
    """Points of every trace lie in the frame; what plotly cuts off at the frame's edge would be out of it here."""
    page = opened("healthy", width=width)
    page.evaluate(DRAW_ALL)
    cut = page.evaluate("""() => {
      const found = [];
      for (const plot of document.querySelectorAll(".plot")) {
        const frame = plot.getBoundingClientRect();
        for (const point of plot.querySelectorAll(".points path.point, .bars path, .legend text")) {
          const box = point.getBoundingClientRect();
          if (box.left < frame.left - 1 || box.right > frame.right + 1 || box.top < frame.top - 1 ||
              box.bottom > frame.bottom + 1) found.push([plot.dataset.figure, box.left - frame.left]);
        }
      }
      return found;
    }""")
    assert cut == []


def test_in_print_every_figure_is_drawn_on_white(opened, tmp_path):
    page = opened("healthy", scheme="dark")
    pdf = page.pdf(path=str(tmp_path / "page.pdf"))
    assert len(pdf) > 50_000
    assert page.locator(".plot[data-drawn]").count() == page.locator(".plot").count()


def test_the_page_works_in_a_sandboxed_frame_as_the_viewer_of_mlflow_has_it(browser, made, tmp_path):
    (tmp_path / "inner.html").write_text(made("healthy")[2], encoding="utf-8")
    frame = '<!doctype html><iframe sandbox="allow-scripts" src="inner.html" width="1200" height="800"></iframe>'
    (tmp_path / "outer.html").write_text(frame, encoding="utf-8")
    context = browser.new_context()
    page = context.new_page()
    errors = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto((tmp_path / "outer.html").as_uri())
    inner = page.frames[1]
    inner.locator("#capacity").scroll_into_view_if_needed()
    inner.locator("[data-figure=data-capacity-stack] svg.main-svg").first.wait_for()
    context.close()
    assert errors == []


def first_paint(page):
    """Return after how many milliseconds something of the page could be seen."""
    found = []

    def painted():
        found[:] = page.evaluate("performance.getEntriesByName('first-contentful-paint').map((e) => e.startTime)")
        return found

    until(painted)
    return found[0]


def test_first_paint_comes_within_a_second_and_a_half(opened):
    """Where all takes longer than that: within five times what the page takes without its scripts (1.5 times here)."""
    paints, bare = [], []
    while not paints or (min(paints) >= 1500 and len(paints) < 5):
        paints.append(first_paint(opened("large")))
        bare.append(first_paint(opened("large", javascript=False)))
    assert min(paints) < max(1500, 5 * min(bare))


def test_keyboard_focus_skips_to_the_report_or_goes_by_the_tables_to_the_contents_and_can_be_seen(opened):
    page = opened("healthy")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    for name in ("trials.csv", "summary.json"):
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.textContent") == name
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.closest('nav') !== null")
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
