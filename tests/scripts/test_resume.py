"""scripts/train.py --resume: where a run goes on, and where it refuses to."""

import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from mmembed.counters import counting
from mmembed.training.callbacks import Guards
from mmembed.training.checkpoint import CheckpointFiles, latest
from scripts.train import main
from tests.cases import TINY

ROOT = Path(__file__).parents[2]
OFTEN = ["--stages.second.checkpoints.every", "1", "--stages.second.checkpoints.keep", "3"]


@pytest.fixture
def run(tmp_path):
    return tmp_path / "run"


def weights(run):
    return load_file(run / "final/model.safetensors")


def same(run, other):
    ours, theirs = weights(run), weights(other)
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


def undo(run, *names):
    """As if the run had been killed before it wrote these."""
    for name in ("run.json", "final", *names):
        path = run / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def cut_short(run, key, *names):
    undo(run, *names)
    (run / "run.json").write_text(json.dumps({"key": key, "name": "tiny", "state": "training"}))


@pytest.fixture
def killed(train, run, tmp_path):
    """A run of which only the first step of the second stage is there, and the whole of it beside."""
    assert train(*OFTEN) == 0
    shutil.copytree(run, tmp_path / "whole")
    key = json.loads((run / "run.json").read_text())["key"]
    places = [f"stages/second/checkpoints/step-0000000{step}" for step in (2, 3)]
    cut_short(run, key, *places)
    return run


def test_a_run_goes_on_where_it_was_killed(killed, train, tmp_path, capsys):
    with counting() as work:
        assert train(*OFTEN) == 0

    assert same(killed, tmp_path / "whole")
    assert "trained: " in capsys.readouterr().out
    log = (killed / "train.log").read_text()
    assert "goes on from step-00000001" in log
    # two of the six steps are done again; their chunks are embedded twice
    assert 0 < work["language_rows"] <= 2 * 2 * 12


def test_how_fast_a_run_is_may_change_between_its_lives(killed, train, tmp_path):
    options = ["--stages.second.workers", "1", "--stages.second.log_every", "5", "--stages.first.cache_mb", "64"]
    options += ["--embedder.speed.sort", "false"]

    assert train(*OFTEN, *options, "--stages.second.loggers", "[csv]") == 0

    assert same(killed, tmp_path / "whole")


def test_never_begins_again(killed, train, tmp_path):
    assert train(*OFTEN, "--resume", "never") == 0

    assert "goes on from" not in (killed / "train.log").read_text()
    assert same(killed, tmp_path / "whole")


def test_a_path_goes_back_to_that_checkpoint(train, run, tmp_path):
    assert train(*OFTEN) == 0
    shutil.copytree(run, tmp_path / "whole")

    assert train(*OFTEN, "--resume", str(run / "stages/second/checkpoints/step-00000002")) == 0

    assert (run / "train.log").read_text().count("goes on from step-00000002") == 1
    assert same(run, tmp_path / "whole")


def test_a_path_into_the_first_stage_does_the_second_again(train, run, tmp_path):
    options = [*OFTEN, "--stages.first.checkpoints.every", "1"]
    assert train(*options) == 0
    shutil.copytree(run, tmp_path / "whole")

    assert train(*options, "--resume", str(run / "stages/first/checkpoints/step-00000002")) == 0

    log = (run / "train.log").read_text()
    assert log.count("stage second: 3 steps") == 2
    assert same(run, tmp_path / "whole")


def test_a_wrong_path_is_refused_and_costs_nothing(train, run, tmp_path, capsys):
    options = [*OFTEN, "--stages.second.validation", "{rows: 2, every: 2}"]
    assert train(*options) == 0
    shutil.copytree(run, tmp_path / "other")
    folder = run / "stages/second/checkpoints"
    for wrong in (tmp_path / "other/stages/second/checkpoints/step-00000002", folder / "best", folder, "nowhere"):
        assert train(*options, "--resume", str(wrong)) == 2
        assert "--resume: expected auto, never, or a checkpoint step-... below" in capsys.readouterr().err

    capsys.readouterr()
    assert train(*options) == 0
    assert capsys.readouterr().out.startswith("already trained: ")


def test_a_folder_that_lost_its_run_file_is_not_begun_again(train, run, capsys):
    assert train(*OFTEN) == 0
    (run / "run.json").unlink()

    assert train(*OFTEN) == 2

    assert "expected a new folder, or a run of this very recipe" in capsys.readouterr().err
    assert (run / "final").is_dir()


def test_another_recipe_is_refused_and_the_difference_named(killed, train, capsys):
    assert train(*OFTEN, "--stages.second.optim.lr", "5e-4") == 2

    assert "(stages.second.optim.lr was 0.001, is 0.0005)" in capsys.readouterr().err
    assert latest(killed / "stages/second/checkpoints").name == "step-00000001"


