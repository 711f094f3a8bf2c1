"""Regions that cannot be used, however they come: by Item.of, from a row of a table, into Embedder.encode."""

import json
import math

import numpy as np
import pytest

from mmembed import Image, Item, Region
from mmembed.data.tables import open_table
from mmembed.errors import InputError
from mmembed.models.settings.regions import Overlay
from tests.cases import draw, small_embedder

WIDTH, HEIGHT = 40, 30
PICTURE = draw(WIDTH, HEIGHT)
NAN = float("nan")

LABEL = "region.points: expected (x, y, label) with label 0 or 1, got "
MASK = "region.mask: expected a boolean array [H, W] of the picture's size, got "
CORNERS = "region.box: expected x0 < x1 and y0 < y1, got "
NUMBERS = "region.box: expected 4 numbers x0 y0 x1 y1, got "
FINITE = "expected finite numbers, got "
KINDS = "region: expected exactly one of box, points, mask, got "
INSIDE = " inside the picture of 40 x 30 pixels, got "
IMAGE = "item.regions: expected an image, which they are places in, got none"

# what a region alone shows
ALONE = {
    "unordered corners": ({"box": [10, 10, 5, 20]}, f"{CORNERS}(10.0, 10.0, 5.0, 20.0); order the corners"),
    "no height": ({"box": [1, 9, 5, 9]}, f"{CORNERS}(1.0, 9.0, 5.0, 9.0)"),
    "three numbers": ({"box": [1, 2, 3]}, f"{NUMBERS}(1.0, 2.0, 3.0); give the two corners"),
    "a word in a box": ({"box": ["1", 2, "wide", 4]}, f"{NUMBERS}['1', 2, 'wide', 4]; write numbers"),
    "a number for a box": ({"box": 7}, f"{NUMBERS}7; write [...]"),
    "10,000 points": (
        {"points": [[1, 1, 1]] * 10_000},
        "region.points: expected at most 100 points, got 10,000; draw them as a mask",
    ),
    "another label": ({"points": [[1, 1, 2]]}, f"{LABEL}(1.0, 1.0, 2); 1 is inside, 0 outside"),
    "half a label": ({"points": [[1, 1, 0.5]]}, f"{LABEL}(1.0, 1.0, 0.5)"),
    "a word for a label": ({"points": [[1, 1, "in"]]}, f"{LABEL}(1.0, 1.0, 'in')"),
    "no label": ({"points": [[1, 1]]}, f"{LABEL}(1, 1)"),
    "a point alone": ({"points": [1, 1, 1]}, f"{LABEL}1; write [...]"),
    "two kinds": ({"box": [0, 0, 1, 1], "points": [[1, 1, 1]]}, f"{KINDS}['box', 'points']"),
    "no kind": ({}, f"{KINDS}none; give one kind a region"),
    "another name": ({"bbox": [0, 0, 1, 1]}, "region.bbox: expected a known field, got 'bbox'; did you mean 'box'?"),
    "nan in a box": (
        {"box": [0, NAN, 4, 5]},
        f"region.box: {FINITE}(0.0, nan, 4.0, 5.0); give pixels of the original picture",
    ),
    "no end of a box": ({"box": [0, 0, math.inf, 5]}, f"region.box: {FINITE}(0.0, 0.0, inf, 5.0)"),
    "nan in a point": ({"points": [[NAN, 1, 1]]}, f"region.points: {FINITE}(nan, 1.0, 1)"),
    "nan for a label": ({"points": [[1, 1, NAN]]}, f"{LABEL}(1.0, 1.0, nan)"),
}
# what a row of a table has in another form
ARRAYS = {
    "empty mask": (
        {"mask": np.zeros((HEIGHT, WIDTH), bool)},
        "region.mask: expected at least one pixel inside, got none; leave it out",
    ),
    "mask of floats": (
        {"mask": np.ones((HEIGHT, WIDTH))},
        f"{MASK}float64 of shape (30, 40); threshold it: mask > 0.5",
    ),
    "mask of a channel": ({"mask": np.ones((HEIGHT, WIDTH, 1), bool)}, f"{MASK}bool of shape (30, 40, 1)"),
    "mask of lists": ({"mask": [[True]]}, f"{MASK}list"),
    "a word": (
        "box",
        "region: expected an object with box, points or mask, got 'box'; write {'box': [x0, y0, x1, y1]}",
    ),
}
# what the picture shows
BESIDE = {
    "box outside": (
        {"box": [0, 0, 500, 5]},
        f"regions[1].box: expected a box{INSIDE}(0.0, 0.0, 500.0, 5.0); give pixels of the original picture",
    ),
    "box beside": ({"box": [40.2, 0, 40.8, 5]}, f"regions[1].box: expected a box{INSIDE}(40.2, 0.0, 40.8, 5.0)"),
    "x and y changed": ({"box": [0, 0, 30, 40]}, f"regions[1].box: expected a box{INSIDE}(0.0, 0.0, 30.0, 40.0)"),
    "point beside": (
        {"points": [[1, 1, 1], [1, -5, 0]]},
        f"regions[1].points: expected a point{INSIDE}(1.0, -5.0, 0)",
    ),
    "mask of another size": (
        {"mask": np.ones((WIDTH, HEIGHT), bool)},
        "regions[1].mask: expected a mask as large as the picture of 40 x 30 pixels, got a mask of shape (40, 30)",
    ),
}
GOOD = {"box": [0, 0, 9, 9]}
TEXT_ONLY = {
    "text": ({"text": "words", "regions": [GOOD]}, f"{IMAGE}; add image, or leave regions out"),
    "video": ({"video": ["a.png"], "regions": [GOOD]}, f"{IMAGE}"),
    "page": ({"pdf": "a.pdf", "regions": [GOOD]}, f"{IMAGE}"),
    "content": (
        {"content": ["words"], "regions": [GOOD]},
        "item.regions: expected regions beside the image that they are places in, got regions beside content",
    ),
    "a part of content": ({"content": [{"text": "words", "regions": [GOOD]}]}, f"{IMAGE}"),
}


