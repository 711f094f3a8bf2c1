"""Prepared sources and retrieval sets are checked whole: rows, media, and what the manifest and the source say."""

import json
from dataclasses import replace

import PIL.Image
import pytest

from data_prep.check import main
from data_prep.engine.preparation import Wishes
from data_prep.miniatures.studio import Studio
from data_prep.prepare import prepare
from data_prep.source import read_source
from tests.data_prep.publisher import DRAWN, pair_rows


@pytest.fixture
def data(publisher, tmp_path):
    prepare(read_source("drawn"), tmp_path / "data", copies=publisher.copies)
    return tmp_path / "data"


def check(data, name, *options):
    return main([name, "--data-root", str(data), *options])


def test_a_source_that_is_whole_passes(data, capsys):
    assert check(data, "drawn") == 0

    lines = capsys.readouterr().out.splitlines()
    assert [line.removeprefix(f"{data}/drawn/") for line in lines] == [
        "pairs.parquet: 8 rows, 8 media, 0 errors, 0 notes",
        "ranked/queries.jsonl: 8 rows, 8 media, 0 errors, 0 notes",
        "ranked/corpus.jsonl: 10 rows, 0 media, 0 errors, 0 notes",
    ]


def test_a_set_alone_and_a_folder_by_its_path_are_checked(data, capsys):
    assert check(data, "drawn/pairs") == 0
    assert "ranked" not in capsys.readouterr().out
    assert check(data, "drawn/ranked") == 0
    assert main([str(data / "drawn/ranked")]) == 0


def test_a_picture_that_went_or_broke_is_named(data, capsys):
    folder = data / "unpacked/o/n/pictures.zip"
    (folder / "2.png").unlink()
    (folder / "5.png").write_bytes((folder / "5.png").read_bytes()[:40])

    assert check(data, "drawn") == 1

    out = capsys.readouterr().out
    assert "pairs.parquet: 8 rows, 7 media, 2 errors, 0 notes" in out
    assert "no such file" in out
    assert "images/5.png" in out


def test_equal_pictures_of_two_names_are_noted(publisher, tmp_path, capsys):
    (publisher.packed / "3.png").write_bytes((publisher.packed / "1.png").read_bytes())
    publisher.pack()
    prepare(read_source("drawn").only(["pairs"]), tmp_path / "data", copies=publisher.copies)

    assert check(tmp_path / "data", "drawn/pairs") == 0

    out = capsys.readouterr().out
    assert "0 errors, 1 notes" in out
    assert "images/3.png', of the same bytes as" in out


def test_clips_of_fewer_frames_than_are_used_are_noted(tmp_path, capsys):
    studio = Studio(tmp_path)
    studio.frames(tmp_path / "short", 5)
    studio.frames(tmp_path / "long", 9)
    rows = [{"query": "q", "positives": [{"video": name, "num_frames": 8}]} for name in ("short", "long")]
    studio.jsonl(tmp_path / "t.jsonl", rows)

    assert main([str(tmp_path / "t.jsonl")]) == 0
    out = capsys.readouterr().out
    assert "0 errors, 1 notes" in out
    assert f"5 in {tmp_path / 'short'}" in out
    assert main([str(tmp_path / "t.jsonl"), "--frames", "5"]) == 0
    assert "0 notes" in capsys.readouterr().out


def test_fewer_rows_than_the_source_expects_are_an_error(publisher, tmp_path, capsys):
    publisher.rows_of_pairs(pair_rows()[:5])
    prepare(read_source("drawn"), tmp_path / "data", copies=publisher.copies)

    assert check(tmp_path / "data", "drawn") == 1
    assert "error   drawn/pairs   8 rows     5" in capsys.readouterr().out


def test_a_part_of_a_set_and_a_miniature_are_noted_and_not_compared(publisher, tmp_path, capsys):
    publisher.rows_of_pairs(pair_rows()[:5])
    drawn = read_source("drawn").only(["pairs"])

    prepare(drawn, tmp_path / "some", copies=publisher.copies, limit=2)
    prepare(drawn, tmp_path / "small", copies=publisher.copies, wishes=Wishes(compare=False))

    for root, words in (("some", "only the first 2 rows"), ("small", "a miniature")):
        assert check(tmp_path / root, "drawn/pairs") == 0
        out = capsys.readouterr().out
        assert f"note   drawn/pairs   the whole set   {words}" in out
        assert "8 rows" not in out


