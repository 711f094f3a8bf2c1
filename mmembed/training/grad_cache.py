"""Exact large-batch contrastive gradients, a few chunks of activations at a time (Gao et al. 2021, arXiv:2101.06983).

The loss needs every embedding of the batch, the backward pass only one chunk's activations. So: embed all chunks, take
the loss's gradient with respect to the embeddings, then push it through the chunks. Chunks whose graphs fit a byte
budget keep them from the first pass; the others are embedded again, with the random state they had, so that dropout
repeats itself. One chunk that is kept is plain backpropagation.

Where memory runs out, graphs are given up and chunks are cut, see :class:`mmembed.training.room.Room`. In the first
pass the rest then goes on. In the second all gradients are put back as they stood before it and everything is pushed
again, from the gradients of the embeddings, which are there: the loss is not computed again, so other processes, which
took part in it, do not notice. Without dropout that is the same gradient. Dropout is drawn anew by another cut: both
passes draw the same where the chunk was cut in the first, as it is in all later steps; in the one step whose second
pass ran out, the gradient of the embeddings belongs to the draw of the first pass and meets another.
"""

import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Generic, TypeAlias, TypeVar

import torch
from torch import Tensor

from mmembed.training.room import Room

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
        leaves: what ``encode`` puts gradients into, which ``room`` may have to put back. A gradient that is there
            already (of the batches before, where a step takes several) is copied to the CPU for that.

    Returns:
        The detached loss and the detached Rep of the whole batch.
    """
    room = room or Room()
    pieces = _embed_all(encode, room.cut(chunks), room, room.keep(keep_bytes))
    reps = [*(piece.rep for piece in pieces), *([] if empty is None else [empty])]
    whole = {name: torch.cat([rep[name] for rep in reps]).detach().requires_grad_() for name in reps[0]}
    loss = loss_of(whole)
    backward(loss)

    before = _Gradients(leaves if room.makes_room else ())
    while not _push_all(encode, pieces, whole, backward, room):
        before.put_back()
        for piece in pieces:
            piece.give_up()
            piece.parts = room.cut(piece.parts)
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
    """The gradients of leaves at one moment; most have none, the others are copied."""

    def __init__(self, leaves: Sequence[Tensor]) -> None:
        self.saved = [(leaf, None if leaf.grad is None else leaf.grad.to("cpu", copy=True)) for leaf in leaves]

    def put_back(self) -> None:
        for leaf, gradient in self.saved:
            leaf.grad = None if gradient is None or leaf.grad is None else leaf.grad.copy_(gradient)


@dataclass
class _Piece(Generic[Chunk]):
    """A chunk after the first pass.

    Args:
        parts: the chunk, or what it was cut into in the second pass.
        state: what the first pass drew from.
        rep: without its graph.
        graph: with it, where it is kept; ``kept`` are its bytes.
    """

    parts: list[Chunk]
    state: _RandomState
    rep: Rep
    graph: Rep | None = None
    kept: int = 0

    def give_up(self) -> None:
        self.graph, self.kept = None, 0


def _embed_all(
    encode: Callable[[Chunk], Rep], chunks: Sequence[Chunk], room: Room[Chunk], budget: int
) -> list[_Piece[Chunk]]:
    """The first pass; graphs are kept as long as they fit the budget."""
    pieces: list[_Piece[Chunk]] = []
    # bytes of a graph by the cost of its chunk, the least seen, so that no graph is made that cannot be kept
    rate = 0.0
    waiting = list(reversed(chunks))
    while waiting:
        chunk = waiting.pop()
        held = sum(piece.kept for piece in pieces)
        wanted = budget > held and rate * room.cost(chunk) <= budget - held
        state = _RandomState()
        with room.trying(chunk, held=held) as attempt:
            rep, saved = _embed(encode, chunk, wanted)
            piece = _Piece([chunk], state, {name: tensor.detach() for name, tensor in rep.items()})
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
            waiting += reversed(room.cut([chunk]))
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
        with piece.state.replay() if piece.graph is None else nullcontext():
            for part in piece.parts:
                with room.trying(part, held=held) as attempt:
                    start = _push_part(encode, part, piece.graph, whole, start, backward)
                if attempt.failed:
                    return False
        piece.give_up()
    return True


def _push_part(
    encode: Callable[[Chunk], Rep], part: Chunk, graph: Rep | None, whole: Rep, start: int, backward: Backward
) -> int:
    rep = encode(part) if graph is None else graph
    stop = start + len(next(iter(rep.values())))
    _push(rep, whole, slice(start, stop), backward)
    return stop


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
