"""scripts/embed.py: sharded, resumable, and never a mix of two runs."""

import json

import pytest
import torch

from mmembed import Embedder
from mmembed.counters import counting
from mmembed.index.embedding_store import plan_shards, read_embeddings
from mmembed.models.identity import weights_fingerprint
from scripts.embed import main
from tests.models.backbones.dual_encoder.checkpoints import MAPPING, published

WORDS = ["red", "blue", "circle", "square", "left", "right", "of", "a", "the", "cross"]


@pytest.fixture
def model(tmp_path, scratch_embedder):
    scratch_embedder("qwen2_vl").save(tmp_path / "model")
    return tmp_path / "model"


@pytest.fixture
def table(tmp_path, picture):
    picture(56, 28).save(tmp_path / "p.png")
    rows = [{"id": f"t{i}", "text": " ".join(WORDS[: i + 1])} for i in range(9)]
    rows.append({"id": "p", "image": "p.png", "text": "a picture", "instruction": "Its own."})
    return write(tmp_path / "items.jsonl", rows)


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def run(model, table, output, *more):
    return main(["--model", str(model), "--input", str(table), "--output", str(output), "--shard-rows", "4", *more])


def test_shards_hold_what_encode_gives_in_the_tables_order(model, table, tmp_path, capsys, picture):
    assert run(model, table, tmp_path / "out", "--instruction", "Find it.") == 0

    ids, embeddings = read_embeddings(tmp_path / "out")
    items = [" ".join(WORDS[: i + 1]) for i in range(9)]
    items.append({"image": picture(56, 28), "text": "a picture", "instruction": "Its own."})
    expected = Embedder.from_pretrained(model).encode(items, instruction="Find it.", side="target")
    assert ids == [*(f"t{i}" for i in range(9)), "p"]
    assert torch.allclose(embeddings, expected, atol=1e-6, rtol=0)
    assert "embedded 10 of 10 rows" in capsys.readouterr().out


def test_a_released_adapter_is_loaded_onto_its_base(golden, table, tmp_path):
    base, adapter = golden / "vlm2vec/qwen2_vl", golden / "vlm2vec/qwen2_vl_lora"

    assert run(base, table, tmp_path / "out", "--profile", "vlm2vec", "--adapter", str(adapter)) == 0

    _, embeddings = read_embeddings(tmp_path / "out")
    adapted, plain = (
        Embedder.from_pretrained(base, profile="vlm2vec", adapter=given, device="cpu") for given in (str(adapter), None)
    )
    assert torch.allclose(embeddings[:1], adapted.encode("red", side="target"), atol=1e-6, rtol=0)
    assert not torch.allclose(embeddings[:1], plain.encode("red", side="target"), atol=1e-3)


def test_the_manifest_says_what_made_the_shards(model, table, tmp_path):
    run(model, table, tmp_path / "out")

    manifest = json.loads((tmp_path / "out/manifest.json").read_text())
    assert (manifest["model"], manifest["input"]) == (str(model), str(table))
    assert (manifest["rows"], manifest["width"], manifest["shard_rows"]) == (10, 64, 4)
    assert [(s["file"], s["first_row"], s["rows"]) for s in manifest["shards"]] == [
        ("shard-00000.safetensors", 0, 4),
        ("shard-00001.safetensors", 4, 4),
        ("shard-00002.safetensors", 8, 2),
    ]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "manifest.json",
        *(s["file"] for s in manifest["shards"]),
    ]


def test_a_killed_run_encodes_only_the_missing_shards(model, table, tmp_path, monkeypatch):
    run(model, table, tmp_path / "whole")
    encode, calls = Embedder.encode, []

    def killed_in_the_second_shard(self, items, **options):
        calls.append(len(items))
        if len(calls) == 2:
            raise KeyboardInterrupt
        return encode(self, items, **options)

    monkeypatch.setattr(Embedder, "encode", killed_in_the_second_shard)
    with pytest.raises(KeyboardInterrupt):
        run(model, table, tmp_path / "out")
    monkeypatch.undo()
    assert len(list((tmp_path / "out").glob("shard-*"))) == 1

    with counting() as work:
        assert run(model, table, tmp_path / "out") == 0

    assert work["language_rows"] == 6
    assert read_embeddings(tmp_path / "out")[0] == read_embeddings(tmp_path / "whole")[0]
    assert torch.equal(read_embeddings(tmp_path / "out")[1], read_embeddings(tmp_path / "whole")[1])


def test_a_finished_run_does_nothing_and_says_so(model, table, tmp_path, capsys):
    run(model, table, tmp_path / "out")

    with counting() as work:
        assert run(model, table, tmp_path / "out") == 0

    assert work["language_rows"] == 0
    assert "already embedded, all 10 rows" in capsys.readouterr().out


def test_a_model_that_moved_is_still_the_same(model, table, tmp_path, capsys):
    run(model, table, tmp_path / "out")
    model.rename(tmp_path / "elsewhere")

    assert run(tmp_path / "elsewhere", table, tmp_path / "out") == 0

    assert "already embedded" in capsys.readouterr().out


@pytest.mark.parametrize(
    "more, field",
    [
        (["--instruction", "Other."], "instruction"),
        (["--side", "query"], "side"),
        (["--shard-rows", "5"], "shard_rows"),
    ],
)
def test_other_settings_refuse_to_mix(more, field, model, table, tmp_path, capsys):
    run(model, table, tmp_path / "out")

    assert run(model, table, tmp_path / "out", *more) == 2

    assert f"manifest.json: {field}: expected" in (error := capsys.readouterr().err)
    assert "choose another --output" in error


