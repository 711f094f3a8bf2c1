"""Two processes step as one: losses, gradients, weights and their average, whole on each rank or sharded."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from mmembed.models.adapters import rename
from mmembed.models.backbones.qwen_vl.backbone import QWEN_VL

ROOT = Path(__file__).parents[2]
PROGRAM = ROOT / "tests/training/ranks.py"
PUBLISHED = ROOT / "tests/golden/vlm2vec/golden/train"
# a chunk of words only on one rank and pictures on the other; a frozen tower; a rank that runs out of memory in its
# second pass; one without any row; two sources
CASES = (
    "golden-ddp", "golden-fsdp2", "lopsided-ddp", "lopsided-fsdp2", "frozen-fsdp2", "halved-ddp", "lonely-ddp",
    "lonely-fsdp2", "sources-ddp",
)  # fmt: skip
# the network of a composer alone: equal masked captions on both ranks, a rank without any row, pictures and teachers
MAPPING = ("lincir", "lincir-lonely", "distillation")


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """What each number of processes made of all cases."""
    folders = {}
    for world in (1, 2):
        folders[world] = tmp_path_factory.mktemp(f"ranks{world}")
        launcher = [] if world == 1 else ["-m", "torch.distributed.run", "--nproc-per-node", str(world)]
        done = subprocess.run(
            [sys.executable, *launcher, str(PROGRAM), str(folders[world]), *CASES, *MAPPING],
            env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=300, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr[-4000:]
    return folders


def reports(folder, case):
    return json.loads((folder / f"{case}.json").read_text())


@pytest.mark.parametrize("case", CASES)
def test_two_ranks_equal_one(case, runs):
    alone, together = (load_file(runs[world] / f"{case}.safetensors") for world in (1, 2))

    assert alone.keys() == together.keys()
    assert max(np.abs(alone[name] - together[name]).max() for name in alone) <= 1e-6
    for one, two in zip(reports(runs[1], case), reports(runs[2], case), strict=True):
        assert one["items"] == two["items"]
        # sources with temperatures of their own are logged as temperature/NAME
        temperatures = [name for name in one if name.startswith("temperature")]
        names = ("loss", "grad_norm", *temperatures, "masked", "no_negative", "lr")
        assert temperatures
        assert [two[name] for name in names] == pytest.approx([one[name] for name in names], rel=2e-6, abs=1e-6)


def test_one_rank_ran_out_of_memory_and_both_took_the_step_again(runs):
    # rank 0, where it had not the memory that the single process had
    assert reports(runs[2], "halved-ddp")[0]["halved"] > 0
    assert {reports(runs[1], case)[0]["halved"] for case in CASES} == {0}
    losses = [reports(runs[2], case)[0]["loss"] for case in ("halved-ddp", "lopsided-ddp")]
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)


@pytest.mark.parametrize("case", MAPPING)
def test_two_ranks_train_a_mapping_network_as_one(case, runs):
    alone, together = (load_file(runs[world] / f"{case}.safetensors") for world in (1, 2))

    assert len(alone) == 12
    assert alone.keys() == together.keys()
    assert max(np.abs(alone[name] - together[name]).max() for name in alone) <= 1e-6
    for one, two in zip(reports(runs[1], case), reports(runs[2], case), strict=True):
        assert one.keys() == two.keys()
        # each rank counts what passes its own tower
        names = one.keys() - {"reductions", "tokens", "tower_forwards"}
        assert [two[name] for name in names] == pytest.approx([one[name] for name in names], rel=2e-6, abs=1e-6)
    assert reports(runs[2], case)[0]["reductions"] == 3


@pytest.mark.parametrize("case", ["golden-ddp", "golden-fsdp2"])
def test_two_ranks_end_in_the_published_weights(case, runs):
    found = {
        rename(name.removeprefix("embedder.backbone.model.").replace(".default.weight", ".weight"), []): value
        for name, value in load_file(runs[2] / f"{case}.safetensors").items()
    }
    with np.load(PUBLISHED / "trainer_lora_w2.npz") as arrays:
        expected = {
            rename(n.removeprefix("encoder.").replace(".default.weight", ".weight"), QWEN_VL.renames): arrays[n]
            for n in arrays.files
        }

    assert found.keys() == expected.keys()
    assert max(np.abs(found[name] - value).max() for name, value in expected.items()) <= 1e-6
    assert [round(report["loss"], 4) for report in reports(runs[2], case)] == [18.3183, 7.8573, 3.5249]
    published = [
        entry["grad_norm"] for entry in json.loads((PUBLISHED / "trainer_lora_w2.json").read_text())["log"][:3]
    ]
    assert [report["grad_norm"] for report in reports(runs[2], case)] == pytest.approx(published, rel=1e-5)


def test_gradients_are_reduced_once_a_step(runs):
    # sharded weights are reduced where they are computed; the temperature is not sharded
    reductions = {case: reports(runs[2], case)[0]["reductions"] for case in CASES}

    assert [reductions[case] for case in CASES if case.endswith("-ddp")] == [3, 3, 3, 3, 3]
    assert (reductions["golden-fsdp2"], reductions["lopsided-fsdp2"]) == (0, 3)
    assert {reports(runs[1], case)[0]["reductions"] for case in CASES} == {0}


def test_the_temperature_and_every_weight_really_train(runs):
    first, *_, last = reports(runs[2], "lopsided-ddp")
    first_of, *_, last_of = reports(runs[2], "sources-ddp")

    assert first["temperature"] != last["temperature"]
    assert all(first_of[name] != last_of[name] for name in ("temperature/a", "temperature/b"))
    assert first["masked"] > 0
    names = load_file(runs[2] / "lopsided-fsdp2.safetensors").keys()
    assert any("visual" in name for name in names)
    assert not any("visual" in name for name in load_file(runs[2] / "frozen-fsdp2.safetensors"))
