"""What a training step says about itself, for everything that watches."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class StepReport:
    """One optimiser step, over all ranks. The module holds the newest as ``report``, the same on every rank.

    Args:
        step: optimiser steps done in this stage, from 1.
        values: what is plotted, by name: ``loss`` (nats), ``grad_norm``, ``lr``, ``temperature`` and others.
        items: queries and targets of the step.
        tokens: real tokens through the language model.
        padded: tokens computed, padding included.
        sources: rows that each source gave.
        hardest: the rows of largest loss, as ``source:query_id`` and nats, largest first.
    """

    step: int
    values: Mapping[str, float]
    items: int
    tokens: int
    padded: int
    sources: Mapping[str, int]
    hardest: tuple[tuple[str, float], ...]
