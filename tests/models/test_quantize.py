"""A base in 4 or 8 bits: which layers, how near, what trains on it, and how it is saved."""

import sys

import pytest
import torch
import yaml
from bitsandbytes.functional import dequantize_4bit
from bitsandbytes.nn import Linear4bit, Linear8bitLt

from mmembed import Embedder, Item
from mmembed.errors import InputError
from mmembed.models.adapters import add_lora
from mmembed.models.sequence import collate
from mmembed.models.settings import EmbedderSettings, Lora, QwenVL, RawPrompt, Scratch
from mmembed.training.optim import make_optimizer, parameter_groups
from mmembed.training.settings import Optim

LORA = Lora(r=4, alpha=8, dropout=0.0)
DORA = Lora(r=4, alpha=8, dropout=0.0, dora=True)
KINDS = {"nf4": Linear4bit, "int8": Linear8bitLt}
# the levels as the paper lists them (arXiv:2305.14314, appendix E)
NF4 = [
    -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635, -0.18477343022823334,
    -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224,
    0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0,
]  # fmt: skip


@pytest.fixture
def base(golden):
    return golden / "vlm2vec/qwen2_vl"


@pytest.fixture
def items(picture):
    return [Item.of("a red circle"), Item.of({"image": picture(56, 84), "text": "the same"})]


def opened(path, quantize, lora=LORA, **backbone):
    torch.manual_seed(0)
    settings = QwenVL(path=str(path), positions="sequential", quantize=quantize, **backbone)
    return Embedder(EmbedderSettings(settings, RawPrompt(), lora=lora))


def backpropagate(embedder, items):
    embedder.zero_grad()
    embedder(collate(embedder.prepare(items, "query")))[:, :9].sum().backward()
    return {name: p.grad.clone() for name, p in embedder.named_parameters() if p.grad is not None}


def train(embedder, items, steps=2):
    """Two steps, because the A matrices move from the second on."""
    optimizer = make_optimizer(parameter_groups(embedder.named_parameters(), Optim(lr=0.05)), Optim())
    for _ in range(steps):
        backpropagate(embedder.train(), items)
        optimizer.step()
    return embedder.eval()


def quantised(embedder):
    return {name: m for name, m in embedder.named_modules() if isinstance(m, tuple(KINDS.values()))}


def cosines(a, b):
    return (a * b).sum(-1)


@pytest.mark.parametrize("quantize", KINDS)
@pytest.mark.parametrize("family", ["qwen2_vl", "qwen2_5_vl"])
def test_the_linear_layers_of_the_language_model_are_quantised_and_no_others(family, quantize, golden):
    plain, small = (opened(golden / "vlm2vec" / family, kind, lora=None) for kind in (None, quantize))

    linear = {name for name, m in plain.named_modules() if isinstance(m, torch.nn.Linear)}
    assert quantised(small).keys() == {name for name in linear if ".language_model." in name}
    assert any(".visual." in name for name in linear)
    assert {type(m) for m in quantised(small).values()} == {KINDS[quantize]}
    rest = {name: p for name, p in plain.named_parameters() if name.removesuffix(".weight") not in quantised(small)}
    kept = dict(small.named_parameters())
    assert all(torch.equal(kept[name], p) for name, p in rest.items())


@pytest.mark.parametrize(("quantize", "least"), [("nf4", 0.9), ("int8", 0.999)])
def test_the_vectors_are_near_those_of_the_whole_weights(quantize, least, base, items):
    near = cosines(opened(base, quantize).encode(items), opened(base, None).encode(items))

    assert near.min() > least
    assert near.max() < 0.999999


def test_a_4_bit_weight_is_a_level_of_nf4_times_the_largest_of_its_block(base):
    plain, small = opened(base, None, lora=None), opened(base, "nf4", lora=None)
    weights = dict(plain.named_parameters())

    for name, layer in quantised(small).items():
        rounded = dequantize_4bit(layer.weight.data, layer.weight.quant_state).flatten()
        given = weights[f"{name}.weight"].flatten()
        for start in range(0, len(given), 64):
            block = given[start : start + 64]
            largest = block.abs().max()
            levels = torch.tensor(NF4) * largest
            nearest = levels[(block[:, None] - levels).abs().argmin(1)]
            # the largest of a block is itself rounded to 8 bits
            assert torch.allclose(rounded[start : start + 64], nearest, atol=0.02 * largest.item(), rtol=0)


@pytest.mark.parametrize("lora", [LORA, DORA], ids=["lora", "dora"])
def test_vectors_and_gradients_are_those_of_whole_layers_with_the_rounded_weights(lora, base, items):
    small, twin = opened(base, "nf4", lora=lora), opened(base, None, lora=None)
    weights = dict(twin.named_parameters())
    with torch.no_grad():
        for name, layer in quantised(small).items():
            weights[f"{name.removesuffix('.base_layer')}.weight"].copy_(
                dequantize_4bit(layer.weight.data, layer.weight.quant_state)
            )
    twin = with_the_adapter_of(small, twin, lora)

    assert torch.allclose(small.encode(items), twin.encode(items), atol=1e-5, rtol=0)
    ours, theirs = backpropagate(small.train(), items), backpropagate(twin.train(), items)
    assert ours.keys() == theirs.keys()
    assert all(torch.allclose(ours[name], g, atol=1e-5, rtol=1e-4) for name, g in theirs.items())
    assert max(g.abs().max() for g in theirs.values()) > 1e-3


