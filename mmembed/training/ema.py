"""A moving average of the weights, steadier than the last step's (arXiv:1703.01780, section 2)."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor

from mmembed.errors import InputError


class EmaWeights:
    """Exponential moving average of parameters: ``average = decay * average + (1 - decay) * weight`` at each update.

    It begins at the weights it is made with, so nothing is corrected for a start at zero. The averages are float32
    whatever the weights are: in bfloat16 a step of a thousandth would round away. Sharded weights (FSDP2) have
    averages sharded alike, and nothing is sent between ranks.

    Args:
        parameters: by name, where they stay: on their device, and sharded if they will be.
        decay: at least 0, below 1; at 0 the average is the weights.
    """

    def __init__(self, parameters: Mapping[str, nn.Parameter], decay: float) -> None:
        self.decay = decay
        self._parameters = dict(parameters)
        self._averages = {name: p.detach().to(torch.float32, copy=True) for name, p in self._parameters.items()}

    @torch.no_grad()
    def update(self) -> None:
        """Take the weights as they are now into the average; after each optimiser step."""
        for name, parameter in self._parameters.items():
            self._averages[name].lerp_(parameter.detach().float(), 1 - self.decay)

    @contextmanager
    def swapped(self) -> Iterator[None]:
        """With the averages in the place of the weights, which come back to the bit, after an exception too."""
        kept = {name: parameter.detach().clone() for name, parameter in self._parameters.items()}
        try:
            self.copy_to()
            yield
        finally:
            self._fill(kept)

    def copy_to(self) -> None:
        """Put the averages into the parameters, rounded to the parameters' type."""
        self._fill(self._averages)

    def state_dict(self) -> dict[str, Tensor]:
        """The averages by name: the tensors themselves, sharded as the weights are."""
        return dict(self._averages)

    @torch.no_grad()
    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Go on from averages that :meth:`state_dict` gave, whole or sharded.

        Raises:
            InputError: other names or shapes than the parameters'.
        """
        missing, unexpected = self._averages.keys() - state.keys(), state.keys() - self._averages.keys()
        reshaped = {name for name in self._averages.keys() & state.keys() if not self._fits(name, state[name])}
        for problem, names in (("missing", missing), ("unexpected", unexpected), ("of another shape", reshaped)):
            if names:
                raise InputError(
                    "ema", expected="an average of each weight that trains",
                    got=f"{len(names)} {problem}: {', '.join(sorted(names)[:8])}",
                    remedy="resume with the recipe that the averages were made with",
                )  # fmt: skip
        for name, average in self._averages.items():
            average.copy_(_laid_out_like(average, state[name]))

    def _fits(self, name: str, value: Tensor) -> bool:
        return value.shape == self._averages[name].shape

    @torch.no_grad()
    def _fill(self, values: Mapping[str, Tensor]) -> None:
        for name, parameter in self._parameters.items():
            parameter.copy_(values[name])


def _laid_out_like(average: Tensor, value: Tensor) -> Tensor:
    """``value`` sharded as ``average`` is; each rank cuts its shard out of its own copy of a whole one."""
    if not isinstance(average, DTensor) or isinstance(value, DTensor):
        return value
    whole = value.to(average.device)
    return distribute_tensor(whole, average.device_mesh, average.placements, src_data_rank=None)
