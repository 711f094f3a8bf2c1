"""Pseudo-words are found for pictures, and a mapping network learns them, by the commands that a reader would type."""

import json

import pytest
from safetensors.torch import load_file

from data_prep.miniatures.studio import draw
from mmembed.data.tables import PairTable
from mmembed.training.batches import number_of
from scripts.make_pseudo_words import main, spoken
from scripts.train import main as train

RECIPE = """
# of a test
name: own
threads: 1
accelerator: cpu
embedder:
  backbone: {class_path: DualEncoder, init_args: {scratch: {architecture: clip}}}
  prompt: {class_path: RawPrompt, init_args: {phrases: {both: "a photo of $ that {text}"}}}
  pooler: {class_path: Phi}
stages:
  main:
    mixture: {pictures: {table: pseudo_words/own.jsonl}}
    steps: 4
    freeze: [model]
    sampling: {batch_size: 4, block_size: 4}
    objective: {class_path: Distillation, init_args: {teachers: pseudo_words/own.safetensors}}
    optim: {schedule: constant, ema: 0.5}
    validation: {rows: 2, every: 2}
    checkpoints: {every: 2, keep: 4}
    loggers: [csv]
"""
PHRASES = {"dog": ["a dog that runs"], "hat": ["a photo of hat that is new", "that is it"], "cat": ["category"]}


@pytest.fixture
def own(tmp_path):
    (tmp_path / "own.yaml").write_text(RECIPE)
    (tmp_path / "phrases.json").write_text(json.dumps(PHRASES))
    (tmp_path / "data/pseudo_words/pictures/deep").mkdir(parents=True)
    for i in range(5):
        draw(f"{i}").save(tmp_path / f"data/pseudo_words/pictures/deep/{i}.png")
    (tmp_path / "data/pseudo_words/pictures/note.txt").write_text("no picture")
    return tmp_path


def command(folder, *also):
    given = {
        "config": "own.yaml",
        "pictures": "data/pseudo_words/pictures",
        "phrases": "phrases.json",
        "data-root": "data",
    }
    arguments = [part for name, path in given.items() for part in (f"--{name}", str(folder / path))]
    return [*arguments, "--steps", "2", "--batch", "2", "--pairs", "2", *also]


def test_pseudo_words_are_written_with_their_table_and_a_network_learns_them(own, capsys):
    assert main(command(own)) == 0

    assert capsys.readouterr().out.startswith("5 pictures: ")
    pairs = list(PairTable(own / "data/pseudo_words/own.jsonl"))
    assert len(pairs) == 10
    made = {(pair.positives[0].text, pair.positives[1].text) for pair in pairs}
    assert made <= {("a dog that runs", "a $ that runs"), ("a photo of hat that is new", "a photo of $ that is new")}
    held = load_file(own / "data/pseudo_words/own.safetensors")
    assert held["words"].shape == (5, 64)
    assert held["keys"].tolist() == [number_of(pair.query) for pair in pairs[::2]]

    recipe = ["--config", str(own / "own.yaml"), "--data-root", str(own / "data"), "--output"]
    assert train([*recipe, str(own / "run")]) == 0
    log = (own / "run/train.log").read_text()
    assert "validation after step 4" in log
    final = load_file(own / "run/final/pooler.safetensors")
    # a run that goes back to a checkpoint ends in the same bits
    checkpoint = own / "run/stages/main/checkpoints/step-00000002"
    assert train([*recipe, str(own / "run"), "--resume", str(checkpoint)]) == 0
    again = load_file(own / "run/final/pooler.safetensors")
    assert all((again[name] == value).all() for name, value in final.items())


def test_a_run_knows_its_pseudo_words_by_their_bytes(own, capsys):
    recipe = ["--config", str(own / "own.yaml"), "--data-root", str(own / "data"), "--output", str(own / "run")]
    assert main(command(own)) == 0
    assert train(recipe) == 0
    assert main(command(own, "--seed", "1")) == 0

    assert train(recipe) == 2

    assert "run" in capsys.readouterr().err
    (own / "data/pseudo_words/own.safetensors").unlink()
    assert train([*recipe, "--overwrite"]) == 2
    assert "own.safetensors: expected a prepared table or file" in capsys.readouterr().err


def test_what_cannot_be_used_is_refused(own, capsys):
    assert main([*command(own), "--pictures", str(own / "data/none")]) == 2
    assert "expected pictures" in capsys.readouterr().err
    assert main([*command(own), "--data-root", str(own / "other")]) == 2
    assert "ln -s" in capsys.readouterr().err
    assert main([*command(own), "--config", "demo"]) == 2
    assert "Distillation" in capsys.readouterr().err
    (own / "phrases.json").write_text(json.dumps({"cat": ["category"]}))
    assert main(command(own)) == 2
    assert "phrases with their concept" in capsys.readouterr().err


@pytest.mark.parametrize("option", ["--near", "--pairs", "--batch", "--steps"])
def test_a_number_below_one_is_refused(option, own, capsys):
    assert main([*command(own), option, "0"]) == 2

    assert f"{option.removeprefix('--')}: expected at least 1, got 0" in capsys.readouterr().err


def test_a_concept_is_spoken_where_it_is_a_word():
    assert spoken(PHRASES) == {"dog": ["a dog that runs"], "hat": ["a photo of hat that is new"]}
