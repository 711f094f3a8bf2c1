"""A dual encoder's rows: open_clip's tokens without their padding, and pictures cut and padded as published."""

import hashlib
import json
import pickle

import numpy as np
import PIL.Image
import pytest
import torch
from open_clip.tokenizer import SimpleTokenizer

from mmembed import Image, Item, Region
from mmembed.errors import InputError
from mmembed.models.backbones.dual_encoder.preprocess import PATCH, DualEncoderPreprocessor, target_pad
from mmembed.models.prompts import Kind
from mmembed.models.region_encoders.text import TextRegionPreparer
from mmembed.models.settings import ChatPrompt, DualEncoder, RawPrompt
from tests.cases import GOLDEN

CIR = GOLDEN / "cir"
PADDED = json.loads((CIR / "mapping/targetpad.json").read_text())
PICTURES = [case for case in PADDED if "image" in case]
TEXTS = json.loads((CIR / "mapping/inputs.json").read_text())["texts"]


def preprocessor(*, size=32, regions=None, prompt=None, **settings):
    tokenizer = SimpleTokenizer(context_length=77)
    return DualEncoderPreprocessor(
        tokenizer, {"size": size}, (2, 2), DualEncoder(path="x", **settings), prompt or RawPrompt(), regions
    )


def words_of(row):
    return row.ids[row.kinds == Kind.TEXT].tolist()


@pytest.fixture
def prepare():
    return preprocessor()


@pytest.mark.parametrize("group", ["plain", "lincir_org", "searle", "long77"])
def test_ids_equal_the_published_ones_without_their_padding(group, prepare):
    with np.load(CIR / "mapping/inputs.npz") as arrays:
        published = arrays[f"ids_{group}"]

    for text, ids in zip(TEXTS[group], published, strict=True):
        ours = prepare(Item.of(text), "query").ids.tolist()
        assert ours + [0] * (77 - len(ours)) == ids.tolist()


@pytest.mark.parametrize("case", PADDED, ids=lambda case: case.get("image", str(case["size"])))
def test_pictures_are_padded_to_the_published_sizes(case):
    if "image" in case:
        picture = PIL.Image.open(CIR / "images" / case["image"]).convert("RGB")
    else:
        picture = PIL.Image.new("RGB", tuple(case["size"]), "white")

    padded = target_pad(picture)

    assert list(padded.size) == case["padded"]
    if "image" in case:
        assert hashlib.sha256(padded.tobytes()).hexdigest()[:16] == case["padded_rgb_sha256"]


# the published code resizes pictures with a palette or transparency before it makes them RGB; here all are RGB first
@pytest.mark.parametrize("case", [case for case in PICTURES if case["mode"] in ("RGB", "L")], ids=lambda c: c["image"])
def test_padded_pictures_become_the_published_pixels(case):
    row = preprocessor(transform="targetpad")(Item.of({"image": CIR / "images" / case["image"]}), "query")

    pixels = row.media[0].pixels
    assert pixels.dtype == torch.uint8
    assert pixels.shape == (1, 3, 1, 32, 32)
    assert hashlib.sha256(pixels.numpy().tobytes()).hexdigest()[:16] == case["out_uint8_sha256"]


def test_without_padding_a_long_picture_becomes_other_pixels():
    item = Item.of({"image": CIR / "images/f300x20.png"})

    padded, cropped = (preprocessor(transform=t)(item, "query").media[0] for t in ("targetpad", "standard"))

    assert not torch.equal(padded.pixels, cropped.pixels)
    assert padded.fingerprint != cropped.fingerprint


def test_a_row_has_a_token_for_each_patch_and_then_its_text(prepare, picture):
    row = prepare(Item.of({"image": picture(60, 40), "text": "a dog"}), "query")

    assert row.ids.tolist() == [PATCH] * 4 + [49406, 320, 1929, 49407]
    assert row.kinds.tolist() == [Kind.IMAGE] * 4 + [Kind.TEXT] * 4


def test_a_clip_has_tokens_for_each_of_its_frames(prepare, picture):
    clip = Item.of({"video": [picture(40, 40, seed) for seed in range(3)]})

    row = prepare(clip, "target")

    assert row.kinds.tolist() == [Kind.VIDEO] * 12
    assert row.media[0].pixels.shape == (3, 3, 1, 32, 32)


def test_a_picture_alone_has_no_text_and_a_blank_text_alone_is_one(prepare, picture):
    assert words_of(prepare(Item.of(picture(40, 40)), "query")) == []
    assert words_of(prepare(Item((Image(picture(40, 40)), Image(picture(40, 40)))), "query")) == []
    assert words_of(prepare(Item.of({"image": picture(40, 40), "text": ""}), "query")) == []
    assert words_of(prepare(Item.of(" "), "query")) == [49406, 49407]


def test_words_on_both_sides_of_a_picture_stay_apart(prepare, picture):
    around = prepare(Item(("left", Image(picture(40, 40)), "right")), "query")

    assert words_of(around) == prepare(Item.of("left right"), "query").ids.tolist()


def test_an_instruction_stands_before_the_text(prepare):
    told = prepare(Item.of("a dog", "find"), "query")

    assert told.ids.tolist() == prepare(Item.of("find a dog"), "query").ids.tolist()


def test_a_long_text_is_cut_and_keeps_its_end_token(prepare):
    row = prepare(Item.of("dog " * 200), "query")

    assert len(row) == 77
    assert row.ids[-1] == 49407


def test_regions_are_told_in_words_or_refused(prepare, picture):
    item = Item((Image(picture(40, 40), (Region(box=(4, 4, 20, 20)),)), " this"))

    told = preprocessor(regions=TextRegionPreparer(10))(item, "query")

    assert words_of(told) == prepare(Item.of("(box 1 1 5 5) this"), "query").ids.tolist()
    with pytest.raises(InputError, match="no regions: this model has no region encoder"):
        prepare(item, "query")


def test_regions_that_a_cut_would_lose_are_refused_in_words(picture):
    boxes = tuple(Region(box=(i, i, i + 10, i + 10)) for i in range(20))

    with pytest.raises(InputError, match=r"regions in words within the text tower's 77 tokens.*name fewer regions"):
        preprocessor(regions=TextRegionPreparer(10))(Item((Image(picture(40, 40), boxes), "this")), "query")


def test_a_chat_prompt_is_refused_in_words():
    with pytest.raises(InputError, match="prompt: expected RawPrompt: a dual encoder has no chat template"):
        preprocessor(prompt=ChatPrompt())


def test_it_goes_to_workers(prepare, picture):
    item = Item.of({"image": picture(60, 40), "text": "a dog"})

    there = pickle.loads(pickle.dumps(prepare))

    assert there(item, "query").fingerprint == prepare(item, "query").fingerprint


def test_a_filler_runs_both_towers(prepare):
    row = prepare(prepare.filler(), "query")

    assert set(row.kinds.tolist()) == {Kind.IMAGE, Kind.TEXT}
