"""scripts/app.py says in words what keeps it from opening a page; the page itself is opened in the acceptance tests."""

import pytest
import torch

from mmembed import Embedder
from scripts.app import main
from scripts.embed import main as embed


@pytest.fixture
def model(tmp_path, scratch_embedder):
    scratch_embedder("qwen2_vl").save(tmp_path / "model")
    return tmp_path / "model"


@pytest.fixture
def index(tmp_path, model):
    (tmp_path / "items.jsonl").write_text('{"id": "a", "text": "red"}\n{"id": "b", "text": "blue"}\n')
    assert embed([*of(model), "--input", str(tmp_path / "items.jsonl"), "--output", str(tmp_path / "index")]) == 0
    return tmp_path / "index"


def of(model):
    return ["--model", str(model)]


def test_a_folder_that_is_no_index_is_refused_before_the_model_is_read(tmp_path, capsys):
    assert main([*of(tmp_path / "gone"), "--index", str(tmp_path)]) == 2

    error = capsys.readouterr().err
    assert f"--index: expected a folder of embeddings, got '{tmp_path}'" in error
    assert "make app" in error


def test_another_model_is_refused(tmp_path, model, index, capsys):
    other = Embedder.from_pretrained(model, device="cpu")
    with torch.no_grad():
        other.backbone.model.language_model.norm.weight[0] += 1
    other.save(tmp_path / "other")

    assert main([*of(tmp_path / "other"), "--index", str(index)]) == 2

    assert f"('{model}')" in capsys.readouterr().err


def test_shards_that_are_missing_are_named(model, index, capsys):
    (index / "shard-00000.safetensors").unlink()

    assert main([*of(model), "--index", str(index)]) == 2

    assert "without shard-00000.safetensors; start the same run again" in capsys.readouterr().err


def test_instructions_of_unknown_kinds_are_named(tmp_path, model, index, capsys):
    (tmp_path / "i.yaml").write_text("wrods: find\n")

    assert main([*of(model), "--index", str(index), "--instructions", str(tmp_path / "i.yaml")]) == 2

    assert "did you mean 'words'?" in capsys.readouterr().err
