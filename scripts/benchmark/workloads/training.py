"""Steps of training; the outcome that is compared is the gradient."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mmembed import Embedder, Item, Pair
from mmembed.items import Image
from mmembed.losses.settings import Contrastive
from mmembed.models.settings import EmbedderSettings
from mmembed.recipe import read_recipe
from mmembed.timers import span
from mmembed.training.batches import PairPreparer
from mmembed.training.module import EmbedderModule
from mmembed.training.optim import make_optimizer, parameter_groups
from mmembed.training.settings import Chunks, Optim, Stage
from scripts.benchmark.bench import Bench
from scripts.benchmark.flops import useful_flops
from scripts.benchmark.inputs import TOKENIZER_TEXTS, mixed_texts, noise, texts_of_one_length
from scripts.benchmark.measuring import Comparison, Run
from scripts.benchmark.models import options_in_words
from scripts.benchmark.plain import InfoNCE, PlainTwin

ROOT = Path(__file__).resolve().parents[3]
CHUNK_ROWS = 8
"""Rows of a plain chunk."""
OBJECTIVE = Contrastive(temperature=0.05, mask_duplicates=False)
OUR_CHUNKS = Chunks(padding=0.2)
"""As it comes: rows of like length together, graphs kept where memory allows."""


@dataclass(frozen=True)
class Sides:
    """Pairs: each query and its target."""

    queries: Sequence[Item]
    targets: Sequence[Item]

    @property
    def pairs(self) -> list[Pair]:
        """The same as pairs."""
        both = enumerate(zip(self.queries, self.targets, strict=True))
        return [Pair(query, (target,), query_id=str(i)) for i, (query, target) in both]


def lora(bench: Bench) -> Comparison:
    """LoRA, rows of equal lengths."""
    return _training(bench, bench.lora, _equal(bench), OUR_CHUNKS)


def lora_mixed(bench: Bench) -> Comparison:
    """LoRA, mixed rows."""
    sides = Sides(mixed_texts(bench.size.mixed, bench.size.rows, seed=1), bench.mixed)
    work = _training(bench, bench.lora, sides, OUR_CHUNKS)
    # a minute each on a CPU
    work.timed = 3
    return work


def full(bench: Bench) -> Comparison:
    """Full fine-tuning, rows of equal lengths."""
    return _training(bench, bench.ours, _equal(bench), OUR_CHUNKS)


def whole(bench: Bench) -> Comparison:
    """Full fine-tuning against a plain step without cached gradients."""
    return _training(bench, bench.ours, _varied(bench), OUR_CHUNKS, plain_rows=None)


def chunks(bench: Bench) -> Comparison:
    """Full fine-tuning in chunks of as many rows as the plain way's."""
    return _training(bench, bench.ours, _varied(bench), Chunks(rows=CHUNK_ROWS))


def recomputed(bench: Bench) -> Comparison:
    """The same without a graph kept."""
    return _training(bench, bench.ours, _varied(bench), Chunks(rows=CHUNK_ROWS, keep_mb=0))


def demo(bench: Bench) -> Comparison:
    """The model, batch, chunks, optimiser and loss of the demo's recipe, on texts and pictures of its sizes.

    Of one source and without masks, which the plain way does not have.
    """
    recipe = read_recipe(ROOT / "configs/demo.yaml")
    stage = recipe.stages["singles"]
    # in float32 both ways resize alike; regions have no part in these rows
    backbone: Any = replace(recipe.embedder.backbone, resize="torchvision")
    settings = EmbedderSettings(backbone, recipe.embedder.prompt, pooler=recipe.embedder.pooler)
    rows = bench.size.rows
    sides = Sides(texts_of_one_length(rows, 8, seed=2), [Item.of(Image(noise(28, seed))) for seed in range(rows)])
    ours = Embedder(settings, texts=TOKENIZER_TEXTS).to(bench.device)
    twin = PlainTwin(ours, ending=getattr(recipe.embedder.prompt, "suffix", ""))
    objective: Any = replace(stage.objective, in_batch="batch", mask_duplicates=False)
    plain = _cached(twin, sides, InfoNCE(objective.temperature, objective.directions), rows)
    return _compared(ours, twin, sides, stage.chunks, objective, stage.optim, plain)


def gradient_step(ours: Embedder, chunks: Chunks, objective: Contrastive = OBJECTIVE) -> tuple[PairPreparer, Any]:
    """What prepares our batches, and the module whose ``gradients`` takes them."""
    module = EmbedderModule(ours.train(), Stage({}, 1, objective=objective, chunks=chunks), seed=0)
    return PairPreparer(ours.backbone.preprocessor, chunks), module


def stepping(backpropagate: Callable[[], object], model: nn.Module, settings: Optim | None = None) -> Run:
    """An optimiser step around a gradient, which it gives as one vector."""
    settings = settings or Optim(lr=1e-6)
    trains = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    optimizer = make_optimizer(parameter_groups(trains, settings), settings)
    # so that each step is the first: ours and plain must stay equal
    start = [p.detach().clone() for _, p in trains]

    def step() -> Tensor:
        optimizer.zero_grad()
        backpropagate()
        with span("optimiser"):
            optimizer.step()
        found = torch.cat([p.grad.flatten() for _, p in trains if p.grad is not None])
        with torch.no_grad():
            for (_, p), first in zip(trains, start, strict=True):
                p.copy_(first)
        return found

    return step


def _equal(bench: Bench) -> Sides:
    # as many words as a picture has tokens: no row of either side is padded
    return Sides(texts_of_one_length(bench.size.rows, bench.size.picture_tokens, seed=2), bench.pictures)


def _varied(bench: Bench) -> Sides:
    return Sides(bench.texts, bench.pictures)


def _training(
    bench: Bench, ours: Embedder, sides: Sides, chunks: Chunks, *, plain_rows: int | None = CHUNK_ROWS
) -> Comparison:
    twin = bench.twin(ours)
    plain = _cached(twin, sides, InfoNCE(OBJECTIVE.temperature), plain_rows)
    return _compared(ours, twin, sides, chunks, OBJECTIVE, None, plain)


def _cached(twin: PlainTwin, sides: Sides, loss: InfoNCE, rows: int | None) -> Callable[[], object]:
    twin.model.train()
    if rows is None or rows >= len(sides.queries):
        return lambda: twin.whole_gradient(sides.queries, sides.targets, loss)
    return lambda: twin.cached_gradient(sides.queries, sides.targets, loss, rows)


def _compared(
    ours: Embedder,
    twin: PlainTwin,
    sides: Sides,
    chunks: Chunks,
    objective: Contrastive,
    optim: Optim | None,
    plain: Callable[[], object],
) -> Comparison:
    prepare, module = gradient_step(ours, chunks, objective)
    pairs, items = sides.pairs, [*sides.queries, *sides.targets]
    return Comparison(
        ours=stepping(lambda: module.gradients(prepare(0, pairs).to(ours.device)), ours.backbone.model, optim),
        plain=stepping(plain, twin.model, optim),
        rows=len(pairs),
        useful=lambda: useful_flops(ours, ours.prepare(items, "query"), backward=True),
        parts=True,
        gradient=True,
        options=options_in_words(),
    )
