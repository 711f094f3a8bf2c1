"""A ranking of the size of the largest galleries: what is computed and held, by count."""

import pytest
import torch
from torch.nn.functional import normalize

from mmembed.counters import counting
from mmembed.index.topk import top_k

pytestmark = pytest.mark.acceptance


def test_a_gallery_as_large_as_circos_is_ranked_in_bounded_memory():
    generator = torch.Generator().manual_seed(0)
    queries, gallery = (normalize(torch.randn(rows, 768, generator=generator), dim=1) for rows in (800, 123_403))

    with counting() as work:
        scores, rows = top_k(queries, gallery, 50)

    assert work["score_bytes"] == 8 * 800 * 123_403
    assert work["score_bytes_at_once"] == 8 * 800 * 2048
    # the slow, obvious twin, a query at a time
    for number in range(0, 800, 100):
        wanted, places = (gallery.double() @ queries[number].double()).float().sort(descending=True, stable=True)
        assert torch.equal(scores[number], wanted[:50])
        assert torch.equal(rows[number], places[:50])