def test_other_data_is_refused(killed, train, data, capsys):
    table = data / "demo/motion.jsonl"
    held = table.read_bytes()
    table.write_bytes(held + held.splitlines(keepends=True)[0])
    try:
        assert train(*OFTEN) == 2
    finally:
        table.write_bytes(held)

    assert "a run of 'tiny' with other data" in capsys.readouterr().err


def test_a_damaged_checkpoint_is_refused_and_the_last_good_one_named(killed, train, tmp_path, capsys):
    source = tmp_path / "whole/stages/second/checkpoints/step-00000002"
    damaged = killed / "stages/second/checkpoints/step-00000002"
    shutil.copytree(source, damaged)
    state = damaged / "state.pt"
    state.write_bytes(state.read_bytes()[:-7])

    assert train(*OFTEN) == 2

    error = capsys.readouterr().err
    assert "state.pt: expected" in error
    assert "step-00000001" in error
    good = str(killed / "stages/second/checkpoints/step-00000001")
    assert good in error
    shutil.rmtree(damaged)
    assert train(*OFTEN, "--resume", good) == 0
    assert same(killed, tmp_path / "whole")


def test_half_a_checkpoint_of_a_killed_write_is_swept_away(killed, train, tmp_path):
    half = killed / "stages/second/checkpoints/.step-00000002.abc.part"
    half.mkdir()
    (half / "state.pt").write_bytes(b"half")

    assert train(*OFTEN) == 0

    assert not half.exists()
    assert same(killed, tmp_path / "whole")


def test_a_checkpoint_holds_what_trains_and_names_the_rest(train, run):
    assert train(*OFTEN, "--stages.second.freeze", "[model.visual]") == 0

    first, second = (run / f"stages/{stage}/checkpoints/step-00000003" for stage in ("first", "second"))
    names = [set(load_file(path / "weights.safetensors")) for path in (first, second)]
    assert any(".visual." in name for name in names[0])
    assert not any(".visual." in name for name in names[1])
    facts = [json.loads((path / "checkpoint.json").read_text())["facts"] for path in (first, second)]
    assert facts[0]["base"] != facts[1]["base"]
    assert {fact["stage"] for fact in facts} == {"first", "second"}


def test_another_base_is_refused(train, run, capsys):
    frozen = [*OFTEN, "--stages.second.freeze", "[model.visual]"]
    assert train(*frozen) == 0
    key = json.loads((run / "run.json").read_text())["key"]
    cut_short(run, key, "stages/second/checkpoints/step-00000003")
    # the first stage ends in another tower
    path = run / "stages/first/checkpoints/step-00000003"
    checkpoint = CheckpointFiles().load_checkpoint(path)
    name = next(name for name in checkpoint["state_dict"] if ".visual." in name)
    checkpoint["state_dict"][name] += 1
    CheckpointFiles().save_checkpoint(checkpoint, path)

    assert train(*frozen) == 2

    assert "base" in (error := capsys.readouterr().err)
    assert "step-00000002" in error


def test_old_checkpoints_make_room(train, run):
    assert train("--stages.second.steps", "7", "--stages.second.checkpoints", "{every: 1, keep: 2, keep_every: 3}") == 0

    written = sorted(path.name for path in (run / "stages/second/checkpoints").iterdir())
    assert written == ["step-00000003", "step-00000006", "step-00000007"]


class FullDisk:
    """No room for the checkpoints of these steps."""

    def __init__(self, *steps):
        self.steps = steps
        self.write = CheckpointFiles.save_checkpoint

    def __call__(self, files, checkpoint, path, storage_options=None):
        if checkpoint["global_step"] in self.steps:
            raise OSError(28, "No space left on device", str(path))
        self.write(files, checkpoint, path, storage_options)


def test_a_full_disk_is_said_and_survived(train, run, monkeypatch, tmp_path):
    assert train(*OFTEN, output="whole") == 0
    full = FullDisk(1, 2)
    monkeypatch.setattr(CheckpointFiles, "save_checkpoint", lambda *given: full(*given))

    assert train(*OFTEN, "--stages.first.checkpoints.every", "3") == 0

    log = (run / "train.log").read_text()
    assert "could not write step-00000001: [Errno 28] No space left on device" in log
    assert [path.name for path in (run / "stages/second/checkpoints").iterdir()] == ["step-00000003"]
    assert same(run, tmp_path / "whole")


