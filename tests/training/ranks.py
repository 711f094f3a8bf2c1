"""A program for several processes: trains the cases that are asked for, and rank 0 writes what came out.

``python -m torch.distributed.run --nproc-per-node 2 tests/training/ranks.py OUTPUT CASE...``; without torchrun it is a
run of one process, the twin that the others are compared with.
"""

import json
import os
import sys
import tempfile
import warnings
from dataclasses import replace
from pathlib import Path

import lightning
import torch
from lightning.fabric.utilities.warnings import PossibleUserWarning
from safetensors.torch import save_file
from torch.utils.data import DataLoader

sys.path.insert(0, str(Path(__file__).parents[2]))

from mmembed import Embedder, Item, Pair
from mmembed.counters import counting
from mmembed.data.settings import Source
from mmembed.items import Negative
from mmembed.losses.settings import Contrastive, Distillation, LearnedTemperature, LinCIR, SourceRules
from mmembed.models.settings import DualEncoder, EmbedderSettings, Phi, Phrases, RawPrompt, Scratch
from mmembed.processes import everyone, joined
from mmembed.training.batches import PairPreparer
from mmembed.training.pseudo_words import make_module
from mmembed.training.settings import Chunks, FeatureFiles, Optim, Stage
from mmembed.training.sharding import whole_tensor
from mmembed.training.strategies import trainer_choices
from mmembed.training.teachers import write_teachers
from tests.cases import GOLDEN, draw, golden_item, golden_model, small_embedder
from tests.training.small_memory import SmallMemory

PUBLISHED = GOLDEN / "vlm2vec/golden/train"
STEPS = 3
TEACHERS = Path(tempfile.gettempdir(), f"teachers-{os.getpid()}.safetensors")


def published_pairs():
    rows = json.loads((PUBLISHED / "single_lora.json").read_text())["pairs"]
    pairs = [Pair(golden_item(*row[:2]), (golden_item(*row[2:]),), query_id=str(i)) for i, row in enumerate(rows)]
    orders = json.loads((PUBLISHED / "trainer_lora_w2.json").read_text())["order"]
    return [[pairs[i] for i in order] for order in orders]


def lopsided_pairs():
    """Rank 0 of two gets pictures, rank 1 words only; five pairs do not divide by two."""
    rows = [
        Pair(Item.of("a red circle"), (Item.of({"image": draw(56, 84)}),), query_id="0"),
        Pair(Item.of("what is it?"), (Item.of("a circle"), Item.of("a ring")), query_id="1"),
        Pair(Item.of({"image": draw(84, 56), "text": "but blue"}), (Item.of("blue"),), query_id="2"),
        Pair(Item.of("the same words"), (Item.of("an answer"),), (Negative(Item.of("not this")),), query_id="3"),
        Pair(Item.of("seen?"), (Item.of({"image": draw(56, 56)}),), query_id="4"),
    ]
    return [rows] * STEPS


def lonely_pairs():
    """A single pair with a hard negative: rank 1 of two has no row at all."""
    pair = Pair(Item.of("a red circle"), (Item.of({"image": draw(56, 84)}),), (Negative(Item.of("no")),), query_id="0")
    return [[pair]] * STEPS


def sourced_pairs():
    """Two batches for each step, of two sources that meet in each; a pair has several positives."""
    rows = lopsided_pairs()[0]
    first = [replace(pair, source=source) for pair, source in zip(rows, "ababa", strict=True)]
    second = [replace(pair, source=source) for pair, source in zip(rows[::-1], "baabb", strict=True)]
    return [first, second] * STEPS


def golden_stage(strategy):
    model = golden_model("qwen2_vl", adapter=str(GOLDEN / "vlm2vec/qwen2_vl_lora")).train()
    stage = Stage({}, STEPS, optim=Optim(lr=1e-3), chunks=Chunks(rows=3, keep_mb=0), strategy=strategy)
    return model, stage, published_pairs()


def learned(strategy, pairs, margin=0.3, **choices):
    objective = Contrastive(
        temperature=0.1, directions=(0.5, 0.5), learn=LearnedTemperature(lr=1e-2), block_rows=2, margin=margin
    )
    chunks = Chunks(rows=2, keep_mb=0)
    # an eps above the noise: without it Adam makes whole steps of rounding errors
    optim = Optim(lr=1e-3, eps=1e-3, weight_decay=0.1, ema=0.5)
    stage = Stage({}, STEPS, objective=objective, optim=optim, chunks=chunks, strategy=strategy, **choices)
    return small_embedder("qwen2_vl"), stage, pairs


def two_sources(strategy):
    """One source learns a temperature of its own and is compared with itself alone; a step takes two batches."""
    own = SourceRules(temperature=0.2, in_batch="source")
    mixture = {"a": Source(table="a.jsonl"), "b": Source(table="b.jsonl", loss=own)}
    objective = Contrastive(temperature=0.1, learn=LearnedTemperature(parameter="raw", lr=1e-2), positives="each")
    optim = Optim(lr=1e-3, eps=1e-3, accumulate=2)
    stage = Stage(mixture, STEPS, objective=objective, optim=optim, chunks=Chunks(rows=2, keep_mb=0), strategy=strategy)
    return small_embedder("qwen2_vl"), stage, sourced_pairs()


