"""Compiled layers against the same layers as they are."""

import shutil
from dataclasses import replace

import pytest
import torch

from mmembed import Embedder
from mmembed.errors import InputError
from mmembed.models.compiled import repeated_layers
from mmembed.models.settings import MaskPool, Speed
from tests.cases import WORDS
from tests.families import FAMILIES, family_embedder, family_settings, lora_of, perturb
from tests.models.test_packing import assert_equal_gradients, batch_of, gradients
from tests.speeds import OFF

COMPILED = Speed(compile=True)
needs_compiler = pytest.mark.skipif(
    not any(shutil.which(name) for name in ("g++", "clang++")), reason="this machine has no C++ compiler"
)


# the compiler keeps it from being shown, which is too late where warnings are errors
no_grad_warning = pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")


def compiled(name, speed=COMPILED, **backbone):
    return Embedder(replace(family_settings(name, **backbone), speed=speed), texts=WORDS)


def adapted(name, directory, speed):
    """A model saved before, with an adapter that is not where training begins, and always the same."""
    torch.manual_seed(0)
    settings = family_settings(name, lora=lora_of(name), scratch=None, path=str(directory))
    embedder = Embedder(replace(settings, speed=speed))
    perturb(embedder)
    return embedder


def is_compiled(layer):
    return layer._compiled_call_impl is not None


@needs_compiler
@pytest.mark.acceptance
def test_compiled_layers_embed_as_they_did_and_keep_their_names(tmp_path):
    plain, fast = family_embedder("qwen2").eval(), compiled("qwen2").eval()
    items = FAMILIES["qwen2"].items

    vectors = fast.encode(items)
    fast.save(tmp_path / "saved")

    # but the last, which runs at some tokens alone
    assert [is_compiled(layer) for layer in repeated_layers(fast.backbone)[-2:]] == [True, False]
    assert torch.allclose(vectors, plain.encode(items), atol=2e-6, rtol=0)
    assert list(fast.state_dict()) == list(plain.state_dict())
    assert Embedder.from_pretrained(tmp_path / "saved", device="cpu").settings.speed == COMPILED


@needs_compiler
@pytest.mark.acceptance
@no_grad_warning
@pytest.mark.parametrize("choices", [{}, {"last_layer": "all"}, {"packing": "on"}], ids=["", "all tokens", "packed"])
@pytest.mark.parametrize("name", ["qwen2", "qwen2_vl"])
def test_compiled_layers_give_every_weight_the_gradient_that_they_did(name, choices):
    plain, fast = compiled(name, OFF).train(), compiled(name, Speed(compile=True, **choices)).train()
    batch = batch_of(plain, FAMILIES[name].items)

    assert torch.allclose(fast(batch), plain(batch), atol=2e-6, rtol=0)
    assert_equal_gradients(gradients(fast, batch), gradients(plain, batch))


@needs_compiler
@pytest.mark.acceptance
@no_grad_warning
@pytest.mark.parametrize("packing", ["off", "on"])
def test_an_adapter_in_compiled_layers_trains_and_is_merged_as_in_others(packing, saved):
    plain, fast = (
        adapted("qwen2_vl", saved("qwen2_vl"), speed)
        for speed in (OFF, Speed(compile=True, packing=packing, last_layer="pooled"))
    )
    items = FAMILIES["qwen2_vl"].items
    batch = batch_of(plain, items)

    assert_equal_gradients(gradients(fast.train(), batch), gradients(plain.train(), batch))
    with_adapter = plain.encode(items)
    assert torch.allclose(fast.encode(items), with_adapter, atol=2e-6, rtol=0)
    assert torch.allclose(fast.merge_adapter().encode(items), with_adapter, atol=2e-6, rtol=0)


@needs_compiler
def test_the_last_layer_stays_as_it_is_where_it_runs_at_some_tokens_alone():
    embedder = compiled("qwen2")

    *others, last = repeated_layers(embedder.backbone)

    assert last is embedder.backbone.language_model.layers[-1]
    assert not is_compiled(last)
    assert all(is_compiled(layer) for layer in others)


def test_the_last_of_the_repeated_layers_is_the_decoders_in_a_model_with_a_tower(embedder_of):
    for name in ("qwen2_vl", "qwen3_vl", "llava_next", "phi3_v"):
        backbone = embedder_of(name).backbone

        layers = repeated_layers(backbone)

        assert layers[-1] is backbone.language_model.layers[-1]
        assert len(set(layers)) == len(layers) > len(backbone.language_model.layers)


def test_without_being_told_nothing_is_compiled(embedder_of):
    assert not any(is_compiled(layer) for layer in repeated_layers(embedder_of("qwen2").backbone))


def test_recomputed_activations_are_not_compiled():
    with pytest.raises(InputError, match=r"speed\.compile: expected gradient_checkpointing: false, got true"):
        compiled("qwen2", gradient_checkpointing=True)


def test_layers_whose_states_are_read_on_their_way_are_not_compiled():
    settings = family_settings("qwen2_vl")
    settings = replace(settings, regions=MaskPool(layers=(-1,)), speed=COMPILED)

    with pytest.raises(InputError, match=r"speed\.compile: expected a region encoder that reads the tower's last"):
        Embedder(settings, texts=WORDS)


def test_a_machine_without_a_compiler_is_told_so(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    if torch.cuda.is_available():
        pytest.skip("a GPU needs no C++ compiler")

    with pytest.raises(InputError, match=r"speed\.compile: expected a C\+\+ compiler on this machine.*install g\+\+"):
        compiled("qwen2")
