"""A report as a reader has it: opened from its file in a browser, wide and narrow, light and dark, filtered."""

import pytest

from mmembed.evaluation.report import write_report
from tests.evaluation import drawn

WIDTHS = (1280, 420)
TASKS = ["pictures", "pages", "clips", "regions", "composed"]
CONTRAST = """selectors => {
  const channels = (colour) => colour.match(/[\\d.]+/g).map(Number);
  const light = (colour) => {
    const [r, g, b] = channels(colour).map((c) => (c /= 255) <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const ground = (node) => {
    for (; node; node = node.parentElement) {
      const colour = getComputedStyle(node).backgroundColor;
      if (channels(colour)[3] !== 0) return colour;
    }
  };
  return selectors.map((selector) => {
    const node = document.querySelector(selector);
    const [low, high] = [light(getComputedStyle(node).color), light(ground(node))].sort((a, b) => a - b);
    return (high + 0.05) / (low + 0.05);
  });
}"""

pytestmark = pytest.mark.acceptance


@pytest.fixture(scope="module")
def page_file(tmp_path_factory):
    benchmark, where, expected = drawn.draw_gallery(tmp_path_factory.mktemp("gallery"))
    return write_report(benchmark=benchmark, expected=expected, **where)


def boxes(page, selector):
    return [node.bounding_box() for node in page.locator(selector).all()]


def shown(page, selector=".example"):
    return page.locator(selector).filter(visible=True)


def choose(page, kind):
    page.locator(".choice", has_text=kind).click()


def test_the_table_is_there_with_all_its_rows(open_page):
    page = open_page()

    rows = page.locator("table.scores tbody tr").filter(visible=True)
    assert rows.locator("th").all_inner_texts() == [*TASKS, "broken"]
    assert [box["height"] > 20 for box in boxes(page, "table.scores tbody tr")] == [True] * 6
    assert page.locator("section.failed").inner_text().count("broken/7.png") == 1


@pytest.mark.parametrize("width", WIDTHS)
def test_bars_are_as_long_as_the_scores(open_page, width):
    page = open_page(width)

    scores = [float(text) / 100 for text in page.locator("table.scores td.score").all_text_contents()]
    bars, tracks = boxes(page, ".overview rect.bar-score"), boxes(page, ".overview .bar-row:has(.bar-score) svg.track")
    assert len(bars) == len(tracks) == len(TASKS)
    assert len(boxes(page, ".overview rect.bar-blind")) == 3
    assert len(boxes(page, ".overview svg.published path")) == 4
    for bar, track, score in zip(bars, tracks, scores, strict=True):
        assert bar["width"] / (track["width"] - 1) == pytest.approx(score, abs=0.01)
        assert bar["x"] == pytest.approx(track["x"], abs=1)
    assert all(box["width"] > width / 4 for box in tracks)


@pytest.mark.parametrize("width", WIDTHS)
def test_every_picture_is_drawn(open_page, width):
    page = open_page(width)

    pictures = page.locator(".sheets[open] img").all()
    assert len(pictures) >= 60
    for picture in pictures:
        picture.scroll_into_view_if_needed()
        picture.evaluate("node => node.decode()")
        assert picture.evaluate("node => node.naturalWidth") > 0
        assert min(picture.bounding_box()[side] for side in ("width", "height")) > 20


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", WIDTHS)
def test_nothing_is_wider_than_the_page(open_page, width, scheme, tmp_path):
    page = open_page(width, color_scheme=scheme)
    page.evaluate("document.querySelectorAll('details').forEach(fold => fold.open = true)")
    page.evaluate("document.querySelectorAll('img').forEach(image => image.loading = 'eager')")

    page.screenshot(path=tmp_path / f"report-{scheme}-{width}.png", full_page=True)

    assert page.evaluate("document.documentElement.scrollWidth") == width
    # the table alone may be wider than its panel, which scrolls
    too_wide = page.evaluate(
        "width => [...document.querySelectorAll('body *:not(.scroll *)')]"
        ".filter(node => node.getBoundingClientRect().right > width + 1).map(node => node.className)",
        width,
    )
    assert too_wide == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_words_stand_out_from_their_ground(open_page, scheme):
    page = open_page(color_scheme=scheme)
    words = ["td.score", ".soft", "thead th", "a", ".tag.warn", ".note", ".bar-value", ".blinded .bar-label"]
    words += [
        ".verdict.ok",
        ".verdict.above",
        ".verdict.below",
        ".mark.yes",
        ".mark.no",
        ".tiles .bad dd",
        "tr.failed td",
    ]
    words += [".choice input:checked + span", ".card.right .place", ".card .id", ".instruction", ".tick", "figcaption"]

    ratios = dict(zip(words, page.evaluate(CONTRAST, words), strict=True))

    assert {selector: round(ratio, 2) for selector, ratio in ratios.items() if ratio < 4.5} == {}


def test_filters_hide_and_show(open_page):
    page = open_page()
    total = shown(page).count()
    misses = shown(page, ".example.miss").count()
    assert page.locator(".filters output").inner_text() == f"{total} of {total} examples"
    assert 0 < misses < total

    choose(page, "misses")
    assert (shown(page).count(), shown(page, ".example.hit").count()) == (misses, 0)

    choose(page, "hits")
    assert (shown(page).count(), shown(page, ".example.miss").count()) == (total - misses, 0)

    page.select_option("select[name=group]", "change=shape")
    assert 0 < shown(page).count() == shown(page, "#task-composed .example.hit").count()
    assert page.locator(".filters output").inner_text() == f"{shown(page).count()} of {total} examples"
    assert shown(page, "section.task").count() == 1

    page.get_by_role("button", name="reset").click()
    assert shown(page).count() == total

    page.select_option("select[name=task]", "pages")
    assert shown(page, "section.task").count() == 1
    page.get_by_role("searchbox").fill("WHERE timetable?")
    assert shown(page).count() == 1
    page.get_by_role("searchbox").fill("no such words")
    assert shown(page).count() == 0
    assert shown(page, ".nothing").count() == 1


def test_links_arrive_whatever_is_filtered_or_folded(open_page):
    page = open_page()
    page.select_option("select[name=task]", "pages")

    page.locator("table.scores a", has_text="2a1b2c3d4e5f").click()

    fold = page.locator("#protocol-clips")
    assert fold.evaluate("node => node.open")
    page.wait_for_function("document.querySelector('#protocol-clips').getBoundingClientRect().top < 900")
    assert page.locator("select[name=task]").input_value() == ""


def test_the_page_reads_without_its_script(open_page):
    page = open_page(java_script_enabled=False)

    assert shown(page, "table.scores tbody tr").count() == 6
    assert shown(page).count() == page.locator(".example").count()
    assert shown(page, ".filters, .nothing").count() == 0
