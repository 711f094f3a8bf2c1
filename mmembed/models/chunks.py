"""How rows are cut into chunks that pass through the model together."""

from collections.abc import Sequence


def plan_chunks(
    lengths: Sequence[int],
    *,
    max_rows: int | None = None,
    max_tokens: int | None = None,
    max_padding: float | None = None,
    sort: bool = True,
    packed: bool = False,
) -> list[list[int]]:
    """Cut rows into chunks by number of rows, by tokens with padding, by the share of padding, or all of these.

    Sorted from long to short, a chunk's rows are of like length and the first chunk is the largest: little is padded,
    and memory runs out at once or not at all.

    Args:
        lengths: tokens of each row.
        max_rows: most rows in a chunk.
        max_tokens: most tokens in a chunk, each row counted as the longest; one row beyond it is a chunk of its own.
        max_padding: largest share of a chunk's tokens that is padding, or would be if it were padded.
        sort: take the rows from long to short, those of equal length in the order given; False takes all in that order.
        packed: rows pass one behind another: each counts as its own length to ``max_tokens``.

    Returns:
        Indices of the rows of each chunk; each row is in exactly one.
    """
    order = list(range(len(lengths)))
    if sort:
        order.sort(key=lambda i: -lengths[i])
    chunks: list[list[int]] = []
    longest = real = 0
    for i in order:
        rows = len(chunks[-1]) + 1 if chunks else 1
        padded = max(longest, lengths[i]) * rows
        full = (
            (max_rows is not None and rows > max_rows)
            or (max_tokens is not None and (real + lengths[i] if packed else padded) > max_tokens)
            or (max_padding is not None and padded - real - lengths[i] > max_padding * padded)
        )
        if not chunks or full:
            chunks.append([i])
            longest = real = lengths[i]
        else:
            chunks[-1].append(i)
            longest, real = max(longest, lengths[i]), real + lengths[i]
    return chunks