def with_the_adapter_of(small, twin, lora):
    add_lora(twin.backbone.model, lora)
    trained = dict(small.named_parameters())
    with torch.no_grad():
        for name, p in twin.named_parameters():
            if p.requires_grad:
                p.copy_(trained[name])
    return twin


@pytest.mark.parametrize("lora", [LORA, DORA], ids=["lora", "dora"])
def test_having_embedded_changes_nothing_about_training_in_4_bits(lora, base, items):
    embedder = opened(base, "nf4", lora=lora)
    batch = collate(embedder.prepare(items, "query"))
    training = embedder.train()(batch).detach()
    before = backpropagate(embedder, items)

    with torch.no_grad():
        embedding = embedder.eval()(batch)
    after = backpropagate(embedder.train(), items)

    assert torch.equal(embedding, training)
    assert before.keys() == after.keys()
    assert all(torch.equal(after[name], g) for name, g in before.items())


@pytest.mark.parametrize(("quantize", "lora"), [("nf4", LORA), ("nf4", DORA), ("int8", LORA)])
def test_training_changes_every_weight_of_the_adapter_and_no_bit_of_the_base(quantize, lora, base, items):
    embedder = opened(base, quantize, lora=lora)
    before = {name: p.detach().clone() for name, p in embedder.named_parameters()}

    train(embedder, items)

    after = dict(embedder.named_parameters())
    changed = {name for name, p in before.items() if not torch.equal(p, after[name])}
    assert changed == {name for name in before if "lora_" in name}


def test_8_bit_layers_do_not_complain_at_every_call(base, items, caplog):
    opened(base, "int8").encode(items)

    assert [record.message for record in caplog.records] == []


@pytest.mark.parametrize("quantize", KINDS)
def test_an_adapter_is_in_float32_on_a_base_that_computes_in_bfloat16(quantize, base, items):
    embedder = opened(base, quantize, dtype="bfloat16")
    computed = set()
    for layer in quantised(embedder).values():
        layer.register_forward_hook(lambda layer, given, output: computed.add(output.dtype))

    gradients = backpropagate(embedder.train(), items)

    assert computed == {torch.bfloat16}
    assert {p.dtype for p in embedder.parameters() if p.requires_grad} == {torch.float32}
    assert {g.dtype for g in gradients.values()} == {torch.float32}
    assert embedder.backbone.model.language_model.embed_tokens.weight.dtype == torch.bfloat16


@pytest.mark.parametrize("quantize", KINDS)
def test_a_trained_adapter_opens_on_its_quantised_base_to_the_same_bits(quantize, base, items, tmp_path):
    embedder = train(opened(base, quantize), items)

    embedder.save(tmp_path / "run")
    again = Embedder.from_pretrained(tmp_path / "run", device="cpu")

    assert torch.equal(again.encode(items), embedder.encode(items))
    assert sorted(p.name for p in (tmp_path / "run").iterdir()) == ["adapter", "embedder.yaml"]
    written = yaml.safe_load((tmp_path / "run/embedder.yaml").read_text())["backbone"]["init_args"]
    assert (written["quantize"], written["path"]) == (quantize, str(base))
    whole = Embedder.from_pretrained(tmp_path / "run", device="cpu", quantize=None)
    assert quantised(again)
    assert not quantised(whole)


@pytest.mark.parametrize("quantize", KINDS)
def test_nothing_of_a_quantised_base_trains_without_an_adapter(quantize, base):
    embedder = opened(base, quantize, lora=None)

    assert embedder.trainable == frozenset()
    with pytest.raises(
        InputError, match=r"optim: expected a parameter that trains, got none; .* give a quantised base a"
    ):
        make_optimizer(parameter_groups(embedder.named_parameters(), Optim()), Optim())


def test_a_quantised_base_is_not_saved_as_weights(base, tmp_path):
    with pytest.raises(InputError, match="got a quantised base alone; name the base, with quantize, where it is used"):
        opened(base, "nf4", lora=None).save(tmp_path / "run")

    assert not (tmp_path / "run").exists()


def test_a_scratch_model_is_not_quantised():
    with pytest.raises(InputError, match="quantize: expected a checkpoint, got a scratch model; give path"):
        QwenVL(scratch=Scratch(), quantize="nf4")


def test_a_missing_library_is_named_with_its_remedy(base, monkeypatch):
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)

    with pytest.raises(
        InputError, match=r"backbone\.quantize: expected bitsandbytes installed, .*pip install mmembed\[quantized\]"
    ):
        opened(base, "nf4")
