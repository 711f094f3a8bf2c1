"""Values come in order and as they were made, whatever makes them; what ends a worker is said in words."""

import os
import signal
import threading
import time
from dataclasses import dataclass
from functools import partial

import pytest
import torch
from torch import Tensor

from mmembed.counters import count, counting
from mmembed.errors import InputError, MediaError
from mmembed.timers import timing
from mmembed.workers import DRAIN, Drain, LostWorkerError, _next, in_order, lost_workers_told, packed, unpacked
from tests.cases import is_alive


@dataclass(frozen=True)
class Value:
    """Tensors of several kinds in everything that may hold one."""

    number: int
    tensors: tuple[Tensor, ...]
    by_name: dict[str, list[Tensor]]
    words: list[str]

    def __post_init__(self):
        # a value with something else in place of its tensors would not be one
        assert all(isinstance(tensor, Tensor) for tensor in self.tensors)


def make(number):
    count("values_made")
    count("tensors_made", 4)
    square = torch.arange(number * number).reshape(number, number)
    tensors = (square.T, torch.tensor(number > 1), torch.zeros(0, 3, dtype=torch.float64))
    return Value(number, tensors, {"bytes": [torch.full((number, 5), number, dtype=torch.uint8)]}, ["a", "b"])


def equal(left, right):
    of = [[*value.tensors, *value.by_name["bytes"]] for value in (left, right)]
    same = [torch.equal(a, b) and a.dtype == b.dtype for a, b in zip(*of, strict=True)]
    return all(same) and (left.number, left.words) == (right.number, right.words)


def refuse_two(number):
    if number == 2:
        raise MediaError("clip.mp4", expected="a video", got="noise", remedy="fetch it again")
    return number


def die_at_two(number):
    if number == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def name_process(number):
    return os.getpid()


def size(value):
    return 1


def drain_threads():
    return [thread for thread in threading.enumerate() if thread.name == DRAIN]


DRAINS = [None, Drain(size, 0), Drain(size, 3), Drain(size, 10**6)]


@pytest.mark.parametrize("drain", DRAINS)
@pytest.mark.parametrize("workers", [0, 1, 2])
def test_values_come_in_order_and_are_what_was_made(workers, drain):
    with in_order(make, range(1, 6), workers, drain=drain) as values:
        found = list(values)

    assert [value.number for value in found] == [1, 2, 3, 4, 5]
    assert all(equal(value, make(value.number)) for value in found)


@pytest.mark.parametrize("drain", DRAINS)
@pytest.mark.parametrize("workers", [0, 1])
def test_work_is_counted_where_and_when_it_was_asked_for(workers, drain):
    with in_order(make, range(1, 5), workers, drain=drain) as values:
        with counting() as first:
            next(values)
        with counting() as others:
            list(values)

    assert first == {"values_made": 1, "tensors_made": 4}
    assert others == {"values_made": 3, "tensors_made": 12}


@pytest.mark.parametrize("drain", [None, Drain(size, 1)])
def test_the_tensors_of_a_value_come_in_one_piece_of_shared_memory_unless_they_are_drained(drain):
    with in_order(make, [7], 1, drain=drain) as values:
        (value,) = values

    tensors = [*value.tensors[:2], value.by_name["bytes"][0]]
    assert {tensor.is_shared() for tensor in tensors} == {drain is None}
    assert len({tensor.untyped_storage().data_ptr() for tensor in tensors}) == 1


def test_a_tensor_that_stands_in_two_places_is_packed_once():
    tensor = torch.arange(100)

    value, piece = packed([tensor, {"again": tensor}])
    first, again = unpacked(value, piece)

    assert tensor.nbytes <= piece.nbytes < tensor.nbytes + 64
    assert torch.equal(first, tensor)
    assert again["again"].data_ptr() == first.data_ptr()


def test_what_holds_no_tensor_is_packed_as_itself():
    value = {"words": ("a", 1), "list": [None]}

    kept, piece = packed(value)

    assert kept == value
    assert piece.nbytes == 0


@pytest.mark.parametrize("drain", DRAINS)
@pytest.mark.parametrize("workers", [0, 1])
def test_an_input_error_leaves_a_worker_as_it_was(workers, drain):
    with in_order(refuse_two, range(5), workers, drain=drain) as values:
        assert [next(values), next(values)] == [0, 1]
        with pytest.raises(MediaError) as caught:
            next(values)

    assert str(caught.value) == "clip.mp4: expected a video, got noise; fetch it again"


