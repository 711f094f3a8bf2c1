"""A picture's word in a query without a picture (WebQA, EDIS) is a word: one token, its vocabulary embedding."""

import numpy as np
import pytest
import torch
from transformers import AutoModel

from mmembed import Image, Item

LAYOUT = "{image_token}\n{instruction} {text}\n"
QUERY = Item(("who painted it?",), "Find a Wikipedia image that answers this question:", verbatim=False, layout=LAYOUT)
STRING = "<|image_pad|>\nFind a Wikipedia image that answers this question: who painted it?\n"


@pytest.fixture(scope="module")
def pictures(golden):
    words = "\nRepresent the given Wikipedia image.\n"
    return [Item((Image(golden / f"vlm2vec/inputs/images/{name}.png"), words)) for name in ("a224", "h100x140")]


def by_hand(model, path, text):
    """The stock language model over the vocabulary embeddings of the string, one position counter, last token."""
    ids = torch.tensor([model.backbone.preprocessor.tokenizer(text).input_ids])
    stock = AutoModel.from_pretrained(path, dtype="float32").eval()
    places = torch.arange(ids.shape[1])[None, None].expand(3, 1, -1)
    with torch.no_grad():
        states = stock.language_model(
            inputs_embeds=stock.get_input_embeddings()(ids), position_ids=places, use_cache=False
        ).last_hidden_state  # fmt: skip
    return torch.nn.functional.normalize(states[:, -1], dim=-1)[0].numpy()


@pytest.mark.parametrize("family", ["qwen2_vl", "qwen2_5_vl"])
def test_a_stray_token_beside_rows_with_pictures_equals_the_rule(family, open_golden, golden, pictures):
    model = open_golden(family)

    vectors = model.encode([pictures[0], QUERY, pictures[1], Item((STRING,))]).numpy()

    expected = by_hand(model, golden / "vlm2vec" / family, STRING)
    assert np.abs(vectors[1] - expected).max() <= 2e-6
    assert np.abs(vectors[3] - expected).max() <= 2e-6
    assert np.abs(vectors[0] - model.encode([pictures[0]]).numpy()[0]).max() <= 2e-6


def test_the_token_is_one_and_counts_as_text(open_golden):
    model = open_golden("qwen2_vl")

    row = model.backbone.preprocessor(QUERY, "query")

    pad = model.backbone.preprocessor.tokenizer.convert_tokens_to_ids("<|image_pad|>")
    assert row.ids.tolist().count(pad) == 1
    assert row.media == ()
    assert model.backbone.preprocessor.tokenizer.decode(row.ids) == STRING
