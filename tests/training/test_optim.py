"""What trains at which rate, the optimiser's steps, the learning rate at every step, and the norm of the gradient."""

import copy
import math
import sys

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.tensor import DTensor, Shard, distribute_tensor, init_device_mesh
from torch.multiprocessing import start_processes

from mmembed import Embedder
from mmembed.errors import InputError
from mmembed.settings import dump_yaml, parse_yaml, read_settings
from mmembed.training.optim import (
    clip_gradients,
    freeze,
    lr_factor,
    make_optimizer,
    make_schedule,
    match_part,
    parameter_groups,
)
from mmembed.training.settings import Optim, PartRates


class Model(nn.Module):
    """Names as a backbone's: a tower with a merger, and a language model."""

    def __init__(self):
        super().__init__()
        self.visual = nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4))
        self.visual.merger = nn.Linear(4, 4)
        self.language_model = nn.Linear(4, 2)

    def forward(self, x):
        return self.language_model(self.visual(x))


@pytest.fixture
def model():
    return Model()


def groups_of(model, settings=None, **choices):
    return parameter_groups(model.named_parameters(), settings or Optim(**choices))


def plain(model, groups):
    """Groups with the names of their parameters."""
    names = {parameter: name for name, parameter in model.named_parameters()}
    return [group | {"params": [names[p] for p in group["params"]]} for group in groups]


def train(model, settings, steps=6):
    """Some steps under the schedule; the weights after each."""
    torch.manual_seed(1)
    optimizer = make_optimizer(groups_of(model, settings), settings)
    schedule = make_schedule(optimizer, settings, steps)
    weights = []
    for _ in range(steps):
        optimizer.zero_grad()
        model(torch.randn(5, 3)).square().sum().backward()
        optimizer.step()
        schedule.step()
        weights.append({name: p.detach().clone() for name, p in model.named_parameters()})
    return weights


def same(a, b):
    return all(x.keys() == y.keys() and all(torch.equal(x[n], y[n]) for n in x) for x, y in zip(a, b, strict=True))


def test_matrices_decay_vectors_do_not_and_frozen_weights_are_left_out(model):
    model.language_model.weight.requires_grad_(False)

    groups = plain(model, groups_of(model, weight_decay=0.1, lr=0.01))

    assert groups == [
        {
            "params": ["visual.0.weight", "visual.merger.weight"],
            "lr": 0.01,
            "weight_decay": 0.1,
            "name": "matrices",
        },
        {
            "params": [
                "visual.0.bias",
                "visual.1.weight",
                "visual.1.bias",
                "visual.merger.bias",
                "language_model.bias",
            ],
            "lr": 0.01,
            "weight_decay": 0.0,
            "name": "vectors",
        },
    ]


def test_vectors_decay_where_all_does(model):
    assert [g["weight_decay"] for g in groups_of(model, weight_decay=0.1, decay="all")] == [0.1, 0.1]


def test_a_model_of_vectors_alone_has_one_group():
    assert [g["name"] for g in groups_of(nn.LayerNorm(3))] == ["vectors"]


def test_the_longest_part_that_fits_gives_the_rates_and_the_rest_keeps_the_optimizers(model):
    parts = {"visual": PartRates(lr=1e-6), "visual.merger": PartRates(lr=1e-3, weight_decay=0.2)}

    groups = plain(model, groups_of(model, lr=1e-4, weight_decay=0.1, parts=parts))

    assert [(g["name"], g["lr"], g["weight_decay"], g["params"]) for g in groups] == [
        ("matrices", 1e-4, 0.1, ["language_model.weight"]),
        ("vectors", 1e-4, 0.0, ["language_model.bias"]),
        ("visual matrices", 1e-6, 0.1, ["visual.0.weight"]),
        ("visual vectors", 1e-6, 0.0, ["visual.0.bias", "visual.1.weight", "visual.1.bias"]),
        ("visual.merger matrices", 1e-3, 0.2, ["visual.merger.weight"]),
        ("visual.merger vectors", 1e-3, 0.0, ["visual.merger.bias"]),
    ]


@pytest.mark.parametrize(("name", "part"), [("a.b.c", "a.b"), ("a.c", "a"), ("b", None), ("a.bc", "a.b"), ("ab", "a")])
def test_a_name_belongs_to_the_longest_part_it_begins_with(name, part):
    assert match_part(name, ("a", "a.b", "a.b.c.d")) == part