def cases(*tables):
    return [pytest.param(*case, id=name) for table in tables for name, case in table.items()]


@pytest.fixture(scope="module")
def embedder():
    return small_embedder(regions=Overlay())


def refused_row(folder, query):
    """What reading the second row of a table says, without the name of the file."""
    path = folder / "t.jsonl"
    rows = [{"query": "words", "positives": ["p"]}, {"query": query, "positives": ["p"]}]
    path.write_text("\n".join(map(json.dumps, rows)))
    with pytest.raises(InputError) as caught:
        open_table(path)[1]
    return str(caught.value).removeprefix(f"{path}: ")


@pytest.mark.parametrize(("region", "message"), cases(ALONE, ARRAYS))
def test_an_item_names_the_region_and_what_is_wrong_with_it(region, message):
    with pytest.raises(InputError) as caught:
        Item.of({"image": PICTURE, "regions": [GOOD, region]})

    assert str(caught.value).startswith(f"item.regions[1]: {message}")


@pytest.mark.parametrize(("region", "message"), cases(ALONE))
def test_a_row_of_a_table_names_file_row_and_field(tmp_path, region, message):
    PICTURE.save(tmp_path / "p.png")

    said = refused_row(tmp_path, {"image": "p.png", "regions": [GOOD, region]})

    assert said.startswith(f"line 2: query: item.regions[1]: {message}")


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        ({"size": [30, 40], "counts": [1200]}, "item.regions[0]: region.mask: expected at least one pixel inside"),
        ({"size": [30, 40], "counts": [600]}, "region.mask: expected runs over 30 x 40 pixels"),
        ([[True]], "region.mask: expected run lengths, got [[True]]"),
    ],
)
def test_a_row_of_a_table_names_a_mask_that_is_none(tmp_path, mask, message):
    PICTURE.save(tmp_path / "p.png")

    assert refused_row(tmp_path, {"image": "p.png", "regions": [{"mask": mask}]}).startswith(
        f"line 2: query: {message}"
    )


