"""Work counters: exact counts of work done, which tests assert where seconds would lie.

Names in use: ``tower_forwards`` (media through a vision tower), ``language_rows`` and ``language_tokens`` (real ones),
``padded_tokens`` (tokens computed, padding included), ``last_layer_tokens``
(those at which the last layer is computed to its end), ``media_decoded``, ``frames_decoded`` (of clips), ``cache_hits``
(embeddings already known), ``feature_hits`` (media whose features came from disk), ``templates_rendered`` (chat
templates, once for conversations of like build), ``score_bytes`` (of similarities computed), ``topk_rescored`` (scores
in float64 of what passed a screen) and ``topk_fallback_rows`` (queries that no screen settled), ``masked_rows`` (of the
loss, for which masks were built), ``gathered_bytes`` and ``scattered_bytes`` (received from all ranks forward and
backward), ``gradient_reductions``, ``sampler_operations``, ``sam_images`` and ``sam_prompts`` (pictures encoded and
prompts decoded by SAM 2), ``chunks_halved`` and ``graphs_given_up`` (where memory ran out); as the most at one time,
``score_bytes_at_once`` (of similarities held).
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
