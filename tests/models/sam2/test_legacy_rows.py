"""Rows as the released VIRTUE pads them, against the padded block itself run through the language model."""

import PIL.Image
import pytest
import torch
import torch.nn.functional as F

from mmembed import Embedder, Image, Item
from mmembed.errors import InputError
from mmembed.models.sequence import collate
from mmembed.models.settings import EmbedderSettings, QwenVL, RawPrompt
from mmembed.models.settings.regions import Sam2Regions, Sam2Scratch
from tests.cases import GOLDEN, draw, small_embedder

COUNT = 16
PICTURE = Item((Image(draw(56, 56)), " what is here"))
LONG_PICTURE = Item((Image(draw(84, 112)), " Find the caption that best describes the segmented object in the image."))
TEXT = Item(("two people riding bicycles near the river at sunset",))
SHORT = Item(("a dog",))
# padding before or behind hides or shows other tokens for each
BATCHES = [
    [PICTURE, TEXT],
    [LONG_PICTURE, SHORT],
    [LONG_PICTURE, PICTURE],
    [PICTURE, SHORT, TEXT, LONG_PICTURE],
    [PICTURE],
]


def opened(call, side):
    backbone = QwenVL(path=str(GOLDEN / "vlm2vec/qwen2_vl"), positions="sequential", padding_side=side)
    regions = Sam2Regions(scratch=Sam2Scratch(), legacy_positions=call)
    torch.manual_seed(0)
    return Embedder(EmbedderSettings(backbone, RawPrompt(), regions=regions)).eval()


def block(model, items, call, side):
    """The padded block: embeddings, mask, positions, and which place of each row is pooled."""
    backbone = model.backbone
    batch = collate(model.prepare(items, "query"))
    features = model.vision(batch)
    filled = super(type(model.regions), model.regions).forward(
        backbone.embed(batch, features), batch, features, backbone
    )
    lookup = backbone.language_model.get_input_embeddings()
    pad, bos = lookup(torch.tensor([backbone.checkpoint.tokenizer.pad_token_id, backbone.language_config.bos_token_id]))
    free = batch.kept_free.split(batch.lengths.tolist())
    rows = [(e[f], e[~f]) for e, f in zip(filled.embeds.split(batch.lengths.tolist()), free, strict=True)]
    longest = max(len(words) for _, words in rows)
    embeds, masks, positions = [], [], []
    for leading, words in rows:
        pads = pad.expand(longest - len(words), -1)
        mask = F.pad(torch.ones(len(words), dtype=torch.long), (len(pads), 0) if side == "left" else (0, len(pads)))
        padded = torch.cat([pads, words] if side == "left" else [words, pads])
        embeds.append(torch.cat([leading, padded] if len(leading) else [padded, bos.expand(COUNT, -1)]))
        masks.append(mask)
        first = (mask.cumsum(0) - 1).masked_fill(mask == 0, 1)
        behind = first if call == "first" else torch.arange(COUNT, COUNT + longest)
        positions.append(F.pad(behind, (COUNT, 0)))
    masks = torch.stack(masks)
    pooled = [COUNT + longest - 1] * len(rows) if bool(masks[:, -1].all()) else (masks.sum(1) - 1).tolist()
    return torch.stack(embeds), F.pad(masks, (COUNT, 0), value=1), torch.stack(positions), pooled


@pytest.mark.parametrize("items", BATCHES, ids=lambda items: "-".join("ti"[bool(item.media)] for item in items))
@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("call", ["first", "later"])
def test_flat_rows_give_the_vectors_of_the_padded_block(call, side, items):
    model = opened(call, side)
    with torch.no_grad():
        embeds, mask, positions, pooled = block(model, items, call, side)
        states = model.backbone.language_model(
            inputs_embeds=embeds, attention_mask=mask, position_ids=positions.expand(3, -1, -1), use_cache=False
        ).last_hidden_state
        theirs = F.normalize(states[torch.arange(len(items)), pooled], dim=-1)

        ours = model(collate(model.prepare(items, "query")))

    assert (ours - theirs).abs().max() <= 1e-5


def test_a_batch_of_text_alone_is_left_as_it_is():
    models = [opened(call, "left") for call in ("first", "later", "single")]

    vectors = [model.encode([TEXT, SHORT]) for model in models]

    assert torch.equal(vectors[0], vectors[1]) and torch.equal(vectors[1], vectors[2])


def test_a_checkpoint_without_a_token_to_fill_rows_of_text_with_is_refused():
    regions = Sam2Regions(scratch=Sam2Scratch(), legacy_positions="later")
    model = small_embedder(regions=regions, prompt=RawPrompt()).eval()
    picture = Item((Image(PIL.Image.new("RGB", (56, 56))),))

    assert model.encode([picture]).isfinite().all()
    with pytest.raises(InputError, match="expected a checkpoint with tokens of padding and of a text's beginning"):
        model(collate(model.prepare([picture, TEXT], "query")))