@pytest.mark.parametrize(("item", "message"), cases(TEXT_ONLY))
def test_regions_without_their_image_are_refused(tmp_path, item, message):
    (tmp_path / "a.png").touch()
    (tmp_path / "a.pdf").touch()
    with pytest.raises(InputError) as caught:
        Item.of(item)

    assert str(caught.value).startswith(message)
    assert refused_row(tmp_path, item).startswith(f"line 2: query: {message}")


@pytest.mark.parametrize(("region", "message"), cases(ALONE, ARRAYS))
def test_encoding_names_the_item(embedder, region, message):
    with pytest.raises(InputError) as caught:
        embedder.encode(["words", {"image": PICTURE, "regions": [region]}])

    assert str(caught.value).startswith(f"item 1: item.regions[0]: {message}")


@pytest.mark.parametrize(("item", "message"), cases(TEXT_ONLY))
def test_encoding_names_the_item_whose_regions_have_no_image(embedder, item, message):
    with pytest.raises(InputError) as caught:
        embedder.encode(["words", item])

    assert str(caught.value).startswith(f"item 1: {message}")


@pytest.mark.parametrize(("region", "message"), cases(BESIDE))
def test_encoding_names_item_picture_and_region_that_is_not_in_it(embedder, tmp_path, region, message):
    path = tmp_path / "p.png"
    PICTURE.save(path)

    with pytest.raises(InputError) as caught:
        embedder.encode(["words", {"image": str(path), "regions": [GOOD, region]}])

    assert str(caught.value).startswith(f"item 1: {path}: {message}")


@pytest.mark.parametrize(("region", "message"), cases(BESIDE))
def test_an_open_picture_without_a_name_is_told_by_its_region(embedder, region, message):
    with pytest.raises(InputError) as caught:
        embedder.encode([{"image": PICTURE, "regions": [GOOD, region]}])

    assert str(caught.value).startswith("item 0: ")
    assert message in str(caught.value)


def test_one_region_is_a_list_of_one():
    with pytest.raises(InputError, match=r"item\.regions: expected a list of regions, got dict; write \[\.\.\.\]"):
        Item.of({"image": PICTURE, "regions": GOOD})


def test_regions_in_two_places_are_refused_rather_than_lost():
    marked = Image(PICTURE, (Region(box=(0, 0, 9, 9)),))
    message = r"expected a picture without regions of its own, got one with 1; give it as an image"

    with pytest.raises(InputError, match=rf"item\.image: {message}"):
        Item.of({"image": marked, "regions": [GOOD]})
    with pytest.raises(InputError, match=rf"item\.video: {message}"):
        Item.of({"video": [marked]})


def test_numbers_of_other_types_are_numbers():
    box, points = np.float32([0, 0, 9.5, 9]), np.array([[1, 2, 1], [3, 4, 0]])

    assert Region.of({"box": box}) == Region(box=(0.0, 0.0, 9.5, 9.0))
    assert Region.of({"points": points}) == Region(points=((1.0, 2.0, 1), (3.0, 4.0, 0)))
    assert Region.of({"points": [(1, 2, True)]}).points == ((1.0, 2.0, 1),)
    assert Region.of({"box": ["1", "2", "3", "4"]}) == Region(box=(1.0, 2.0, 3.0, 4.0))


def test_a_region_made_of_words_is_refused():
    for region in ({"box": ("1", 2, 3, 4)}, {"points": (("1", 2, 1),)}):
        with pytest.raises(InputError, match="expected finite numbers"):
            Region(**region)
