"""Exact large-batch contrastive gradients, a few chunks of activations at a time (Gao et al. 2021, arXiv:2101.06983).

The loss needs every embedding of the batch, the backward pass only one chunk's activations. So: embed all chunks, take
the loss's gradient with respect to the embeddings, then push it through the chunks. Chunks whose graphs fit a byte
budget keep them from the first pass; the others are embedded again, with the random state they had, so that dropout
repeats itself. One chunk that is kept is plain backpropagation.

Where memory runs out, graphs are given up and chunks are cut, see :class:`mmembed.training.room.Room`. In the first
pass the rest then goes on, with the random state that the chunk had. Where the second pass of any process runs out, all
processes put gradients and random state back and take the step again, for the loss takes all of them. So the gradient
is that of a step which was cut so from the start: without dropout that of any cut, with dropout that of one draw.
"""

import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, Generic, TypeAlias, TypeVar

import torch
from torch import Tensor

from mmembed.losses.gather import anywhere
from mmembed.training.room import Room, free_memory

Chunk = TypeVar("Chunk")
Rep: TypeAlias = dict[str, Tensor]
"""Pooled tensors by name, each ``[b, ...]``; every leaf is cached."""
Backward: TypeAlias = Callable[[Tensor], None]


def cached_gradients(
    encode: Callable[[Chunk], Rep],
    chunks: Sequence[Chunk],
    loss_of: Callable[[Rep], Tensor],
    *,
    backward: Backward = Tensor.backward,
    keep_bytes: int = 0,
    empty: Rep | None = None,
    room: Room[Chunk] | None = None,
    leaves: Sequence[Tensor] = (),
) -> tuple[Tensor, Rep]:
    """Backpropagate ``loss_of`` of the whole batch into the parameters behind ``encode``, and into those of the loss.

    Args:
        encode: maps a chunk to its Rep; called once more for each chunk whose graph was not kept.
        chunks: the batch, cut.
        loss_of: sees the Rep of the whole batch, the chunks' rows one after another, and returns a scalar.
        backward: what computes gradients of a scalar, e.g. Lightning's ``manual_backward``.
        keep_bytes: activations kept between the passes. Chunks are taken in order; one that crosses the budget is not
            kept, nor are those of at least its size.
        empty: the Rep of no rows, for a process without chunks that takes part in a loss over several processes.
        room: what makes room where memory runs out; None lets the error through.
        leaves: what the step puts gradients into. Where ``room`` may take the step again, gradients that are there
            already (of the batches before, where an optimiser step takes several) are set aside and added at the end:
            no copy is made, but both are there at once.

    Returns:
        The detached loss and the detached Rep of the whole batch.
    """
    room = room or Room()
    before, state = _Gradients(leaves if room.makes_room else ()), _RandomState()
    while (found := _step(encode, chunks, loss_of, backward, keep_bytes, empty, room)) is None:
        before.clear()
        state.put_back()
        free_memory()
    before.add()
    return found


def embed_all(
    encode: Callable[[Chunk], Rep], chunks: Sequence[Chunk], *, room: Room[Chunk], empty: Rep | None = None
) -> Rep:
    """The Rep of the whole batch without a gradient; ``room`` makes room where memory runs out."""
    return _joined(_embed_all(encode, chunks, room, 0), empty)


def _step(
    encode: Callable[[Chunk], Rep], chunks: Sequence[Chunk], loss_of: Callable[[Rep], Tensor], backward: Backward,
    keep_bytes: int, empty: Rep | None, room: Room[Chunk],
) -> tuple[Tensor, Rep] | None:  # fmt: skip
    """What :func:`cached_gradients` returns; None where room was made, here or elsewhere, for taking it again."""
    pieces = _embed_all(encode, chunks, room, room.keep(keep_bytes))
    whole = {name: tensor.requires_grad_() for name, tensor in _joined(pieces, empty).items()}
    loss = loss_of(whole)
    backward(loss)
    failed = not _push_all(encode, pieces, whole, backward, room)
    if room.makes_room and anywhere(failed, loss.device):
        return None
    return loss.detach(), {name: tensor.detach() for name, tensor in whole.items()}