def test_parts_with_the_optimizers_own_rates_change_no_bit(model):
    settings = {"lr": 0.01, "weight_decay": 0.1, "schedule": "cosine", "warmup_steps": 2}
    named = {"visual": PartRates(lr=0.01, weight_decay=0.1), "visual.merger": PartRates(), "lang": PartRates(lr=0.01)}

    without = train(copy.deepcopy(model), Optim(**settings))

    assert same(train(copy.deepcopy(model), Optim(**settings, parts=named)), without)
    assert same(train(copy.deepcopy(model), Optim(**settings, parts={})), without)


def test_two_rates_step_as_two_optimizers_would(model):
    twin = copy.deepcopy(model)
    rates = PartRates(lr=0.05, weight_decay=0.3)
    settings = Optim(lr=0.01, weight_decay=0.1, decay="all", schedule="constant", parts={"visual": rates})

    ours = train(model, settings)

    torch.manual_seed(1)
    both = [
        torch.optim.AdamW(twin.visual.parameters(), lr=0.05, weight_decay=0.3),
        torch.optim.AdamW(twin.language_model.parameters(), lr=0.01, weight_decay=0.1),
    ]
    for weights in ours:
        twin.zero_grad()
        twin(torch.randn(5, 3)).square().sum().backward()
        for optimizer in both:
            optimizer.step()
        assert same([weights], [{name: p.detach() for name, p in twin.named_parameters()}])


def test_each_group_climbs_to_its_own_peak_and_falls_from_it(model):
    settings = Optim(lr=0.4, warmup_steps=2, parts={"visual": PartRates(lr=0.04)})
    optimizer = make_optimizer(groups_of(model, settings), settings)
    schedule = make_schedule(optimizer, settings, steps=4)
    rates = []
    for _ in range(4):
        rates.append({group["name"]: group["lr"] for group in optimizer.param_groups})
        optimizer.step()
        schedule.step()

    assert [r["matrices"] for r in rates] == pytest.approx([0, 0.2, 0.4, 0.2])
    assert [r["visual matrices"] for r in rates] == pytest.approx([0, 0.02, 0.04, 0.02])
    assert all(r["vectors"] == r["matrices"] for r in rates)


def test_a_part_that_no_name_begins_with_is_named_with_the_nearest(model):
    for part, known in (("visual.megrer", "visual.merger"), ("visual.mergr.weight", "visual.merger.weight")):
        with pytest.raises(
            InputError,
            match=f"optim.parts: expected the beginning of a parameter's name, got '{part}'; did you mean '{known}'",
        ):
            groups_of(model, parts={part: PartRates()})


def test_rates_of_a_frozen_part_are_refused(model):
    model.visual.requires_grad_(False)

    with pytest.raises(
        InputError, match=r"optim\.parts: expected a part that trains, got 'visual', all of it frozen; leave its rates"
    ):
        groups_of(model, parts={"visual": PartRates(lr=1e-6)})


def test_what_stands_beside_the_backbone_has_no_parts(model):
    settings = Optim(lr=0.01, parts={"language": PartRates(lr=0.5)})

    groups = parameter_groups(nn.LayerNorm(3).named_parameters(), settings, parts=False)

    assert [(g["name"], g["lr"]) for g in groups] == [("vectors", 0.01)]
    assert parameter_groups([], settings, parts=False) == []


def test_an_optimizer_of_nothing_is_refused():
    with pytest.raises(InputError, match=r"optim: expected a parameter that trains, got none; freeze less"):
        make_optimizer([], Optim())


def test_freezing_takes_the_parts_named_and_what_the_embedder_never_trained(scratch_settings):
    embedder = Embedder(scratch_settings("qwen2_vl"), texts=["a"])
    names = [name for name, _ in embedder.named_parameters()]

    freeze(embedder, ("model.visual", "model.language_model.norm"))
    trains = [name for name, p in embedder.named_parameters() if p.requires_grad]

    assert trains == [n for n in names if ".visual." not in n and "language_model.norm" not in n]
    assert 0 < len(trains) < len(names)