def test_another_model_or_input_refuses_to_mix_and_both_are_named(model, table, tmp_path, capsys, fresh_embedder):
    run(model, table, tmp_path / "out")
    with torch.no_grad():
        (other := fresh_embedder()).backbone.model.language_model.norm.weight[0] += 1
    other.save(tmp_path / "other")

    assert run(tmp_path / "other", table, tmp_path / "out") == 2
    error = capsys.readouterr().err
    assert "manifest.json: weights: expected" in error
    assert f"of model '{model}'" in error
    assert f"of model '{tmp_path / 'other'}'" in error

    longer = write(tmp_path / "longer.jsonl", [{"id": "x", "text": "red"}])
    assert run(model, longer, tmp_path / "out") == 2
    error = capsys.readouterr().err
    assert "manifest.json: input_fingerprint: expected" in error
    assert f"input '{longer}'" in error


def test_shards_without_a_manifest_are_not_adopted(model, table, tmp_path, capsys):
    run(model, table, tmp_path / "out")
    (tmp_path / "out/manifest.json").unlink()

    assert run(model, table, tmp_path / "out") == 2

    assert "expected manifest.json beside shards, got only shard-00000.safetensors" in capsys.readouterr().err


def test_a_bad_row_is_named_before_anything_is_embedded(model, tmp_path, capsys):
    rows = [{"id": "a", "text": "red"}, {"id": "b", "image": "gone.png"}]

    assert run(model, write(tmp_path / "items.jsonl", rows), tmp_path / "out") == 2

    assert f"{tmp_path / 'items.jsonl'}: line 2: item" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_an_id_that_comes_twice_is_refused(model, tmp_path, capsys):
    rows = [{"id": "a", "text": "red"}, {"id": "a", "text": "blue"}]

    assert run(model, write(tmp_path / "items.jsonl", rows), tmp_path / "out") == 2

    assert "line 2: id: expected each id once, got 'a' again, first in" in capsys.readouterr().err


def test_a_broken_picture_is_named_with_its_rows(model, tmp_path, capsys):
    (tmp_path / "broken.png").write_text("no picture")
    rows = [{"id": "a", "text": "red"}, {"id": "b", "image": "broken.png"}]

    assert run(model, write(tmp_path / "items.jsonl", rows), tmp_path / "out") == 2

    error = capsys.readouterr().err
    assert f"{tmp_path / 'items.jsonl'}: line 1 and the 1 rows after it: item 1:" in error
    assert "broken.png" in error


@pytest.mark.parametrize("more", [[], ["--profile", "vlm2vec"]])
def test_a_folder_that_is_no_model_is_named(more, table, tmp_path, capsys):
    (tmp_path / "empty").mkdir()

    assert run(tmp_path / "empty", table, tmp_path / "out", *more) == 2

    assert str(tmp_path / "empty") in capsys.readouterr().err


def test_shards_cover_every_row_once():
    assert [(s.first_row, s.rows) for s in plan_shards(9, 4)] == [(0, 4), (4, 4), (8, 1)]
    assert [(s.first_row, s.rows) for s in plan_shards(8, 4)] == [(0, 4), (4, 4)]


def test_weights_are_named_by_every_bit_name_and_type():
    weights = {"a": torch.tensor([1.0, 2.0]), "b": torch.tensor(3.0)}
    others = [
        {"a": torch.tensor([1.0, -2.0]), "b": torch.tensor(3.0)},
        {"a": torch.tensor([[1.0, 2.0]]), "b": torch.tensor(3.0)},
        {"a": torch.tensor([1.0, 2.0]), "c": torch.tensor(3.0)},
        {"a": torch.tensor([1.0, 2.0]), "b": torch.tensor(3.0).bfloat16()},
    ]

    names = [weights_fingerprint(w) for w in (weights, *others)]

    assert len(set(names)) == 5
    assert weights_fingerprint(dict(reversed(weights.items()))) == names[0]


def test_a_released_mapping_network_composes_the_items(tmp_path, table):
    clip, network = published(tmp_path / "clip"), MAPPING / "searle_phi.safetensors"

    assert run(clip, table, tmp_path / "out", "--profile", "searle", "--pooler-weights", str(network)) == 0

    model = Embedder.from_pretrained(clip, profile="searle", pooler_weights=network, device="cpu")
    item = {"image": str(tmp_path / "p.png"), "text": "a picture", "instruction": "Its own."}
    torch.testing.assert_close(read_embeddings(tmp_path / "out")[1][-1:], model.encode(item), atol=1e-6, rtol=0)


def test_a_profile_of_a_mapping_network_asks_for_its_weights(tmp_path, table, capsys):
    assert run(published(tmp_path / "clip"), table, tmp_path / "out", "--profile", "searle") == 2

    assert "expected the pooler's trained weights" in capsys.readouterr().err


def test_workers_do_not_change_the_vectors(model, table, tmp_path):
    for workers in ("0", "2"):
        assert run(model, table, tmp_path / workers, "--shard-rows", "10", "--workers", workers) == 0

    assert torch.equal(*(read_embeddings(tmp_path / workers)[1] for workers in ("0", "2")))


def test_a_negative_number_of_workers_is_refused(model, table, tmp_path, capsys):
    assert run(model, table, tmp_path / "out", "--workers", "-1") == 2
    assert "workers: expected at least 0, got -1" in capsys.readouterr().err
