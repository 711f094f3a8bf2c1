"""The ways in which published systems write the two captions of FashionIQ, and CIRCO's change and concept."""

import json
from pathlib import Path

import pytest

from mmembed.errors import InputError
from mmembed.items import JOINS, joined

ROOT = Path(__file__).parents[2]
READERS = ROOT / "tests/golden/cir/readers"
TWO = ("is red.", "has Long sleeves, and a logo? ")
WRITTEN = {
    "searle": ("is red and has Long sleeves, and a logo", "has Long sleeves, and a logo and is red"),
    "searle_published": ("is red and has Long sleeves, and a logo", "has Long sleeves, and a logo and is red"),
    "clip4cir": ("Is red and has Long sleeves, and a logo",),
    "pic2word": ("has Long sleeves, and a logo?  and is red.",),
    "cirevl": ("is red and has Long sleeves, and a logo",),
    "magiclens": ("is red. and has Long sleeves, and a logo? ",),
    "megapairs": ("is red., and has Long sleeves, and a logo? ",),
    "covr": ("is red and has long sleeves, and a logo?",),
    "uniir": ("Is red and has Long sleeves, and a logo?",),
    "e5_v": ("is red, has Long sleeves, and a logo", "has Long sleeves, and a logo, is red"),
    "change": ("is red.",),
    "magiclens_concept": ("find has Long sleeves, and a logo?  but is red.",),
    "megapairs_concept": ("Find a picture that also has Long sleeves, and a logo? , but is red..",),
}
"""What each join writes of a change with a dot at its end, and of one with an upper letter, a comma and a space."""
ALONE = {
    "searle": ("is striped",),
    "searle_published": ("is striped and ", " and is striped"),
    "clip4cir": ("Is striped",),
    "uniir": ("Is striped.",),
    "e5_v": ("is striped",),
}
"""What joins write of a caption beside an empty one, where it is not the caption alone as it is."""
OF_CAPTIONS = [name for name in JOINS if name != "change" and not name.endswith("_concept")]


@pytest.mark.parametrize("name", JOINS)
def test_a_join_writes_two_texts_as_its_system_does(name):
    assert joined(name, TWO) == WRITTEN[name]


@pytest.mark.parametrize("name", OF_CAPTIONS)
@pytest.mark.parametrize("empty", ["", " "])
def test_an_empty_caption_leaves_no_word_behind_unless_it_was_published_so(name, empty):
    forward, backward = joined(name, ("is striped", empty)), joined(name, (empty, "is striped"))

    assert forward == ALONE.get(name, ("is striped",))
    assert set(backward) == set(forward)


@pytest.mark.parametrize("name", JOINS)
@pytest.mark.parametrize("texts", [(), ("", " ")])
def test_texts_that_are_all_empty_are_refused(name, texts):
    with pytest.raises(InputError, match="join: expected a text that is not empty"):
        joined(name, texts)


def test_a_caption_of_marks_alone_counts_as_empty_where_marks_are_taken_away():
    for name, alone in (("searle", "is red"), ("cirevl", "is red"), ("clip4cir", "Is red"), ("uniir", "Is red.")):
        assert set(joined(name, ("is red", "."))) == set(joined(name, (".", "is red"))) == {alone}


def test_clip4cir_writes_the_first_caption_in_small_letters_but_its_first():
    assert joined("clip4cir", ("has a V-neck", "is for Ladies")) == ("Has a v-neck and is for Ladies",)


def test_uniir_writes_a_sentence():
    assert joined("uniir", (" Is red. ", "Has Long sleeves.")) == ("Is red and has Long sleeves.",)


def test_a_concept_needs_a_change_and_a_concept_and_a_name_is_suggested():
    for name in ("magiclens_concept", "megapairs_concept"):
        with pytest.raises(InputError, match="expected two texts, a change and a shared concept, got \\['one'\\]"):
            joined(name, ("one",))
    with pytest.raises(InputError, match="expected a known join, got 'searl'; did you mean 'searle'"):
        joined("searl", TWO)


def test_covr_makes_most_punctuation_spaces_and_keeps_thirty_words():
    long = " ".join(f"w{number}" for number in range(40))

    assert joined("covr", ('Make it "two-tone"; (blue), don\'t *shine*!',)) == ("make it two-tone blue , don't shine",)
    assert joined("covr", (long,)) == (" ".join(long.split()[:30]),)


def test_one_text_is_taken_by_every_join_of_captions():
    others = {"clip4cir": "Is striped", "uniir": "Is striped."}

    for name in OF_CAPTIONS:
        assert joined(name, ("is striped",)) == (others.get(name, "is striped"),)


def test_what_is_averaged_as_it_is_is_e5_vs_alone():
    assert [name for name, join in JOINS.items() if not join.scaled] == ["e5_v"]


def test_searles_texts_are_those_that_its_code_composed():
    texts = json.loads((READERS / "golden.json").read_text())["searle"]["composed_texts"]
    compared = 0
    for category in ("dress", "shirt", "toptee"):
        rows = json.loads((READERS / f"FashionIQ/captions/cap.{category}.val.json").read_text())
        for number, row in enumerate(rows):
            forward, backward = joined("searle_published", row["captions"])
            key = f"fashioniq/{category}/{number}"
            assert [f"a photo of $ that {text}" for text in (forward, backward)] == [
                texts[f"{key}/fwd"], texts[f"{key}/rev"],
            ]  # fmt: skip
            compared += 1
            clean = joined("searle", row["captions"])
            assert clean == (forward, backward) or not all(caption.strip() for caption in row["captions"])
    assert compared == 24
