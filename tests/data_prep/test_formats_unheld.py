"""What a format cannot hold is never lost in silence: it is refused by row and field, or left out by name."""

from dataclasses import replace

import numpy as np
import pytest

from data_prep.formats.drops import DROPS
from data_prep.formats.registry import FORMATS
from mmembed.items import Image, Item, Negative, Page, Pair, Region, Video
from tests.data_prep.format_cases import (
    HAS_CORPUS,
    SHE,
    corpus_of,
    draw_media,
    export_refused,
    exported,
    imported,
    read_lines,
    read_table,
    write_table,
)


@pytest.fixture
def folder(tmp_path):
    return draw_media(tmp_path)


COMMON = ("regions", "layout", "verbatim", "class_id", "provenance")
UNNAMED = ("query_id", "target_ids", "negative_ids")
UNHELD = {
    "mmeb": (*COMMON, *UNNAMED, "teacher_scores", "positives", "negatives", "instruction", "order"),
    "m-beir": (*COMMON, "teacher_scores", "order"),
    "megapairs": (*COMMON, *UNNAMED, "teacher_scores", "positives", "instruction", "order"),
    "tevatron": (*COMMON, "teacher_scores", "instruction", "order", "sampling"),
    "ms-swift": (*COMMON, *UNNAMED, "teacher_scores", "positives", "order", "sampling"),
    "sentence-transformers": (*COMMON, *UNNAMED, "positives", "instruction", "order", "sampling"),
}
"""What each format cannot hold, by the field that leaves it out."""


def told(folder, name, field):
    """A pair of which a field is in the way, and what stays of it."""
    form = FORMATS[name]
    verbatim, tagged = form.holds.query.verbatim, form.holds.query.tagged
    picture, clip = Image(str(folder / "a.png")), Video(str(folder / "one.mp4"))
    mask = np.zeros((8, 8), bool)
    mask[2:4, 2:4] = True
    target = Item((picture,), verbatim=verbatim)
    query = Item((picture, "redder") if name == "megapairs" else ("who?",), verbatim=verbatim)
    kept = Pair(query, (target,))
    named = Negative(target, target_id="n")
    changed = {
        "positives": {"positives": (target, Item((Image(str(folder / "below/b.png")),), verbatim=verbatim))},
        "negatives": {"negatives": (Negative(target), Negative(target))},
        "query_id": {"query_id": "q"},
        "target_ids": {"target_ids": ("t",)},
        "negative_ids": {"negatives": (named,)},
        "class_id": {"class_id": "c"},
        "teacher_scores": {"teacher_scores": (0.5,)},
        "provenance": {"negatives": (Negative(target, "bm25", 1, 2.5),)},
        "instruction": {"query": replace(query, instruction="Answer.")},
        "layout": {"query": replace(query, layout="{media}{text}\n")},
        "regions": {"positives": (Item((Image(picture.source, (Region(mask=mask),)),), verbatim=verbatim),)},
        "verbatim": {"query": replace(query, verbatim=not verbatim)},
        "order": {"query": replace(query, content=("who", "?") if tagged else ("a ", picture, "b"))},
        "sampling": {"query": replace(query, content=(Video(clip.source, num_frames=4),))},
    }[field]
    if field in ("negative_ids", "provenance"):
        kept = replace(kept, negatives=(Negative(target),))
    if field == "order" and not tagged:
        kept = replace(kept, query=replace(query, content=(picture, "a b")))
    if field == "sampling":
        kept = replace(kept, query=replace(query, content=(clip,)))
    return replace(kept, **changed), kept


@pytest.mark.parametrize(("name", "field"), [(name, field) for name in UNHELD for field in UNHELD[name]])
def test_what_a_format_cannot_hold_is_refused_by_row_and_field_and_left_out_only_by_its_name(
    folder, name, field, capsys
):
    pair, kept = told(folder, name, field)
    options = ["--make-ids"] if name in HAS_CORPUS else []
    options += ["--dataset-id", "1"] if name == "m-beir" else []

    said = export_refused(capsys, folder, name, pair, *options)

    assert f"{folder / 'table.jsonl'}: line 1: " in said
    assert f"--drop {field} " in said
    assert f"all that {name} can hold, got " in said
    rows = exported(name, folder / "table.jsonl", folder / "rows.jsonl", "--drop", field, *options)
    assert f"{field} left out: 1" in capsys.readouterr().out
    (back,) = read_table(imported(name, rows, folder / "back.jsonl"))
    assert (back.query, back.positives) == (kept.query, kept.positives)
    assert [negative.item for negative in back.negatives] == [negative.item for negative in kept.negatives]


