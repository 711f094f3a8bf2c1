"""A page of a grid as a reader has it: opened from its file in a browser, filtered, sorted, stepped through."""

import pytest

from eval.grid import main
from tests.evaluation.composed_run import draw_run

pytestmark = pytest.mark.acceptance


@pytest.fixture(scope="module")
def page_file(tmp_path_factory):
    run = draw_run(tmp_path_factory.mktemp("grid"))
    places = ["--benchmark", str(run / "toy.yaml"), "--data-root", str(run / "data"), "--output", str(run / "grid")]
    assert main(["--run", str(run / "out"), *places, "--select", "random", "--k", "4"]) == 0
    return run / "grid/grid.html"


def shown(page):
    return [node.get_attribute("aria-label") for node in page.locator(".row").filter(visible=True).all()]


def test_failures_come_first_on_request(open_page):
    page = open_page()
    page.select_option("[name=task]", "val")
    as_chosen = shown(page)

    page.select_option("[name=order]", "1")
    assert shown(page)[2:] == ["query q1", "query q0"]
    page.select_option("[name=order]", "-1")
    assert shown(page)[:2] == ["query q0", "query q1"]
    page.select_option("[name=order]", "")
    assert shown(page) == as_chosen


def test_filters_narrow_and_nothing_has_a_way_back(open_page):
    page = open_page()
    total = len(shown(page))

    page.select_option("[name=group]", "aspect=addition")
    assert sorted(shown(page)) == ["query q1", "query q3"]
    page.fill("[name=words]", "no such words")
    assert shown(page) == []
    assert page.locator("section.task").filter(visible=True).count() == 0
    page.get_by_role("button", name="show all").click()
    assert len(shown(page)) == total
    assert page.locator("output").inner_text() == f"{total} of {total} queries"


def test_arrows_step_from_row_to_row_and_a_slash_searches(open_page):
    page = open_page()

    for label in shown(page)[:2]:
        page.keyboard.press("ArrowDown")
        assert page.evaluate("document.activeElement.getAttribute('aria-label')") == label
    page.keyboard.press("ArrowUp")
    assert page.evaluate("document.activeElement.getAttribute('aria-label')") == shown(page)[0]
    page.keyboard.press("/")
    assert page.evaluate("document.activeElement.name") == "words"
    page.keyboard.press("/")
    assert page.input_value("[name=words]") == "/"


@pytest.mark.parametrize("width", [1280, 420])
def test_every_picture_is_drawn_and_nothing_runs_over_the_side(open_page, width):
    page = open_page(width)

    for picture in page.locator(".row img").all():
        picture.scroll_into_view_if_needed()
        picture.evaluate("node => node.decode()")
        assert min(picture.bounding_box()[side] for side in ("width", "height")) > 20
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_without_scripts_all_rows_are_there(open_page):
    page = open_page(java_script_enabled=False)

    assert len(shown(page)) == 8
    assert page.locator(".filters").is_hidden()
