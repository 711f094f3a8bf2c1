"""A ranking of the size of the largest galleries: what is computed and held, by count."""

import pytest
import torch
from torch.nn.functional import normalize

from mmembed.counters import counting
from mmembed.index.products import multiplies_bfloat16
from mmembed.index.topk import top_k

pytestmark = pytest.mark.acceptance


def test_a_gallery_as_large_as_circos_is_ranked_in_bounded_memory():
    generator = torch.Generator().manual_seed(0)
    queries, gallery = (normalize(torch.randn(rows, 768, generator=generator), dim=1) for rows in (800, 123_403))

    with counting() as work:
        scores, rows = top_k(queries, gallery, 50)

    # the screen is in bfloat16 where the processor multiplies it, and little more than the 50 is scored again
    size = 2 if multiplies_bfloat16(queries.device) else 4
    assert work["score_bytes"] == size * 800 * 123_403 + 8 * work["topk_rescored"]
    assert work["score_bytes_at_once"] == size * 800 * 2048
    assert 50 * 800 <= work["topk_rescored"] < 8 * 50 * 800
    assert work["topk_fallback_rows"] == 0
    # the slow, obvious twin, a query at a time
    for number in range(0, 800, 100):
        wanted, places = (gallery.double() @ queries[number].double()).float().sort(descending=True, stable=True)
        assert torch.equal(scores[number], wanted[:50])
        assert torch.equal(rows[number], places[:50])
