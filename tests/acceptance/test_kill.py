"""A run that is killed at random moments ends in the same bits as one that never was.

``make torture`` kills more often.
"""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from data_prep.demo import Sizes, make_demo

pytestmark = pytest.mark.acceptance
ROOT = Path(__file__).parents[2]
KILLS = int(os.environ.get("MMEMBED_KILLS", "5"))
# so many of the run's hundred and sixty batches that it is not over before the last kill, as kills undo steps
STEPS_TO_KILL_IN = 150
# dropout, an average, a learned temperature, accumulation, validation: everything that has a state
RECIPE = """
name: killed
threads: 1
accelerator: cpu
embedder:
  backbone:
    class_path: QwenVL
    init_args: {path: %s, min_side: 0, min_pixels: 196, max_pixels: 3136}
  prompt: {class_path: RawPrompt}
  lora: {r: 4, dropout: 0.2}
stages:
  first:
    mixture:
      caption: {table: demo/single_caption.jsonl}
      question: {table: demo/single_question.jsonl, weight: 2}
    steps: 40
    sampling: {batch_size: 12, block_size: 4, window: 5}
    chunks: {rows: 6, keep_mb: 0}
    optim: {lr: 1e-3, ema: 0.9}
    validation: {rows: 4, every: 20}
    checkpoints: {every: 7}
    finish: ema
    log_every: 1
    loggers: [csv, tensorboard]
  second:
    mixture:
      motion: {table: demo/motion.jsonl}
      image: {table: demo/pair_image.jsonl, weight: 2, loss: {temperature: 0.1}}
    steps: 60
    sampling: {batch_size: 6, block_size: 4}
    objective: {class_path: Contrastive, init_args: {temperature: 0.05, learn: {lr: 1e-3}, directions: [0.5, 0.5]}}
    optim: {lr: 1e-3, accumulate: 2, schedule: cosine, warmup_steps: 5}
    validation: {rows: 4, every: 10}
    checkpoints: {every: 10, keep: 1}
    finish: best
    log_every: 1
"""


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    make_demo(root / "demo", 0, Sizes(singles=40, pairs=40, clips=12, pages=8, tests=4))
    return root


@pytest.fixture(scope="module")
def command(data, tmp_path_factory):
    """The command that trains into a folder."""
    config = tmp_path_factory.mktemp("recipe") / "killed.yaml"
    config.write_text(RECIPE % (ROOT / "tests/golden/vlm2vec/qwen2_vl"))

    def make(output, workers):
        places = ["--config", str(config), "--data-root", str(data), "--output", str(output)]
        counts = [f"--stages.{stage}.workers={workers}" for stage in ("first", "second")]
        return [sys.executable, str(ROOT / "scripts/train.py"), *places, *counts]

    return make


def start(command):
    # a group of its own, so that a kill takes the workers too
    env = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    return subprocess.Popen(
        command, cwd=ROOT, env=env, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )


def finish(command):
    process = start(command)
    _, said = process.communicate(timeout=300)
    assert process.returncode == 0, said
    return said


@pytest.fixture(scope="module")
def whole(command, tmp_path_factory):
    """A run that nothing disturbed."""
    output = tmp_path_factory.mktemp("whole") / "run"
    finish(command(output, 0))
    return output


def lines(output):
    return (output / "train.log").read_text().splitlines() if (output / "train.log").exists() else []


def wait_for_steps(process, output, before, steps):
    """Wait until this life of the run has logged so many steps, or is over."""
    while process.poll() is None and sum(" step " in line for line in lines(output)[before:]) < steps:
        time.sleep(0.01)


def steps_done(output):
    done = [line for line in lines(output) if " step " in line]
    return done[-1].split(" step ")[1].split()[0] if done else "none"


def same(ours, theirs, where="state"):
    """Equal to the bit, however deep."""
    if isinstance(ours, torch.Tensor):
        assert torch.equal(ours, theirs), where
    elif isinstance(ours, dict):
        assert ours.keys() == theirs.keys(), where
        for key in ours:
            same(ours[key], theirs[key], f"{where}.{key}")
    elif isinstance(ours, list | tuple):
        assert len(ours) == len(theirs), where
        for i, (a, b) in enumerate(zip(ours, theirs, strict=True)):
            same(a, b, f"{where}[{i}]")
    else:
        assert ours == theirs, where


def assert_same_run(ours, theirs):
    adapter = "final/adapter/adapter_model.safetensors"
    assert (ours / adapter).read_bytes() == (theirs / adapter).read_bytes()
    for stage, last in (("first", "step-00000040"), ("second", "step-00000060"), ("second", "best")):
        a, b = (run / "stages" / stage / "checkpoints" / last for run in (ours, theirs))
        same(load_file(a / "weights.safetensors"), load_file(b / "weights.safetensors"))
        states = [torch.load(path / "state.pt", weights_only=True) for path in (a, b)]
        for name in ("optimizer_states", "lr_schedulers", "ema", "callbacks", "global_step"):
            same(*(state.get(name) for state in states), f"{stage}.{last}.{name}")


@pytest.mark.parametrize("workers", [0, 2])
def test_a_killed_run_ends_in_the_same_bits(workers, command, whole, tmp_path):
    output, moments = tmp_path / "run", random.Random(workers)
    killed_at = []
    while len(killed_at) < KILLS:
        before = len(lines(output))
        process = start(command(output, workers))
        wait_for_steps(process, output, before, moments.randint(1, STEPS_TO_KILL_IN // KILLS))
        time.sleep(moments.random() * 0.1)
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        if process.returncode != -signal.SIGKILL:
            break
        killed_at.append(steps_done(output))
    print(f"{workers} workers: killed after steps {killed_at}")
    assert len(killed_at) == KILLS, "the run was over before it could be killed so often"

    finish(command(output, workers))

    assert_same_run(output, whole)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_run_told_to_stop_writes_its_state_and_goes_on_to_the_same_bits(workers, command, whole, tmp_path):
    output = tmp_path / "run"
    for steps in (3, 60):
        before = len(lines(output))
        process = start(command(output, workers))
        wait_for_steps(process, output, before, steps)
        # to the workers too, as a cluster does
        os.killpg(process.pid, signal.SIGTERM)
        _, said = process.communicate(timeout=120)
        assert process.returncode == 143, said
        assert "the same command goes on" in said
        ended = next(line for line in reversed(lines(output)) if " ended after step " in line)
        newest = sorted(output.glob("stages/*/checkpoints/step-*"))[-1]
        assert f"ended after step {int(newest.name.removeprefix('step-'))} by StoppedError" in ended

    finish(command(output, workers))

    assert_same_run(output, whole)
