"""On a GPU (``pytest -m gpu tests/gpu``): what workers make is pinned, and vectors do not depend on their number."""

import pytest
import torch

from mmembed import Item
from mmembed.workers import in_order

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")]


def make(number):
    return {"number": number, "tensors": [torch.full((3, 5), number), torch.ones(number)]}


def test_tensors_of_workers_are_pinned():
    with in_order(make, range(1, 4), 1, pin=True) as values:
        found = list(values)

    assert all(tensor.is_pinned() for value in found for tensor in value["tensors"])
    assert [value["tensors"][0][0, 0].item() for value in found] == [1, 2, 3]


def test_workers_do_not_change_the_vectors_of_a_gpu(picture, fresh_embedder):
    embedder = fresh_embedder().to("cuda").eval()
    items = [Item.of({"image": picture(56, 28 * i), "text": f"picture {i}"}) for i in range(1, 13)]

    assert torch.equal(embedder.encode(items, workers=2), embedder.encode(items))
