"""Cached gradients against autograd over the same chunks."""

import weakref

import pytest
import torch
from torch import nn

from mmembed.training.grad_cache import _saved_bytes, cached_gradients

SIZES = [3, 1, 4]


class TwoHeads(nn.Module):
    """An encoder with dropout and two named outputs, in float64 so that equal means equal."""

    def __init__(self, dropout=0.0):
        super().__init__()
        self.body = nn.Linear(5, 6).double()
        self.dropout = nn.Dropout(dropout)
        self.calls = 0

    def forward(self, chunk):
        self.calls += 1
        hidden = self.dropout(torch.tanh(self.body(chunk)))
        return {"mean": hidden[:, :2], "tokens": hidden[:, 2:].reshape(-1, 2, 2)}


def loss_of(rep):
    similarity = rep["mean"] @ rep["mean"].T + torch.einsum("ikd,jld->ij", rep["tokens"], rep["tokens"] ** 2)
    return -similarity.log_softmax(1).diagonal().mean()


@pytest.fixture
def chunks():
    return list(torch.randn(sum(SIZES), 5, dtype=torch.float64).split(SIZES))


def autograd(model, chunks, loss_of=loss_of):
    """The slow twin: one graph over all chunks."""
    model.zero_grad()
    reps = [model(chunk) for chunk in chunks]
    loss = loss_of({name: torch.cat([rep[name] for rep in reps]) for name in reps[0]})
    loss.backward()
    return loss.item(), [p.grad.clone() for p in model.parameters()]


def cached(model, chunks, loss_of=loss_of, **choices):
    model.zero_grad()
    model.calls = 0
    loss, rep = cached_gradients(model, chunks, loss_of, **choices)
    return loss.item(), [p.grad.clone() for p in model.parameters()], rep


def assert_equal(ours, theirs):
    assert all(torch.allclose(a, b, atol=1e-14, rtol=0) for a, b in zip(ours, theirs, strict=True))
    assert max(g.abs().max() for g in theirs) > 1e-3


@pytest.mark.parametrize("keep_bytes", [0, 400, 1 << 30])
def test_gradients_equal_autograd_whatever_is_kept(keep_bytes, chunks):
    model = TwoHeads()
    loss, gradients = autograd(model, chunks)

    ours, our_gradients, rep = cached(model, chunks, keep_bytes=keep_bytes)

    assert ours == pytest.approx(loss, abs=1e-14)
    assert_equal(our_gradients, gradients)
    assert {name: tuple(t.shape) for name, t in rep.items()} == {"mean": (8, 2), "tokens": (8, 2, 2)}
    assert not any(t.requires_grad for t in rep.values())


@pytest.mark.parametrize("keep_bytes", [0, 400, 1 << 30])
def test_dropout_repeats_itself(keep_bytes, chunks):
    model = TwoHeads(dropout=0.5)
    torch.manual_seed(3)
    loss, gradients = autograd(model, chunks)
    torch.manual_seed(3)

    ours, our_gradients, _ = cached(model, chunks, keep_bytes=keep_bytes)

    assert ours == pytest.approx(loss, abs=1e-14)
    assert_equal(our_gradients, gradients)


def test_without_dropout_the_cut_does_not_matter(chunks):
    model = TwoHeads()
    _, whole = autograd(model, [torch.cat(chunks)])

    for size in (1, 2, 5, 8):
        assert_equal(cached(model, list(torch.cat(chunks).split(size)))[1], whole)


def encodes(model, chunks, keep_bytes):
    cached(model, chunks, keep_bytes=keep_bytes)
    return model.calls


def test_kept_chunks_are_encoded_once_and_the_others_twice(chunks):
    model = TwoHeads()

    calls = [encodes(model, chunks, budget) for budget in range(0, 4096, 64)]

    assert calls[0] == 6
    assert calls[-1] == 3
    assert set(calls) == {6, 5, 4, 3}
    assert calls == sorted(calls, reverse=True)


