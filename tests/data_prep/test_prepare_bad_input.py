"""Bad input is an error in words or put aside and counted; nothing half-prepared is left."""

import json
import zipfile
from dataclasses import replace

import pytest

from data_prep.engine.manifest import read_manifest
from data_prep.engine.preparation import Wishes
from data_prep.miniatures.draw import draw_source
from data_prep.miniatures.studio import Studio
from data_prep.prepare import prepare
from data_prep.source import read_source
from mmembed.data.tables import open_table
from mmembed.errors import InputError
from tests.data_prep.publisher import MEDIA, PAIRS, RANKED, ROWS, pair_rows, ranked_rows, source


def refused(publisher, data, row, message, **choices):
    """Preparing fails with these words, and leaves no table, no set and no word of one."""
    with pytest.raises(InputError, match=message):
        prepare(source(row), data, copies=publisher.copies, **choices)
    assert read_manifest(data, "drawn")["sets"] == {}
    assert not (data / "drawn/pairs.parquet").exists()
    assert not (data / "drawn/ranked").exists()


def test_rows_without_their_picture_or_that_climb_out_are_put_aside(publisher, data):
    rows = pair_rows()
    rows[1]["qry_image_path"] = "images/gone.png"
    rows[4]["qry_image_path"] = "../../../etc/passwd"
    rows[6]["qry_image_path"] = "/etc/passwd"
    publisher.rows_of_pairs(rows)

    manifest = prepare(source(PAIRS), data, copies=publisher.copies, wishes=Wishes(max_bad=0.5))

    entry = manifest["sets"]["pairs"]
    assert (entry["rows"], entry["put_aside"]["count"]) == (ROWS - 3, 3)
    gone, up, absolute = entry["put_aside"]["first"]
    assert "row 1" in gone
    assert "no 'images/gone.png'" in gone
    assert "expected a path below the media, got '../../../etc/passwd'" in up
    assert "expected a path below the media, got '/etc/passwd'" in absolute
    assert [pair.positives[0].text for pair in open_table(data / "drawn/pairs.parquet")] == ["0", "2", "3", "5", "7"]


def test_too_many_rows_put_aside_stop_the_table(publisher, data):
    rows = pair_rows()
    rows[1]["qry_image_path"] = "images/gone.png"
    publisher.rows_of_pairs(rows)

    message = r"pairs\.parquet: expected at most 1\.00% of the rows put aside, got 1 of 8; the first is: .*row 1.*gone"
    refused(publisher, data, PAIRS, message)


def test_a_bad_row_of_a_retrieval_set_stops_it(publisher, data):
    rows = ranked_rows()
    rows[2]["qry_img_path"] = "gone.png"
    publisher.rows_of_ranked(rows)

    refused(publisher, data, RANKED, r"row 2.*no 'gone\.png'", wishes=Wishes(max_bad=0.9))


def test_no_more_than_twenty_rows_put_aside_are_described(publisher, data):
    bad = [{**pair_rows()[0], "qry_image_path": f"images/gone-{i}.png"} for i in range(30)]
    publisher.rows_of_pairs(pair_rows() + bad)

    manifest = prepare(source(PAIRS), data, copies=publisher.copies, wishes=Wishes(max_bad=1.0))

    aside = manifest["sets"]["pairs"]["put_aside"]
    assert (aside["count"], len(aside["first"])) == (30, 20)


def test_a_folder_of_frames_that_is_missing_is_put_aside(tmp_path, data):
    hound = read_source("llava_hound").only(["video_caption_300k"])
    draw_source(hound, tmp_path / "copies")
    row = hound.sets["video_caption_300k"]
    file = tmp_path / "copies" / row.repo / row.files[0]
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    lines[2]["video"] = "gone_clip"
    Studio(tmp_path / "copies").jsonl(file, lines)
    small = replace(hound, sets={row.name: replace(row, rows=None)})

    manifest = prepare(small, data, copies=tmp_path / "copies", wishes=Wishes(max_bad=0.2))

    (entry,) = manifest["sets"].values()
    assert entry["rows"] == len(lines) - 1
    assert "row 2" in entry["put_aside"]["first"][0]
    assert "gone_clip" in entry["put_aside"]["first"][0]


def test_a_corrupt_shard_is_named_and_a_good_one_goes_on(publisher, data):
    whole = publisher.pair_file.read_bytes()
    publisher.pair_file.write_bytes(whole[:4] + bytes(200) + whole[204:])

    refused(
        publisher, data, PAIRS, r"train-00000-of-00001\.parquet: expected a whole Parquet file.*; download it again"
    )

    publisher.pair_file.write_bytes(whole)
    assert prepare(source(PAIRS), data, copies=publisher.copies)["sets"]["pairs"]["rows"] == ROWS


def test_a_renamed_column_is_named_with_the_nearest(publisher, data):
    publisher.rows_of_pairs([{("query" if k == "qry" else k): v for k, v in row.items()} for row in pair_rows()])

    refused(publisher, data, PAIRS, r"train-00000.*: qry: expected this column, got columns query, .*")


def test_a_truncated_archive_is_named(publisher, data):
    publisher.archive.write_bytes(publisher.archive.read_bytes()[:-300])

    refused(publisher, data, PAIRS, r"pictures\.zip: expected a whole archive")
    assert not list((data / "unpacked").rglob("*.png"))


def test_an_archive_that_climbs_out_of_the_root_is_refused(publisher, data, tmp_path):
    with zipfile.ZipFile(publisher.archive, "a") as packed:
        packed.writestr("../../../../../escaped.png", b"x")

    refused(publisher, data, PAIRS, r"pictures\.zip: .*escaped\.png: expected a path inside the archive")
    assert not list(tmp_path.rglob("escaped.png"))


def test_a_checksum_that_differs_is_named(publisher, data):
    row = replace(PAIRS, media=(replace(MEDIA, sha256={"pictures.zip": "0" * 64}),))

    refused(publisher, data, row, r"pictures\.zip: expected sha256 0{64}, got")
    assert publisher.archive.exists()


def test_media_that_are_nowhere_are_named(publisher, data):
    publisher.archive.unlink()

    refused(publisher, data, PAIRS, r"o/n: expected media of pairs: pictures\.zip, got none in .*o/n")


def test_a_set_without_a_row_is_refused(publisher, data):
    publisher.rows_of_pairs([{**row, "qry_image_path": "images/gone.png"} for row in pair_rows()])

    refused(publisher, data, PAIRS, r"pairs\.parquet: expected at least one row", wishes=Wishes(max_bad=1.0))


def test_a_converter_that_is_not_there_is_named(publisher, data):
    refused(
        publisher, data, replace(PAIRS, converter="mmeb_pears"), r"expected a converter.*did you mean 'mmeb_pairs'\?"
    )


def test_a_manifest_that_cannot_be_read_is_named(publisher, data):
    (data / "drawn").mkdir(parents=True)
    (data / "drawn/manifest.json").write_text("{")

    with pytest.raises(InputError, match=r"manifest\.json: expected a manifest"):
        prepare(source(PAIRS), data, copies=publisher.copies)


def test_a_failed_preparation_takes_nothing_from_the_sets_before_it(publisher, data):
    rows = ranked_rows()
    rows[0]["qry_img_path"] = "gone.png"
    publisher.rows_of_ranked(rows)

    with pytest.raises(InputError, match=r"no 'gone\.png'"):
        prepare(source(PAIRS, RANKED), data, copies=publisher.copies)

    assert list(read_manifest(data, "drawn")["sets"]) == ["pairs"]
    assert len(open_table(data / "drawn/pairs.parquet")) == ROWS
