"""What a stage learns by running out of memory, on chunks that are lists of numbers."""

import gc
import weakref

import pytest
import torch

from mmembed.training.grad_cache import cached_gradients
from mmembed.training.room import Room, is_out_of_memory


def test_errors_that_are_want_of_memory():
    with pytest.raises(RuntimeError) as caught:
        torch.empty(1 << 60, dtype=torch.uint8)

    assert is_out_of_memory(caught.value)
    assert is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory"))
    assert is_out_of_memory(MemoryError())
    assert not is_out_of_memory(RuntimeError("shapes differ"))
    assert not is_out_of_memory(ValueError("DefaultCPUAllocator"))


def halves(chunk):
    return (chunk[: len(chunk) // 2], chunk[len(chunk) // 2 :]) if len(chunk) > 1 else None


def test_a_known_limit_cuts_only_what_is_above_it():
    room = Room(halves)
    assert room.cut([[1, 2, 3, 4, 5]]) == [[1, 2, 3, 4, 5]]

    room.most = 2

    assert room.cut([[1, 2, 3, 4, 5], [6, 7], [8]]) == [[1, 2], [3], [4, 5], [6, 7], [8]]


def test_a_limit_never_rises_and_holds_for_the_chunks_that_wait():
    room, tried = Room(halves, len), []
    weight = torch.ones(1, requires_grad=True)

    def encode(chunk):
        tried.append(len(chunk))
        if len(chunk) > 2:
            raise MemoryError
        return {"v": weight * torch.tensor(chunk)}

    cached_gradients(encode, [[1.0] * 4, [2.0] * 12], lambda rep: rep["v"].sum(), room=room, leaves=[weight])

    # the second chunk is never tried whole, and both passes are cut alike
    assert tried == [4] + 2 * ([2, 2] + 4 * [1, 2])
    assert weight.grad.item() == 4 * 1 + 12 * 2
    with room.trying([0.0] * 12, held=0):
        raise MemoryError
    assert room.most == 2


@pytest.mark.parametrize("fails_in", ["first pass", "second pass"])
def test_nothing_of_what_failed_is_alive_when_memory_is_given_back(fails_in):
    weight, alive, seen = torch.ones(3, 3, requires_grad=True), weakref.WeakSet(), []

    class Fails(torch.autograd.Function):
        @staticmethod
        def forward(ctx, rows):
            ctx.held = torch.empty(0)
            alive.add(ctx.held)
            return rows.clone()

        @staticmethod
        def backward(ctx, gradient):
            if fails_in == "second pass" and len(gradient) > 2:
                raise MemoryError
            return gradient

    def encode(chunk):
        found = Fails.apply(chunk @ weight)
        alive.add(found)
        if fails_in == "first pass" and len(chunk) > 2:
            raise MemoryError
        return {"v": found}

    def collected(phase, about):
        if (phase, about["generation"]) == ("start", 2):
            seen.append(len(alive))

    room = Room(lambda chunk: chunk.split(len(chunk) // 2))
    gc.disable()
    gc.callbacks.append(collected)
    try:
        cached_gradients(encode, [torch.ones(4, 3)], lambda rep: rep["v"].sum(), room=room, leaves=[weight])
    finally:
        gc.callbacks.remove(collected)
        gc.enable()

    assert seen == [0]
    assert weight.grad.tolist() == [[4.0] * 3] * 3


def test_gradients_that_are_there_are_neither_copied_nor_lost():
    weight, room = torch.ones(2, requires_grad=True), Room(halves)
    fails = [MemoryError]

    def backward(scalar):
        if fails and scalar.grad_fn.name().startswith("Sum"):
            scalar.backward()
            raise fails.pop()
        scalar.backward()

    weight.grad = before = torch.tensor([1.0, 2.0])
    cached_gradients(
        lambda chunk: {"v": weight * torch.tensor(chunk)[:, None]}, [[1.0, 2.0]], lambda rep: 2 * rep["v"].sum(),
        backward=backward, room=room, leaves=[weight],
    )  # fmt: skip

    # the same memory; what the failed pass put there is gone
    assert weight.grad is before
    assert before.tolist() == [1 + 2 * 3, 2 + 2 * 3]
    assert not fails
