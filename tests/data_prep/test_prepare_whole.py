"""What is whole is told from what is not, and stays whole whatever is tried beside it."""

import json
import re
from dataclasses import replace

import pytest

from data_prep.converters import registry
from data_prep.engine import manifest as manifests
from data_prep.engine.manifest import MINIATURE, is_prepared, read_manifest, why_not_whole
from data_prep.engine.preparation import Wishes
from data_prep.miniatures.draw import prepare_miniature
from data_prep.prepare import prepare
from data_prep.source import read_source
from mmembed.data.tables import open_table
from mmembed.errors import InputError
from mmembed.evaluation.retrieval_set import read_retrieval_set
from tests.data_prep.publisher import DRAWN, ROWS, pair_rows, ranked_rows


@pytest.fixture
def prepared(publisher, data):
    def run(*names, **fields):
        return prepare(read_source("drawn").only(list(names or ("pairs", "ranked"))), data, copies=publisher.copies,
                       **fields)  # fmt: skip

    return run


def test_nothing_keeps_a_whole_set_or_what_no_source_knows(prepared, data):
    prepared()

    names = ("drawn/pairs", "drawn/ranked", "drawn/own", "drawn", "demo/pairs", "mine", "/abs/table")
    assert [why_not_whole(data, name) for name in names] == [None] * 7


def test_a_set_that_is_not_there_or_only_in_part_is_not_whole(publisher, prepared, data):
    assert why_not_whole(data, "drawn/pairs") == "not prepared"
    prepared("pairs", limit=3)
    prepared("ranked", wishes=Wishes(compare=False))
    assert why_not_whole(data, "drawn/pairs") == "only the first 3 rows"
    assert why_not_whole(data, "drawn/ranked") == MINIATURE
    publisher.rows_of_pairs(pair_rows()[:5])
    prepared("pairs")
    assert why_not_whole(data, "drawn/pairs") == "5 rows where 8 are expected"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("table", "damaged: pairs.parquet"),
        ("media", "damaged: unpacked/o/n/pictures.zip"),
        ("archive", "damaged: unpacked/o/n/pictures.zip"),
        ("version", "made by another version"),
        ("field", "made by another version, or from other fields of its source"),
        ("entry", "damaged: the manifest lacks its files"),
        ("manifest", "damaged: .*manifest.json: expected a manifest"),
    ],
)
def test_a_damaged_or_stale_set_is_not_whole_and_is_made_again(publisher, prepared, data, tmp_path, change, words):
    prepared("pairs")
    manifest = data / "drawn/manifest.json"
    said = json.loads(manifest.read_text())
    if change == "table":
        (data / "drawn/pairs.parquet").write_bytes(b"cut")
    elif change == "media":
        (data / "unpacked/o/n/pictures.zip.json").unlink()
    elif change == "archive":
        (data / "unpacked/o/n/pictures.zip.json").write_text('[["pictures.zip", 1, 1]]')
    elif change == "version":
        said["sets"]["pairs"]["version"] = manifests.VERSION - 1
    elif change == "field":
        (tmp_path / "sources/drawn.yaml").write_text(DRAWN.replace("{converter: mmeb_pairs,",
                                                     "{converter: mmeb_pairs, options: {other: 1},"))  # fmt: skip
    elif change == "entry":
        del said["sets"]["pairs"]["files"]
    manifest.write_text("{" if change == "manifest" else json.dumps(said))

    assert re.match(words, why_not_whole(data, "drawn/pairs") or "")
    if change == "manifest":
        with pytest.raises(InputError, match="expected a manifest"):
            prepared("pairs")
    else:
        prepared("pairs")
        assert why_not_whole(data, "drawn/pairs") is None


def test_a_miniature_is_made_whole_where_the_source_is_prepared(publisher, prepared, data):
    prepared("pairs", wishes=Wishes(compare=False))

    prepared("pairs")

    assert why_not_whole(data, "drawn/pairs") is None


def test_every_miniature_says_what_it_is(tmp_path):
    prepare_miniature("mmeb_train/OK-VQA", tmp_path)

    assert why_not_whole(tmp_path, "mmeb_train/OK-VQA") == MINIATURE