class _RandomState:
    """The random states at one moment, so that dropout repeats itself."""

    def __init__(self) -> None:
        self.cpu = torch.get_rng_state()
        self.cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []

    def put_back(self) -> None:
        torch.set_rng_state(self.cpu)
        if self.cuda:
            torch.cuda.set_rng_state_all(self.cuda)

    @contextmanager
    def replay(self) -> Iterator[None]:
        with torch.random.fork_rng():
            self.put_back()
            yield


class _Gradients:
    """The gradients that leaves have, set aside."""

    def __init__(self, leaves: Sequence[Tensor]) -> None:
        self.aside = [(leaf, leaf.grad) for leaf in leaves]
        self.clear()

    def clear(self) -> None:
        """Forget what has come since."""
        for leaf, _ in self.aside:
            leaf.grad = None

    def add(self) -> None:
        """Add what was set aside to what has come since."""
        for leaf, gradient in self.aside:
            if gradient is not None:
                leaf.grad = gradient if leaf.grad is None else gradient.add_(leaf.grad)


@dataclass
class _Piece(Generic[Chunk]):
    """A chunk after the first pass.

    Args:
        chunk: what was embedded.
        state: what the first pass drew from.
        rep: without its graph.
        graph: with it, where it is kept; ``kept`` are its bytes.
    """

    chunk: Chunk
    state: _RandomState
    rep: Rep
    graph: Rep | None = None
    kept: int = 0

    def give_up(self) -> None:
        self.graph, self.kept = None, 0


def _joined(pieces: Sequence[_Piece[Any]], empty: Rep | None) -> Rep:
    reps = [*(piece.rep for piece in pieces), *([] if empty is None else [empty])]
    return {name: torch.cat([rep[name] for rep in reps]) for name in reps[0]}


def _embed_all(
    encode: Callable[[Chunk], Rep], chunks: Sequence[Chunk], room: Room[Chunk], budget: int
) -> list[_Piece[Chunk]]:
    """The first pass; graphs are kept as long as they fit the budget."""
    pieces: list[_Piece[Chunk]] = []
    # bytes of a graph by the cost of its chunk, the least seen, so that no graph is made that cannot be kept
    rate = 0.0
    waiting = room.cut(chunks)[::-1]
    while waiting:
        chunk = waiting.pop()
        held = sum(piece.kept for piece in pieces)
        wanted = budget > held and rate * room.cost(chunk) <= budget - held
        state = _RandomState()
        with room.trying(chunk, held=held) as attempt:
            rep, saved = _embed(encode, chunk, wanted)
            piece = _Piece(chunk, state, {name: tensor.detach() for name, tensor in rep.items()})
            if wanted:
                rate = min(rate or float("inf"), saved / room.cost(chunk))
            if wanted and saved <= budget - held:
                piece.graph, piece.kept = rep, saved
            # nothing behind it can fail, for a chunk that fails is embedded again
            pieces.append(piece)
            # a graph that is not kept would live until the next one is made
            del rep, piece
        if attempt.failed:
            state.put_back()
            if held:
                budget = 0
            for piece in pieces:
                piece.give_up()
            # what waits may be as large as what failed
            waiting = room.cut([chunk, *waiting[::-1]])[::-1]
            free_memory()
    return pieces


def _embed(encode: Callable[[Chunk], Rep], chunk: Chunk, wanted: bool) -> tuple[Rep, int]:
    with torch.set_grad_enabled(wanted), _saved_bytes() as saved:
        rep = encode(chunk)
    return rep, saved[0]


def _push_all(
    encode: Callable[[Chunk], Rep], pieces: Sequence[_Piece[Chunk]], whole: Rep, backward: Backward, room: Room[Chunk]
) -> bool:
    """The second pass; whether it came to its end, or room was made for another try."""
    start = 0
    for number, piece in enumerate(pieces):
        held = sum(later.kept for later in pieces[number:])
        stop = start + len(next(iter(piece.rep.values())))
        again = nullcontext() if piece.graph is not None else piece.state.replay()
        with room.trying(piece.chunk, held=held) as attempt, again:
            _push(piece.graph or encode(piece.chunk), whole, slice(start, stop), backward)
        if attempt.failed:
            return False
        piece.give_up()
        start = stop
    return True


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