def test_a_disk_full_at_the_end_of_a_stage_is_an_error_after_which_the_run_goes_on(
    train, run, monkeypatch, tmp_path, capsys
):
    assert train(*OFTEN, output="whole") == 0
    full = FullDisk(3)
    with monkeypatch.context() as patch:
        patch.setattr(CheckpointFiles, "save_checkpoint", lambda *given: full(*given))
        assert train(*OFTEN, "--stages.first.checkpoints.every", "2") == 2

    error = capsys.readouterr().err
    assert "step-00000003: expected room for a checkpoint" in error
    assert "No space left on device" in error
    assert train(*OFTEN, "--stages.first.checkpoints.every", "2") == 0
    assert "goes on from step-00000002" in (run / "train.log").read_text()
    assert same(run, tmp_path / "whole")


def test_a_bad_row_is_replaced_and_told(train, run, data, tmp_path):
    config = broken_table(data, 12, bad={5})

    assert train_from(config, data, run, "--stages.first.sampling.max_bad", "0.1") == 0

    log = (run / "train.log").read_text()
    assert log.count("replaced caption row 5: ") == 1
    assert "words.png" in log
    assert "caption: 1 of 12 rows could not be used" in log


@pytest.mark.parametrize("workers", ["0", "1"])
def test_too_many_bad_rows_stop_the_run_and_are_named(workers, data, run, capsys):
    config = broken_table(data, 12, bad={5, 6})

    status = train_from(config, data, run, "--stages.first.sampling.max_bad", "0.1", "--stages.first.workers", workers)

    error = capsys.readouterr().err
    assert status == 2
    assert "caption" in error
    assert "words.png" in error
    assert "sampling.max_bad" in error


def broken_table(data, rows, bad):
    """A recipe that reads a table of so many captions, whose bad rows have no picture."""
    lines = (data / "demo/single_caption.jsonl").read_text().splitlines()[:rows]
    (data / "demo/train/single/words.png").write_text("no picture")
    for row in bad:
        lines[row] = lines[row].replace(f"{row:05d}.png", "words.png")
    (data / "demo/broken.jsonl").write_text("\n".join(lines) + "\n")
    config = data / "broken.yaml"
    config.write_text(TINY.replace("single_caption.jsonl", "broken.jsonl"))
    return config


def train_from(config, data, run, *more):
    return main(["--config", str(config), "--data-root", str(data), "--output", str(run), *more])


def test_a_source_smaller_than_its_block_is_refused_where_nothing_masks_repeats(train, run, capsys):
    blocks = ["--stages.first.sampling", "{batch_size: 32, block_size: 16}", "--stages.first.steps", "1"]
    plain = "{class_path: Contrastive, init_args: {mask_duplicates: false}}"

    assert train(*blocks, "--stages.first.objective", plain) == 2

    assert "expected at least 16 rows, one block, got 12" in capsys.readouterr().err
    # where repeats are masked, and nothing was trained that could be lost
    assert train(*blocks, "--stages.second.steps", "1") == 0


def test_weights_that_sum_to_zero_are_refused(train, capsys):
    off = [f"--stages.first.mixture.{name}.weight=0" for name in ("caption", "question")]

    assert train(*off) == 2

    assert "weight" in (error := capsys.readouterr().err)
    assert "sum to zero" in error or "more than 0" in error


def test_a_source_without_weight_is_left_out(train, run):
    assert train("--stages.first.mixture.caption.weight=0", "--stages.first.validation", "{rows: 2, every: 3}") == 0

    assert "caption" not in (run / "train.log").read_text().split("stage second")[0].split("planned")[1]


def test_a_signal_writes_the_state_and_leaves(data, run, config):
    command = [sys.executable, str(ROOT / "scripts/train.py"), "--config", str(config), "--data-root", str(data)]
    endless = ["--output", str(run), "--stages.first.steps", "100000"]
    process = subprocess.Popen([*command, *endless], cwd=ROOT, stderr=subprocess.PIPE, text=True)
    log = run / "train.log"
    while process.poll() is None and not (log.exists() and " step " in log.read_text()):
        pass
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)

    assert process.returncode == 143, said
    assert "the same command goes on from there" in said
    newest = latest(run / "stages/first/checkpoints")
    assert f"step-{newest.name[-8:]}" in said
    assert CheckpointFiles().load_checkpoint(newest)["global_step"] == int(newest.name[-8:])


def test_two_runs_at_once_in_one_folder_are_refused(data, run, config, train, capsys):
    command = [sys.executable, str(ROOT / "scripts/train.py"), "--config", str(config), "--data-root", str(data)]
    with subprocess.Popen([*command, "--output", str(run), "--stages.first.steps", "100000"], cwd=ROOT) as other:
        while other.poll() is None and not (run / "train.log").exists():
            pass
        status = train("--overwrite")
        other.kill()

    assert status == 2
    assert "expected a folder that no other process writes to" in capsys.readouterr().err
    assert train("--overwrite") == 0


