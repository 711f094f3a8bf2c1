"""Training a mapping network, and nothing else: LinCIR (arXiv:2312.01998) and SEARLE's distillation (arXiv:2303.15247).

A step embeds what holds no pseudo-word without a gradient, runs the network once over the whole batch, and passes the
rows that pseudo-words are put into in chunks: their gradient reaches the pseudo-words by cached gradients, and then the
network in one backward pass. So what the network draws, noise and dropout, does not depend on the chunks.

Shapes: B pairs of this rank, R rows, D numbers of a vector, W of a pseudo-word.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor

from mmembed.errors import InputError
from mmembed.files import fingerprint
from mmembed.losses.gather import gather
from mmembed.losses.objectives import Loss
from mmembed.losses.settings import Distillation, LinCIR
from mmembed.models.embedder import Embedder
from mmembed.models.pseudo_words import PseudoWordComposer, replaced
from mmembed.models.sequence import Batch, Features
from mmembed.training.batches import TrainingBatch
from mmembed.training.grad_cache import Rep
from mmembed.training.kept_features import at_root
from mmembed.training.memory import halves_of, tokens_of
from mmembed.training.module import EMBEDDING, EmbedderModule
from mmembed.training.room import Room
from mmembed.training.settings import Stage
from mmembed.training.teachers import Teachers, read_teachers

WORDS = "words"
Piece: TypeAlias = tuple[Batch, Tensor | None]
"""A chunk, and of rows that pseudo-words are put into, the pair of each."""


def make_module(
    embedder: Embedder, stage: Stage, *, seed: int, facts: Mapping[str, Any], data_root: Path
) -> EmbedderModule:
    """The module that trains a stage: its objective says which.

    Raises:
        InputError: see the modules, and :func:`mmembed.training.teachers.read_teachers`.
    """
    stage = at_root(stage, data_root)
    if isinstance(stage.objective, LinCIR):
        return LinCirModule(embedder, stage, seed=seed, facts=facts)
    if isinstance(stage.objective, Distillation):
        teachers = read_teachers(data_root / stage.objective.teachers, embedder)
        return DistillationModule(embedder, stage, teachers, seed=seed, facts=facts)
    return EmbedderModule(embedder, stage, seed=seed, facts=facts)


class MappingModule(EmbedderModule):
    """Trains the network of an embedder's composer; see the modules below for what by.

    Raises:
        InputError: an embedder whose composer has no network, or a stage in which anything else trains.
    """

    def __init__(self, embedder: Embedder, stage: Stage, *, seed: int, facts: Mapping[str, Any] | None = None) -> None:
        super().__init__(embedder, stage, seed=seed, facts=facts)
        if not isinstance(embedder.pooler, PseudoWordComposer):
            raise InputError(
                "embedder.pooler", expected="a composer with a mapping network",
                got=type(embedder.settings.pooler).__name__, remedy="use Phi or Pic2Word",
            )  # fmt: skip
        self.composer = embedder.pooler
        also = [name for name in self.trained() if not name.startswith("embedder.pooler.")]
        if also or stage.strategy != "ddp":
            raise InputError(
                "stage", expected="freeze: [model] and strategy: ddp, for only the small network trains",
                got=f"{also[0]} trains" if also else f"strategy: {stage.strategy}", remedy="write both",
            )  # fmt: skip
        self._room = Room(_halves_of, lambda piece: tokens_of(piece[0]), lambda line: self.say(line))
        # what stands still embeds without dropout
        embedder.backbone.eval()

    def gradients(self, batch: TrainingBatch) -> tuple[Loss, Rep]:
        """See :meth:`EmbedderModule.gradients`; the rows of the embeddings are those of all chunks."""
        found: list[Loss] = []
        vectors = self._vectors(batch)
        words = self.composer.network(self._inputs(batch, vectors))
        leaf = words.detach().requires_grad_()

        def loss_of(rep: Rep) -> Tensor:
            found.append(self._loss(batch, {EMBEDDING: torch.cat([vectors, rep[EMBEDDING]]), WORDS: leaf}))
            return found[-1].share / self.stage.optim.accumulate

        filled = self._cached(batch, self._fill(leaf), self._pieces(batch, len(vectors)), loss_of, [leaf])
        if leaf.grad is not None:
            with self._one_reduction():
                self._backward((words * leaf.grad).sum())
        return found[-1], {EMBEDDING: torch.cat([vectors, filled[EMBEDDING]]), WORDS: leaf.detach()}

    def _embed(self, batch: TrainingBatch) -> Rep:
        vectors = self._vectors(batch)
        words: Tensor = self.composer.network(self._inputs(batch, vectors))
        filled = self._embedded(batch, self._fill(words), self._pieces(batch, len(vectors)))
        return {EMBEDDING: torch.cat([vectors, filled[EMBEDDING]]), WORDS: words}

    def _vectors(self, batch: TrainingBatch) -> Tensor:
        """The vectors of the rows that nothing is put into, not scaled to unit length ``[R, D]``."""
        chunks = batch.chunks[: len(batch.chunks) - batch.filled_chunks]
        return self._embedded(batch, self._fill(None), [(chunk, None) for chunk in chunks])[EMBEDDING]

    def _pieces(self, batch: TrainingBatch, before: int) -> list[Piece]:
        """The chunks of the rows to fill, ``before`` others ahead of them, and the pair of each of their rows."""
        chunks = batch.chunks[len(batch.chunks) - batch.filled_chunks :]
        pairs = (self._filled_rows(batch) - before).argsort()
        return list(zip(chunks, torch.split(pairs, [len(chunk) for chunk in chunks]), strict=True))

    def _fill(self, words: Tensor | None) -> Callable[[Piece], Rep]:
        """What embeds a piece with the pseudo-words of its pairs, of ``words`` ``[B, W]``; without, as it is."""
        shared = self.shared_features()

        def encode(piece: Piece) -> Rep:
            chunk, pairs = piece
            features = self.embedder.vision(chunk) if shared is None else shared.of(chunk)
            return {EMBEDDING: self._run(chunk, features, None if words is None else words[pairs])}

        return encode

    def _run(self, chunk: Batch, features: Features, words: Tensor | None) -> Tensor:
        """A vector for each row of a chunk ``[r, D]``, a pseudo-word put into each where there are any."""
        backbone = self.embedder.backbone
        sequence = backbone.embed(chunk, features)
        if words is not None:
            rows = torch.arange(len(chunk), device=words.device)
            sequence = replaced(sequence, words, rows, self.composer.placeholder, self.composer.places)
        hidden = backbone.run(sequence)
        if len(hidden.states) != len(chunk):
            raise InputError(
                "pair", expected="items of text or of media", got="one of both", remedy="leave one of the two out"
            )
        return hidden.states.float()

    def _filled_rows(self, batch: TrainingBatch) -> Tensor:
        """The row of each pair that its pseudo-word is put into ``[B]``."""
        raise NotImplementedError

    def _inputs(self, batch: TrainingBatch, vectors: Tensor) -> Tensor:
        """What the network makes pseudo-words of ``[B, D]``, of the vectors without one ``[R, D]``."""
        raise NotImplementedError


def _halves_of(piece: Piece) -> tuple[Piece, Piece] | None:
    """See :func:`mmembed.training.memory.halves_of`; each half with the pairs of its rows."""
    chunk, pairs = piece
    halves = halves_of(chunk)
    if halves is None:
        return None
    first, last = halves
    if pairs is None:
        return (first, None), (last, None)
    return (first, pairs[: len(first)]), (last, pairs[len(first) :])


class LinCirModule(MappingModule):
    """See :class:`mmembed.losses.settings.LinCIR`.

    The noise of a pair is a function of the seed, the number of the batch and the pair, whatever its rank. The held-out
    slice is embedded without noise; a masked caption hits if it is closest to its own of all captions.

    Raises:
        InputError: see :class:`MappingModule`; or a composer that leaves placeholders as they are.
    """

    def __init__(self, embedder: Embedder, stage: Stage, *, seed: int, facts: Mapping[str, Any] | None = None) -> None:
        super().__init__(embedder, stage, seed=seed, facts=facts)
        self.settings: LinCIR = stage.objective  # type: ignore[assignment]
        if self.composer.places != "all":
            raise InputError(
                "embedder.pooler.places", expected="all, for a masked caption has several placeholders",
                got=self.composer.places, remedy="write places: all",
            )  # fmt: skip

    def _filled_rows(self, batch: TrainingBatch) -> Tensor:
        return batch.query_rows

    def _inputs(self, batch: TrainingBatch, vectors: Tensor) -> Tensor:
        given = vectors[batch.target_rows]
        if self.training and self.settings.noise:
            given = given + self.settings.noise * self.noise(batch)
        return given

    def noise(self, batch: TrainingBatch) -> Tensor:
        """``u eps`` for each pair ``[B, D]``: u is drawn from 0 to 1, each number of eps from a normal distribution."""
        keys = batch.candidates.target_keys.tolist()
        drawn = [self._draw(batch.number, f"{batch.name(i)} {key}") for i, key in enumerate(keys)]
        return torch.stack([torch.zeros(self.embedder.width), *drawn])[1:].to(self.device)

    def _draw(self, number: int, pair: str) -> Tensor:
        chance = torch.Generator().manual_seed(int(fingerprint(str(self.seed), str(number), pair)[:15], 16))
        return torch.rand(1, generator=chance) * torch.randn(self.embedder.width, generator=chance)

    def _loss(self, batch: TrainingBatch, rep: Rep) -> Loss:
        embeddings = rep[EMBEDDING]
        loss: Loss = self.objective(embeddings[batch.query_rows], embeddings[batch.target_rows])
        return loss

    def _hits(self, batch: TrainingBatch, rep: Rep) -> Tensor:
        embeddings = F.normalize(rep[EMBEDDING], dim=-1)
        return self._found(batch, embeddings[batch.query_rows], embeddings[batch.target_rows])


class DistillationModule(MappingModule):
    """See :class:`mmembed.losses.settings.Distillation`.

    On the held-out slice a picture hits if the network's pseudo-word is closest to its own teacher's of all.

    Args:
        embedder: see :class:`MappingModule`.
        stage: see there; ``seed`` and ``facts`` alike.
        teachers: the pseudo-words to learn.
    """

    def __init__(
        self, embedder: Embedder, stage: Stage, teachers: Teachers, *, seed: int, facts: Mapping[str, Any] | None = None
    ) -> None:
        super().__init__(embedder, stage, seed=seed, facts=facts)
        self.teachers = teachers

    def _filled_rows(self, batch: TrainingBatch) -> Tensor:
        return batch.target_rows[batch.candidates.labels + 1]

    def _inputs(self, batch: TrainingBatch, vectors: Tensor) -> Tensor:
        return vectors[batch.query_rows]

    def _loss(self, batch: TrainingBatch, rep: Rep) -> Loss:
        embeddings = rep[EMBEDDING]
        phrases = embeddings[batch.target_rows[batch.candidates.labels]]
        loss: Loss = self.objective(
            rep[WORDS], self.teachers(batch, self.device), embeddings[self._filled_rows(batch)], phrases
        )
        return loss

    def _hits(self, batch: TrainingBatch, rep: Rep) -> Tensor:
        words, teachers = (F.normalize(x, dim=-1) for x in (rep[WORDS], self.teachers(batch, self.device)))
        best = (words @ gather(teachers).T).argmax(1)
        return gather(batch.candidates.query_keys)[best] == batch.candidates.query_keys
