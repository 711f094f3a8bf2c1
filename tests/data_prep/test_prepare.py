"""Sources become tables and retrieval sets, whole and recorded; what is done stays, what is stale is made again."""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from data_prep.engine import manifest as manifests
from data_prep.engine.manifest import is_prepared, read_manifest
from data_prep.engine.preparation import Wishes
from data_prep.miniatures.draw import prepare_miniature
from data_prep.prepare import prepare
from data_prep.source import read_source
from mmembed.data.tables import open_table
from mmembed.evaluation.retrieval_set import read_retrieval_set
from mmembed.media.decode import decode
from mmembed.media.settings import MediaSettings
from tests.data_prep.publisher import PAIRS, RANKED, ROWS, pair_rows, ranked_rows, source

ROOT = Path(__file__).resolve().parents[2]


def test_a_table_of_pairs_reads_back_with_its_pictures(publisher, data):
    manifest = prepare(source(PAIRS), data, copies=publisher.copies)

    table = open_table(data / "drawn/pairs.parquet")
    assert len(table) == manifest["sets"]["pairs"]["rows"] == ROWS
    for i, pair in enumerate(table):
        (picture,) = pair.query.media
        assert decode(picture, MediaSettings()).pictures[0].size == (56, 56)
        assert picture.source == str(data / f"drawn/media/images/{i}.png")
        assert pair.positives[0].text == f"{i}"


def test_a_retrieval_set_reads_back_with_its_pictures(publisher, data):
    manifest = prepare(source(RANKED), data, copies=publisher.copies)

    read = read_retrieval_set(data / "drawn/ranked")
    assert len(read.queries) == manifest["sets"]["ranked"]["rows"] == ROWS
    assert manifest["sets"]["ranked"]["notes"]["targets"] == len(read.corpus) == ROWS + 2
    assert all(len(own) == 3 for own in read.candidates.values())
    for query in read.queries.values():
        assert decode(query.media[0], MediaSettings()).pictures[0].size == (56, 56)
    assert (data / "drawn/ranked/media").readlink() == Path("../media")


def test_the_manifest_says_what_was_made_from_what(publisher, data):
    manifest = prepare(source(licence="mit"), data, copies=publisher.copies)

    assert manifest == json.loads((data / "drawn/manifest.json").read_text())
    entry = manifest["sets"]["pairs"]
    assert (entry["kind"], entry["limit"], entry["licence"]) == ("pairs", None, "mit")
    assert entry["files"]["pairs.parquet"]["bytes"] == (data / "drawn/pairs.parquet").stat().st_size
    (repo,) = entry["inputs"]
    assert repo == "o/n"
    assert sorted(entry["inputs"][repo]["files"]) == ["data/train-00000-of-00001.parquet", "pictures.zip"]
    assert sorted(manifest["sets"]["ranked"]["files"]) == [
        f"ranked/{name}.jsonl" for name in ("candidates", "corpus", "queries", "relevance")
    ]
    assert is_prepared(data, "drawn", PAIRS)


def test_what_is_prepared_is_left_alone(publisher, data):
    first = prepare(source(), data, copies=publisher.copies)
    before = (data / "drawn/pairs.parquet").stat().st_mtime_ns

    # nothing but the manifest is asked where no copies are given
    shutil.rmtree(publisher.copies)
    again = prepare(source(), data)

    assert again == first
    assert (data / "drawn/pairs.parquet").stat().st_mtime_ns == before


