"""How much of a batch fits the memory at once, as a stage learns it by running out."""

import gc
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Generic, TypeVar

import torch

from mmembed.counters import count

Chunk = TypeVar("Chunk")
MB = 1 << 20
# what the allocators of the CPU and of the GPU's libraries say, where torch has no type of its own for it
_SAID = ("DefaultCPUAllocator", "CUDA error: out of memory", "CUBLAS_STATUS_ALLOC_FAILED")
_log = logging.getLogger(__name__)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that a device, or this process, has no more memory."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in _SAID)


def free_memory() -> None:
    """Give back what nothing holds any more; an error that is being handled holds all that its block held."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


@dataclass
class Attempt:
    """What became of a piece of work that may run out of memory."""

    failed: bool = False


class Room(Generic[Chunk]):
    """Makes room where memory runs out: graphs that were kept are given up, then chunks are cut in halves.

    What did not fit is remembered, so that the same chunk is cut before it runs the next time.

    Args:
        halve: a chunk -> its halves, or None where it cannot be cut; None never makes room.
        cost: what a chunk takes of memory, up to a factor: its tokens, padding counted.
        say: is told once what happened, in words, as Python's log is.

    Attributes:
        most: cost above which chunks are cut before they run; None before memory ran out.
        stuck: cost of a chunk that did not fit and could not be cut; 0 before there is one.
    """

    def __init__(
        self,
        halve: Callable[[Chunk], tuple[Chunk, Chunk] | None] | None = None,
        cost: Callable[[Chunk], int] = len,  # type: ignore[assignment]
        say: Callable[[str], None] = lambda line: None,
    ) -> None:
        self.halve = halve
        self.cost = cost
        self.most: int | None = None
        self.say = say
        self.stuck = 0
        self._keep: int | None = None
        self._said: set[str] = set()

    @property
    def makes_room(self) -> bool:
        """Whether it does anything about memory that runs out."""
        return self.halve is not None

    def keep(self, asked: int) -> int:
        """Bytes of graphs to keep, where ``asked`` are allowed."""
        return asked if self._keep is None else min(asked, self._keep)

    def cut(self, chunks: Sequence[Chunk]) -> list[Chunk]:
        """The chunks, in order, those known to be too large in as many pieces as it takes."""
        done: list[Chunk] = []
        waiting = list(reversed(chunks))
        while waiting:
            chunk = waiting.pop()
            too_large = self.most is not None and self.cost(chunk) > self.most
            halves = self.halve(chunk) if too_large and self.halve is not None else None
            if halves is None:
                done.append(chunk)
            else:
                count("chunks_halved")
                waiting += reversed(halves)
        return done

    @contextmanager
    def trying(self, chunk: Chunk, *, held: int) -> Iterator[Attempt]:
        """Run a block that may run out of memory, and make room for another try where it does.

        Args:
            chunk: what the block is about.
            held: bytes of the graphs that are kept; they are given up first, and the chunk is cut next time.

        Yields:
            What became of it; if it failed, whoever asks gives the graphs up, or cuts, and tries again, once
            :func:`free_memory` has run: inside the block the error still holds what the block held.

        Raises:
            BaseException: of the block, unless memory ran out and there is room to be made.
        """
        attempt = Attempt()
        try:
            yield attempt
        except (RuntimeError, MemoryError) as error:
            if not self.makes_room or not is_out_of_memory(error):
                raise
            if held:
                self._keep_less(held)
            elif not self._halve_from_now_on(chunk):
                self.stuck = self.cost(chunk)
                raise
            attempt.failed = True

    def _keep_less(self, held: int) -> None:
        self._keep = held // 2
        count("graphs_given_up")
        self._say(
            "graphs",
            f"out of memory with {held / MB:,.0f} MiB of graphs kept: they are given up and the step goes on; "
            f"at most {self._keep / MB:,.0f} MiB are kept from here on (chunks.keep_mb)",
        )

    def _halve_from_now_on(self, chunk: Chunk) -> bool:
        """Remember what the larger half of a chunk costs as the most, if less is not; whether the chunk has halves."""
        halves = None if self.halve is None else self.halve(chunk)
        if halves is None:
            return False
        cost = max(map(self.cost, halves))
        self.most = cost if self.most is None else min(self.most, cost)
        self._say(
            "halves",
            f"out of memory at a chunk of {self.cost(chunk):,} tokens: it is cut in halves, and the step goes on; "
            f"chunks of more than {self.most:,} tokens are cut before they run from here on. Without dropout "
            "the gradient is the same; another cut draws dropout anew",
        )
        return True

    def _say(self, kind: str, line: str) -> None:
        if kind not in self._said:
            self._said.add(kind)
            _log.warning(line)
            self.say(line)
