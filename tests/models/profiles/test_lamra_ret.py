"""LamRA's own way of embedding, as U-MARVEL's code, which grew out of LamRA's, was seen to compute it."""

import numpy as np

from mmembed import Embedder
from tests.models.test_golden_gme_lamra_u_marvel import CASES, U_MARVEL, array, u_marvel_items

CASE = "p0/c/batch_lamra/sdpa"


def test_candidates_are_embedded_as_published():
    """Pictures alone are left out: that code asked for them as for picture and sentence, which LamRA's does not."""
    items = u_marvel_items("c")
    kept = [place for place, number in enumerate(CASES[CASE]["ids"]) if any(map(is_text, items[number].content))]
    model = Embedder.from_pretrained(U_MARVEL / "ckpt", profile="lamra_ret", device="cpu")

    ours = model.encode([items[CASES[CASE]["ids"][place]] for place in kept], side="target").numpy()

    assert len(kept) == 5
    assert np.abs(ours - array(f"{CASE}/emb")[kept]).max() <= 1e-5


def is_text(part):
    return isinstance(part, str)
