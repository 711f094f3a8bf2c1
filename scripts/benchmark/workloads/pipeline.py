"""The data pipeline: files on a disk to batches that the model takes, alone and beside a training run."""

import random
import shutil
import tempfile
import time
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mmembed import Item, Pair, Video
from mmembed.data.batching import StepDataset, step_loader
from mmembed.data.mixture import open_mixture
from mmembed.data.settings import Sampling, Source
from mmembed.data.tables import write_pairs
from mmembed.items import Image
from mmembed.timers import span
from mmembed.training.batches import PairPreparer
from scripts.benchmark.bench import Bench
from scripts.benchmark.inputs import clip, jpeg, soft, words
from scripts.benchmark.measuring import Comparison
from scripts.benchmark.models import options_in_words
from scripts.benchmark.sizes import Pipeline
from scripts.benchmark.workloads.training import OUR_CHUNKS, gradient_step, stepping

WORKERS = {"no worker": 0, "1 worker": 1, "2 workers": 2}
"""Numbers of workers whose rates are measured."""
CLIP_FRAMES = 32
TEXT_WORDS = 16


class Files:
    """A pair table with its media in a folder that lives as long as this does.

    Args:
        size: how many pairs, each a text and a file of its own, and how large.
        kind: ``jpeg`` or ``mp4``.
    """

    def __init__(self, size: Pipeline, kind: str) -> None:
        self.size = size
        self.folder = Path(tempfile.mkdtemp())
        weakref.finalize(self, shutil.rmtree, self.folder)
        rng = random.Random(4)
        targets = (self._target(i, size.side, kind) for i in range(size.files))
        rows = (
            Pair(Item.of(words(rng, TEXT_WORDS)), (target,), query_id=str(i), source="bench")
            for i, target in enumerate(targets)
        )
        write_pairs(self.folder / "pairs.jsonl", rows)

    def batches(self, prepare: PairPreparer, steps: int, workers: int) -> Iterator[Any]:
        """Prepared batches, as a training run gets them."""
        sampling = Sampling(batch_size=self.size.batch, block_size=self.size.batch)
        mixture = open_mixture({"bench": Source("pairs.jsonl")}, sampling, seed=0, data_root=self.folder)
        return iter(step_loader(StepDataset(mixture, prepare), 0, steps, num_workers=workers))

    def _target(self, number: int, side: int, kind: str) -> Item:
        path = self.folder / f"{number:05d}.{kind}"
        if kind == "jpeg":
            path.write_bytes(jpeg(soft(side, side * 3 // 4, number)))
            return Item.of(Image(path))
        # takes PyAV and what draws documents, which only this workload needs
        from data_prep.demo_scenes import write_clip

        write_clip(path, clip(CLIP_FRAMES, side // 4 * 2, number))
        return Item.of(Video(path))


def jpeg_files(bench: Bench) -> Comparison:
    """Pictures."""
    return _alone(bench, "jpeg")


def mp4_files(bench: Bench) -> Comparison:
    """Clips, of which eight frames are taken."""
    return _alone(bench, "mp4")


def data_wait(bench: Bench) -> Comparison:
    """Steps of LoRA while two workers prepare the next batches; the first batch, for which all wait, is left out."""
    size = bench.size.pipeline
    files = Files(size, "jpeg")
    prepare, module = gradient_step(bench.lora, OUR_CHUNKS)
    found: dict[str, float] = {}

    def run() -> Tensor:
        batches = files.batches(prepare, size.trained, workers=2)
        held = [next(batches)]
        step = stepping(lambda: module.gradients(held[0].to(bench.device)), bench.lora.backbone.model)
        waited, started = 0.0, time.perf_counter()
        out = step()
        for _ in range(size.trained - 1):
            asked = time.perf_counter()
            with span("wait"):
                held[0] = next(batches)
            waited += time.perf_counter() - asked
            out = step()
        found.update(share_waited=waited / (time.perf_counter() - started), seconds_waited=waited)
        # the end of the loader ends its workers
        assert next(batches, None) is None
        return out

    return Comparison(
        run, rows=size.trained * size.batch, parts=True, facts=lambda: dict(found), timed=1, options=options_in_words()
    )


def _alone(bench: Bench, kind: str) -> Comparison:
    size = bench.size.pipeline
    files = Files(size, kind)
    prepare = PairPreparer(bench.ours.backbone.preprocessor, OUR_CHUNKS)

    def run() -> Tensor:
        return torch.tensor([len(made.query_rows) for made in files.batches(prepare, size.steps, workers=0)])

    def rate(workers: int) -> float:
        """Pairs a second once each worker has started and made a batch."""
        batches = files.batches(prepare, size.steps, workers)
        for _ in range(max(1, workers)):
            next(batches)
        started = time.perf_counter()
        pairs = sum(len(made.query_rows) for made in batches)
        return pairs / (time.perf_counter() - started)

    def facts() -> dict[str, Any]:
        rates = {name: rate(workers) for name, workers in WORKERS.items()}
        return {
            "pairs_per_second": rates,
            "pairs_per_second_and_worker": {name: pairs / max(1, WORKERS[name]) for name, pairs in rates.items()},
        }

    note = "rates are of the batches that come after the first of each worker"
    return Comparison(run, rows=size.steps * size.batch, parts=True, facts=facts, timed=0, note=note)