def mapping(objective, pairs):
    """A mapping network alone; without dropout, for ranks draw different ones."""
    prompt = RawPrompt(phrases=Phrases(both="a photo of $ that {text}"))
    pooler = Phi(places="all", dropout=0.0)
    embedder = Embedder(EmbedderSettings(DualEncoder(scratch=Scratch("clip")), prompt, pooler))
    words = torch.randn(len(pairs), embedder.backbone.word_width, generator=torch.Generator().manual_seed(1))
    write_teachers(TEACHERS, [pair.query for pair in pairs], words, embedder)
    optim = Optim(lr=1e-3, eps=1e-3, ema=0.5)
    stage = Stage(
        {}, STEPS, objective=objective, optim=optim, chunks=Chunks(rows=2, keep_mb=0), freeze=("model",)
    )  # fmt: skip
    return embedder, stage, [pairs] * STEPS


def masked_pairs():
    """Two captions that are equal once they are masked, on different ranks."""
    rows = [("$ of $", "a cup of tea"), ("$", "small house"), ("$ in $", "a cat in a hat"), ("$ of $", "a bag of nuts")]
    return [
        Pair(Item.of(m), (Item.of(c),), query_id=str(i)) for i, (m, c) in enumerate([*rows, ("$ on $", "a b on c")])
    ]


def phrased_pairs():
    """Pictures, each with a phrase and the phrase to fill; three do not divide by two."""
    phrases = [("a dog that runs", "$ that runs"), ("a red bus", "a red $"), ("a table here", "$ here")]
    return [
        Pair(Item.of({"image": draw(56, 56, i)}), tuple(map(Item.of, both)), query_id=str(i))
        for i, both in enumerate(phrases)
    ]


def stored(strategy):
    """A frozen tower whose features are kept in the folder that the environment names, if it names one."""
    folder = os.environ.get("FEATURES")
    features = FeatureFiles(folder) if folder else None
    return learned(strategy, lopsided_pairs(), freeze=("model.visual",), features=features)


CASES = {
    "golden-ddp": lambda: golden_stage("ddp"),
    "golden-fsdp2": lambda: golden_stage("fsdp2"),
    "lopsided-ddp": lambda: learned("ddp", lopsided_pairs()),
    "lopsided-fsdp2": lambda: learned("fsdp2", lopsided_pairs()),
    "frozen-fsdp2": lambda: learned("fsdp2", lopsided_pairs(), freeze=("model.visual",)),
    "stored-ddp": lambda: stored("ddp"),
    "stored-fsdp2": lambda: stored("fsdp2"),
    "halved-ddp": lambda: learned("ddp", lopsided_pairs()),
    "lonely-ddp": lambda: learned("ddp", lonely_pairs(), margin=None),
    "lonely-fsdp2": lambda: learned("fsdp2", lonely_pairs(), margin=None),
    "sources-ddp": lambda: two_sources("ddp"),
    "lincir": lambda: mapping(LinCIR(), masked_pairs()),
    "lincir-lonely": lambda: mapping(LinCIR(), masked_pairs()[:1]),
    "distillation": lambda: mapping(Distillation(teachers=TEACHERS.name), phrased_pairs()),
}


class Recorder(lightning.Callback):
    """What each step reported, and how often gradients were reduced."""

    def __init__(self):
        self.reports = []

    def on_train_batch_end(self, trainer, module, outputs, batch, number):
        if not module.stage.ends_step(number):
            return
        self.reports.append({**module.report.values, "items": module.report.items, "tokens": module.report.tokens})


def train(case, processes):
    torch.manual_seed(0)
    embedder, stage, global_batches = CASES[case]()
    sharded = stage.strategy == "fsdp2" and processes.world > 1
    prepare = PairPreparer(
        embedder.backbone.preprocessor, stage.chunks, list(stage.mixture),
        filler=sharded, filled=stage.objective.filled,
    )  # fmt: skip
    batches = [prepare(n, pairs[processes.rank :: processes.world]) for n, pairs in enumerate(global_batches)]
    module, recorder = make_module(embedder, stage, seed=0, facts={}, data_root=TEACHERS.parent), Recorder()
    trainer = lightning.Trainer(
        **trainer_choices(stage.strategy, processes), max_steps=stage.steps, accelerator="cpu", logger=False,
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False, callbacks=[recorder],
        use_distributed_sampler=False,
    )  # fmt: skip
    if case.startswith("halved") and processes.world > 1 and processes.first:
        # room for a row and its backward pass, not for two
        longest = max(int(chunk.lengths.max()) for batch in batches for chunk in batch.chunks)
        SmallMemory(embedder.backbone.language_model.layers[0], 2 * longest, backward=1)
    with counting() as work:
        trainer.fit(module, DataLoader(batches, batch_size=None))
    recorder.reports[0] |= {
        "reductions": work["gradient_reductions"], "tower_forwards": work["tower_forwards"],
        "halved": work["chunks_halved"],
    }  # fmt: skip
    weights = {name: whole_tensor(p).clone() for name, p in module.trained().items()}
    average = {} if module.ema is None else {f"ema.{n}": whole_tensor(t) for n, t in module.ema.state_dict().items()}
    return recorder.reports, weights | average


def main(output, cases):
    torch.set_num_threads(1)
    warnings.simplefilter("ignore", PossibleUserWarning)
    with joined("cpu") as processes:
        for case in cases:
            reports, weights = train(case, processes)
            everyone(None)
            if processes.first:
                save_file({name: t.contiguous() for name, t in weights.items()}, f"{output}/{case}.safetensors")
                Path(output, f"{case}.json").write_text(json.dumps(reports))
    TEACHERS.unlink(missing_ok=True)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
