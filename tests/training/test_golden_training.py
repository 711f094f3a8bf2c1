"""Gradients and steps of the published VLM2Vec trainer, computed again with every way of cutting the batch."""

import json
import warnings
from pathlib import Path

import lightning
import numpy as np
import pytest
import torch
from lightning.fabric.utilities.warnings import PossibleUserWarning
from torch.utils.data import DataLoader

from mmembed.items import Pair
from mmembed.losses.settings import Contrastive
from mmembed.models.adapters import rename
from mmembed.models.backbones.qwen_vl.backbone import QWEN_VL
from mmembed.training.batches import PairPreparer
from mmembed.training.module import EmbedderModule
from mmembed.training.settings import Chunks, Optim, Stage

PUBLISHED = Path(__file__).parents[1] / "golden/vlm2vec/golden/train"
CUTS = {
    "whole": Chunks(),
    "two rows": Chunks(rows=2, keep_mb=0),
    "three rows, some kept": Chunks(rows=3, keep_mb=1),
    "token budget": Chunks(tokens=200, keep_mb=0),
}


def our_name(published_name):
    return rename(published_name.removeprefix("encoder.").replace(".default.weight", ".weight"), QWEN_VL.renames)


def trained_weights(module):
    named = module.embedder.backbone.named_parameters()
    return {n.replace(".default.weight", ".weight").removeprefix("model."): p for n, p in named if p.requires_grad}


def published_arrays(file, prefix=""):
    with np.load(PUBLISHED / file) as arrays:
        return {our_name(key.removeprefix(prefix)): arrays[key] for key in arrays.files if key.startswith(prefix)}


@pytest.fixture
def pairs(golden_item):
    rows = json.loads((PUBLISHED / "single_lora.json").read_text())["pairs"]
    return [
        Pair(golden_item(*row[:2]), (golden_item(*row[2:]),), query_id=str(i), source="published")
        for i, row in enumerate(rows)
    ]


@pytest.fixture
def make_module(fresh_golden, golden):
    def make(chunks):
        embedder = fresh_golden("qwen2_vl", adapter=str(golden / "vlm2vec/qwen2_vl_lora")).train()
        stage = Stage({}, 3, objective=Contrastive(temperature=0.02), optim=Optim(lr=1e-3), chunks=chunks)
        return EmbedderModule(embedder, stage, seed=0), PairPreparer(embedder.backbone.preprocessor, chunks)

    return make


@pytest.mark.parametrize("cut", CUTS)
def test_the_gradient_equals_the_published_one(cut, make_module, pairs):
    module, prepare = make_module(CUTS[cut])
    expected = published_arrays("single_lora.npz", "direct_full_batch/")

    loss, _ = module.gradients(prepare(0, pairs))

    gradients = {name: p.grad for name, p in trained_weights(module).items()}
    norm = torch.stack([g.norm() for g in gradients.values()]).norm()
    assert loss.value.item() == pytest.approx(18.3183, abs=5e-5)
    assert norm.item() == pytest.approx(239.63842, abs=1e-3)
    assert gradients.keys() == expected.keys()
    assert len(expected) == 28
    assert max(np.abs(gradients[name].numpy() - grad).max() for name, grad in expected.items()) <= 1e-4


@pytest.mark.parametrize("cut", CUTS)
def test_three_steps_under_lightning_end_in_the_published_weights(cut, make_module, pairs):
    module, prepare = make_module(CUTS[cut])
    record = json.loads((PUBLISHED / "trainer_lora_w2.json").read_text())
    batches = [prepare(step, [pairs[i] for i in order]) for step, order in enumerate(record["order"])]

    logged = fit(module, batches)

    expected = published_arrays("trainer_lora_w2.npz")
    weights = trained_weights(module)
    assert [round(values["loss"], 4) for values in logged] == [18.3183, 7.8573, 3.5249]
    published_norms = [entry["grad_norm"] for entry in record["log"][:3]]
    assert [values["grad_norm"] for values in logged] == pytest.approx(published_norms, rel=1e-5)
    assert weights.keys() == expected.keys()
    assert max(np.abs(weights[name].detach().numpy() - value).max() for name, value in expected.items()) <= 1e-6


class Reported(lightning.Callback):
    """What each step reported."""

    def __init__(self):
        self.values = []

    def on_train_batch_end(self, trainer, module, *_):
        self.values.append(module.report.values)


def fit(module, batches):
    logged = Reported()
    trainer = lightning.Trainer(
        max_steps=len(batches), accelerator="cpu", devices=1, logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, callbacks=[logged],
    )  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PossibleUserWarning)
        trainer.fit(module, DataLoader(batches, batch_size=None))
    assert trainer.global_step == len(batches)
    return logged.values
