"""What is asked, as clicks and files change it."""

import numpy as np
import pytest

from mmembed.errors import InputError
from mmembed.items import Image, Page, Region, Video
from mmembed.media.settings import MediaSettings
from mmembed.serve.query import Query

USUAL = {"words": "Find it.", "picture": "Represent it.", "region": "What is here?"}


@pytest.fixture
def asked(tmp_path, picture):
    picture(56, 28).save(tmp_path / "p.png")
    return Query().with_picture(tmp_path / "p.png", MediaSettings())


def test_kinds_follow_from_what_is_given(asked):
    assert Query().kind == "nothing"
    assert Query(words="  ").kind == "nothing"
    assert Query(words="red").kind == "words"
    assert asked.kind == "picture"
    assert asked.with_words("but blue").kind == "change"
    assert asked.clicked("inside", 5, 5).with_words("this one").kind == "region"
    assert Query().with_clip("c.mp4").kind == "clip"
    assert Query().with_page("d.pdf", 2).kind == "page"


def test_items_hold_the_medium_before_the_words_and_the_usual_instruction(asked):
    item = asked.with_words(" but blue ").item(USUAL | {"change": "Find the changed picture."})

    assert item.content == (asked.medium, "but blue")
    assert item.instruction == "Find the changed picture."
    assert item.verbatim is False
    assert Query(words="red").item(USUAL).instruction == "Find it."
    assert Query(words="red").item({}).instruction is None
    assert Query().with_clip("c.mp4").item({}).content == (Video("c.mp4"),)
    assert Query().with_page("d.pdf", 2).item({}).content == (Page("d.pdf", 2),)


def test_points_inside_and_outside_are_one_region(asked):
    marked = asked.clicked("inside", 5, 6).clicked("outside", 20, 6).clicked("inside", 7, 8)

    points = ((5, 6, 1), (20, 6, 0), (7, 8, 1))
    assert marked.item(USUAL).content == (Image(asked.medium.source, (Region(points=points),)),)
    assert marked.item(USUAL).instruction == "What is here?"


def test_a_box_has_two_corners_in_any_order(asked):
    half = asked.clicked("box", 40, 20)

    assert half.kind == "picture"
    with pytest.raises(InputError, match="box: expected two corners, got one; click on the opposite corner, or undo"):
        half.item(USUAL)
    assert half.marks.shown == Region(points=((40, 20, 1),))
    assert half.clicked("box", 10, 5).marks.region == Region(box=(10, 5, 40, 20))
    assert half.clicked("box", 10, 5).clicked("box", 1, 1).marks.region is None
    with pytest.raises(InputError, match="expected corners in different rows and columns"):
        half.clicked("box", 40, 3)


def test_a_dragged_box_is_one_change_whatever_was_begun_before(asked):
    dragged = asked.clicked("box", 1, 1).boxed((40, 20), (10, 5))

    assert dragged.marks.region == Region(box=(10, 5, 40, 20))
    assert dragged.undone().marks.corner == (1, 1)
    with pytest.raises(InputError, match="expected corners in different rows and columns"):
        asked.boxed((3, 3), (9, 3))
    with pytest.raises(InputError, match="expected a picture to mark it in"):
        Query(words="red").boxed((1, 1), (2, 2))


def test_marks_of_another_kind_replace_those_before(asked):
    boxed = asked.clicked("inside", 5, 5).clicked("box", 1, 1).clicked("box", 9, 9)

    assert boxed.marks.region == Region(box=(1, 1, 9, 9))
    assert boxed.clicked("outside", 3, 3).marks.region == Region(points=((3, 3, 0),))


def test_a_mask_is_a_region_and_an_empty_one_is_none(asked):
    mask = np.zeros((28, 56), dtype=bool)
    mask[3:9, 10:20] = True

    (image,) = asked.drawn(mask).item(USUAL).content

    assert (image.regions[0].mask == mask).all()
    assert asked.drawn(np.zeros((28, 56), dtype=bool)).marks.region is None


