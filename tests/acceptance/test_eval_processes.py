"""The command under torchrun, with a real model: the scores of one process, from vectors that both made."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from mmembed.models.settings import RawPrompt

ROOT = Path(__file__).parents[2]
BENCHMARK = "tasks:\n  find: {data: pictures, metric: mrr@10, blind: [shuffle_words], blind_targets: [grey_image]}\n"
ROWS = 65

pytestmark = pytest.mark.acceptance


@pytest.fixture(scope="module")
def place(tmp_path_factory, scratch_embedder, picture):
    root = tmp_path_factory.mktemp("processes")
    folder = root / "data/pictures"
    folder.mkdir(parents=True)
    files = {"queries": [], "corpus": [], "relevance": []}
    for i in range(ROWS):
        picture(28 + 14 * (i % 5), 56, seed=i).save(folder / f"{i}.png")
        files["queries"].append({"id": f"q{i}", "text": f"picture number {i} of many"})
        files["corpus"].append({"id": f"d{i}", "image": f"{i}.png"})
        files["relevance"].append({"query_id": f"q{i}", "targets": {f"d{i}": 1}})
    for name, rows in files.items():
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (root / "toy.yaml").write_text(BENCHMARK)
    scratch_embedder("qwen2_vl", prompt=RawPrompt(suffix="<|im_end|>")).save(root / "model")
    return root


def evaluate(place, world):
    launcher = [] if world == 1 else ["-m", "torch.distributed.run", "--nproc-per-node", str(world)]
    options = ["--model", "model", "--benchmark", "toy.yaml", "--data-root", "data", "--output", f"out{world}"]
    done = subprocess.run(
        [sys.executable, *launcher, str(ROOT / "eval/run.py"), *options, "--cache", f"cache{world}"],
        cwd=place, env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def test_two_processes_evaluate_as_one(place):
    said = [evaluate(place, world) for world in (1, 2)]

    one, two = (json.loads((place / f"out{world}/scores.json").read_text()) for world in (1, 2))
    assert one["protocol"]["identity"] == two["protocol"]["identity"]
    for key in ("score", "blinds", "metrics", "interval", "chance", "protocol_id"):
        assert one["tasks"]["find"][key] == two["tasks"]["find"][key], key
    vectors = [load_file(place / f"out{world}/embeddings/find.safetensors") for world in (1, 2)]
    for side in ("queries", "targets"):
        assert torch.allclose(vectors[0][side], vectors[1][side], atol=1e-5, rtol=0)
    # the first process reports, and only it
    assert all(text.count("report.html") == 1 for text in said)
    # 65 texts, as many shuffled, 65 pictures, and grey ones of five sizes: each in the cache once
    shards = list(place.glob("cache2/*/*.safetensors"))
    assert sum(len(load_file(path)["keys"]) for path in shards) == 3 * ROWS + 5
    assert len(shards) > 4
