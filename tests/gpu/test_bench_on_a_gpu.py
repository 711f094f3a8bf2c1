"""scripts/bench.py on a GPU: the models run there, and so is the memory that it tells."""

import json

import pytest
import torch

from scripts.bench import main

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")]


def test_models_run_and_memory_is_measured_on_the_gpu(tmp_path):
    output, page = tmp_path / "b.json", tmp_path / "b.md"
    workloads = "encode_mixed,train_demo,train_lora_mixed,train_full,evaluate,loss,rank_gallery,rank_million,data_wait"
    options = ["--size", "tiny", "--rounds", "1", "--device", "cuda", "--workloads", workloads]

    assert main([*options, "--output", str(output), "--page", str(page)]) == 0

    found = json.loads(output.read_text())
    assert found["machine"]["device"] != "cpu"
    assert all(result["peak_mb"] > 0 for result in found["results"])
    assert "No data-centre GPU was at hand" not in page.read_text()
