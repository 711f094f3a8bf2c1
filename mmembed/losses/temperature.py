"""The temperatures of the sources, kept or learned."""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from mmembed.losses.settings import LearnedTemperature, SourceRules


class Temperatures(nn.Module):
    """One shared temperature, and one more for each source that names its own.

    Args:
        first: the shared one to begin with.
        rules: of each source by name, in the order of the mixture.
        learn: how they are learned; None keeps them, without a parameter and without state.
    """

    def __init__(self, first: float, rules: Mapping[str, SourceRules], learn: LearnedTemperature | None) -> None:
        super().__init__()
        named = [source.temperature for source in rules.values() if source.temperature is not None]
        self.first = (first, *named)
        places = iter(range(1, len(self.first)))
        self.places = [0 if source.temperature is None else next(places) for source in rules.values()]
        self.names = tuple(rules)
        self.learn = learn
        self.learned: nn.Parameter | None = None
        if learn is not None:
            start = self.first if learn.parameter == "raw" else [0.0] * len(self.first)
            self.learned = nn.Parameter(torch.tensor(start, dtype=torch.float32))

    def forward(self) -> Tensor:
        """The temperature of each source ``[S]``; float64 and on the CPU where they are kept."""
        if self.learned is None:
            return torch.tensor(self.first, dtype=torch.float64)[self.places]
        values = self.learned if self._raw else self.learned.new_tensor(self.first) * self.learned.exp()
        return values[self.places]

    @torch.no_grad()
    def clamp(self) -> None:
        """Hold what is learned inside its bounds."""
        if self.learn is None or self.learned is None:
            return
        first = self.learned.new_tensor(self.first)
        bounds = (torch.full_like(first, bound) for bound in (self.learn.low, self.learn.high))
        low, high = bounds if self._raw else ((bound / first).log() for bound in bounds)
        self.learned.clamp_(low, high)

    def logs(self, values: list[float]) -> dict[str, float]:
        """The temperatures of the sources as what to log."""
        if len(self.first) == 1:
            return {"temperature": values[0]}
        return {f"temperature/{name}": value for name, value in zip(self.names, values, strict=True)}

    @property
    def _raw(self) -> bool:
        return self.learn is not None and self.learn.parameter == "raw"

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "Temperatures":
        """Move, but never to a shorter type of number: bfloat16 would swallow the steps of a temperature."""

        def keep(tensor: Tensor) -> Tensor:
            moved = fn(tensor)
            return moved if moved.itemsize >= tensor.itemsize else tensor.to(moved.device)

        return super()._apply(keep, recurse)  # type: ignore[no-any-return,no-untyped-call]
