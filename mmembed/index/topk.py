"""Exact top-k by inner product, in blocks, with one defined order among equal scores."""

from collections.abc import Sequence
from typing import Literal, get_args

import torch
from torch import Tensor

from mmembed.counters import count, peak
from mmembed.errors import InputError, nearest
from mmembed.index.products import Queries, multiplies_bfloat16, whole_products
from mmembed.index.score_keys import LATE, keys_of, nothing, unpack
from mmembed.index.shortlist import Shortlist, room
from mmembed.index.topk_input import Corpus, check

Screen = Literal["auto", "bfloat16", "float32", "off"]

_WORTH = 512
"""So many targets for each of the k best, or collecting costs more than a screen spares: measured, 300 to 600."""

_PAIRS = 256
"""So many pairs are scored in float64 at once on a CPU: what they need stays in its cache."""


@torch.no_grad()
def top_k(
    queries: Tensor,
    corpus: Tensor,
    k: int,
    *,
    block_rows: int = 2048,
    candidates: Sequence[Sequence[int]] | None = None,
    lose_ties: Sequence[Sequence[int]] | None = None,
    excluded: Sequence[Sequence[int]] | None = None,
    screen: Screen = "auto",
) -> tuple[Tensor, Tensor]:
    """The k best targets of each query, ordered by (-score, index): among equal scores the lower index is first.

    Products are summed in float64 and rounded to float32 once, so that equal vectors score equally in whatever
    block they fall, and the result does not depend on ``block_rows``. A screen spares most of these products: small
    ones, which err by less than a bound (:mod:`mmembed.index.products`), show which targets cannot be among the k
    best, and only the others are scored. It does not change the result but by the order of a sum in float64. A query
    with too many targets that are too close to tell is screened in the next finer type, and at last scored against
    all.

    Counts ``score_bytes``: the bytes of all scores computed, two or four each in the screen and eight in float64;
    ``score_bytes_at_once`` are those held together, a block of ``block_rows`` x ``block_rows`` scores at most;
    ``topk_rescored`` are the scores in float64 of what passed a screen, and ``topk_fallback_rows`` the queries that
    no screen could settle.

    Args:
        queries: ``[Q, D]``, finite.
        corpus: ``[N, D]``, finite.
        k: how many targets a query gets.
        block_rows: queries and targets compared at once; bounds the memory, never changes the result.
        candidates: for each query the rows of ``corpus`` it may rank; None lets every query rank all of them.
        lose_ties: for each query the rows of ``corpus`` that come after all others of equal score; with the
            right targets here the ranking is the pessimistic one.
        excluded: for each query the rows of ``corpus`` that it does not rank.
        screen: the type of the screen's products; "auto" takes bfloat16 where the processor multiplies it and
            float32 elsewhere, and none for a corpus of up to 512 k targets, where it would cost more than it
            spares; "off" scores every target in float64. Local candidates, vectors in float64 and a corpus of not
            more than 8 k + 64 targets are never screened.

    Returns:
        Scores ``[Q, k]`` float32 and rows of ``corpus`` ``[Q, k]`` int64, on the device of ``queries``. Where a
        query has fewer than k targets, the rest holds ``-inf`` and -1.

    Raises:
        InputError: shapes that do not fit, a value that is not finite, a list for some queries only, an unknown screen,
            or one in bfloat16 on a device that has no such products.
    """
    if screen not in get_args(Screen):
        raise InputError(
            "top_k.screen", expected=", ".join(get_args(Screen)), got=f"'{screen}'",
            remedy=nearest(str(screen), get_args(Screen)),
        )  # fmt: skip
    lists = {"candidates": candidates, "lose_ties": lose_ties, "excluded": excluded}
    check(queries, corpus, k, block_rows, lists)
    targets = Corpus(corpus, block_rows)
    screens = _screens(screen, queries, targets, k) if candidates is None else []
    if not screens or not len(queries):
        targets.check_rest()
    late, out = (_pairs(pairs, queries.device) for pairs in (lose_ties, excluded))
    keys = torch.full((len(queries), k), nothing(), dtype=torch.int64, device=queries.device)
    step = block_rows if candidates is None else 1
    if screens:
        # the shortlists of a step take no more than a block of scores
        step = max(1, min(step, block_rows * block_rows // (3 * room(k))))
    for first in range(0, len(queries), step):
        block = queries[first : first + step]
        own = _of_rows(late, first, step), _of_rows(out, first, step)
        if candidates is None:
            keys[first : first + step] = _shared(block, targets, k, *own, screens)
        else:
            keys[first : first + step] = _local(block, corpus, candidates[first], k, *own)
    return unpack(keys)


def _screens(screen: Screen, queries: Tensor, corpus: Corpus, k: int) -> list[torch.dtype]:
    """The types to screen in, the coarsest first."""
    multiplies = multiplies_bfloat16(queries.device)
    if screen == "bfloat16" and not multiplies:
        raise InputError(
            "top_k.screen",
            expected="a processor with products in bfloat16 (AVX512-BF16 or AMX)",
            got=f"bfloat16 on {queries.device}",
            remedy="leave it at auto",
        )
    small = torch.float32, torch.float16, torch.bfloat16
    narrow = queries.dtype in small and corpus.vectors.dtype in small
    least = max(room(k), _WORTH * k) if screen == "auto" else room(k)
    if screen == "off" or not narrow or len(corpus.vectors) <= least:
        return []
    return [torch.bfloat16, torch.float32] if multiplies and screen != "float32" else [torch.float32]


def _shared(
    queries: Tensor, corpus: Corpus, k: int, late: Tensor, out: Tensor, screens: Sequence[torch.dtype]
) -> Tensor:
    """Sorted keys ``[Q, k]`` of one block of queries over the whole corpus."""
    best = torch.full((len(queries), k), nothing(), dtype=torch.int64, device=queries.device)
    left = torch.arange(len(queries), device=queries.device)
    for dtype in screens:
        found, settled = _screened(queries[left], corpus, k, _among(late, left), _among(out, left), dtype)
        best[left[settled]] = found[settled]
        left = left[~settled]
        if not len(left):
            return best
    if screens:
        count("topk_fallback_rows", len(left))
        corpus.check_rest()
    best[left] = _all_scored(queries[left], corpus, k, _among(late, left), _among(out, left))
    return best


def _screened(
    queries: Tensor, corpus: Corpus, k: int, late: Tensor, out: Tensor, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """Sorted keys ``[Q, k]``, and which queries' they are indeed ``[Q]``: of the others too much passed the screen."""
    rows, shortlist = Queries.of(queries, dtype), Shortlist(len(queries), k, queries.device)
    unsettled = torch.zeros(len(queries), dtype=torch.bool, device=queries.device)
    with whole_products(queries.device):
        for first in corpus.starts:
            block, largest = corpus.measured(first)
            if not rows.fits(largest) or shortlist.overflowed.all():
                return torch.empty(len(queries), k, dtype=torch.int64, device=queries.device), unsettled
            scores = rows.scores(block)
            _count_scores(scores)
            here = _in_block(out, first, len(block))
            scores[here[0], here[1] - first] = torch.finfo(dtype).min
            shortlist.add(scores, rows.bounds(largest), rows.rounding, first)
    owners, places = shortlist.pairs()
    columns = shortlist.columns[owners, places]
    keys = torch.full(shortlist.columns.shape, nothing(), dtype=torch.int64, device=queries.device)
    exact = keys_of(_scored(queries, corpus, owners, columns), columns)
    size = len(corpus.vectors)
    exact -= LATE * torch.isin(owners * size + columns, late[0] * size + late[1])
    keys[owners, places] = exact
    return keys.topk(k, dim=1).values, ~shortlist.overflowed


def _scored(queries: Tensor, corpus: Corpus, owners: Tensor, columns: Tensor) -> Tensor:
    """Exact scores ``[M]`` of pairs of queries and targets."""
    count("topk_rescored", len(owners))
    count("score_bytes", 8 * len(owners))
    exact, scores = queries.double(), torch.empty(len(owners), device=queries.device)
    step = min(_PAIRS, corpus.block_rows) if queries.device.type == "cpu" else corpus.block_rows
    for first in range(0, len(owners), step):
        some = slice(first, first + step)
        products = corpus.vectors.index_select(0, columns[some]).double().mul_(exact.index_select(0, owners[some]))
        scores[some] = products.sum(1)
    return scores


def _all_scored(queries: Tensor, corpus: Corpus, k: int, late: Tensor, out: Tensor) -> Tensor:
    """Sorted keys ``[Q, k]`` with every product in float64."""
    best = torch.full((len(queries), k), nothing(), dtype=torch.int64, device=queries.device)
    for first in corpus.starts:
        block = corpus.block(first)
        columns = torch.arange(first, first + len(block), device=queries.device)
        keys = _keys(queries, block, columns)
        here = _in_block(late, first, len(block))
        keys[here[0], here[1] - first] -= LATE
        here = _in_block(out, first, len(block))
        keys[here[0], here[1] - first] = nothing()
        best = torch.cat([best, keys], dim=1).topk(k, dim=1).values
    return best


def _local(query: Tensor, corpus: Tensor, candidates: Sequence[int], k: int, late: Tensor, out: Tensor) -> Tensor:
    """Sorted keys ``[1, k]`` of one query over its own candidates."""
    best = torch.full((1, k), nothing(), dtype=torch.int64, device=query.device)
    columns = torch.tensor(list(candidates), dtype=torch.int64, device=query.device)
    keys = _keys(query, corpus[columns], columns)
    keys[:, torch.isin(columns, late[1])] -= LATE
    keys[:, torch.isin(columns, out[1])] = nothing()
    return torch.cat([best, keys], dim=1).topk(k, dim=1).values


def _keys(queries: Tensor, targets: Tensor, columns: Tensor) -> Tensor:
    scores = queries.double() @ targets.double().T
    _count_scores(scores)
    return keys_of(scores.float(), columns)


def _count_scores(scores: Tensor) -> None:
    count("score_bytes", scores.nbytes)
    peak("score_bytes_at_once", scores.nbytes)


def _pairs(lists: Sequence[Sequence[int]] | None, device: torch.device) -> Tensor:
    """Lists of rows as ``[2, M]``: query, row of the corpus."""
    pairs = [(query, row) for query, rows in enumerate(lists or ()) for row in rows]
    return torch.tensor(pairs, dtype=torch.int64, device=device).reshape(-1, 2).T


def _of_rows(pairs: Tensor, first: int, num_rows: int) -> Tensor:
    """The pairs of some queries, counted from the first of them."""
    kept = pairs[:, (pairs[0] >= first) & (pairs[0] < first + num_rows)]
    return kept - torch.tensor([[first], [0]], device=pairs.device)


def _among(pairs: Tensor, chosen: Tensor) -> Tensor:
    """The pairs of the chosen queries, ascending, counted among them."""
    kept = pairs[:, torch.isin(pairs[0], chosen)]
    return torch.stack([torch.searchsorted(chosen, kept[0].contiguous()), kept[1]])


def _in_block(pairs: Tensor, first: int, num_targets: int) -> Tensor:
    return pairs[:, (pairs[1] >= first) & (pairs[1] < first + num_targets)]