def test_a_changed_recipe_cannot_go_back_to_another_ones_checkpoint_and_costs_nothing(train, run, capsys):
    assert train(*OFTEN) == 0
    checkpoint = run / "stages/second/checkpoints/step-00000002"

    assert train(*OFTEN, "--overwrite", "--resume", str(checkpoint), "--seed", "1") == 2

    assert "recipe" in capsys.readouterr().err
    assert latest(checkpoint.parent).name == "step-00000003"
    assert train(*OFTEN) == 0
    assert capsys.readouterr().out.startswith("already trained: ")


def test_when_a_run_gives_up_may_change_between_its_lives(killed, train, tmp_path):
    options = ["--stages.second.diverged", "null", "--stages.second.sampling.max_bad", "0.5"]

    assert train(*OFTEN, *options, "--stages.second.strategy", "fsdp2", "--stages.second.chunks.keep_mb", "7") == 0

    assert same(killed, tmp_path / "whole")


def test_a_damaged_run_file_is_named(train, run, capsys):
    assert train(*OFTEN) == 0
    (run / "run.json").write_text('{"key": ')

    assert train(*OFTEN) == 2

    assert "run.json: expected what a run wrote" in capsys.readouterr().err


def test_an_output_that_is_a_file_is_named(train, run, capsys):
    run.write_text("something else")

    assert train(*OFTEN) == 2

    assert "expected a folder to write to" in capsys.readouterr().err


def test_a_disk_full_when_the_embedder_is_saved_is_said(train, run, monkeypatch, capsys):
    from mmembed import Embedder

    def fail(embedder, directory):
        raise OSError(28, "No space left on device", str(directory))

    with monkeypatch.context() as patch:
        patch.setattr(Embedder, "save", fail)
        assert train(*OFTEN) == 2

    assert "expected a disk to write to, got [Errno 28]" in capsys.readouterr().err
    assert train(*OFTEN) == 0


def test_a_full_disk_when_the_best_weights_are_written_is_survived(train, run, monkeypatch):
    options = [*OFTEN, "--stages.second.validation", "{rows: 2, every: 1}", "--stages.second.finish", "best"]
    tries = []
    write = CheckpointFiles.save_checkpoint

    def full_at_first(files, checkpoint, path, storage_options=None):
        if path.name == "best":
            tries.append(checkpoint["global_step"])
            if len(tries) == 1:
                raise OSError(28, "No space left on device", str(path))
        write(files, checkpoint, path, storage_options)

    monkeypatch.setattr(CheckpointFiles, "save_checkpoint", full_at_first)

    assert train(*options) == 0

    assert tries[:2] == [1, 2]
    assert "could not write best: [Errno 28]" in (run / "train.log").read_text()
    assert (run / "stages/second/checkpoints/best").is_dir()


@pytest.mark.parametrize("step", [2, 4])
def test_the_order_to_stop_is_heard_at_the_end_of_a_stage_too(step, train, run, monkeypatch, tmp_path):
    options = [*OFTEN, "--stages.first.steps", "4"]
    assert train(*options, output="whole") == 0

    def ask(guards, trainer, *_):
        if (trainer.max_steps, trainer.global_step) == (4, step):
            signal.raise_signal(signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(Guards, "on_train_batch_end", ask)
        assert train(*options) == 143

    assert latest(run / "stages/first/checkpoints").name == f"step-0000000{step}"
    assert not (run / "stages/second").exists()
    assert train(*options) == 0
    assert same(run, tmp_path / "whole")


def test_a_bad_held_out_row_is_left_out_and_told(data, run, capsys):
    config = broken_table(data, 12, bad={10})
    options = ["--stages.first.sampling.max_bad", "0.2", "--stages.first.validation", "{rows: 4, every: 1}"]

    assert train_from(config, data, run, *options) == 0

    assert (run / "train.log").read_text().count("left out caption row 10: ") == 1


def test_a_source_without_weight_needs_no_table(train):
    gone = ["--stages.first.mixture.caption.table", "demo/gone.jsonl", "--stages.first.mixture.caption.weight", "0"]

    assert train(*gone) == 0


def test_a_stage_that_finishes_with_the_average_validates_it(train, run, tmp_path):
    held_out = ["--stages.first.validation", "{rows: 4, every: 1}", "--stages.first.optim.ema"]
    # an average that never moves is the model as it was
    assert train(*held_out, "0.999999", "--stages.first.finish", "ema") == 0
    assert train(*held_out, "0.999999", output="last") == 0

    averaged, last = (
        [line.split("loss ")[1] for line in (folder / "train.log").read_text().splitlines() if "validation" in line]
        for folder in (run, tmp_path / "last")
    )
    assert len(set(averaged)) == 1
    assert len(set(last)) == 3