@pytest.mark.parametrize(
    ("settings", "factors"),
    [
        (Optim(schedule="linear"), [1, 0.75, 0.5, 0.25, 0]),
        (Optim(schedule="constant", warmup_steps=2), [0, 0.5, 1, 1, 1]),
        (Optim(schedule="linear", warmup_steps=2), [0, 0.5, 1, 0.5, 0]),
        (Optim(schedule="cosine"), [1, (1 + math.sqrt(0.5)) / 2, 0.5, (1 - math.sqrt(0.5)) / 2, 0]),
        (Optim(schedule="linear", warmup_steps=4), [0, 0.25, 0.5, 0.75, 1]),
    ],
)
def test_the_factor_at_every_step(settings, factors):
    factor = lr_factor(settings, 4)

    assert [factor(step) for step in range(5)] == pytest.approx(factors, abs=1e-12)


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
def test_the_factor_stays_zero_after_the_last_step(schedule):
    assert lr_factor(Optim(schedule=schedule), 4)(9) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"lr": 0}, r"optim\.lr: expected more than 0, got 0; 5e-5 is VLM2Vec-V2's"),
        ({"lr": math.nan}, r"optim\.lr: expected more than 0, got nan"),
        ({"weight_decay": -1}, r"optim\.weight_decay: expected at least 0, got -1; 0 turns it off"),
        ({"accumulate": 0}, r"optim\.accumulate: expected at least 1, got 0; 1 turns it off"),
        ({"ema": 1.0}, r"optim\.ema: expected at least 0 and below 1, got 1\.0; 0\.999 is usual"),
        ({"ema": -0.1}, r"optim\.ema: expected at least 0 and below 1, got -0\.1"),
        ({"parts": {"a.b": PartRates(lr=0)}}, r"optim\.parts\.a\.b\.lr: expected more than 0, got 0"),
        ({"parts": {"a": PartRates(weight_decay=-1)}}, r"optim\.parts\.a\.weight_decay: expected at least 0, got -1"),
    ],
)
def test_settings_that_cannot_be_are_refused_in_words(values, message):
    with pytest.raises(InputError, match=message):
        Optim(**values)


def test_rates_of_parts_are_read_from_yaml_and_written_back():
    text = "lr: 1e-4\nparts: {model.visual: {lr: 1e-6}, model.visual.merger: {weight_decay: 0.1}}"
    expected = Optim(
        lr=1e-4, parts={"model.visual": PartRates(lr=1e-6), "model.visual.merger": PartRates(weight_decay=0.1)}
    )

    settings = read_settings(Optim, parse_yaml(text, "recipe"))

    assert settings == expected
    assert read_settings(Optim, parse_yaml(dump_yaml(settings), "again")) == expected


def with_gradients(parameters):
    for scale, parameter in enumerate(parameters, 1):
        parameter.grad = torch.randn_like(parameter) * scale
    return parameters


@pytest.mark.parametrize("limit", [None, 0.1, 1e9])
def test_whole_gradients_are_clipped_to_the_bit_as_torch_clips_them(limit, model):
    theirs = copy.deepcopy(model)
    ours, theirs = list(model.parameters()), list(theirs.parameters())
    for mine, other in zip(with_gradients(ours)[1:], theirs[1:], strict=True):
        other.grad = mine.grad.clone()
    ours[0].grad = None

    norm = clip_gradients(iter(ours), limit)

    expected = torch.nn.utils.clip_grad_norm_(theirs, math.inf if limit is None else limit)
    assert torch.equal(norm, expected)
    assert ours[0].grad is None
    assert all(torch.equal(a.grad, b.grad) for a, b in zip(ours[1:], theirs[1:], strict=True))


def test_gradients_that_are_not_to_be_clipped_are_left_alone_though_their_norm_is_no_number():
    parameter = nn.Parameter(torch.zeros(2))
    parameter.grad = torch.tensor([math.inf, 1.0])

    assert clip_gradients([parameter], None) == math.inf
    assert parameter.grad.tolist() == [math.inf, 1.0]


def test_nothing_to_clip_has_no_norm():
    assert clip_gradients([nn.Parameter(torch.ones(2))], 1.0) == 0


def on_rank(rank, work, store):
    dist.init_process_group("gloo", store=dist.FileStore(store, 2), rank=rank, world_size=2)
    try:
        work(init_device_mesh("cpu", (2,)))
    finally:
        dist.destroy_process_group()


@pytest.mark.parametrize("work", ["clipping", "grouping"])
def test_sharded_parameters_step_as_whole_ones_do(work, tmp_path):
    checks = {"clipping": sharded_clipping, "grouping": sharded_stepping}
    start_processes(on_rank, args=(checks[work], str(tmp_path / "store")), nprocs=2, start_method="fork")


def sharded_copy(parameters, mesh, which):
    """The same parameters and gradients, some of them split between two ranks."""
    made = []
    for i, parameter in enumerate(parameters):
        split = (lambda t: distribute_tensor(t, mesh, [Shard(0)])) if i in which else torch.clone
        made.append(nn.Parameter(split(parameter.detach())))
        made[-1].grad = split(parameter.grad)
    return made


