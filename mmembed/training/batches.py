"""From the pairs of a step to chunks ready for the model; runs in the workers."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from mmembed.data.quarantine import BadRow
from mmembed.data.region_mixing import RegionMixer
from mmembed.errors import InputError
from mmembed.files import fingerprint
from mmembed.items import Item, Pair
from mmembed.losses.candidates import Candidates
from mmembed.losses.settings import Filled
from mmembed.models.backbone import Preprocessor
from mmembed.models.sequence import Batch, Row, collate
from mmembed.models.settings import Side
from mmembed.timers import span
from mmembed.training.row_chunks import cut_rows
from mmembed.training.settings import Chunks


@dataclass(frozen=True)
class PreparedPair:
    """A pair as rows: its query, then its positives and its hard negatives with the names of their content."""

    pair: Pair
    query: Row
    targets: tuple[Row, ...]
    target_keys: tuple[int, ...]


@dataclass
class TrainingBatch:
    """What one rank embeds of a global batch: its pairs as chunks of distinct rows.

    Args:
        number: of the global batch, from 0.
        chunks: the distinct rows of both sides, cut.
        query_rows: for each query, its row in the chunks' rows taken one after another ``[B]``.
        target_rows: the same for each target ``[N]``.
        candidates: who is who among the targets.
        sources: source of each pair, for logs and errors.
        query_ids: name of each query, for errors.
        bad: rows that could not be used and were replaced.
        part: what the batch is called if it is a held-out slice.
        filler: a chunk of one row that every part of the model runs for; ranks with fewer chunks than others run it
            where the weights are sharded, and its embedding is used by nobody. None elsewhere.
        filled_chunks: so many of the last chunks hold the rows that pseudo-words are put into, the others all else.
    """

    number: int
    chunks: list[Batch]
    query_rows: Tensor
    target_rows: Tensor
    candidates: Candidates
    sources: list[str]
    query_ids: list[str]
    bad: tuple[BadRow, ...] = ()
    part: str = ""
    filler: Batch | None = None
    filled_chunks: int = 0

    def to(self, device: torch.device | str) -> "TrainingBatch":
        """The batch on ``device``; Lightning calls this."""
        return replace(
            self,
            chunks=[chunk.to(device) for chunk in self.chunks],
            query_rows=self.query_rows.to(device),
            target_rows=self.target_rows.to(device),
            candidates=self.candidates.to(device),
            filler=None if self.filler is None else self.filler.to(device),
        )

    @property
    def composition(self) -> Counter[str]:
        """How many pairs each source gave."""
        return Counter(self.sources)

    def name(self, pair: int) -> str:
        """What errors and logs call a pair."""
        return f"{self.sources[pair]}:{self.query_ids[pair]}"


class PairPreparer:
    """Pairs -> TrainingBatch, a picklable function of its arguments.

    The targets are, for each pair in turn, its positives and its hard negatives. Equal rows are held, and will be
    encoded, once.

    Args:
        preprocessor: of the backbone.
        chunks: how rows are cut.
        sources: names of the mixture's sources in order; their places are the source numbers of the candidates. None
            given, all pairs are of one source.
        filler: whether every chunk must run every part of the model, as sharded weights ask for: a chunk that does
            not then gets one more row, the preprocessor's filler, whose embedding nobody uses.
        mixer: draws the prompts that the queries' regions become at a step; None keeps them as they are. Which pairs
            and targets are equal is told by what their table has.
        filled: which row of a pair a pseudo-word of its own is put into. Such rows are never held once for several
            pairs, and come in chunks of their own behind the others.
        placeholder: token that such a row must have; None does not look.
    """

    def __init__(
        self,
        preprocessor: Preprocessor,
        chunks: Chunks,
        sources: Sequence[str] = (),
        *,
        filler: bool = False,
        mixer: RegionMixer | None = None,
        filled: Filled = "none",
        placeholder: int | None = None,
    ) -> None:
        self.preprocessor = preprocessor
        self.mixer = mixer
        self.filled = filled
        self.placeholder = placeholder
        self.chunks = chunks
        self.numbers: Mapping[str, int] = {name: number for number, name in enumerate(sources)}
        self.filler = preprocessor(preprocessor.filler(), "query") if filler else None

    def __call__(self, number: int, pairs: Sequence[Pair]) -> TrainingBatch:
        """Prepare pairs as the batch of this number.

        Raises:
            InputError: a row that cannot be used, named by source and query id.
        """
        return self.assemble(number, [self.prepare(pair, number) for pair in pairs], ())

    @property
    def by_step(self) -> bool:
        """Whether what a pair becomes depends on the number of its batch."""
        return self.mixer is not None

    def prepare(self, pair: Pair, number: int | None = None) -> PreparedPair:
        """Decode, render and tokenize one pair.

        Args:
            pair: the pair.
            number: of the global batch that it is for; None for a held-out one, whose regions stay as they are.

        Raises:
            InputError: a row that cannot be used, named by source and query id.
        """
        items = (*pair.positives, *(negative.item for negative in pair.negatives))
        _check_targets(pair, len(items), self.filled)
        prepared = PreparedPair(
            pair,
            self._query(pair, number),
            tuple(self._row(pair, item, "target") for item in items),
            tuple(_number(item.content_fingerprint()) for item in items),
        )
        rows = (prepared.query, *prepared.targets)
        for row, filled in zip(rows, self._filled([prepared]), strict=True):
            if filled and self.placeholder is not None and not bool((row.ids == self.placeholder).any()):
                raise InputError(
                    f"{pair.source}: {pair.query_id}", expected="the placeholder in the text to fill", got="none",
                    remedy="write it as a word of its own, early enough for the text tower's context",
                )  # fmt: skip
        return prepared

    def assemble(self, number: int, prepared: Sequence[PreparedPair], bad: tuple[BadRow, ...]) -> TrainingBatch:
        """Make prepared pairs one batch; there may be none, on a rank that got no share of a small batch."""
        pairs = [one.pair for one in prepared]
        queries = [one.query for one in prepared]
        targets = [row for one in prepared for row in one.targets]
        chunks, filled, rows = cut_rows([*queries, *targets], self._filled(prepared), self.chunks, self.filler)
        return TrainingBatch(
            number=number,
            chunks=chunks,
            query_rows=rows[: len(queries)],
            target_rows=rows[len(queries) :],
            candidates=_candidates(prepared, self.numbers),
            sources=[pair.source for pair in pairs],
            query_ids=[pair.query_id for pair in pairs],
            bad=bad,
            filler=None if self.filler is None else collate([self.filler]),
            filled_chunks=filled,
        )

    def _filled(self, prepared: Sequence[PreparedPair]) -> list[bool]:
        """Whether a pseudo-word is put into each row, all queries before all targets."""
        queries = [self.filled == "query" for _ in prepared]
        return queries + [self.filled == "second" and i == 1 for one in prepared for i in range(len(one.targets))]

    def _query(self, pair: Pair, number: int | None) -> Row:
        if self.mixer is None or number is None:
            return self._row(pair, pair.query, "query")
        with _naming(pair, "query"):
            shown = self.mixer.query(pair, number)
        return self._row(pair, shown, "query")

    def _row(self, pair: Pair, item: Item, side: Side) -> Row:
        with _naming(pair, side), span("preprocess"):
            return self.preprocessor(item, side)


def _check_targets(pair: Pair, count: int, filled: Filled) -> None:
    """Refuse a pair whose targets are not those that a pseudo-word's objective reads."""
    wanted = {"none": count, "query": 1, "second": 2}[filled]
    if count != wanted or (filled != "none" and pair.negatives):
        said = {"query": "one positive, the caption", "second": "two positives, a phrase and the phrase to fill"}
        raise InputError(
            f"{pair.source}: {pair.query_id}: target", expected=f"{said[filled]}, and no negative",
            got=f"{len(pair.positives)} and {len(pair.negatives)}", remedy="see the objective, or take Contrastive",
        )  # fmt: skip


