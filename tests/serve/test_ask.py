"""Files become queries, clicks on the page become marks, and SAM looks at a picture once."""

import PIL.Image
import pytest

from mmembed import Item
from mmembed.counters import counting
from mmembed.data.tables import write_items
from mmembed.errors import InputError
from mmembed.items import Image, Page, Video
from mmembed.models.settings import RawPrompt
from mmembed.models.settings.regions import Sam2Regions, Sam2Scratch
from mmembed.serve.ask import Desk, plain
from mmembed.serve.query import Query
from mmembed.serve.search import Searcher
from scripts.embed import main
from tests.cases import small_embedder


@pytest.fixture(scope="module")
def desk(searcher):
    return Desk(searcher, {"region": "what is here ?", "picture": "represent the image"})


@pytest.fixture(scope="module")
def sam_desk(tmp_path_factory):
    """A desk whose model has a SAM 2, over an index of one row."""
    root = tmp_path_factory.mktemp("sam")
    small_embedder(regions=Sam2Regions(scratch=Sam2Scratch()), prompt=RawPrompt()).save(root / "model")
    write_items(root / "items.jsonl", [("a", Item.of("red"))])
    paths = ["--model", str(root / "model"), "--input", str(root / "items.jsonl"), "--output", str(root / "index")]
    assert main(paths) == 0
    return Desk(Searcher.open(str(root / "model"), root / "index", device="cpu"), {})


@pytest.fixture
def drawn(folder):
    return str(folder / "gallery/pictures/00002.png")


def test_a_file_is_a_picture_a_page_or_a_clip_by_its_suffix(desk, drawn):
    assert desk.with_file(Query(), drawn, None).medium == Image(drawn)
    assert desk.with_file(Query(), "a.PDF", 3).medium == Page("a.PDF", 3)
    assert desk.with_file(Query(), "a.PDF", None).medium == Page("a.PDF", 1)
    assert desk.with_file(Query(), "a.mp4", None).medium == Video("a.mp4")
    assert desk.with_file(desk.with_file(Query(), drawn, None), None, None).kind == "nothing"


@pytest.mark.parametrize("number", [1, 2])
def test_a_box_clicked_on_the_page_finds_the_object_in_its_own_picture(desk, drawn, index, number):
    x0, y0, x1, y1 = index.table[2][1].content[0].regions[number - 1].box
    query = desk.with_file(Query(), drawn, None)

    # the page shows ten pixels for one
    clicked = desk.clicked(desk.clicked(query, "box", (10 * x1 - 1, 10 * y0)), "box", (10 * x0, 10 * y1 - 1))
    hit = desk.search(clicked, 1)[0]

    assert clicked.marks.region.box == pytest.approx((x0, y0, x1, y1), abs=0.1)
    assert (hit.id, hit.region) == ("picture-00002", number)


def test_a_box_dragged_on_the_page_is_the_one_in_the_picture(desk, drawn):
    query = desk.with_file(Query(), drawn, None)

    dragged = desk.dragged(query, [399, 200, 100, -20])

    assert dragged.marks.region.box == pytest.approx((10, 0, 40, 20), abs=0.1)


def test_the_drawing_shows_the_marks(desk, drawn):
    query = desk.with_file(Query(), drawn, None)
    plain_drawing = desk.drawing(query)

    assert plain_drawing.size == (560, 280)
    assert desk.drawing(desk.clicked(query, "inside", (30, 30))) != plain_drawing
    assert desk.drawing(desk.clicked(query, "box", (30, 30))) != plain_drawing
    assert desk.drawing(Query(words="red")) is None


def test_what_is_painted_is_a_mask_and_nothing_painted_changes_nothing(desk, drawn):
    query = desk.with_file(Query(), drawn, None)
    layer = PIL.Image.new("RGBA", (560, 280), (0, 0, 0, 0))

    assert desk.drawn(query, [layer]) is query
    layer.paste((1, 2, 3, 255), (0, 0, 100, 100))
    assert desk.drawn(query, [layer]).marks.mask.sum() == 100


def test_a_refusal_of_the_model_names_the_upload_without_its_folder(desk, drawn):
    query = desk.with_file(Query(), drawn, None)
    layer = PIL.Image.new("RGBA", (560, 280), (1, 2, 3, 255))

    with pytest.raises(InputError) as told:
        desk.search(desk.drawn(query, [layer]), 3)

    assert told.value.where == "00002.png: regions[0]"
    assert "got a mask; give the box around it" in str(told.value)


def test_a_complaint_about_words_stays_as_it_is():
    error = InputError("item 0: item", expected="x", got="y", remedy="z")

    assert str(plain(error, None)) == "item: expected x, got y; z"


def test_who_gave_a_broken_file_is_not_told_to_change_a_table(desk, tmp_path):
    (tmp_path / "notes.png").write_text("no picture")

    with pytest.raises(InputError) as told:
        desk.with_file(Query(), str(tmp_path / "notes.png"), None)

    error = plain(told.value, str(tmp_path / "notes.png"))
    assert (error.where, error.remedy) == ("notes.png", "give another file")
    assert str(tmp_path) not in str(error)


def test_a_click_after_the_first_encodes_no_picture(sam_desk, drawn):
    query = sam_desk.with_file(Query(), drawn, None)
    assert sam_desk.has_sam

    with counting() as first:
        query = sam_desk.clicked(query, "inside", (100, 100))
        sam_desk.drawing(query)
    with counting() as after:
        for place in ((200, 100), (300, 50)):
            query = sam_desk.clicked(query, "outside", place)
            sam_desk.drawing(query)
        sam_desk.drawing(query.undone())
        sam_desk.search(query, 1)

    assert (first["sam_images"], first["sam_prompts"]) == (1, 1)
    assert after["sam_images"] == 0
    assert after["sam_prompts"] >= 3


def test_the_mask_that_sam_finds_is_drawn_under_the_points(sam_desk, desk, drawn):
    marked = [one.clicked(one.with_file(Query(), drawn, None), "inside", (100, 100)) for one in (sam_desk, desk)]

    assert not desk.has_sam
    assert sam_desk.drawing(marked[0]) != desk.drawing(marked[1])


def test_a_model_without_a_region_encoder_says_so(tmp_path, drawn):
    small_embedder().save(tmp_path / "model")
    write_items(tmp_path / "items.jsonl", [("a", Item.of("red"))])
    main(
        ["--model", str(tmp_path / "model"), "--input", str(tmp_path / "items.jsonl"), "--output", str(tmp_path / "i")]
    )
    desk = Desk(Searcher.open(str(tmp_path / "model"), tmp_path / "i", device="cpu"), {})
    query = desk.with_file(Query(), drawn, None)

    with pytest.raises(InputError, match="this model has no region encoder"):
        desk.search(desk.clicked(query, "inside", (5, 5)), 1)
