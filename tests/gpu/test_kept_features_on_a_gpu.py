"""Features kept on disk reach a GPU as they left it."""

import pytest
import torch

from mmembed import Image, Item
from mmembed.counters import counting
from mmembed.models.feature_store import FeatureStore
from mmembed.models.features import SharedFeatures
from mmembed.models.identity import tower_identity
from mmembed.models.sequence import collate
from tests.cases import draw, small_embedder

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_features_from_disk_are_those_that_the_gpu_computed_to_the_bit(dtype, tmp_path):
    embedder = small_embedder("qwen3_vl", dtype=dtype).to("cuda").eval()
    items = [Item((Image(draw(56, 56 + 28 * i, i)), "what?")) for i in range(3)]
    batch = collate(embedder.prepare(items, "query")).to("cuda")
    stores = [FeatureStore(tmp_path, tower_identity(embedder), max_bytes=1 << 30) for _ in range(2)]

    with counting() as work:
        computed, read = (SharedFeatures(embedder.vision, store=store).of(batch) for store in stores)

    assert (work["tower_forwards"], work["feature_hits"]) == (3, 3)
    ours, theirs = ([*features.maps, *(t for layer in features.layers for t in layer)] for features in (read, computed))
    assert len(ours) == 9
    for one, other in zip(ours, theirs, strict=True):
        assert one.device == other.device
        assert one.dtype == other.dtype == getattr(torch, dtype)
        assert torch.equal(one, other)
