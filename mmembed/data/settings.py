"""Settings of the data: the sources of a mixture and how batches are drawn from them (torch-free)."""

import math
from dataclasses import dataclass

from mmembed.errors import InputError


@dataclass(frozen=True)
class Source:
    """One table of a mixture; a mixture is an ordered mapping of names to these."""

    table: str
    """Path of a pair table (.jsonl or .parquet), relative to the data root."""

    weight: float = 1.0
    """Share of the blocks, relative to the other sources; only ratios count."""

    limit: int | None = None
    """Use only the first rows of the table; None uses all."""

    instruction: str | None = None
    """Instruction of the queries that bring none."""

    def __post_init__(self) -> None:
        if not (self.weight > 0 and math.isfinite(self.weight)):
            raise InputError(
                "source.weight",
                expected="a positive number",
                got=self.weight,
                remedy="leave a source out to give it no weight",
            )
        if self.limit is not None and self.limit < 1:
            raise InputError(
                "source.limit", expected="1 or more", got=self.limit, remedy="leave it out to use every row"
            )


@dataclass(frozen=True)
class Sampling:
    """How the global batch of a step is made of blocks, each block of one source."""

    batch_size: int = 64
    """Pairs in the global batch, over all ranks."""

    block_size: int = 64
    """Consecutive pairs of one source; equal to the batch size, every batch is of one source."""

    window: int = 64
    """Blocks over which the shares of the sources are kept; their order is shuffled inside it."""

    def __post_init__(self) -> None:
        for name in ("batch_size", "block_size", "window"):
            if getattr(self, name) < 1:
                raise InputError(
                    f"sampling.{name}", expected="1 or more", got=getattr(self, name), remedy="use a positive number"
                )
        if self.batch_size % self.block_size:
            raise InputError(
                "sampling.block_size",
                expected=f"a divisor of batch_size {self.batch_size}",
                got=self.block_size,
                remedy=f"for example {math.gcd(self.batch_size, self.block_size)}",
            )
