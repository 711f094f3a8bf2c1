"""States of a tower's layers on their way, read without running anything twice."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from mmembed.errors import InputError


def check_taps(layers: Sequence[int], depth: int) -> tuple[int, ...]:
    """Layers counted from the front; 0 are a tower's embeddings, ``depth`` is its last layer.

    Raises:
        InputError: a layer that the tower has not.
    """
    wrong = [layer for layer in layers if not -depth - 1 <= layer <= depth]
    if wrong:
        raise InputError(
            "regions.layers", expected=f"layers {-depth - 1} to {depth} of the tower", got=wrong,
            remedy="0 are its embeddings, -1 is its last layer",
        )  # fmt: skip
    return tuple(layer % (depth + 1) for layer in layers)


@contextmanager
def tapped(blocks: Sequence[nn.Module], layers: Sequence[int]) -> Iterator[dict[int, Tensor]]:
    """While the block runs, the states behind ``layers`` of one forward are kept; 0 is what the first is given.

    Args:
        blocks: the layers of a tower in order; each takes states first, and gives states.
        layers: which, counted from the front.
    """
    states: dict[int, Tensor] = {}

    def before(_: nn.Module, given: tuple[Any, ...]) -> None:
        states[0] = given[0]

    def behind(number: int) -> Any:
        def keep(_: nn.Module, given: tuple[Any, ...], out: Tensor) -> None:
            states[number] = out

        return keep

    hooks = [blocks[layer - 1].register_forward_hook(behind(layer)) for layer in layers if layer]
    hooks += [blocks[0].register_forward_pre_hook(before)] if 0 in layers else []
    try:
        yield states
    finally:
        for hook in hooks:
            hook.remove()


def chosen_states(states: tuple[Tensor, ...] | None, layers: tuple[int, ...]) -> list[Tensor]:
    """The hidden states asked for; 0 are the embeddings."""
    wrong = [layer for layer in layers if states is None or not -len(states) <= layer < len(states)]
    if wrong:
        raise InputError(
            "pooler.layers", expected=f"hidden states {-len(states or ())} to {len(states or ()) - 1}", got=wrong,
            remedy="0 are the embeddings, -1 is the last layer",
        )  # fmt: skip
    return [states[layer] for layer in layers] if states else []