def test_rows_put_aside_are_told_again(publisher, tmp_path, capsys):
    rows = pair_rows()
    rows[2]["qry_image_path"] = "images/gone.png"
    publisher.rows_of_pairs(rows)
    prepare(read_source("drawn"), tmp_path / "data", copies=publisher.copies, wishes=Wishes(max_bad=0.2))

    assert check(tmp_path / "data", "drawn") == 0
    assert "1 put aside; the first: " in capsys.readouterr().out


def test_a_file_that_is_not_as_it_was_written_is_an_error(data, capsys):
    path = data / "drawn/ranked/relevance.jsonl"
    path.write_text(path.read_text().replace('"0": 1.0', '"1": 1.0', 1))

    assert check(data, "drawn/ranked") == 1
    assert "drawn/ranked: ranked/relevance.jsonl   the file as it was written" in capsys.readouterr().out


def test_a_set_that_does_not_hold_together_is_an_error(data, capsys):
    path = data / "drawn/ranked/candidates.jsonl"
    lines = path.read_text().splitlines()
    path.write_text("\n".join([json.dumps({"query_id": "0", "targets": ["nobody"]}), *lines[1:]]) + "\n")

    assert main([str(data / "drawn/ranked")]) == 1
    assert "the id of a target in the corpus" in capsys.readouterr().out


def test_sets_that_are_not_prepared_or_are_stale_are_noted(publisher, tmp_path, capsys):
    drawn = read_source("drawn").only(["pairs"])
    row = replace(drawn.sets["pairs"], options={"first": 3})
    prepare(replace(drawn, sets={"pairs": row}), tmp_path / "data", copies=publisher.copies)

    assert check(tmp_path / "data", "drawn") == 0

    out = capsys.readouterr().out
    assert "1; not ranked" in out
    assert "an older preparation" in out


def test_a_set_that_is_not_there_is_named_with_the_nearest(data, capsys):
    assert check(data, "drawn/pear") == 2

    assert "drawn/pear: expected a set that is prepared in" in capsys.readouterr().err


def test_what_is_not_prepared_is_told_from_what_there_is_not(data, tmp_path, capsys):
    (tmp_path / "sources/other.yaml").write_text(DRAWN)

    for name in ("other", "other/pairs"):
        assert check(data, name) == 2
        err = capsys.readouterr().err
        assert f"{name}: expected sets that are prepared in {data}, got none; run data_prep/prepare.py {name}" in err
    assert check(data, "other/pear") == 2
    assert "expected a set of other, got 'pear'" in capsys.readouterr().err


def test_a_group_is_checked_by_its_sets(data, tmp_path, capsys):
    (tmp_path / "sources/other.yaml").write_text(DRAWN)
    (tmp_path / "sources/group.yaml").write_text("about: g\nincludes: [drawn/ranked, other]\n")

    assert check(data, "group") == 0

    out = capsys.readouterr().out
    assert "ranked/queries.jsonl: 8 rows" in out
    assert "pairs.parquet" not in out
    assert "0; not pairs, ranked" in out


def test_a_set_of_another_version_is_an_error(data, capsys):
    manifest = json.loads((data / "drawn/manifest.json").read_text())
    manifest["sets"]["pairs"]["version"] = 1
    del manifest["sets"]["ranked"]["made"]
    (data / "drawn/manifest.json").write_text(json.dumps(manifest))

    assert check(data, "drawn") == 1

    out = capsys.readouterr().out
    assert "made by another version" in out
    assert "damaged: the manifest lacks its made" in out


def test_a_file_in_the_folder_of_a_source_is_still_a_table(data, capsys):
    PIL.Image.new("RGB", (4, 4)).save(data / "drawn/p.png")
    (data / "drawn/own.jsonl").write_text('{"query": "q", "positives": [{"image": "p.png"}]}\n')

    assert check(data, "drawn/own.jsonl") == 0
    assert "1 rows, 1 media" in capsys.readouterr().out
