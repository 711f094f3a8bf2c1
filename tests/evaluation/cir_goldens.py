"""The synthetic benchmarks of composed retrieval, their fixed vectors, and the scores that published codes gave."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from data_prep.engine.preparation import prepare
from mmembed.evaluation.benchmark import read_benchmark
from mmembed.evaluation.metrics import metric_values
from mmembed.evaluation.rankings import rank
from mmembed.evaluation.retrieval_set import read_retrieval_set
from mmembed.evaluation.scoring import Scoring
from tests.data_prep.composed_copies import READERS, SOURCES, of_json, small

ROOT = Path(__file__).parents[2]
BENCHMARKS = {
    name: read_benchmark(ROOT / f"eval/benchmarks/{name}.yaml") for name in (*SOURCES, "fashioniq_val_union", "covr")
}
GOLDEN = of_json("golden.json")
CATEGORIES = ("dress", "shirt", "toptee")
TASKS = ("focus_attribute", "change_attribute", "focus_object", "change_object")


def prepare_goldens(root):
    """Prepare the goldens below ``root``, as sources name them."""
    for name in SOURCES:
        prepare(small(name), root, copies=READERS)
    return root


class Vectors:
    """The fixed vectors of the goldens."""

    def __init__(self):
        self.arrays = np.load(READERS / "embeddings.npz")
        named = (("image_names", "image_feats"), ("token_names", "token_feats"), ("text_keys", "text_feats"))
        self.images, self.tokens, self.texts = (
            dict(zip(self.arrays[names].tolist(), torch.tensor(self.arrays[values]), strict=True))
            for names, values in named
        )

    def targets(self, made):
        return F.normalize(torch.stack([self.images[name] for name in made.corpus]), dim=-1)

    def queries(self, made, key):
        """Text and pseudo-word of the reference added; of FashionIQ the mean of both orders."""
        rows = []
        for number, (reference,) in enumerate(made.references.values()):
            names = [f"{key}/{number}/fwd", f"{key}/{number}/rev"] if "fashioniq" in key else [f"{key}/{number}"]
            ways = torch.stack([self.texts[name] + self.tokens[reference] for name in names])
            rows.append(F.normalize(F.normalize(ways, dim=-1).mean(0), dim=-1))
        return torch.stack(rows)

    def genecis(self, task, made, combine):
        """Queries and targets of a task, whose candidates have their vectors by query and place."""
        shown, said = (torch.tensor(self.arrays[f"genecis/{task}/{name}"]) for name in ("reference", "text"))
        own = {}
        for gallery, names in zip(self.arrays[f"genecis/{task}/gallery"], made.candidates.values(), strict=True):
            for vector, name in zip(gallery, names, strict=True):
                assert np.array_equal(own.setdefault(name, vector), vector)
        queries = {"image": shown, "text": said, "sum": 0.5 * shown + 0.5 * said}[combine]
        targets = torch.tensor(np.stack([own[name] for name in made.corpus]))
        return F.normalize(queries, dim=-1), F.normalize(targets, dim=-1)


VECTORS = Vectors()


def opened(data, benchmark, row):
    """A row and its data, as an evaluation reads them."""
    task = BENCHMARKS[benchmark].tasks[row]
    made = read_retrieval_set(data / task.data)
    return task, replace(made, candidates=None) if task.candidates == "shared" else made


def judged(task, made, queries, targets):
    scoring = Scoring(task, made)
    return scoring.judged(rank(task, made, queries, targets, scoring.depth))


def percents(task, found, metric="hit"):
    return {k: 100 * float(metric_values(found, f"{metric}@{k}").mean()) for k in task.ks}


def near(expected):
    return pytest.approx(expected, abs=1e-5)