def test_undo_goes_back_one_mark_at_a_time_and_stops_at_the_first(asked):
    marked = asked.clicked("inside", 5, 5).clicked("outside", 9, 9).clicked("box", 1, 1).clicked("box", 20, 20)

    kinds = []
    while marked.history:
        marked = marked.undone()
        kinds.append((len(marked.marks.points), marked.marks.corner))

    assert kinds == [(0, (1, 1)), (2, None), (1, None), (0, None)]
    assert marked.undone() is marked


def test_clear_takes_the_marks_first_and_then_everything(asked):
    marked = asked.with_words("red").clicked("inside", 5, 5)

    once = marked.cleared()
    assert (once.marks.region, once.medium, once.words) == (None, asked.medium, "red")
    assert once.undone().marks.region == Region(points=((5, 5, 1),))
    twice = once.cleared()
    assert (twice.medium, twice.words, twice.history) == (None, "", ())


def test_another_picture_has_no_marks(asked):
    marked = asked.clicked("inside", 5, 5)

    again = marked.with_picture(asked.medium.source, MediaSettings())

    assert (again.marks.region, again.history, again.size) == (None, (), (56, 28))


def test_marks_need_a_picture():
    for ask in (
        lambda: Query(words="red").clicked("inside", 1, 1),
        lambda: Query().with_clip("c.mp4").drawn(np.ones((2, 2), dtype=bool)),
    ):
        with pytest.raises(InputError, match="region: expected a picture to mark it in, got none"):
            ask()


def test_a_hundred_and_one_clicks_are_too_many(asked):
    marked = asked
    for x in range(100):
        marked = marked.clicked("inside", x / 4, 3)

    with pytest.raises(InputError, match="at most 100 points, got 101; draw them as a mask"):
        marked.clicked("inside", 1, 1)


def test_what_is_asked_is_told_in_words_without_the_folders_of_files(asked):
    assert Query(words=" red ").in_words == "“red”"
    assert asked.in_words == "p.png"
    assert asked.with_words("but blue").in_words == "p.png and “but blue”"
    assert asked.clicked("inside", 1, 1).in_words == "a point in p.png"
    assert asked.clicked("inside", 1, 1).clicked("outside", 2, 2).in_words == "2 points in p.png"
    assert asked.boxed((1, 1), (2, 2)).with_words("this").in_words == "a box in p.png and “this”"
    assert asked.drawn(np.ones((28, 56), dtype=bool)).in_words == "a drawing in p.png"
    assert asked.clicked("box", 1, 1).in_words == "p.png"
    assert Query().with_page("/a/d.pdf", 2).in_words == "page 2 of d.pdf"
    assert Query().with_clip("/a/c.mp4").in_words == "c.mp4"


def test_nothing_asked_is_said():
    with pytest.raises(InputError, match="expected words, a picture, a clip or a page, got nothing; type something"):
        Query(words=" ").item(USUAL)


def test_an_instruction_is_the_usual_one_until_it_is_written_over(asked):
    assert asked.instruction_in_force(USUAL) == "Represent it."
    # the field still shows the instruction of words when the picture is there
    assert asked.told("Find it.", USUAL).instruction_in_force(USUAL) == "Represent it."
    own = asked.told("Name the animal.", USUAL)
    assert own.item(USUAL).instruction == "Name the animal."
    assert own.clicked("inside", 3, 3).item(USUAL).instruction == "Name the animal."
    assert own.told("", USUAL).item(USUAL).instruction is None
    assert asked.with_instruction("").told("", USUAL).item(USUAL).instruction is None


def test_a_picture_that_cannot_be_opened_and_a_page_zero_are_refused(tmp_path):
    (tmp_path / "broken.png").write_text("no picture")

    with pytest.raises(InputError, match=r"broken\.png"):
        Query().with_picture(tmp_path / "broken.png", MediaSettings())
    with pytest.raises(InputError, match=r"page\.page: expected 1 or more, got 0"):
        Query().with_page("d.pdf", 0)
