"""The objective against the losses of Sentence Transformers, on fixed embeddings."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mmembed.losses.settings import Contrastive

library = pytest.importorskip("sentence_transformers", minversion="6.2")
losses = library.sentence_transformer.losses

TEMPERATURE = 0.05


def normalized(*rows):
    """The library's cosines normalise; ours are given unit rows."""
    return (F.normalize(one, dim=1) for one in rows)


def compare(ours, theirs, rows):
    expected = torch.autograd.grad(theirs, rows)
    found = torch.autograd.grad(ours, rows)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-9)
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-9)


@pytest.mark.parametrize("hard", [0, 1, 3])
@pytest.mark.parametrize("both", [False, True])
def test_in_batch_and_hard_negatives_equal_multiple_negatives_ranking(both, hard, unit, distinct):
    queries, targets = unit(5, 1).requires_grad_(), unit(5 * (1 + hard), 2).requires_grad_()
    ours = Contrastive(TEMPERATURE, directions=(0.5, 0.5) if both else (1.0, 0.0), block_rows=2)

    directions = {"directions": ("query_to_doc", "doc_to_query"), "partition_mode": "per_direction"} if both else {}
    theirs = losses.MultipleNegativesRankingLoss(nn.Identity(), scale=1 / TEMPERATURE, **directions)

    compare(
        ours.build()(*normalized(queries, targets), distinct(5, hard=hard)).share,
        theirs.compute_loss_from_embeddings([queries, *targets.split(5)], None),
        (queries, targets),
    )


class Embedded(nn.Module):
    """What the library asks of a model, with embeddings for texts."""

    max_seq_length = 8

    def __init__(self):
        super().__init__()
        from tokenizers import Tokenizer
        from tokenizers.models import WordLevel
        from transformers import PreTrainedTokenizerFast

        self.tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(WordLevel({"a": 0}, "a")))

    def forward(self, features):
        return {"sentence_embedding": features["rows"]}


@pytest.mark.parametrize("margin", [0.0, 0.1])
@pytest.mark.parametrize("hard", [0, 1])
def test_the_margin_equals_gist_guided_by_the_model_itself(hard, margin, unit, distinct):
    # few dimensions, so that some targets are closer than the positive
    queries, targets = unit(12, 1, dim=3).requires_grad_(), unit(12 * (1 + hard), 2, dim=3).requires_grad_()
    loss = Contrastive(TEMPERATURE, margin=margin, block_rows=5).build()(
        *normalized(queries, targets), distinct(12, hard=hard)
    )

    model = Embedded()
    theirs = losses.GISTEmbedLoss(
        model, model, TEMPERATURE, margin=-margin, contrast_anchors=False, contrast_positives=False
    )

    assert 0.1 < loss.logs["masked"] < 0.9
    compare(
        loss.share, theirs([{"rows": queries}, *({"rows": r} for r in targets.split(12))], None), (queries, targets)
    )