@pytest.mark.parametrize("drain", DRAINS)
def test_a_killed_worker_is_told_in_words_wherever_its_end_is_noticed(drain):
    told = "workers: expected worker processes that live, got one that ended"

    with pytest.raises(LostWorkerError, match=told), in_order(die_at_two, range(5), 1, drain=drain) as values:
        list(values)
    assert drain_threads() == []


def test_other_errors_are_not_taken_for_a_lost_worker():
    with pytest.raises(RuntimeError, match="out of paper"), lost_workers_told():
        raise RuntimeError("out of paper")


@pytest.mark.parametrize("drain", DRAINS)
def test_workers_end_with_their_block_though_not_all_was_asked_for(drain):
    with pytest.raises(KeyboardInterrupt), in_order(name_process, range(100), 1, drain=drain) as values:
        worker = next(values)
        assert len(drain_threads()) == (drain is not None)
        raise KeyboardInterrupt

    assert worker != os.getpid()
    assert not is_alive(worker)
    assert drain_threads() == []


@pytest.mark.parametrize("error", [ConnectionResetError("reset by peer"), EOFError(), FileNotFoundError("/tmp/socket")])
def test_a_worker_that_ends_while_it_hands_over_is_told_in_words(error):
    def sent():
        raise error
        yield

    with pytest.raises(LostWorkerError, match="workers: expected worker processes that live, got one that ended"):
        _next(sent())


@pytest.mark.parametrize("drain", [None, Drain(size, 1)])
@pytest.mark.parametrize("workers", [0, 1])
def test_other_errors_of_a_worker_are_not_taken_for_its_end(workers, drain):
    def missing(number):
        raise FileNotFoundError(number)

    with pytest.raises(FileNotFoundError), in_order(missing, [1], workers, drain=drain) as values:
        next(values)


@pytest.mark.acceptance
@pytest.mark.parametrize("drain", [None, Drain(size, 1)])
def test_a_worker_that_is_still_at_work_ends_with_its_block_too(tmp_path, drain):
    begun = tmp_path / "begun"

    def hang(number):
        if number:
            begun.touch()
            time.sleep(600)
        return os.getpid()

    with pytest.raises(KeyboardInterrupt), in_order(hang, range(2), 1, drain=drain) as values:
        worker = next(values)
        while not begun.exists():
            time.sleep(0.01)
        raise KeyboardInterrupt

    assert not is_alive(worker)
    assert drain_threads() == []


def test_a_value_that_takes_long_is_waited_for(monkeypatch):
    monkeypatch.setattr("mmembed.workers._LOOK_UP", 0.01)

    def slow(number):
        time.sleep(0.2)
        return number

    with in_order(slow, range(3), 1, drain=Drain(size, 1)) as values:
        assert list(values) == [0, 1, 2]


@pytest.mark.parametrize(
    ("drain", "ahead"),
    [(None, 2), (Drain(size, 0), 3), (Drain(size, 1), 3), (Drain(size, 5), 7), (Drain(partial(pow, 2), 2**6), 8)],
)
def test_values_are_made_before_they_are_asked_for(tmp_path, drain, ahead):
    """Two by the worker, and those that a thread takes: until their sizes, at last powers of two, reach the bound."""

    def write(number):
        (tmp_path / str(number)).touch()
        return number

    with in_order(write, range(100), 1, drain=drain) as values:
        first = next(values)
        # the worker goes on while nobody asks
        for _ in range(3000):
            if (tmp_path / str(ahead)).exists():
                break
            time.sleep(0.01)
        time.sleep(0.1)
        made = sorted((path.name for path in tmp_path.iterdir()), key=int)

    assert first == 0
    assert made == [str(number) for number in range(ahead + 1)]


@pytest.mark.parametrize("drain", [None, Drain(size, 1)])
def test_the_time_that_nothing_came_is_measured(drain):
    with timing() as seconds, in_order(make, range(1, 3), 1, drain=drain) as values:
        list(values)

    assert list(seconds) == ["wait"]


def test_an_error_of_ours_is_raised_without_workers_too():
    def refuse(number):
        raise InputError("row 3", expected="a word", got="none", remedy="write one")

    with pytest.raises(InputError, match="row 3: expected a word"), in_order(refuse, [0], 0) as values:
        list(values)
