"""Work counters: exact counts of work done, which tests assert where seconds would lie.

Names in use: ``tower_forwards`` (media through a vision tower), ``language_rows`` and ``language_tokens`` (real ones),
``padded_tokens`` (tokens computed, padding included), ``media_decoded``, ``cache_hits`` (embeddings already known),
``score_bytes`` (of similarities computed), ``gradient_reductions``, ``sampler_operations``, ``sam_images`` and
``sam_prompts`` (pictures encoded and prompts decoded by SAM 2); as the most at one time, ``score_bytes_at_once`` (of
similarities held).
"""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

_open: list[Counter[str]] = []


def count(name: str, amount: int = 1) -> None:
    """Add ``amount`` to ``name`` in every open :func:`counting` block of this process."""
    for counter in _open:
        counter[name] += amount


def peak(name: str, amount: int) -> None:
    """Raise ``name`` to ``amount`` where it is lower, in every open :func:`counting` block of this process."""
    for counter in _open:
        counter[name] = max(counter[name], amount)


@contextmanager
def counting() -> Iterator[Counter[str]]:
    """Collect the work done inside the block; blocks may nest."""
    counter: Counter[str] = Counter()
    _open.append(counter)
    try:
        yield counter
    finally:
        # by identity: equal counters are not the same counter
        _open[:] = [other for other in _open if other is not counter]