def test_every_field_that_can_be_left_out_is_one_that_some_format_cannot_hold():
    assert {field for fields in UNHELD.values() for field in fields} == set(DROPS)


def test_an_instruction_is_written_into_the_text_where_that_is_asked_for(folder, capsys):
    pair = Pair(Item.of("who?", "Answer."), (Item.of({"image": str(folder / "a.png")}, "Represent."),))
    table = write_table(folder / "table.jsonl", [pair])

    rows = exported("tevatron", table, folder / "rows.jsonl", "--fold-instruction", "--make-ids")

    assert read_lines(rows)[0]["query_text"] == "Answer. who?"
    assert read_lines(corpus_of(rows))[0]["text"] == "Represent."
    assert "instructions written into texts: 1" in capsys.readouterr().out


def test_fields_of_the_dict_form_become_a_text_of_mmeb_with_the_word_for_the_picture(folder):
    pair = Pair(Item.of({"image": str(folder / "a.png"), "text": "who?"}, "Answer."), (SHE,))
    table = write_table(folder / "table.jsonl", [pair])

    rows = exported("mmeb", table, folder / "rows.jsonl", "--fold-instruction", "--drop", "verbatim")

    assert read_lines(rows)[0]["qry"] == "<|image_1|>\nAnswer. who?"
    assert read_lines(rows)[0]["qry_image_path"] == "a.png"


def of_kinds(folder):
    source = str(folder / "a.png")
    (folder / "frames").mkdir()
    return {
        "a page": (Item((Page(b"%PDF"),), verbatim=False), FORMATS),
        "a clip": (Item.of({"video": str(folder / "one.mp4")}), ("mmeb", "m-beir", "megapairs")),
        "frames": (Item((Video((source, source)),), verbatim=False), ("tevatron", "ms-swift")),
        "a folder of frames": (Item.of({"video": str(folder / "frames")}), ("tevatron", "sentence-transformers")),
        "two pictures": (Item.of({"image": [source, source]}), ("mmeb", "m-beir", "megapairs", "tevatron")),
    }


@pytest.mark.parametrize("kind", ["a page", "a clip", "frames", "a folder of frames", "two pictures"])
def test_media_that_a_format_has_no_place_for_are_refused_and_the_row_is_to_be_left_out(folder, kind, capsys):
    item, formats = of_kinds(folder)[kind]
    for name in formats:
        said = export_refused(capsys, folder, name, Pair(item, (SHE,)), "--drop", "order,verbatim")

        assert "line 1: query: expected " in said, name
        assert "leave the row out, or choose another format" in said


def test_a_word_that_stands_for_a_picture_is_refused_among_the_words(folder, capsys):
    for name, text, verbatim in (("mmeb", "a <|image_1|> b", True), ("ms-swift", "a <video> b", False)):
        query = Item((text,), verbatim=verbatim)

        said = export_refused(capsys, folder, name, Pair(query, (Item(("she",), verbatim=verbatim),)))

        assert "line 1: query.text: expected no '" in said


def test_all_fields_in_the_way_of_a_row_are_named_at_once_and_left_out_together(folder, capsys):
    pair = Pair(Item.of("who?", "Answer."), (SHE,), query_id="q", class_id="c")

    said = export_refused(capsys, folder, "sentence-transformers", pair)

    assert "line 1: query_id: expected none" in said
    assert "say --drop query_id,class_id,instruction to leave out what it cannot, or --fold-instruction" in said
    drops = ("--drop", "query_id,class_id", "--drop", "instruction")
    rows = exported("sentence-transformers", folder / "table.jsonl", folder / "rows.jsonl", *drops)
    assert read_lines(rows) == [{"anchor": "who?", "positive": "she"}]
    told = capsys.readouterr().out
    assert all(f"{what} left out: 1" in told for what in ("query_id", "class_id", "instruction"))


def test_an_empty_text_beside_a_picture_is_an_order_of_its_own(folder, capsys):
    picture = Image(str(folder / "a.png"))
    pair = Pair(Item(("", picture), verbatim=False), (SHE,))
    for name in ("ms-swift", "sentence-transformers"):
        said = export_refused(capsys, folder, name, pair)

        assert "line 1: query.order: expected " in said
        rows = exported(name, folder / "table.jsonl", folder / "rows.jsonl", "--drop", "order")
        assert read_table(imported(name, rows, folder / "back.jsonl"))[0].query == Item((picture,), verbatim=False)
        rows.unlink()
