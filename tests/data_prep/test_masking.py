"""Captions are masked as LinCIR masks them, or rightly; tables of masked captions."""

import json
import random

import pytest
from open_clip.tokenizer import SimpleTokenizer

from data_prep.converters.registry import CONVERTERS
from data_prep.demo_scenes import Scene
from data_prep.keywords import Token, by_rules, by_spacy, runs, tagger_of
from data_prep.mask_captions import main
from data_prep.masking import Masking, by_replacing, by_words, cleaned, replaced_as_published
from data_prep.miniatures.draw import prepare_miniature
from data_prep.source import SourceSet, read_source
from mmembed.data.tables import open_table
from mmembed.errors import InputError
from mmembed.items import Pair
from tests.cases import GOLDEN

PUBLISHED = json.loads((GOLDEN / "cir/mapping/training.json").read_text())["lincir_masking"]


def tagged(case):
    """What the published code's tagger said of a caption, by place."""
    clean, tags = case["clean"], case["pos_tags"].split()
    words, start = [], 0
    spaced = "SPACE" in tags
    for word in clean.split(" ") if spaced else clean.split():
        start = clean.index(word, start)
        words.append((start, max(start + len(word), start + 1) if spaced else start + len(word)))
        start += max(len(word), int(spaced))
    return [Token(*place, tag) for place, tag in zip(words, tags, strict=True)]


def choosing(case):
    """The piece that the published code drew for a caption without keywords, which its outcome tells."""
    pieces = case["clean"].split(" ")
    return next(
        (piece for piece in pieces if case["clean"].replace(piece, "[$]") in case["replaced_strings"]), pieces[0]
    )


@pytest.mark.parametrize("case", PUBLISHED, ids=[case["caption"] or "empty" for case in PUBLISHED])
def test_the_published_masking_is_met_string_for_string_and_token_for_token(case):
    assert cleaned(case["caption"]) == case["clean"]

    masked = replaced_as_published(case["clean"], case["runs"], "[$]", lambda _: choosing(case))
    ours = by_replacing(case["clean"], lambda _: tagged(case), "$", lambda _: choosing(case))

    assert masked in case["replaced_strings"]
    ids = [token for token in SimpleTokenizer()([ours])[0].tolist() if token]
    bare = "a photo of $"
    assert ids == case["ids"] or (ours == bare and not case["clean"])


@pytest.mark.parametrize("case", [case for case in PUBLISHED if case["runs"]], ids=lambda case: case["caption"])
def test_runs_of_keywords_are_the_published_ones(case):
    clean = case["clean"]

    found = [" ".join(clean[token.start : token.end] for token in run) for run in runs(tagged(case))]

    assert found == case["runs"]


@pytest.mark.parametrize(
    ("caption", "masked"),
    [
        ("dogs bark at a very big man", "$ bark at $ very $"),
        ("the cat and the cat", "$ and $"),
        ("a red dress on a wooden table.", "$ on $ ."),
        ("walking  slowly", None),
        ("person costs  5 dollar", "$ costs 5 $"),
        ("!", "$"),
    ],
)
def test_whole_words_are_masked(caption, masked):
    found = by_words(caption, by_rules, "$", random.Random(0).choice)

    assert found == masked if masked else found in ("$ slowly", "walking $")


def test_every_caption_of_the_demo_keeps_its_relation_alone():
    single, pair = Scene((("red", "circle"),)), Scene((("red", "circle"), ("blue", "cross")))

    assert Masking().pair(single.caption).query.text == "$"
    assert Masking().pair(pair.caption).query.text == "$ left of $"


def test_a_caption_is_masked_the_same_each_time_and_keeps_its_own_words_as_the_target():
    pair = Masking().pair("Running quickly, slowly or happily for $")

    assert pair == Masking().pair("Running quickly, slowly or happily for $")
    assert pair.positives[0].text == "running quickly, slowly or happily for"
    assert pair.query.text.count("$") == 1


def test_another_placeholder_and_a_way_that_there_is_not():
    assert Masking(placeholder="*").pair("a dog * on a hill").query.text == "* on *"
    with pytest.raises(InputError, match="str_replace"):
        Masking(way="replace")
    with pytest.raises(InputError, match="a caption"):
        Masking().pair(" $ ")
    for placeholder in ("", " ", "a b"):
        with pytest.raises(InputError, match="placeholder: expected marks without a space"):
            Masking(placeholder=placeholder)


def test_the_rules_know_closed_classes_and_endings():
    tags = [token.pos for token in by_rules("The man's 2 dogs are quickly running to it, beautiful")]

    assert tags == ["DET", "NOUN", "NUM", "NOUN", "AUX", "ADV", "VERB", "ADP", "PRON", "PUNCT", "NOUN"]


def test_a_tagger_that_is_not_there_is_refused_in_words():
    with pytest.raises(InputError, match="rules"):
        tagger_of("rule", "tagger")
    try:
        import spacy

        spacy.load("en_core_web_sm")
    except (ImportError, OSError):
        with pytest.raises(InputError, match="pip install mmembed"):
            by_spacy("a dog")
    else:
        assert [token.pos for token in by_spacy("a red dog sleeps")] == ["DET", "ADJ", "NOUN", "VERB"]


def test_rows_become_pairs_and_an_empty_caption_is_put_aside():
    row_set = SourceSet("own", "masked_captions", "a/b", options={"column": "words", "masking": "str_replace"})
    rows = iter([{"words": "dogs bark at a very big man"}, {"words": ""}, {"words": "$"}])

    pair, *errors = CONVERTERS["masked_captions"].pairs(rows, row_set, None)

    assert isinstance(pair, Pair)
    assert pair.query.text.count("$") > 3
    assert [str(error).split(":")[0] for error in errors] == ["row 1", "row 2"]


def test_the_captions_of_lincir_are_prepared_from_their_miniature(tmp_path):
    prepare_miniature("lincir_train", tmp_path)

    for name in read_source("lincir_train").sets:
        pairs = list(open_table(tmp_path / f"lincir_train/{name}.parquet"))
        assert pairs[0].query.text == "$ on $ . 0"
        assert pairs[1].positives[0].text.startswith("person holds")
        assert all("$" in pair.query.text and "$" not in pair.positives[0].text for pair in pairs)


def test_captions_of_ones_own_are_masked_by_the_command(tmp_path, capsys):
    (tmp_path / "captions.txt").write_text("A dog on a hill\n\n $ \nsmall\u2028house\n")
    (tmp_path / "captions.jsonl").write_text('{"words": "A dog on a hill"}\n')
    given = [str(tmp_path / "captions.txt"), "--output", str(tmp_path / "out.jsonl")]

    assert main(given) == 0
    assert "2 captions, 2 empty ones left out" in capsys.readouterr().out
    assert [pair.query.text for pair in open_table(tmp_path / "out.jsonl")] == ["$ on $", "$"]
    given[0] = str(tmp_path / "captions.jsonl")
    assert main([*given, "--column", "words"]) == 0
    assert main(given) == 2
    assert "line 1" in capsys.readouterr().err
    (tmp_path / "captions.jsonl").write_text('{"text": "A dog"}\n{"text": ["A cat"]}\n')
    assert main(given) == 2
    assert "captions.jsonl: line 2: text: expected a caption, got ['A cat']" in capsys.readouterr().err
    assert main([str(tmp_path / "none.txt"), *given[1:]]) == 2
