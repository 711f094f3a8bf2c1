"""The moving average of the weights, against the sum written out."""

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.tensor import DTensor, Shard, distribute_tensor, init_device_mesh
from torch.multiprocessing import start_processes

from mmembed.errors import InputError
from mmembed.training.ema import EmaWeights


def some_parameters(dtype=torch.float32):
    return {"a": nn.Parameter(torch.randn(5, 3).to(dtype)), "b": nn.Parameter(torch.randn(4).to(dtype))}


@torch.no_grad()
def move(parameters):
    for parameter in parameters.values():
        parameter.add_(torch.randn(parameter.shape).to(parameter.dtype), alpha=0.1)


def values(parameters):
    return {name: parameter.detach().clone() for name, parameter in parameters.items()}


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("decay", [0.1, 0.9, 0.999])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_average_is_the_weighted_sum_of_all_weights_so_far(decay, dtype):
    parameters = some_parameters(dtype)
    ema, seen = EmaWeights(parameters, decay), [values(parameters)]
    for _ in range(6):
        move(parameters)
        ema.update()
        seen.append(values(parameters))

    for name, average in ema.state_dict().items():
        expected = decay**6 * seen[0][name].double()
        for step in range(1, 7):
            expected += (1 - decay) * decay ** (6 - step) * seen[step][name].double()
        assert average.dtype == torch.float32
        assert torch.allclose(average.double(), expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_without_decay_the_average_is_the_weights_to_the_bit(dtype):
    parameters = some_parameters(dtype)
    ema = EmaWeights(parameters, 0.0)
    for _ in range(3):
        move(parameters)
        ema.update()

    before = values(parameters)
    with ema.swapped():
        assert same(values(parameters), before)


def test_a_small_step_of_coarse_weights_is_not_lost():
    parameters = {"a": nn.Parameter(torch.ones(3, dtype=torch.bfloat16))}
    ema = EmaWeights(parameters, 0.999)
    with torch.no_grad():
        parameters["a"].fill_(2)
    ema.update()

    assert torch.allclose(ema.state_dict()["a"], torch.full((3,), 1.001), atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_averages_stand_in_the_weights_place_for_a_while(dtype):
    parameters = some_parameters(dtype)
    objects = dict(parameters)
    ema = EmaWeights(parameters, 0.5)
    move(parameters)
    ema.update()
    before, average = values(parameters), values(ema.state_dict())

    with ema.swapped():
        inside = values(parameters)

    assert same(inside, {name: value.to(dtype) for name, value in average.items()})
    assert not same(inside, before)
    assert same(values(parameters), before)
    assert same(ema.state_dict(), average)
    assert all(parameters[name] is objects[name] for name in objects)


def test_the_weights_come_back_after_an_exception():
    parameters = some_parameters()
    ema = EmaWeights(parameters, 0.5)
    move(parameters)
    before = values(parameters)

    def fail():
        with ema.swapped():
            move(parameters)
            raise KeyError("x")

    with pytest.raises(KeyError):
        fail()
    assert same(values(parameters), before)


def test_averages_can_be_handed_on_as_weights():
    parameters = some_parameters()
    ema = EmaWeights(parameters, 0.5)
    move(parameters)
    ema.update()

    ema.copy_to()

    assert same(values(parameters), ema.state_dict())
    assert all(parameter.requires_grad and parameter.is_leaf for parameter in parameters.values())


def test_averages_saved_and_loaded_go_on_to_the_same_bits(tmp_path):
    parameters = some_parameters()
    ema = EmaWeights(parameters, 0.9)
    move(parameters)
    ema.update()
    torch.save(ema.state_dict(), tmp_path / "ema.pt")

    again = EmaWeights(parameters, 0.9)
    again.load_state_dict(torch.load(tmp_path / "ema.pt", weights_only=True))
    move(parameters)
    for average in (ema, again):
        average.update()

    assert same(again.state_dict(), ema.state_dict())


def test_averages_of_other_weights_are_refused_by_name():
    ema = EmaWeights(some_parameters(), 0.9)
    state = ema.state_dict()

    for change, problem in (
        ({"a": state["a"]}, "1 missing: b"),
        (state | {"c": torch.ones(1)}, "1 unexpected: c"),
        (state | {"a": torch.ones(3, 5)}, "1 of another shape: a"),
    ):
        with pytest.raises(InputError, match=f"ema: expected an average of each weight that trains, got {problem}"):
            ema.load_state_dict(change)


def test_averages_of_sharded_weights_are_the_shards_of_the_average(tmp_path):
    start_processes(on_rank, args=(sharded_averages, str(tmp_path / "store")), nprocs=2, start_method="fork")


def on_rank(rank, work, store):
    dist.init_process_group("gloo", store=dist.FileStore(store, 2), rank=rank, world_size=2)
    try:
        work(init_device_mesh("cpu", (2,)))
    finally:
        dist.destroy_process_group()


def sharded_averages(mesh):
    torch.manual_seed(0)
    whole, later = some_parameters(), some_parameters()
    sharded = {name: nn.Parameter(distribute_tensor(p.detach(), mesh, [Shard(0)])) for name, p in whole.items()}
    averages = [EmaWeights(parameters, 0.9) for parameters in (whole, sharded)]
    with torch.no_grad():
        for name, value in later.items():
            whole[name].copy_(value)
            sharded[name].copy_(distribute_tensor(value, mesh, [Shard(0)]))
    for average in averages:
        average.update()

    assert all(isinstance(value, DTensor) for value in averages[1].state_dict().values())
    gathered = {name: value.full_tensor() for name, value in averages[1].state_dict().items()}
    assert same(gathered, averages[0].state_dict())

    with averages[1].swapped():
        assert same({name: p.full_tensor() for name, p in sharded.items()}, gathered)
    assert same({name: p.full_tensor() for name, p in sharded.items()}, values(whole))

    fresh = EmaWeights(sharded, 0.9)
    fresh.load_state_dict(gathered)
    assert same({name: value.full_tensor() for name, value in fresh.state_dict().items()}, gathered)