@pytest.mark.parametrize(
    "change", ["field", "rows", "archive", "damage", "gone", "media", "marker", "version", "overwrite"]
)
def test_what_is_stale_is_made_again(publisher, data, change, monkeypatch):
    prepare(source(PAIRS), data, copies=publisher.copies)
    table = data / "drawn/pairs.parquet"
    before = table.stat().st_mtime_ns
    fields, wishes = {}, Wishes()
    if change == "field":
        fields = {"options": {"first": 3}}
    elif change == "rows":
        publisher.rows_of_pairs(pair_rows()[:3])
    elif change == "archive":
        publisher.pack()
    elif change == "damage":
        table.write_bytes(table.read_bytes()[:-1])
    elif change == "gone":
        table.unlink()
    elif change == "media":
        shutil.rmtree(data / "unpacked/o/n/pictures.zip")
    elif change == "marker":
        (data / "unpacked/o/n/pictures.zip.json").unlink()
    elif change == "version":
        monkeypatch.setattr(manifests, "VERSION", manifests.VERSION + 1)
    else:
        wishes = Wishes(overwrite=True)

    manifest = prepare(source(PAIRS, **fields), data, copies=publisher.copies, wishes=wishes)

    assert table.stat().st_mtime_ns != before
    wanted = 3 if change == "rows" else ROWS
    assert len(open_table(table)) == manifest["sets"]["pairs"]["rows"] == wanted


def test_another_set_joins_those_that_are_there(publisher, data):
    prepare(source(PAIRS), data, copies=publisher.copies)
    before = (data / "drawn/pairs.parquet").stat().st_mtime_ns

    manifest = prepare(source(RANKED), data, copies=publisher.copies)

    assert list(manifest["sets"]) == ["pairs", "ranked"]
    assert (data / "drawn/pairs.parquet").stat().st_mtime_ns == before


def test_a_limit_takes_the_first_rows_and_what_they_need(publisher, data):
    manifest = prepare(source(rows=ROWS), data, copies=publisher.copies, limit=2)

    assert [pair.positives[0].text for pair in open_table(data / "drawn/pairs.parquet")] == ["0", "1"]
    read = read_retrieval_set(data / "drawn/ranked")
    assert (len(read.queries), sorted(read.corpus)) == (2, ["0", "1", "2", "other"])
    assert [entry["expected"] for entry in manifest["sets"].values()] == [None, None]


def test_a_set_in_parts_is_limited_by_its_queries(tmp_path):
    prepare_miniature("visdoc/ViDoRe_docvqa", tmp_path)
    row = read_source("visdoc").only(["ViDoRe_docvqa"])

    prepare(row, tmp_path / "small", copies=tmp_path / ".miniature", limit=2)

    whole, small = (read_retrieval_set(root / "visdoc/ViDoRe_docvqa") for root in (tmp_path, tmp_path / "small"))
    assert list(small.queries) == list(whole.queries)[:2]
    assert small.corpus.keys() == whole.corpus.keys()
    assert small.candidates is None


def test_media_that_lie_unpacked_in_a_copy_are_linked_and_not_unpacked(publisher, data):
    shutil.copytree(publisher.packed, publisher.repo / "images/more")
    shutil.copytree(publisher.packed, publisher.repo / "images", dirs_exist_ok=True)

    prepare(source(PAIRS), data, copies=publisher.copies)

    assert not (data / "unpacked").exists()
    assert (data / "drawn/media/images").resolve() == publisher.repo / "images"
    assert len(open_table(data / "drawn/pairs.parquet")) == ROWS


def test_a_prepared_folder_can_be_moved(publisher, data, tmp_path):
    prepare(source(), data, copies=publisher.copies)
    data.rename(tmp_path / "elsewhere")
    shutil.rmtree(publisher.copies)

    table = open_table(tmp_path / "elsewhere/drawn/pairs.parquet")

    assert decode(table[0].query.media[0], MediaSettings()).pictures
    assert is_prepared(tmp_path / "elsewhere", "drawn", PAIRS)


def test_more_or_fewer_rows_than_expected_are_recorded_and_the_files_stay(publisher, data):
    manifest = prepare(source(rows=ROWS + 1), data, copies=publisher.copies)

    for entry in manifest["sets"].values():
        assert (entry["rows"], entry["expected"]) == (ROWS, ROWS + 1)
    assert len(open_table(data / "drawn/pairs.parquet")) == ROWS