def test_the_loss_may_have_parameters_of_its_own(chunks):
    model, scale = TwoHeads(), nn.Parameter(torch.tensor(2.0, dtype=torch.float64))

    def scaled(rep):
        return loss_of({name: tensor * scale for name, tensor in rep.items()})

    autograd(model, chunks, scaled)
    expected, scale.grad = scale.grad, None

    cached(model, chunks, scaled)

    assert torch.allclose(scale.grad, expected, atol=1e-14, rtol=0)
    assert expected.abs() > 1e-3


def test_a_leaf_that_the_loss_ignores_does_no_harm(chunks):
    model = TwoHeads()

    def only_mean(rep):
        return rep["mean"].square().sum()

    _, gradients = autograd(model, chunks, only_mean)

    assert_equal(cached(model, chunks, only_mean)[1], gradients)


def test_the_backward_given_is_used_for_the_loss_and_every_chunk(chunks):
    scalars = []

    def backward(scalar):
        scalars.append(scalar)
        scalar.backward()

    cached(TwoHeads(), chunks, backward=backward)

    assert len(scalars) == 1 + len(chunks)
    assert all(s.shape == () for s in scalars)


def test_the_random_state_ends_where_the_first_pass_left_it(chunks):
    model = TwoHeads(dropout=0.5)
    torch.manual_seed(3)
    for chunk in chunks:
        model(chunk)
    after_one_pass = torch.get_rng_state()
    torch.manual_seed(3)

    cached(model, chunks)

    assert torch.equal(torch.get_rng_state(), after_one_pass)


@pytest.mark.parametrize("keep_bytes", [0, 1 << 30])
def test_autocast_gives_every_weight_its_gradient(keep_bytes, chunks):
    model = TwoHeads().float()
    floats = [chunk.float() for chunk in chunks]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        _, gradients = autograd(model, floats)
    # a context of its own: autocast remembers the weights that it has cast
    with torch.autocast("cpu", dtype=torch.bfloat16):
        _, ours, _ = cached(model, floats, keep_bytes=keep_bytes)

    assert all(torch.allclose(a, b, atol=1e-2) for a, b in zip(ours, gradients, strict=True))
    assert max(g.abs().max() for g in gradients) > 0.05


def test_what_a_graph_that_ended_had_saved_is_not_counted():
    weight = torch.randn(64, 64, requires_grad=True)

    with _saved_bytes() as lone:
        alone = (weight @ torch.randn(64, 8)).relu()
    with _saved_bytes() as beside:
        for _ in range(4):
            # saved for a backward pass that never comes, and freed; what is saved next may lie where this lay
            (weight @ torch.randn(64, 4096)).relu().sum().detach()
        kept = (weight @ torch.randn(64, 8)).relu()

    assert kept.shape == alone.shape
    assert beside[0] == lone[0]
    # of the product its other factor, of relu its result
    assert lone[0] == 4 * 2 * 64 * 8


ALIVE = weakref.WeakSet()


class Probe(torch.autograd.Function):
    """Passes rows on; while the graph lives, so does what its node holds."""

    made = 0

    @staticmethod
    def forward(ctx, rows):
        ctx.held = torch.empty(0)
        ALIVE.add(ctx.held)
        Probe.made += 1
        return rows.clone()

    @staticmethod
    def backward(ctx, gradient):
        return gradient


def test_graphs_that_are_not_kept_are_freed(chunks):
    model = TwoHeads()
    body = model.body.forward
    # the output of sigmoid is what its backward pass needs: saved as it is, graph and output would hold each other
    model.body.forward = lambda rows: Probe.apply(body(rows)).sigmoid()

    # the second chunk crosses the budget: its graph is made, and given up
    cached(model, chunks, keep_bytes=400)

    assert Probe.made > len(chunks)
    assert len(ALIVE) == 0
