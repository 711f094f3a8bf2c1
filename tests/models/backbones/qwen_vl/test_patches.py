"""The patch embedding as a product, against the library's convolution."""

from copy import deepcopy

import pytest
import torch
from peft import LoraConfig, inject_adapter_in_model
from torch import nn

from mmembed.models.backbones.qwen_vl.patches import PatchProducts
from mmembed.models.sequence import collate
from mmembed.models.settings import Speed
from tests.speeds import at_speed

SAME = 2e-6


class Library(nn.Module):
    """The library's patch embedding, as the three architectures have it."""

    def __init__(self, bias):
        super().__init__()
        self.embed_dim = 8
        self.proj = nn.Conv3d(3, 8, (2, 14, 14), (2, 14, 14), bias=bias)

    def forward(self, patches):
        blocks = patches.view(-1, 3, 2, 14, 14)
        return self.proj(blocks).view(-1, self.embed_dim)


def patches_of(frames, dtype=torch.float32):
    return torch.randn(5, 3, frames, 14, 14).to(dtype).flatten(1)


def whole(patches):
    """Patches with the two frames that the convolution takes."""
    return patches.view(5, 3, -1, 14, 14).expand(-1, -1, 2, -1, -1).flatten(1)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("frames", [1, 2])
def test_the_product_is_the_convolution_and_so_is_its_gradient(frames, bias):
    library = Library(bias)
    ours, patches = PatchProducts(deepcopy(library)), patches_of(frames)

    expected, got = library(whole(patches)), ours(patches)

    assert torch.allclose(got, expected, atol=SAME, rtol=0)
    expected.square().sum().backward()
    got.square().sum().backward()
    for wanted, found in zip(library.parameters(), ours.parameters(), strict=True):
        assert torch.allclose(found.grad, wanted.grad, atol=1e-3, rtol=1e-5)


@pytest.mark.parametrize("frames", [1, 2])
def test_weights_of_half_precision_are_not_added_up(frames):
    library = Library(bias=True).to(torch.bfloat16)
    patches = patches_of(frames, torch.bfloat16)
    exact = deepcopy(library).float()(whole(patches).float())

    got = PatchProducts(library)(patches)

    assert got.dtype == torch.bfloat16
    # one rounding of the result
    assert torch.allclose(got.float(), exact, atol=1e-5, rtol=2**-8)


@pytest.mark.parametrize("frames", [1, 2])
def test_an_adapter_on_the_convolution_takes_part(frames):
    library = Library(bias=True)
    adapted = inject_adapter_in_model(LoraConfig(r=2, target_modules=["proj"], init_lora_weights=False), library)
    patches = patches_of(frames)

    got = PatchProducts(adapted)(patches)

    assert torch.allclose(got, adapted(whole(patches)), atol=SAME, rtol=0)
    assert not torch.allclose(got, PatchProducts(Library(bias=True))(patches), atol=1e-2)


@pytest.mark.parametrize("frames", [1, 2])
def test_switched_off_it_is_the_librarys_convolution(frames):
    library = Library(bias=True)
    plain, patches = PatchProducts(deepcopy(library)), patches_of(frames)
    plain.products = False

    assert torch.equal(plain(patches), library(whole(patches)))


@torch.no_grad()
@pytest.mark.parametrize("name", ["qwen2_vl", "qwen2_5_vl", "qwen3_vl"])
def test_a_tower_convolves_only_where_it_is_told_to(name, mixed_items, scratch_embedder):
    embedder, convolved = scratch_embedder(name), []
    batch = collate(embedder.prepare(mixed_items, "query"))
    hook = embedder.backbone.tower.patch_embed.proj.register_forward_hook(lambda *_: convolved.append(1))
    vectors = {}
    for products in (True, False):
        with at_speed(embedder, Speed(patch_products=products)):
            vectors[products] = embedder(batch)
        assert len(convolved) == (not products)
    hook.remove()

    assert torch.allclose(vectors[True], vectors[False], atol=SAME, rtol=0)


def test_the_weights_keep_their_names():
    library = Library(bias=True)

    assert PatchProducts(library).state_dict().keys() == library.state_dict().keys()