def test_a_miniature_is_not_short(tmp_path):
    (manifest,) = prepare_miniature("mmeb_train/OK-VQA", tmp_path).values()

    entry = manifest["sets"]["OK-VQA"]
    assert entry["expected"] is None
    assert entry["rows"] > 5
    assert entry["put_aside"]["count"] == 0


def test_a_miniature_that_is_there_is_not_drawn_again(tmp_path):
    first = prepare_miniature("mmeb_train/OK-VQA", tmp_path)
    before = (tmp_path / "mmeb_train/OK-VQA.parquet").stat().st_mtime_ns

    assert prepare_miniature("mmeb_train/OK-VQA", tmp_path) == first
    assert (tmp_path / "mmeb_train/OK-VQA.parquet").stat().st_mtime_ns == before
    (tmp_path / "mmeb_train/OK-VQA.parquet").unlink()
    assert prepare_miniature("mmeb_train/OK-VQA", tmp_path)["mmeb_train"]["sets"].keys() == {"OK-VQA"}
    assert (tmp_path / "mmeb_train/OK-VQA.parquet").is_file()


KILLED = """
import sys, time
from dataclasses import replace
from pathlib import Path
from data_prep.converters.registry import CONVERTERS
from data_prep.prepare import prepare
from tests.data_prep.publisher import PAIRS, RANKED, source

def slow(rows, row_set, media):
    (media.made / "half.png").write_bytes(b"half")
    for number, pair in enumerate(usual.pairs(rows, row_set, media)):
        if number == 5:
            print("half", flush=True)
            time.sleep(600)
        yield pair

usual = CONVERTERS["mmeb_pairs"]
CONVERTERS["mmeb_pairs"] = replace(usual, pairs=slow)
prepare(source(RANKED, PAIRS), Path(sys.argv[1]), copies=Path(sys.argv[2]))
"""


def test_a_killed_preparation_is_not_taken_for_whole_and_goes_on(publisher, data):
    command = [sys.executable, "-c", KILLED, str(data), str(publisher.copies)]
    with subprocess.Popen(command, env=os.environ | {"PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE) as running:
        said = running.stdout.readline()
        running.kill()
    assert said == b"half\n"

    assert not (data / "drawn/pairs.parquet").exists()
    assert list(read_manifest(data, "drawn")["sets"]) == ["ranked"]
    assert list((data / "drawn").glob(".pairs.parquet.*.part"))
    before = (data / "drawn/ranked/queries.jsonl").stat().st_mtime_ns
    time.sleep(0.01)

    manifest = prepare(source(RANKED, PAIRS), data, copies=publisher.copies)

    assert len(open_table(data / "drawn/pairs.parquet")) == manifest["sets"]["pairs"]["rows"] == ROWS
    assert (data / "drawn/ranked/queries.jsonl").stat().st_mtime_ns == before
    assert not list((data / "drawn").glob(".*.part"))
    assert not list((data / "drawn/media").rglob("half.png"))


def test_a_table_without_the_manifests_word_is_made_again(publisher, data):
    prepare(source(PAIRS), data, copies=publisher.copies)
    (data / "drawn/manifest.json").unlink()
    (data / "drawn/pairs.parquet").write_bytes(b"left by something")

    assert not is_prepared(data, "drawn", PAIRS)
    prepare(source(PAIRS), data, copies=publisher.copies)

    assert len(open_table(data / "drawn/pairs.parquet")) == ROWS


def test_the_rows_of_a_retrieval_set_keep_their_order_and_first_of_equal_names(publisher, data):
    rows = ranked_rows()
    rows[3]["tgt_text"] = ["3", "other", "3", "other"]
    rows[3]["tgt_img_path"] = [""] * 4
    publisher.rows_of_ranked(rows)

    prepare(source(RANKED), data, copies=publisher.copies)

    read = read_retrieval_set(data / "drawn/ranked")
    assert list(read.candidates.values())[3] == ["3", "other"]
