"""All that is computed faster, at once, against nothing of it; the goldens have it on, too (see ``sped``)."""

from dataclasses import replace

import pytest
import torch

from mmembed import Embedder
from mmembed.counters import counting
from mmembed.models.settings import MeanToken
from mmembed.models.settings.regions import MaskChannel, RoiReplay
from tests.cases import WORDS, small_embedder
from tests.families import FAMILIES, family_settings, lora_of, opened, perturb
from tests.regions import mixed_items as items_with_regions
from tests.speeds import OFF, all_on, at_speed

ASKED = [(name, policy) for name, small in FAMILIES.items() for policy in small.policies or (None,)]


def both(embedder, items, ahead=0):
    """Vectors and work with everything off, and with everything on and workers ahead; each row stands there twice."""
    results = []
    for speed, workers in ((OFF, 0), (all_on(embedder), ahead)):
        with at_speed(embedder, speed), counting() as work:
            results.append((embedder.encode([*items, *items], workers=workers), work))
    return results


@pytest.mark.parametrize(("name", "policy"), ASKED)
def test_a_family_embeds_with_everything_on_as_with_everything_off(name, policy, embedder_of):
    embedder = embedder_of(name, **({} if policy is None else {"attention_policy": policy}))
    items = FAMILIES[name].items

    (off, slow), (on, fast) = both(embedder, items)

    assert torch.allclose(on, off, atol=2e-6, rtol=0)
    assert fast["tower_forwards"] * 2 <= slow["tower_forwards"]
    assert fast["padded_tokens"] * 2 <= slow["padded_tokens"]
    assert slow["language_rows"] == 2 * fast["language_rows"] > 0
    if policy is not None:
        assert slow["last_layer_tokens"] == slow["padded_tokens"]
        assert fast["last_layer_tokens"] == (len(items) if embedder.last_layer_at_one_token else fast["padded_tokens"])


@pytest.mark.parametrize("regions", [MaskChannel(), RoiReplay()])
def test_regions_are_embedded_with_everything_on_as_with_everything_off(regions):
    embedder = small_embedder(regions=regions).eval()
    for parameter in embedder.regions.parameters():
        torch.nn.init.normal_(parameter, std=0.1)

    (off, _), (on, _) = both(embedder, items_with_regions("qwen2_vl"), ahead=1)

    assert torch.allclose(on, off, atol=2e-6, rtol=0)


@pytest.mark.parametrize("name", ["qwen2_vl", "phi3_v"])
def test_an_adapter_and_what_it_is_merged_to_embed_with_everything_on_as_with_everything_off(name, saved):
    embedder = opened(name, saved(name), lora=lora_of(name)).eval()
    perturb(embedder)

    for model in (embedder, embedder.merge_adapter()):
        (off, _), (on, _) = both(model, FAMILIES[name].items)
        assert torch.allclose(on, off, atol=2e-6, rtol=0)


def test_a_pooler_of_all_tokens_embeds_with_everything_on_as_with_everything_off():
    embedder = Embedder(replace(family_settings("qwen2_vl"), pooler=MeanToken()), texts=WORDS).eval()

    (off, _), (on, fast) = both(embedder, FAMILIES["qwen2_vl"].items, ahead=1)

    assert torch.allclose(on, off, atol=2e-6, rtol=0)
    assert fast["last_layer_tokens"] == fast["padded_tokens"] == fast["language_tokens"]
