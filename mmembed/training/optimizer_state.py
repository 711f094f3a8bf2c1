"""An optimiser's state by the names of its parameters: what every way of spreading a model over processes can take up.

torch numbers the parameters of an optimiser group by group; sharded weights are saved by name. With names throughout, a
checkpoint of one process goes on with several, and one of whole copies with sharded weights.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from torch import nn
from torch.optim import Optimizer


def parameter_order(optimizer: Optimizer, named: Iterable[tuple[str, nn.Parameter]]) -> list[str]:
    """The names of an optimiser's parameters in the order that it numbers them."""
    names = {id(parameter): name for name, parameter in named}
    return [names[id(parameter)] for group in optimizer.param_groups for parameter in group["params"]]


def by_name(state: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    """The state with names for numbers; one that has names already stays as it is."""
    return _renamed(state, dict(enumerate(names)))


def by_number(state: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    """The state with numbers for names; one that has numbers already stays as it is."""
    return _renamed(state, {name: number for number, name in enumerate(names)})


def _renamed(state: Mapping[str, Any], new: Mapping[Any, Any]) -> dict[str, Any]:
    groups = [group | {"params": [new.get(p, p) for p in group["params"]]} for group in state["param_groups"]]
    return {**state, "state": {new.get(p, p): value for p, value in state["state"].items()}, "param_groups": groups}