@contextmanager
def _naming(pair: Pair, side: Side) -> Iterator[None]:
    """Say in errors which row they are of."""
    try:
        yield
    except InputError as error:
        raise error.within(f"{pair.source}: {pair.query_id}: {side}") from error


def _candidates(prepared: Sequence[PreparedPair], numbers: Mapping[str, int]) -> Candidates:
    owner = [i for i, one in enumerate(prepared) for _ in one.targets]
    positive = [place < len(one.pair.positives) for one in prepared for place in range(len(one.targets))]
    return Candidates(
        owner=torch.tensor(owner, dtype=torch.long),
        positive=torch.tensor(positive, dtype=torch.bool),
        query_keys=torch.tensor([number_of(one.pair.query) for one in prepared], dtype=torch.long),
        target_keys=torch.tensor([key for one in prepared for key in one.target_keys], dtype=torch.long),
        classes=torch.tensor([_class(one.pair) for one in prepared], dtype=torch.long),
        sources=torch.tensor([numbers[one.pair.source] if numbers else 0 for one in prepared], dtype=torch.long),
    )


def number_of(item: Item) -> int:
    """The number that batches know a query by; see :class:`mmembed.losses.candidates.Candidates`."""
    return _number(item.fingerprint())


def _number(name: str) -> int:
    """63 bits of a fingerprint: enough that two contents of a batch never share them, and fits a tensor."""
    return int(name[:16], 16) >> 1


def _class(pair: Pair) -> int:
    """The class as a number that every rank gives it; the same name in another source is another class."""
    return _number(fingerprint(pair.source, pair.class_id)) if pair.class_id else -1
