"""Datasets of sentence-transformers: pictures inside rows, columns of one kind, and what the library reads."""

from pathlib import Path

import datasets
import pytest

from data_prep.convert import main
from mmembed.data.values import kind_of
from mmembed.items import Item, Negative, Pair
from tests.data_prep.format_cases import (
    SHE,
    WHO,
    draw_media,
    exported,
    imported,
    png,
    read_lines,
    read_table,
    refused,
    write_lines,
    write_table,
)


@pytest.fixture
def folder(tmp_path):
    return draw_media(tmp_path)


def test_pictures_of_a_dataset_become_files_that_their_content_names(folder, capsys):
    features = datasets.Features({"anchor": datasets.Value("string"), "positive": datasets.Image()})
    rows = {
        "anchor": ["red", "blue", "red"],
        "positive": [{"bytes": png(c), "path": None} for c in ("red", "blue", "red")],
    }
    datasets.Dataset.from_dict(rows, features=features).save_to_disk(folder / "saved")

    table = imported("sentence-transformers", folder / "saved", folder / "pairs.jsonl")

    pairs = read_table(table)
    made = [pair.positives[0].media[0].source for pair in pairs]
    assert made[0] == made[2] != made[1]
    assert sorted(folder.glob("pairs_media/*.png")) == sorted({folder / name for name in made})
    assert [Path(name).read_bytes() for name in made] == [png(c) for c in ("red", "blue", "red")]
    assert f"pictures written to {folder / 'pairs_media'}: 2" in capsys.readouterr().out


@pytest.mark.parametrize("output", ["saved", "saved.parquet"])
def test_embedded_pictures_are_opened_by_the_library_and_come_back_with_the_same_content(folder, output):
    source = str(folder / "a.png")
    pairs = [
        Pair(WHO, (Item.of({"image": source, "text": "she"}),), (Negative(Item.of({"image": [source, png()]})),)),
        Pair(SHE, (Item.of({"image": png(), "text": "he"}),), (Negative(Item.of({"image": source})),)),
    ]
    table = write_table(folder / "table.jsonl", pairs)

    saved = exported("sentence-transformers", table, folder / output, "--embed-media")
    back = read_table(imported("sentence-transformers", saved, folder / "back.jsonl"))

    opened = (
        datasets.load_from_disk(saved)
        if saved.is_dir()
        else datasets.Dataset.from_parquet(str(saved), cache_dir=folder / "cache")
    )
    assert opened.column_names == ["anchor", "positive", "negative_1"]
    assert opened[0]["positive"]["image"].size == (8, 8)
    assert [image.size for image in opened[0]["negative_1"]["image"]] == [(8, 8), (4, 4)]
    assert [item.fingerprint() for pair in back for item in items(pair)] == [
        item.fingerprint() for pair in pairs for item in items(pair)
    ]


def items(pair):
    return (pair.query, *pair.positives, *(negative.item for negative in pair.negatives))


def test_columns_of_other_names_are_read_in_the_order_given_and_a_text_that_names_a_picture_is_one(folder, capsys):
    rows = write_lines(folder / "rows.jsonl", [{"answer": "a.png", "question": "who?", "wrong": "gone.png"}])
    paths = ("import", "sentence-transformers", "--input", rows, "--output", folder / "pairs.jsonl")

    assert "anchor: expected this column, got columns answer, question, wrong; name" in refused(capsys, *paths)
    assert main([*map(str, paths), "--columns", "question,answer,wrong"]) == 0

    (pair,) = read_table(folder / "pairs.jsonl")
    assert pair == Pair(WHO, (Item.of({"image": str(folder / "a.png")}),), (Negative(Item.of("gone.png")),))


def test_a_text_is_read_as_what_the_library_takes_it_for(folder, capsys):
    infer_modality = pytest.importorskip("sentence_transformers.base.modality").infer_modality
    (folder / "one.mp3").write_bytes(b"sound")
    words = "see https://example.com/a.png"
    paths = ("import", "sentence-transformers", "--input", folder / "rows.jsonl", "--output", folder / "pairs.jsonl")

    def read(value):
        write_lines(folder / "rows.jsonl", [{"anchor": "who?", "positive": value}])
        return paths

    for value, kind in (
        (str(folder / "one.mp4"), "video"),
        (words, "text"),
        ("gone.mp4", "text"),
        ("a " * 200, "text"),
    ):
        assert main([*map(str, read(value)), "--overwrite"]) == 0
        (pair,) = read_table(folder / "pairs.jsonl")
        assert kind_of(pair.positives[0].content[0]) == kind == infer_modality(value)
    (folder / "pairs.jsonl").unlink()
    for value in ("https://example.com/a.png?size=2", "https://example.com/one.mp4"):
        assert "download it, and name its file" in refused(capsys, *read(value))
        assert infer_modality(value) in ("image", "video")
    assert "positive.audio: expected text, image or video" in refused(capsys, *read(str(folder / "one.mp3")))


