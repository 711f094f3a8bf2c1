"""The query's picture as a hard negative, and the pair of the picture alone."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from mmembed.data.mixture import as_drawn, open_mixture
from mmembed.data.settings import Sampling, Source
from mmembed.data.tables import write_pairs
from mmembed.errors import InputError
from mmembed.files import fingerprint
from mmembed.items import Image, Item, Negative, Pair, Region
from mmembed.losses.candidates import Candidates
from mmembed.losses.settings import Contrastive, SourceRules

HOME = SourceRules(in_batch="source")


def composed(number=0, **changes):
    """A picture, a change, the caption after it and the caption before it."""
    pair = Pair(
        Item.of({"image": f"{number}.png", "text": f"change {number}"}),
        (Item.of(f"after {number}"),),
        (Negative(Item.of(f"before {number}")),),
        query_id=str(number), target_ids=(f"t{number}",), class_id=f"c{number}",
    )  # fmt: skip
    return replace(pair, **changes)


def drawn(pair, **settings):
    return as_drawn(pair, "s", Source("t.jsonl", **settings))


def test_the_picture_of_a_query_is_a_hard_negative_before_the_others():
    pair = drawn(composed(), query_image_negative=True)

    assert [negative.item for negative in pair.negatives] == [Item((Image("0.png"),)), Item.of("before 0")]
    assert [negative.miner for negative in pair.negatives] == ["query", ""]
    assert (pair.query, pair.positives) == (composed().query, composed().positives)


def test_it_is_written_as_the_targets_that_have_pictures_are():
    target = Item.of({"image": "target.png"}, "Represent the picture.")

    pair = drawn(composed(positives=(Item.of("words"), target)), query_image_negative=True)

    assert pair.negatives[0].item == replace(target, content=(Image("0.png"),))


def test_a_place_in_the_picture_belongs_to_the_change():
    shown = Image("0.png", (Region(box=(0, 0, 4, 4)),))
    query = Item((shown, "without this"), verbatim=False)

    for settings, of in (({"query_image_negative": True}, "negatives"), ({"mirrored": True}, "query")):
        found = getattr(drawn(composed(query=query), **settings), of)
        item = found if isinstance(found, Item) else found[0].item
        assert item.media == (Image("0.png"),)


def test_a_row_that_has_its_picture_as_a_negative_keeps_it_once():
    own = Negative(Item.of({"image": "0.png"}), miner="published")
    pair = composed(negatives=(Negative(Item.of("no")), own), teacher_scores=(0.9, 0.1, 0.3))

    assert drawn(pair, query_image_negative=True).negatives == pair.negatives


def test_the_negatives_of_the_table_may_be_left_out_beside_it():
    pair = drawn(composed(), query_image_negative=True, max_negatives=0)

    assert [negative.item.media for negative in pair.negatives] == [(Image("0.png"),)]


def test_a_mirrored_pair_asks_for_the_picture_alone():
    query = Item.of({"image": "0.png", "text": "change 0"}, "Find the changed picture")

    pair = drawn(composed(query=query), mirrored=True, instruction="Describe")

    assert pair == Pair(
        Item.of({"image": "0.png"}, "Describe"), (Item.of("before 0"),), (Negative(Item.of("after 0")),),
        query_id="0", source="s",
    )  # fmt: skip


@pytest.mark.parametrize("view", ["query_image_negative", "mirrored"])
def test_a_query_of_words_has_no_picture_to_show(view):
    with pytest.raises(InputError, match=r"pair\.query: expected a picture, a clip or a page .*, got words alone"):
        drawn(composed(query=Item.of("words")), **{view: True})


@pytest.mark.parametrize("view", ["query_image_negative", "mirrored"])
def test_scores_of_a_teacher_are_not_made_up(view):
    with pytest.raises(InputError, match=rf"pair\.teacher_scores: expected none beside {view}, got 2 scores"):
        drawn(composed(teacher_scores=(0.9, 0.2)), **{view: True})


def test_a_mirrored_pair_needs_hard_negatives():
    with pytest.raises(InputError, match=r"pair\.negatives: expected a hard negative, .*, got none"):
        drawn(composed(negatives=()), mirrored=True)


def test_settings_that_contradict_each_other_are_refused():
    with pytest.raises(InputError, match=r"source\.mirrored: .*got both"):
        Source("t.jsonl", mirrored=True, query_image_negative=True)
    with pytest.raises(InputError, match=r"source\.mirrored: .*got max_negatives 0"):
        Source("t.jsonl", mirrored=True, max_negatives=0)


def test_each_batch_may_be_half_mirrored(tmp_path):
    for i in range(12):
        (tmp_path / f"{i}.png").touch()
    write_pairs(tmp_path / "t.jsonl", [composed(i) for i in range(12)])
    sources = {"change": Source("t.jsonl", loss=HOME), "picture": Source("t.jsonl", mirrored=True, loss=HOME)}
    opened = open_mixture(sources, Sampling(batch_size=8, block_size=4, window=2), seed=3, data_root=tmp_path)

    for step in range(5):
        pairs = opened.pairs(step)
        assert sorted(pair.source for pair in pairs) == ["change"] * 4 + ["picture"] * 4
        assert all(pair.positives[0].text.startswith("before") == (pair.source == "picture") for pair in pairs)


def test_both_sources_with_in_batch_source_average_to_the_two_published_terms():
    rows = [composed(i) for i in range(5)]
    sources = {"change": Source("t.jsonl", loss=HOME), "picture": Source("t.jsonl", mirrored=True, loss=HOME)}
    pairs = [as_drawn(row, name, source) for name, source in sources.items() for row in rows]

    loss = batch_loss(pairs, sources)

    queries, alone, after, before = (
        torch.stack([vector(item) for item in items])
        for items in (
            [row.query for row in rows],
            [Item.of({"image": f"{i}.png"}) for i in range(5)],
            [row.positives[0] for row in rows],
            [row.negatives[0].item for row in rows],
        )
    )
    forward, mirror = term(queries, after, before), term(alone, before, after)
    assert loss == pytest.approx((forward + mirror) / 2, rel=1e-12)
    assert abs(loss - forward) > 1e-3


def test_compared_with_the_other_source_too_the_loss_is_another():
    rows = [composed(i) for i in range(5)]
    sources = {"change": Source("t.jsonl"), "picture": Source("t.jsonl", mirrored=True)}
    pairs = [as_drawn(row, name, source) for name, source in sources.items() for row in rows]
    home = {name: replace(source, loss=HOME) for name, source in sources.items()}

    assert abs(batch_loss(pairs, sources) - batch_loss(pairs, home)) > 1e-3


def vector(item):
    """A unit vector of the words and the names of the pictures."""
    name = fingerprint(*(part if isinstance(part, str) else str(part.source) for part in item.content))
    generator = torch.Generator().manual_seed(int(name[:8], 16))
    return F.normalize(torch.randn(16, generator=generator, dtype=torch.float64), dim=0)


def term(queries, positives, negatives):
    """The published term: each query finds its positive among all positives and all hard negatives."""
    scores = torch.cat([queries @ positives.T, queries @ negatives.T], 1) / 0.05
    return F.cross_entropy(scores, torch.arange(len(queries))).item()


def batch_loss(pairs, sources):
    targets = [(i, item, kind) for i, pair in enumerate(pairs) for item, kind in targets_of(pair)]
    candidates = Candidates(
        owner=torch.tensor([owner for owner, _, _ in targets]),
        positive=torch.tensor([kind for _, _, kind in targets]),
        query_keys=torch.arange(len(pairs)),
        target_keys=torch.arange(len(targets)),
        classes=torch.full((len(pairs),), -1),
        sources=torch.tensor([list(sources).index(pair.source) for pair in pairs]),
    )
    rules = {name: source.loss for name, source in sources.items()}
    objective = Contrastive(temperature=0.05, mask_duplicates=False).build(rules).double()
    queries = torch.stack([vector(pair.query) for pair in pairs])
    return objective(queries, torch.stack([vector(item) for _, item, _ in targets]), candidates).value.item()


def targets_of(pair):
    return [(item, True) for item in pair.positives] + [(negative.item, False) for negative in pair.negatives]
