"""Exact large-batch contrastive gradients, a few chunks of activations at a time (Gao et al. 2021, arXiv:2101.06983).

The loss needs every embedding of the batch, the backward pass only one chunk's activations. So: embed all chunks, take
the loss's gradient with respect to the embeddings, then push it through the chunks. Chunks whose graphs fit a byte
budget keep them from the first pass; the others are embedded again, with the random state they had, so that dropout
repeats itself. One chunk that is kept is plain backpropagation.
"""

import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeAlias, TypeVar

import torch
from torch import Tensor

Chunk = TypeVar("Chunk")
Rep: TypeAlias = dict[str, Tensor]
"""Pooled tensors by name, each ``[b, ...]``; every leaf is cached."""


def cached_gradients(
    encode: Callable[[Chunk], Rep],
    chunks: Sequence[Chunk],
    loss_of: Callable[[Rep], Tensor],
    *,
    backward: Callable[[Tensor], None] = Tensor.backward,
    keep_bytes: int = 0,
    empty: Rep | None = None,
) -> tuple[Tensor, Rep]:
    """Backpropagate ``loss_of`` of the whole batch into the parameters behind ``encode``, and into those of the loss.

    Args:
        encode: maps a chunk to its Rep; called once more for each chunk whose graph was not kept.
        chunks: the batch, cut.
        loss_of: sees the Rep of the whole batch, the chunks' rows one after another, and returns a scalar.
        backward: what computes gradients of a scalar, e.g. Lightning's ``manual_backward``.
        keep_bytes: activations kept between the passes; the chunk that crosses the budget is the first not kept.
        empty: the Rep of no rows, for a process without chunks that takes part in a loss over several processes.

    Returns:
        The detached loss and the detached Rep of the whole batch.
    """
    states, graphs, reps = [], [], []
    left = keep_bytes
    for chunk in chunks:
        states.append(_RandomState())
        with torch.set_grad_enabled(left > 0), _saved_bytes() as saved:
            rep = encode(chunk)
        left -= saved[0]
        graphs.append(rep if left > 0 else None)
        reps.append({name: tensor.detach() for name, tensor in rep.items()})

    joined = [*reps, *([] if empty is None else [empty])]
    whole = {name: torch.cat([rep[name] for rep in joined]).detach().requires_grad_() for name in joined[0]}
    loss = loss_of(whole)
    backward(loss)

    start = 0
    for chunk, state, graph, rep in zip(chunks, states, graphs, reps, strict=True):
        rows = len(next(iter(rep.values())))
        if graph is None:
            with state.replay():
                again = encode(chunk)
        _push(again if graph is None else graph, whole, slice(start, start + rows), backward)
        start += rows
    return loss.detach(), {name: tensor.detach() for name, tensor in whole.items()}


def _push(graph: Rep, whole: Rep, rows: slice, backward: Callable[[Tensor], None]) -> None:
    """Backpropagate the cached gradient of these rows: the surrogate's gradient is the true one."""
    surrogate: Tensor | None = None
    for name, tensor in graph.items():
        grad = whole[name].grad
        if grad is None or not tensor.requires_grad:
            continue
        term = (tensor * grad[rows]).sum()
        surrogate = term if surrogate is None else surrogate + term
    if surrogate is not None:
        backward(surrogate)


@contextmanager
def _saved_bytes() -> Iterator[list[int]]:
    """Count the bytes of distinct storages that autograd still keeps at the end of the block."""
    total = [0]
    saved: list[weakref.ref[Tensor]] = []

    def pack(tensor: Tensor) -> Tensor:
        # parameters are kept anyway
        if isinstance(tensor, torch.nn.Parameter):
            return tensor
        # an output that is saved knows its graph: kept as it is, the two would keep each other for ever
        kept = tensor.detach()
        saved.append(weakref.ref(kept))
        return kept

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        yield total
    # graphs that ended inside the block (DoRA's of its norms) freed what they had saved, and its memory serves others
    kept = (tensor.untyped_storage() for tensor in (found() for found in saved) if tensor is not None)
    total[0] = sum({storage.data_ptr(): storage.nbytes() for storage in kept}.values())


class _RandomState:
    """The random states at one moment, so that dropout repeats itself."""

    def __init__(self) -> None:
        self.cpu = torch.get_rng_state()
        self.cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []

    @contextmanager
    def replay(self) -> Iterator[None]:
        with torch.random.fork_rng():
            torch.set_rng_state(self.cpu)
            if self.cuda:
                torch.cuda.set_rng_state_all(self.cuda)
            yield