@pytest.mark.parametrize("choices", [{"limit": 2}, {"wishes": Wishes(compare=False)}], ids=["limit", "miniature"])
def test_neither_some_rows_nor_a_miniature_take_the_place_of_a_whole_set(prepared, data, choices):
    prepared()

    for name in ("pairs", "ranked"):
        with pytest.raises(InputError, match=rf"expected {name} to stay whole, got (a miniature|--limit 2); leave it"):
            prepared(name, **choices)
        assert why_not_whole(data, f"drawn/{name}") is None
    wishes = replace(choices.get("wishes", Wishes()), overwrite=True)
    prepared("pairs", **{**choices, "wishes": wishes})
    assert why_not_whole(data, "drawn/pairs") is not None


def test_a_failed_attempt_leaves_what_was_whole(publisher, prepared, data):
    prepared()
    rows = ranked_rows()
    rows[7]["qry_img_path"] = "gone.png"
    publisher.rows_of_ranked(rows)
    publisher.rows_of_pairs([{**row, "qry_image_path": "gone.png"} for row in pair_rows()])

    for name in ("pairs", "ranked"):
        with pytest.raises(InputError, match=rf"drawn/{name}: .*gone\.png"):
            prepared(name)

    assert list(read_manifest(data, "drawn")["sets"]) == ["pairs", "ranked"]
    assert [why_not_whole(data, f"drawn/{name}") for name in ("pairs", "ranked")] == [None, None]
    assert len(open_table(data / "drawn/pairs.parquet")) == ROWS
    assert len(read_retrieval_set(data / "drawn/ranked").queries) == ROWS


def test_media_that_a_converter_made_stay_until_others_take_their_place(publisher, prepared, data, monkeypatch):
    usual, content, fails = registry.CONVERTERS["mmeb_pairs"], ["first"], []

    def making(rows, row_set, media):
        (media.made / "note.txt").write_text(content[0])
        yield from usual.pairs(rows, row_set, media)
        if fails:
            raise InputError("row 7: qry", expected="e", got="g", remedy="r")

    def notes():
        return [path.read_text() for path in sorted((data / "drawn/media/made").rglob("note.txt"))]

    monkeypatch.setitem(registry.CONVERTERS, "mmeb_pairs", replace(usual, pairs=making))
    prepared("pairs")
    content[0] = "second"
    fails.append(True)
    with pytest.raises(InputError, match=r"drawn/pairs: .*train-00000-of-00001\.parquet: row 7: qry: expected e"):
        prepared("pairs", wishes=Wishes(overwrite=True))

    assert notes() == ["first"]
    assert why_not_whole(data, "drawn/pairs") is None
    fails.clear()
    for words in ("second", "third"):
        content[0] = words
        prepared("pairs", wishes=Wishes(overwrite=True))
        assert notes() == [words]
        assert is_prepared(data, "drawn", read_source("drawn").sets["pairs"])
    assert why_not_whole(data, "drawn/pairs") is None


def test_rows_put_aside_that_are_too_many_now_are_not_taken_for_done(publisher, prepared, data):
    rows = pair_rows()
    rows[2]["qry_image_path"] = "images/gone.png"
    publisher.rows_of_pairs(rows)
    prepared("pairs", wishes=Wishes(max_bad=0.2))

    with pytest.raises(InputError, match=r"expected at most 1\.00% of the rows put aside, got 1 of 8"):
        prepared("pairs")
    prepared("pairs", wishes=Wishes(max_bad=0.2))


def test_a_row_put_aside_is_named_by_its_file_and_its_place_in_it(publisher, prepared):
    rows = pair_rows()
    rows[5]["qry_image_path"] = "images/gone.png"
    publisher.pair_file.unlink()
    for number, part in enumerate((rows[:4], rows[4:])):
        publisher.studio.parquet(publisher.repo / f"data/train-0000{number}-of-00002.parquet", part)

    manifest = prepared("pairs", wishes=Wishes(max_bad=0.2))

    (first,) = manifest["sets"]["pairs"]["put_aside"]["first"]
    assert first.startswith(f"{publisher.repo}/data/train-00001-of-00002.parquet: row 1: qry_image_path: ")


def test_a_row_that_stops_a_retrieval_set_is_named_by_its_file(publisher, prepared):
    rows = ranked_rows()
    rows[6]["qry_img_path"] = "gone.png"
    publisher.rows_of_ranked(rows)

    with pytest.raises(InputError, match=r"\Adrawn/ranked: /.*/ranked/test-00000-of-00001\.parquet: row 6: qry_img"):
        prepared("ranked")


def test_a_data_root_that_is_a_file_is_said_in_words(publisher, prepared, data):
    data.write_text("x")

    with pytest.raises(InputError, match=r"drawn/pairs: .*/data: expected to read and write files, got .*Errno"):
        prepared("pairs")
