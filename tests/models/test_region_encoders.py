"""Regions in words: where a box or a point is, counted in steps of its picture's sides."""

import numpy as np
import pytest

from mmembed import Image, Item, Pair, Region
from mmembed.data.tables import write_pairs
from mmembed.errors import InputError
from mmembed.media.regions import without_regions
from mmembed.models.region_encoders.text import TextRegionPreparer
from mmembed.recipe import Recipe, make_embedder
from mmembed.settings import parse_yaml, read_settings

SIZE = (200, 100)


def words(*regions, scale=10, size=SIZE):
    return TextRegionPreparer(scale).words(Image("cat.png", regions), size)


def test_a_box_is_its_two_corners_in_steps_of_the_sides():
    assert words(Region(box=(20, 10, 100, 90))) == "(box 1 1 5 9)"
    assert words(Region(box=(0, 0, 200, 100))) == "(box 0 0 10 10)"
    assert words(Region(box=(20, 10, 100, 90)), scale=1000) == "(box 100 100 500 900)"


def test_points_inside_and_outside_are_told_apart():
    assert words(Region(points=((20, 90, 1), (199, 1, 0)))) == "(point 1 9) (not 10 0)"


def test_several_regions_are_told_in_their_order():
    told = words(Region(points=((20, 90, 1),)), Region(box=(0, 0, 100, 50)))

    assert told == "(point 1 9) (box 0 0 5 5)"


def test_what_leaves_the_picture_by_less_than_a_pixel_is_told_at_its_edge():
    assert (
        words(Region(box=(-0.5, 0, 200.5, 100)), Region(points=((200.9, -0.9, 1),))) == "(box 0 0 10 10) (point 10 0)"
    )


def test_a_region_that_leaves_its_picture_is_refused():
    with pytest.raises(InputError, match=r"cat\.png: regions\[1\]\.box: expected a box inside .* 200 x 100 pixels"):
        words(Region(box=(0, 0, 1, 1)), Region(box=(0, 0, 1, 102)))


def test_a_mask_is_refused_because_words_cannot_tell_it():
    mask = np.ones((SIZE[1], SIZE[0]), dtype=bool)

    with pytest.raises(
        InputError, match=r"cat\.png: regions\[0\]: expected a box or points.* got a mask; give the box"
    ):
        words(Region(mask=mask))


def test_the_vocabulary_holds_every_word_that_is_said():
    encoder = TextRegionPreparer(10)
    known = {word for text in encoder.vocabulary() for word in text.split()}
    regions = [Region(box=(x, 0, x + 20, 100)) for x in range(180)] + [Region(points=((3, 99, 1), (150, 7, 0)))]

    said = set(words(*regions).split())

    assert said <= known
    assert len(known) >= 3 + 2 * 11


RECIPE = """
name: tiny
embedder:
  backbone: {class_path: QwenVL, init_args: {scratch: {vocab_size: 400}}}
  regions: {class_path: TextRegions, init_args: {scale: 8}}
stages: {main: {mixture: {pairs: {table: pairs.jsonl}}, steps: 1}}
"""


def test_a_tokenizer_trained_for_a_recipe_has_a_token_for_every_word_that_tells_a_region(tmp_path):
    write_pairs(tmp_path / "pairs.jsonl", [Pair(Item.of("red", "what is here ?"), (Item.of("a red circle"),))])
    recipe = read_settings(Recipe, parse_yaml(RECIPE, "recipe"))

    tokenizer = make_embedder(recipe, tmp_path).backbone.preprocessor.tokenizer

    assert tokenizer.tokenize("(box 0 1 2 8)") == ["(", "box", "Ġ0", "Ġ1", "Ġ2", "Ġ8", ")"]
    # behind a separator as well as at the start
    assert tokenizer.tokenize("what is here ? red") == ["what", "Ġis", "Ġhere", "Ġ?", "Ġred"]


def test_an_item_without_its_regions_keeps_all_else():
    item = Item((Image("a.png", (Region(box=(0, 0, 1, 1)),)), "words", Image("b.png")), "Name it.", verbatim=False)

    assert without_regions(item) == Item((Image("a.png"), "words", Image("b.png")), "Name it.", verbatim=False)