def whole(tensor):
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def sharded_clipping(mesh):
    torch.manual_seed(0)
    parameters = with_gradients([nn.Parameter(torch.zeros(shape)) for shape in ((5, 3), (4,), (3, 2))])
    for which in ({0, 1, 2}, {0, 2}, {1}):
        for limit in (None, 0.1):
            ours, theirs = sharded_copy(parameters, mesh, which), sharded_copy(parameters, mesh, set())
            norm = clip_gradients(ours, limit)
            expected = torch.nn.utils.clip_grad_norm_(theirs, limit or math.inf)
            assert not isinstance(norm, DTensor)
            assert torch.allclose(norm, expected)
            assert all(torch.allclose(whole(a.grad), b.grad) for a, b in zip(ours, theirs, strict=True))


def sharded_stepping(mesh):
    torch.manual_seed(0)
    parameters = with_gradients([nn.Parameter(torch.randn(shape)) for shape in ((5, 3), (4,), (3, 2))])
    ours, theirs = sharded_copy(parameters, mesh, {0, 1}), sharded_copy(parameters, mesh, set())
    settings = Optim(lr=0.1, weight_decay=0.1, parts={"0": PartRates(lr=0.2)})
    for made in (ours, theirs):
        groups = parameter_groups([(str(i), p) for i, p in enumerate(made)], settings)
        make_optimizer(groups, settings).step()
        if made is ours:
            assert [g["name"] for g in groups] == ["matrices", "vectors sharded", "0 matrices sharded"]
    assert all(torch.equal(whole(a), b) for a, b in zip(ours, theirs, strict=True))

    eight_bit = Optim(algorithm="adamw_8bit")
    with pytest.raises(InputError, match="expected whole parameters for adamw_8bit, got sharded ones; set algorithm"):
        make_optimizer(parameter_groups([("a", ours[0])], eight_bit), eight_bit)


def fit_a_matrix(settings, steps=40):
    """Draw a large matrix and a small vector towards targets; both, and the optimiser."""
    torch.manual_seed(0)
    named = {"a": nn.Parameter(torch.randn(64, 128)), "b": nn.Parameter(torch.randn(8))}
    targets = {name: torch.randn_like(p) for name, p in named.items()}
    optimizer = make_optimizer(parameter_groups(named.items(), settings), settings)
    for _ in range(steps):
        optimizer.zero_grad()
        sum((p - targets[name]).square().sum() for name, p in named.items()).backward()
        optimizer.step()
    return named, optimizer


def test_adamw_in_8_bits_goes_where_adamw_goes_with_a_quarter_of_its_state():
    start, _ = fit_a_matrix(Optim(), steps=0)
    exact, full = fit_a_matrix(Optim(lr=0.02, weight_decay=0.1))
    near, small = fit_a_matrix(Optim(lr=0.02, weight_decay=0.1, algorithm="adamw_8bit"))

    moved = (exact["a"] - start["a"]).norm()
    assert 0 < (near["a"] - exact["a"]).norm() / moved < 0.05
    assert torch.allclose(near["b"], exact["b"], atol=1e-5)
    held = small.state[near["a"]]
    assert {held[name].dtype for name in ("state1", "state2")} == {torch.uint8}
    assert 4 * held["state1"].nbytes == full.state[exact["a"]]["exp_avg"].nbytes


def test_the_state_of_adamw_in_8_bits_is_saved_and_goes_on_to_the_same_bits(tmp_path):
    settings = Optim(lr=0.02, algorithm="adamw_8bit")
    named, optimizer = fit_a_matrix(settings, steps=5)
    torch.save(optimizer.state_dict(), tmp_path / "optimizer.pt")
    copied = {name: nn.Parameter(p.detach().clone()) for name, p in named.items()}
    again = make_optimizer(parameter_groups(copied.items(), settings), settings)
    again.load_state_dict(torch.load(tmp_path / "optimizer.pt", weights_only=True))

    for name, parameter in named.items():
        parameter.grad = torch.randn_like(parameter)
        copied[name].grad = parameter.grad.clone()
    optimizer.step()
    again.step()

    assert all(torch.equal(copied[name], p) for name, p in named.items())


def test_adamw_in_8_bits_without_its_library_is_named_with_its_remedy(monkeypatch, model):
    for module in ("bitsandbytes", "bitsandbytes.optim"):
        monkeypatch.setitem(sys.modules, module, None)
    settings = Optim(algorithm="adamw_8bit")

    with pytest.raises(
        InputError, match=r"optim\.algorithm: expected bitsandbytes installed, .*pip install mmembed\[quantized\], or"
    ):
        make_optimizer(groups_of(model, settings), settings)
