"""The tower, the order of a picture's tokens, and the language model, against plain twins and the library's own."""

import pytest
import torch
from transformers import Phi3Config, Phi3Model

from mmembed import Image, Item
from mmembed.counters import counting
from mmembed.models.backbones.phi3_v.model import merge
from mmembed.models.prompts import Kind
from mmembed.models.sequence import collate
from mmembed.models.settings import RawPrompt


@pytest.fixture(scope="module")
def items(picture):
    return [
        Item.of("a red circle"),
        Item.of({"image": picture(84, 56), "text": "the same, but blue"}),
        Item.of("a much longer text " * 40, "Find the picture."),
        Item((Image(picture(56, 56)), " or ", Image(picture(300, 56)), " then ", Image(picture(56, 56)))),
        Item.of({"image": picture(40, 120), "text": "tall"}, "Represent."),
    ]


def test_patches_are_merged_two_by_two_across_the_grid():
    rows, columns, side, width = 2, 3, 4, 5
    tiles = torch.randn(rows * columns, side * side, width)

    merged = merge(tiles, rows, columns)

    assert merged.shape == (rows * 2, columns * 2, 4 * width)
    for line in range(rows * 2):
        for place in range(columns * 2):
            tile = tiles[line // 2 * columns + place // 2].reshape(side, side, width)
            top, left = line % 2 * 2, place % 2 * 2
            block = [tile[top + i, left + j] for i in (0, 1) for j in (0, 1)]
            assert torch.equal(merged[line, place], torch.cat(block))


def test_the_tower_gives_the_states_before_its_last_layer(small):
    tower = small().backbone.tower
    pictures = torch.randn(3, 3, 56, 56)

    whole = tower.img_processor(pictures, output_hidden_states=True)

    assert torch.equal(tower.patches(pictures), whole.hidden_states[-2][:, 1:])


def test_a_picture_is_its_tiles_then_a_separator_then_the_whole(small):
    tower = small().backbone.tower
    tiles, views = torch.randn(2, 3, 56, 56), torch.randn(1, 3, 56, 56)

    (tokens,) = tower(tiles, views, [(1, 2)])

    states = tower.patches(torch.cat([tiles, views]))
    lines = []
    for grid, columns in ((merge(states[:2], 1, 2), 4), (merge(states[2:], 1, 1), 2)):
        for line in grid:
            assert len(line) == columns
            lines += [*line, tower.sub_GN[0, 0, 0]]
        lines.append(tower.glb_GN[0, 0])
    expected = tower.img_projection(torch.stack(lines[:-1]))
    assert torch.allclose(tokens, expected, atol=1e-6)


def test_text_embeds_as_the_librarys_phi3_does(small):
    embedder = small(prompt=RawPrompt())
    ours = embedder.backbone.model
    fields = Phi3Config().to_dict().keys() & ours.config.to_dict().keys()
    values = {name: getattr(ours.config, name) for name in fields if name not in ("model_type", "architectures")}
    twin = Phi3Model(Phi3Config(**values)).eval()
    twin.load_state_dict({k: v for k, v in ours.state_dict().items() if "vision_embed" not in k})
    # on either side of the length that the short frequencies are for
    for text in ("a red circle", "a red circle " * 150):
        row = embedder.prepare([Item.of(text)], "query")[0]

        with torch.no_grad():
            state = twin(input_ids=row.ids[None]).last_hidden_state[0, -1:]

        vector = torch.nn.functional.normalize(state, dim=-1)
        assert (len(row) > ours.config.original_max_position_embeddings) == (len(text) > 100)
        assert torch.allclose(embedder.encode(text), vector, atol=1e-6)


@pytest.mark.parametrize("side", ["right", "left"])
def test_an_embedding_does_not_depend_on_its_batch(side, items, small):
    alone = torch.cat([small().encode([item]) for item in items])
    embedder = small(padding_side=side)

    with torch.no_grad():
        together = embedder(collate(embedder.prepare(items, "query")))

    assert torch.allclose(together, alone, atol=1e-5, rtol=0)
    assert (alone @ alone.T - torch.eye(len(items))).abs().max() < 0.9


def test_a_distinct_picture_passes_the_tower_once_and_each_text_follows_its_own(items, small, picture):
    embedder = small()
    with counting() as work, torch.no_grad():
        embedder(collate(embedder.prepare(items, "query")))
    swapped = Item((Image(picture(300, 56)), " or ", Image(picture(56, 56)), " then ", Image(picture(56, 56))))

    assert work["tower_forwards"] == 4
    assert not torch.allclose(embedder.encode([swapped]), embedder.encode([items[3]]), atol=1e-2)


def test_text_alone_runs_no_tower(small):
    with counting() as work:
        small().encode(["a red circle", "blue"])

    assert "tower_forwards" not in work


def test_eager_attention_gives_the_same_vectors(items, small):
    assert torch.allclose(small(attention="eager").encode(items), small().encode(items), atol=1e-5, rtol=0)


@pytest.mark.parametrize("policy", ["bidirectional", "prefix"])
def test_other_policies_do_not_depend_on_the_batch_either(policy, items, small):
    embedder = small(attention_policy=policy)

    with torch.no_grad():
        together = embedder(collate(embedder.prepare(items, "query")))

    assert torch.allclose(together, torch.cat([embedder.encode([item]) for item in items]), atol=1e-5, rtol=0)
    assert not torch.allclose(together, small().encode(items), atol=1e-2)


def test_every_picture_token_is_overwritten(small, picture):
    embedder = small(prompt=RawPrompt())
    batch = collate(embedder.prepare([Item.of({"image": picture(56, 56), "text": "x"})], "query"))
    backbone = embedder.backbone

    with torch.no_grad():
        features = backbone.vision(batch)
        sequence = backbone.embed(batch, features)

    assert torch.equal(sequence.embeds[batch.kinds == Kind.IMAGE], features.maps[0])
