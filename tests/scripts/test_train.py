"""scripts/train.py: recipes read strictly, trained end to end, repeatable to the bit."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from mmembed import Embedder
from mmembed.counters import counting
from mmembed.recipe import read_recipe
from mmembed.settings import dump_settings
from mmembed.training.checkpoint import CheckpointFiles
from scripts.train import CONFIGS, find_config, main
from tests.cases import TINY, draw
from tests.families import FAMILIES, family_settings

ROOT = Path(__file__).parents[2]


def weights(run):
    return load_file(run / "final/model.safetensors")


def logged(run, stage, name):
    events = EventAccumulator(str(run / "stages" / stage / "logs")).Reload()
    return [point.value for point in events.Scalars(name)]


@pytest.mark.parametrize("option, words", [("--help", "--config"), ("--settings-help", "--embedder.pooler")])
def test_help_teaches_without_torch(option, words):
    code = (
        f"import runpy, sys\nsys.argv = ['train.py', '{option}']\n"
        "try: runpy.run_path('scripts/train.py', run_name='__main__')\n"
        "except SystemExit as ended: assert not ended.code\n"
        "assert 'torch' not in sys.modules, 'torch was imported'"
    )

    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )

    assert done.returncode == 0, done.stderr
    assert words in done.stdout


def test_the_printed_recipe_is_the_same_recipe(config, capsys, tmp_path):
    assert main(["--config", str(config), "--print_config", "--stages.first.optim.lr", "5e-4"]) == 0

    printed = tmp_path / "printed.yaml"
    printed.write_text(capsys.readouterr().out)
    assert read_recipe(printed) == read_recipe(config, ["--stages.first.optim.lr", "5e-4"])
    assert read_recipe(printed).stages["first"].optim.lr == 5e-4


def test_every_recipe_of_the_repository_reads():
    recipes = {path.name: read_recipe(path) for path in CONFIGS.glob("*.yaml")}

    assert "demo.yaml" in recipes


def test_a_recipe_is_found_by_path_or_name(config):
    assert find_config(str(config)) == config
    assert find_config("demo") == find_config("demo.yaml") == CONFIGS / "demo.yaml"


@pytest.mark.parametrize(
    "change, options, message",
    [
        (("log_every", "log_evry"), [], "stages.first.log_evry: expected a setting of Stage, got 'log_evry'"),
        (("name: tiny", "name: tiny\nname: again"), [], "line 3: name: expected each key once"),
        (("steps: 3", "steps: three"), [], "'three'"),
        (("demo/motion.jsonl", "demo/motions.jsonl"), [], "expected prepared tables, got no demo/motions.jsonl"),
        (("block_size: 4", "block_size: 0"), [], "expected 1 or more, got 0"),
        (("question.jsonl}", "question.jsonl, weight: -1}"), [], "source.weight"),
        (("log_every: 1", "checkpoints: {evry: 3}"), [], "got 'evry'; did you mean 'every'?"),
        (("demo/motion.jsonl}", "demo/motion.jsonl, limit: 0}"), [], "expected 1 or more, got 0"),
        (("", ""), ["--stages.frist.steps", "2"], "--stages.frist.steps: expected a name the recipe has, got 'frist'"),
        (("", ""), ["--stages.first.step", "2"], "got 'step'; did you mean 'steps'?"),
        (("", ""), ["--sede", "2"], "--sede: expected a known option, got 'sede'; did you mean 'seed'?"),
    ],
)  # fmt: skip
def test_a_wrong_recipe_is_refused_in_words(change, options, message, config, train, capsys):
    config.write_text(TINY.replace(*change, 1) if change[0] else TINY)

    assert train(*options) == 2

    assert message in capsys.readouterr().err


def test_a_recipe_that_is_not_there_is_named(capsys):
    assert main(["--config", "demos.yaml"]) == 2
    assert "--config: expected a path or a name under configs/, got 'demos.yaml'; did you mean 'demo.yaml'?" in (
        capsys.readouterr().err
    )
    with pytest.raises(SystemExit) as ended:
        main([])
    assert ended.value.code == 2


def test_a_tiny_recipe_trains_end_to_end_and_only_once(train, tmp_path, capsys, config):
    assert train() == 0

    run = tmp_path / "run"
    assert f"trained: {run / 'final'}" in capsys.readouterr().out
    assert read_recipe(run / "recipe.yaml") == read_recipe(config)
    said = json.loads((run / "run.json").read_text())
    assert (said["name"], said["state"]) == ("tiny", "done")
    assert {path.name for path in (run / "stages").iterdir()} == {"first", "second"}
    assert len(logged(run, "first", "train/loss")) == len(logged(run, "second", "train/loss")) == 3
    written = sorted(path.name for path in (run / "stages/second/checkpoints").iterdir())
    assert written == ["step-00000002", "step-00000003"]
    log = (run / "train.log").read_text()
    assert re.search(r"stage second done.*\n.*source +rows +planned\n.*motion +(\d+) +\1\n.*image +(\d+) +\2\n", log)
    embedder = Embedder.from_pretrained(run / "final")
    assert embedder.encode(["a red circle", "a blue cross"]).norm(dim=1).tolist() == pytest.approx([1, 1])

    with counting() as work:
        assert train() == 0
    assert work["language_rows"] == 0
    assert f"already trained: {run / 'final'}" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["clip", "timm", "phi3_v", "llava_next", "llava_onevision", "mllama"])
def test_the_same_recipe_trains_every_family_that_reads_pictures(name, data, tmp_path):
    recipe = yaml.safe_load(TINY)
    recipe["embedder"] = dump_settings(family_settings(name, loud=False))
    if not FAMILIES[name].clips:
        del recipe["stages"]["second"]["mixture"]["motion"]
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe, sort_keys=False))

    assert main(
        ["--config", str(tmp_path / "recipe.yaml"), "--data-root", str(data), "--output", str(tmp_path / "run")]
    ) == 0  # fmt: skip

    trained = Embedder.from_pretrained(tmp_path / "run/final", device="cpu")
    assert type(trained.settings.backbone) is FAMILIES[name].kind
    assert trained.encode(["a red circle", draw(56, 56)]).norm(dim=1).tolist() == pytest.approx([1, 1])
    losses = logged(tmp_path / "run", "second", "train/loss")
    assert len(losses) == 3
    assert len(set(losses)) == 3


def test_another_recipe_in_the_same_folder_is_refused_unless_told(train, tmp_path, capsys):
    train("--stages.second.steps", "1")
    before = weights(tmp_path / "run")

    assert train("--stages.second.steps", "2") == 2
    assert (
        "got a run of 'tiny' with other settings (stages.second.steps was 1, is 2); choose another --output, or add "
        "--overwrite" in capsys.readouterr().err
    )
    assert all(torch.equal(before[name], tensor) for name, tensor in weights(tmp_path / "run").items())

    assert train("--stages.second.steps", "2", "--overwrite") == 0
    assert not all(torch.equal(before[name], tensor) for name, tensor in weights(tmp_path / "run").items())


def test_the_same_recipe_gives_the_same_bits_whatever_the_workers(train, tmp_path):
    for output, workers in (("a", "0"), ("b", "0"), ("c", "1")):
        options = [f"--stages.{stage}.workers={workers}" for stage in ("first", "second")]
        assert train(*options, output=output) == 0

    first, *others = (weights(tmp_path / output) for output in ("a", "b", "c"))
    for other in others:
        assert first.keys() == other.keys()
        assert all(torch.equal(first[name], other[name]) for name in first)


def test_another_seed_gives_other_weights(train, tmp_path):
    short = ["--stages.first.steps", "1", "--stages.second.steps", "1"]
    train(*short, output="a")
    train(*short, "--seed", "1", output="b")

    assert logged(tmp_path / "a", "first", "train/loss") != logged(tmp_path / "b", "first", "train/loss")


def test_each_stage_trains_and_hands_on_what_it_trained(train, tmp_path):
    train(output="both")
    train("--stages.second.optim.lr", "1e-30", output="idle")

    both, idle = weights(tmp_path / "both"), weights(tmp_path / "idle")
    checkpoint = load_file(tmp_path / "idle/stages/first/checkpoints/step-00000003/weights.safetensors")
    after_first = {name.removeprefix("embedder.backbone.model."): tensor for name, tensor in checkpoint.items()}
    norm = "language_model.norm.weight"
    assert torch.equal(idle[norm], after_first[norm])
    assert not torch.equal(both[norm], after_first[norm])


def test_the_best_weights_on_the_held_out_rows_are_handed_on(train, config, tmp_path):
    # the learning rate is so high that later steps only make it worse
    recipe = yaml.safe_load(TINY)
    stage = recipe["stages"].pop("second")
    stage |= {"validation": {"rows": 3, "every": 1}, "finish": "best", "steps": 4, "optim": {"lr": 10.0}}
    config.write_text(yaml.safe_dump(recipe | {"stages": {"only": stage}}))

    assert train() == 0

    run = tmp_path / "run"
    hits = logged(run, "only", "val/hit@1")
    best = CheckpointFiles().load_checkpoint(run / "stages/only/checkpoints/best")
    assert len(hits) == len(logged(run, "only", "val/hit@1/motion")) == 4
    assert best["global_step"] == 1 + hits.index(max(hits))
    kept = {name.removeprefix("embedder.backbone.model."): tensor for name, tensor in best["state_dict"].items()}
    assert all(torch.equal(kept[name], tensor) for name, tensor in weights(run).items())


def test_more_rows_held_out_than_there_are_is_refused(train, capsys):
    assert train("--stages.first.validation", "{rows: 12, every: 1}") == 2
    assert "mixture.caption: expected more than the 12 rows held out, got 12 rows" in capsys.readouterr().err


def test_a_run_that_diverges_names_the_rows(train, tmp_path, capsys):
    status = train("--stages.first.optim.lr", "1e30", "--stages.first.optim.clip_norm", "null")

    error = capsys.readouterr().err
    assert status == 1
    assert re.search(r"expected a finite loss.* nan.*; rows whose embedding is not finite: ", error)
    assert "caption:000" in error or "question:000" in error
    assert not (tmp_path / "run/final").exists()


def test_a_run_whose_replacement_failed_is_not_taken_for_done(train, tmp_path, capsys):
    assert train() == 0
    assert train("--stages.first.optim.lr", "1e30", "--stages.first.optim.clip_norm", "null", "--overwrite") == 1
    assert json.loads((tmp_path / "run/run.json").read_text())["state"] == "training"

    assert train() == 2
    assert "stages.first.optim.lr was 1e+30, is 0.001" in capsys.readouterr().err
    assert train("--overwrite") == 0

    assert capsys.readouterr().out.startswith("trained: ")
    assert json.loads((tmp_path / "run/run.json").read_text())["state"] == "done"


def test_a_bad_row_met_in_training_is_named(train, data, tmp_path, config, capsys):
    rows = (data / "demo/single_caption.jsonl").read_text().splitlines()
    (data / "demo/broken.jsonl").write_text("\n".join([rows[0].replace("00000.png", "words.png")] * 2) + "\n")
    (data / "demo/train/single/words.png").write_text("no picture")
    config.write_text(TINY.replace("single_caption.jsonl", "broken.jsonl"))

    assert train() == 2

    assert "caption: 00000: query: " in (error := capsys.readouterr().err)
    assert "words.png" in error


@pytest.mark.parametrize("workers", ["0", "1"])
def test_a_bad_row_is_named_the_same_by_a_worker(workers, train, data, config, capsys):
    (data / "demo/unread.jsonl").write_text('{"query": "q", "positives": []}\n')
    config.write_text(TINY.replace("single_caption.jsonl", "unread.jsonl"))

    assert train("--stages.first.workers", workers) == 2

    assert "unread.jsonl: line 1: " in capsys.readouterr().err


def test_mixed_precision_runs_on_a_cpu(train, tmp_path):
    assert train("--stages.first.precision", "bf16-mixed", "--stages.second.precision", "bf16-mixed") == 0
    train(output="full")

    mixed, full = (torch.tensor(logged(tmp_path / run, "first", "train/loss")) for run in ("run", "full"))
    assert not torch.equal(mixed, full)
    assert torch.allclose(mixed, full, rtol=0.05)
    assert all(tensor.dtype == torch.float32 for tensor in weights(tmp_path / "run").values())


def test_gradient_checkpointing_gives_the_same_losses(train, tmp_path):
    # where activations are recomputed, the last layer is computed at all tokens
    with counting() as plain:
        train("--embedder.speed.last_layer", "all", output="plain")
    with counting() as checkpointed:
        train("--embedder.backbone.init_args.gradient_checkpointing", "true", output="checkpointed")

    assert plain == checkpointed
    for stage in ("first", "second"):
        losses = [logged(tmp_path / run, stage, "train/loss") for run in ("plain", "checkpointed")]
        assert losses[0] == pytest.approx(losses[1], rel=1e-6)


def test_a_frozen_part_stays_as_it_was(train, tmp_path):
    options = [f"--stages.{stage}.freeze" for stage in ("first", "second")]
    train(*(word for option in options for word in (option, "[model.visual]")), output="frozen")
    train("--stages.first.optim.lr", "1e-30", "--stages.second.optim.lr", "1e-30", output="idle")

    frozen, idle = weights(tmp_path / "frozen"), weights(tmp_path / "idle")
    towers = [name for name in frozen if name.startswith("visual.")]
    assert towers
    # a weight of exactly zero does move by 1e-30
    assert all(torch.allclose(frozen[name], idle[name], rtol=0, atol=1e-20) for name in towers)
    assert not torch.equal(frozen["language_model.norm.weight"], idle["language_model.norm.weight"])


def test_a_data_root_may_be_written_with_dots(config, data, tmp_path):
    (data / "aside").mkdir(exist_ok=True)
    dotted = data / "aside/../demo/.."

    assert main(["--config", str(config), "--data-root", str(dotted), "--output", str(tmp_path / "run")]) == 0


def test_a_loaded_checkpoint_trains_with_its_dropout(data, tmp_path, config):
    recipe = yaml.safe_load(TINY)
    recipe["embedder"]["backbone"]["init_args"] = {"path": str(ROOT / "tests/golden/vlm2vec/qwen2_vl"), "min_side": 0}
    recipe["embedder"]["lora"] = {"r": 2, "dropout": 0.9}
    config.write_text(yaml.safe_dump(recipe))
    losses = []
    for dropout in ("0.9", "0.0"):
        places = ["--config", str(config), "--data-root", str(data), "--output", str(tmp_path / dropout)]
        assert main([*places, "--embedder.lora.dropout", dropout]) == 0
        losses.append(logged(tmp_path / dropout, "second", "train/loss"))

    assert losses[0] != losses[1]
