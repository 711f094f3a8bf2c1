"""The command that exports a model: a table of differences and notes, or an error in words."""

import json

import pytest

from mmembed.models.settings import TextRegions
from scripts.export import main
from tests.families import family_embedder


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    directory = tmp_path_factory.mktemp("models") / "text"
    family_embedder("qwen2").save(directory)
    return directory


def test_the_differences_are_shown_and_the_notes(saved, tmp_path, capsys):
    assert main(["--model", str(saved), "--to", "hf", "--output", str(tmp_path / "out")]) == 0

    shown = capsys.readouterr().out
    assert "text, with an instruction" in shown
    assert "- transformers gives hidden states" in shown
    assert f"exported: {tmp_path / 'out'}" in shown
    assert max(map(len, shown.splitlines())) <= 100
    assert json.loads((tmp_path / "out/mmembed_export.json").read_text())["to"] == "hf"


def test_an_export_stands_until_it_may_be_overwritten(saved, tmp_path, capsys):
    call = ["--model", str(saved), "--to", "hf", "--output", str(tmp_path / "out")]
    assert main(call) == 0

    assert main(call) == 2
    assert "--overwrite replaces this export" in capsys.readouterr().err
    assert main([*call, "--overwrite"]) == 0


def test_a_foreign_folder_is_refused_before_the_model_is_opened(tmp_path, capsys):
    (tmp_path / "letter.txt").write_text("mine")

    assert main(["--model", "nowhere/at-all", "--to", "st", "--output", str(tmp_path), "--overwrite"]) == 2
    assert "no export wrote this one" in capsys.readouterr().err
    assert (tmp_path / "letter.txt").read_text() == "mine"


def test_a_setting_opens_the_model_otherwise(saved, tmp_path, capsys):
    call = ["--model", str(saved), "--to", "hf", "--output", str(tmp_path / "out")]

    assert main([*call, "--override", "attention_policy=bidirectional"]) == 2
    assert "attention_policy: expected the model's own attention, causal" in capsys.readouterr().err
    assert main([*call, "--override", "attention_policy"]) == 2
    assert "expected NAME=VALUE, got attention_policy" in capsys.readouterr().err


def test_regions_stay_behind_only_where_asked(tmp_path, capsys, fresh_embedder):
    fresh_embedder("qwen2_vl", regions=TextRegions()).save(tmp_path / "model")
    call = ["--model", str(tmp_path / "model"), "--to", "hf", "--output", str(tmp_path / "out")]

    assert main(call) == 2
    assert "--without-regions exports the rest" in capsys.readouterr().err
    assert main([*call, "--without-regions"]) == 0
    assert "- the region encoder stayed behind" in capsys.readouterr().out
