"""scripts/embed.py --regions: a vector for each picture and for each of its regions, one pass of the tower for all."""

import json

import pytest
import torch

from mmembed import Embedder
from mmembed.counters import counting
from mmembed.errors import InputError
from mmembed.index.embedding_store import read_embeddings, read_vectors
from mmembed.models.settings import TextRegions
from scripts.embed import main

BOXES = [[0, 0, 20, 28], [20, 0, 40, 28], [40, 4, 56, 20], [5, 5, 50, 25]]


@pytest.fixture
def model(tmp_path, fresh_embedder):
    fresh_embedder(regions=TextRegions(scale=8)).save(tmp_path / "model")
    return tmp_path / "model"


@pytest.fixture
def table(tmp_path, picture):
    rows = []
    for number, boxes in enumerate((BOXES, BOXES[:1], BOXES[1:3], [])):
        picture(56, 28, seed=number).save(tmp_path / f"{number}.png")
        rows.append({"id": f"p{number}", "image": f"{number}.png", "regions": [{"box": box} for box in boxes]})
    return write(tmp_path / "items.jsonl", [*rows, {"id": "words", "text": "red circle"}])


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def run(model, table, output, *more):
    return main(["--model", str(model), "--input", str(table), "--output", str(output), "--regions", *more])


def test_vectors_are_those_of_the_items_with_one_region_each(model, table, tmp_path, picture, capsys):
    assert run(model, table, tmp_path / "out", "--region-instruction", "What is here?") == 0

    read = read_vectors(tmp_path / "out")
    whole = {"image": picture(56, 28)}
    parts = [whole | {"regions": [{"box": box}], "instruction": "What is here?"} for box in BOXES]
    expected = Embedder.from_pretrained(model, device="cpu").encode([whole, *parts], side="target")
    assert read.ids == ["p0"] * 5 + ["p1"] * 2 + ["p2"] * 3 + ["p3", "words"]
    assert read.regions == [0, 1, 2, 3, 4, 0, 1, 0, 1, 2, 0, 0]
    assert torch.allclose(read.embeddings[:5], expected, atol=1e-6, rtol=0)
    assert not torch.allclose(read.embeddings[1], read.embeddings[2], atol=1e-3)
    assert "embedded 12 of 12 vectors" in capsys.readouterr().out


@pytest.mark.parametrize("shard_rows", ["2", "5", "4096"])
def test_the_tower_runs_once_for_a_picture_however_many_regions_it_has(model, table, tmp_path, shard_rows):
    with counting() as work:
        run(model, table, tmp_path / "out", "--shard-rows", shard_rows)

    assert work["tower_forwards"] == 4
    assert work["language_rows"] == 12


def test_the_manifest_says_so_and_where_the_pictures_are(model, table, tmp_path):
    run(model, table, tmp_path / "out", "--region-instruction", "What is here?")

    manifest = json.loads((tmp_path / "out/manifest.json").read_text())
    assert (manifest["regions"], manifest["rows"]) == (True, 12)
    about = manifest["about"]
    assert (about["table"], about["media_root"]) == (str(table), str(tmp_path))
    assert about["region_instruction"] == "What is here?"
    assert about["identity"]["regions.scale"] == "8"


def test_a_killed_run_goes_on_with_whole_items(model, table, tmp_path, monkeypatch):
    run(model, table, tmp_path / "whole", "--shard-rows", "3")
    encode, calls = Embedder.encode, []

    def killed_in_the_second_shard(self, items, **options):
        calls.append(len(items))
        if len(calls) == 2:
            raise KeyboardInterrupt
        return encode(self, items, **options)

    monkeypatch.setattr(Embedder, "encode", killed_in_the_second_shard)
    with pytest.raises(KeyboardInterrupt):
        run(model, table, tmp_path / "out", "--shard-rows", "3")
    monkeypatch.undo()

    with counting() as work:
        assert run(model, table, tmp_path / "out", "--shard-rows", "3") == 0

    assert (work["language_rows"], work["tower_forwards"]) == (7, 3)
    resumed, whole = read_vectors(tmp_path / "out"), read_vectors(tmp_path / "whole")
    assert (resumed.ids, resumed.regions) == (whole.ids, whole.regions)
    assert torch.equal(resumed.embeddings, whole.embeddings)


def test_plain_and_region_indexed_folders_do_not_mix(model, table, tmp_path, capsys):
    run(model, table, tmp_path / "out")

    assert main(["--model", str(model), "--input", str(table), "--output", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert "manifest.json: regions: expected True (of model" in error
    assert "choose another --output, or replace it with --overwrite" in error
    assert run(model, table, tmp_path / "out", "--region-instruction", "Other.") == 2
    assert "manifest.json: region_instruction: expected None (of model" in capsys.readouterr().err


def test_overwrite_replaces_another_folder_and_leaves_an_equal_one(model, table, tmp_path, capsys):
    run(model, table, tmp_path / "out", "--shard-rows", "3")

    assert run(model, table, tmp_path / "out", "--overwrite", "--region-instruction", "What?") == 0
    assert "embedded 12 of 12" in capsys.readouterr().out
    assert len(list((tmp_path / "out").glob("shard-*"))) == 1
    assert run(model, table, tmp_path / "out", "--overwrite", "--region-instruction", "What?") == 0
    assert "already embedded, all 12 vectors" in capsys.readouterr().out


def test_a_reader_of_one_vector_an_item_is_told(model, table, tmp_path):
    run(model, table, tmp_path / "out")

    with pytest.raises(
        InputError, match="expected one vector for each item, got 12 vectors of 5 items; use read_vectors"
    ):
        read_embeddings(tmp_path / "out")


def test_a_model_without_a_region_encoder_refuses_in_words(table, tmp_path, fresh_embedder, capsys):
    fresh_embedder().save(tmp_path / "plain")

    assert run(tmp_path / "plain", table, tmp_path / "out") == 2

    assert "this model has no region encoder" in capsys.readouterr().err


def test_an_instruction_of_regions_without_regions_is_a_mistake(model, table, tmp_path, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["--model", str(model), "--input", str(table), "--output", "out", "--region-instruction", "What?"])

    assert stop.value.code == 2
    assert "--region-instruction goes with --regions" in capsys.readouterr().err
