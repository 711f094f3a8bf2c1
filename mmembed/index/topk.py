"""Exact top-k by inner product, in blocks, with one defined order among equal scores."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from mmembed.counters import count, peak
from mmembed.errors import InputError

_INDEX_BITS = 31
_MAX_INDEX = (1 << _INDEX_BITS) - 1


def top_k(
    queries: Tensor,
    corpus: Tensor,
    k: int,
    *,
    block_rows: int = 2048,
    candidates: Sequence[Sequence[int]] | None = None,
    lose_ties: Sequence[Sequence[int]] | None = None,
    excluded: Sequence[Sequence[int]] | None = None,
) -> tuple[Tensor, Tensor]:
    """The k best targets of each query, ordered by (-score, index): among equal scores the lower index is first.

    Products are summed in float64 and rounded to float32 once, so that equal vectors score equally in whatever
    block they fall, and the result does not depend on ``block_rows``. Counts ``score_bytes``: eight bytes for
    each score computed, in total; ``score_bytes_at_once`` are those held together, a block of ``block_rows`` x
    ``block_rows`` scores at most.

    Args:
        queries: ``[Q, D]``, finite.
        corpus: ``[N, D]``, finite.
        k: how many targets a query gets.
        block_rows: queries and targets compared at once; bounds the memory, never changes the result.
        candidates: for each query the rows of ``corpus`` it may rank; None lets every query rank all of them.
        lose_ties: for each query the rows of ``corpus`` that come after all others of equal score; with the
            right targets here the ranking is the pessimistic one.
        excluded: for each query the rows of ``corpus`` that it does not rank.

    Returns:
        Scores ``[Q, k]`` float32 and rows of ``corpus`` ``[Q, k]`` int64, on the device of ``queries``. Where a
        query has fewer than k targets, the rest holds ``-inf`` and -1.

    Raises:
        InputError: shapes that do not fit, a value that is not finite, or a list for some queries only.
    """
    _check(queries, corpus, k, block_rows, {"candidates": candidates, "lose_ties": lose_ties, "excluded": excluded})
    late, out = (_pairs(lists, queries.device) for lists in (lose_ties, excluded))
    best = []
    step = block_rows if candidates is None else 1
    for first in range(0, len(queries), step):
        block = queries[first : first + step]
        own = _of_rows(late, first, step), _of_rows(out, first, step)
        if candidates is None:
            best.append(_shared(block, corpus, k, block_rows, *own))
        else:
            best.append(_local(block, corpus, candidates[first], k, *own))
    keys = torch.cat(best) if best else torch.empty(0, k, dtype=torch.int64, device=queries.device)
    return _unpack(keys)


def _shared(queries: Tensor, corpus: Tensor, k: int, block_rows: int, late: Tensor, out: Tensor) -> Tensor:
    """Sorted keys ``[Q, k]`` of one block of queries over the whole corpus."""
    best = torch.full((len(queries), k), _nothing(), dtype=torch.int64, device=queries.device)
    for first in range(0, len(corpus), block_rows):
        block = corpus[first : first + block_rows]
        columns = torch.arange(first, first + len(block), device=queries.device)
        keys = _keys(queries, block, columns)
        here = late[:, (late[1] >= first) & (late[1] < first + len(block))]
        keys[here[0], here[1] - first] -= 1 << _INDEX_BITS
        here = out[:, (out[1] >= first) & (out[1] < first + len(block))]
        keys[here[0], here[1] - first] = _nothing()
        best = torch.cat([best, keys], dim=1).topk(k, dim=1).values
    return best


def _local(query: Tensor, corpus: Tensor, candidates: Sequence[int], k: int, late: Tensor, out: Tensor) -> Tensor:
    """Sorted keys ``[1, k]`` of one query over its own candidates."""
    best = torch.full((1, k), _nothing(), dtype=torch.int64, device=query.device)
    columns = torch.tensor(list(candidates), dtype=torch.int64, device=query.device)
    keys = _keys(query, corpus[columns], columns)
    keys[:, torch.isin(columns, late[1])] -= 1 << _INDEX_BITS
    keys[:, torch.isin(columns, out[1])] = _nothing()
    return torch.cat([best, keys], dim=1).topk(k, dim=1).values


def _keys(queries: Tensor, targets: Tensor, columns: Tensor) -> Tensor:
    """One integer a score, larger is better: the score's bits, one bit for ties, the index counted backwards.

    Integers are all different, so that any top-k of them is stable and blocks merge without looking at ties.
    """
    # adding zero turns -0.0 into 0.0, which must tie
    scores = (queries.double() @ targets.double().T).float() + 0.0
    count("score_bytes", 8 * scores.numel())
    peak("score_bytes_at_once", 8 * scores.numel())
    bits = scores.view(torch.int32).long()
    # the bits of a negative float grow as it falls
    ordered = torch.where(bits < 0, bits ^ 0x7FFFFFFF, bits)
    return (ordered << (_INDEX_BITS + 1)) + (1 << _INDEX_BITS) + (_MAX_INDEX - columns)


def _unpack(keys: Tensor) -> tuple[Tensor, Tensor]:
    ordered = keys >> (_INDEX_BITS + 1)
    bits = torch.where(ordered < 0, ordered ^ 0x7FFFFFFF, ordered)
    scores = bits.int().view(torch.float32)
    indices = _MAX_INDEX - (keys & _MAX_INDEX)
    return scores, indices.masked_fill(keys == _nothing(), -1)


def _nothing() -> int:
    """The key of an empty place: the score -inf, which no finite product reaches."""
    bits = int(torch.tensor(-torch.inf).view(torch.int32))
    return (bits ^ 0x7FFFFFFF) << (_INDEX_BITS + 1)


def _pairs(lists: Sequence[Sequence[int]] | None, device: torch.device) -> Tensor:
    """Lists of rows as ``[2, M]``: query, row of the corpus."""
    pairs = [(query, row) for query, rows in enumerate(lists or ()) for row in rows]
    return torch.tensor(pairs, dtype=torch.int64, device=device).reshape(-1, 2).T


def _of_rows(pairs: Tensor, first: int, num_rows: int) -> Tensor:
    """The pairs of some queries, counted from the first of them."""
    kept = pairs[:, (pairs[0] >= first) & (pairs[0] < first + num_rows)]
    return kept - torch.tensor([[first], [0]], device=pairs.device)


def _check(
    queries: Tensor,
    corpus: Tensor,
    k: int,
    block_rows: int,
    lists: Mapping[str, Sequence[Sequence[int]] | None],
) -> None:
    for name, number in (("k", k), ("block_rows", block_rows)):
        if number < 1:
            raise InputError(f"top_k.{name}", expected="at least 1", got=number, remedy="give a positive number")
    if queries.ndim != 2 or corpus.ndim != 2 or queries.shape[1] != corpus.shape[1]:
        raise InputError(
            "top_k",
            expected="queries [Q, D] and corpus [N, D] of one width",
            got=f"{list(queries.shape)} and {list(corpus.shape)}",
            remedy="embed both sides with one model",
        )
    for name, vectors in (("queries", queries), ("corpus", corpus)):
        # in blocks: of a whole gallery at once it would take as much memory again
        finite = torch.cat([block.isfinite().all(dim=1) for block in torch.split(vectors, block_rows)])
        if not finite.all():
            raise InputError(
                f"top_k.{name}",
                expected="finite numbers",
                got=f"{int((~finite).sum())} rows with NaN or infinity, the first is row {int((~finite).nonzero()[0])}",
                remedy="look at the model's embedding of that row",
            )
    for name, rows in lists.items():
        _check_lists(name, rows, len(queries), len(corpus))


def _check_lists(name: str, lists: Sequence[Sequence[int]] | None, num_queries: int, num_targets: int) -> None:
    if lists is None:
        return
    if len(lists) != num_queries:
        raise InputError(
            f"top_k.{name}",
            expected=f"{num_queries} lists, one for each query",
            got=len(lists),
            remedy="give every query a list",
        )
    for query, rows in enumerate(lists):
        for row in rows:
            if not 0 <= row < num_targets:
                raise InputError(
                    f"top_k.{name}[{query}]",
                    expected=f"rows of the corpus, 0 to {num_targets - 1}",
                    got=row,
                    remedy="check the list",
                )
        if len(set(rows)) != len(rows):
            raise InputError(
                f"top_k.{name}[{query}]",
                expected="each row once",
                got=f"{len(rows) - len(set(rows))} repeated",
                remedy="drop the repeats",
            )