def test_a_dataset_is_read_by_the_library_as_the_media_that_it_was_written_of(folder):
    infer_modality = pytest.importorskip("sentence_transformers.base.modality").infer_modality
    image, clip = str(folder / "a.png"), str(folder / "one.mp4")
    negatives = (Negative(Item.of({"image": [image, image]})), Negative(Item.of(image)), Negative(Item.of("he")))
    pairs = [Pair(Item.of({"image": image, "text": "redder"}), (Item.of({"video": clip, "text": "a"}),), negatives)]
    table = write_table(folder / "table.jsonl", pairs)

    saved = exported("sentence-transformers", table, folder / "saved", "--absolute-paths")

    row = datasets.load_from_disk(saved)[0]
    assert list(row) == ["anchor", "positive", "negative_1", "negative_2", "negative_3"]
    assert [infer_modality(value) for value in row.values()] == [
        ("image", "text"), ("text", "video"), "image", "text", "text",
    ]  # fmt: skip
    assert row["negative_2"] == {"text": image}  # a text, though a picture has that name


def test_columns_must_be_of_one_kind_and_number(folder, capsys):
    image = Item.of({"image": str(folder / "a.png")})
    name, table = "sentence-transformers", folder / "table.jsonl"
    paths = ("export", name, "--input", table, "--output", folder / "rows.jsonl")

    write_table(table, [Pair(WHO, (SHE,)), Pair(WHO, (image,))])
    assert "line 2: positives[0]: expected text, as in the first row" in refused(capsys, *paths)
    two = (Negative(Item.of("he")), Negative(Item.of("it")))
    write_table(table, [Pair(WHO, (SHE,), two[:1]), Pair(WHO, (SHE,), two)])
    assert "line 2: negatives: expected 1, as in the first row" in refused(capsys, *paths)
    rows = exported(name, table, folder / "rows.jsonl", "--negatives", "1")
    assert [row["negative_1"] for row in read_lines(rows)] == ["he", "he"]
    assert "negatives after the first 1 left out: 1" in capsys.readouterr().out
    write_table(table, [Pair(WHO, (SHE,)), Pair(WHO, (SHE,), teacher_scores=(1.0,))])
    assert "line 2: teacher_scores: expected 0, as in the first row" in refused(capsys, *paths, "--overwrite")
    write_table(table, [Pair(WHO, (SHE,))])
    assert "--embed-media: expected" in refused(capsys, *paths, "--overwrite", "--embed-media")


def test_what_fails_late_leaves_nothing_behind(folder, capsys):
    features = datasets.Features({"anchor": datasets.Value("string"), "positive": datasets.Image()})
    rows = {"anchor": ["red", "blue"], "positive": [{"bytes": png(), "path": None}, {"bytes": b"no", "path": None}]}
    datasets.Dataset.from_dict(rows, features=features).save_to_disk(folder / "saved")
    before = set(folder.rglob("*"))
    capsys.readouterr()

    said = refused(
        capsys, "import", "sentence-transformers", "--input", folder / "saved", "--output", folder / "pairs.jsonl"
    )

    words = "positive.image: expected an encoded picture, got 2 bytes that are none; mend the row"
    assert said == f"{folder / 'saved'}: row 1: {words}\n"
    assert set(folder.rglob("*")) == before


def test_a_folder_that_is_no_dataset_or_several_is_refused(folder, capsys):
    one = datasets.Dataset.from_dict({"anchor": ["who?"], "positive": ["she"]})
    datasets.DatasetDict({"train": one}).save_to_disk(folder / "splits")
    capsys.readouterr()
    paths = ("import", "sentence-transformers", "--output", folder / "pairs.jsonl", "--input")

    assert f"{folder / 'splits'}: expected one dataset, got the splits train" in refused(
        capsys, *paths, folder / "splits"
    )
    assert f"{folder / 'below'}: expected a folder of datasets.Dataset.save_to_disk" in refused(
        capsys, *paths, folder / "below"
    )
    assert main([*map(str, paths), str(folder / "splits/train")]) == 0


def test_a_parquet_file_that_is_cut_off_is_refused(folder, capsys):
    (folder / "rows.parquet").write_bytes(b"PAR1 and no more")

    for name in ("sentence-transformers", "mmeb"):
        paths = ("import", name, "--input", folder / "rows.parquet", "--output", folder / "pairs.jsonl")
        assert f"{folder / 'rows.parquet'}: expected a whole Parquet file" in refused(capsys, *paths)
