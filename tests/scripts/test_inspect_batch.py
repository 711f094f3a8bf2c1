"""scripts/inspect_batch.py shows the batch that training gets."""

import re
from pathlib import Path

import pytest
import torch

from data_prep.demo import Sizes, make_demo
from mmembed.data.sampler import Sampler
from mmembed.data.settings import Sampling
from mmembed.items import Image, Item, Negative, Pair, Video
from mmembed.losses.settings import Contrastive
from mmembed.models.prompts import Kind
from mmembed.models.settings import RawPrompt
from mmembed.recipe import read_recipe
from mmembed.training.batches import PairPreparer
from mmembed.training.inspection import Span, shares, view_chunks, view_pairs
from mmembed.training.settings import Chunks
from scripts.inspect_batch import main

STEPS = read_recipe(Path(__file__).parents[2] / "configs/demo.yaml").stages["singles"].steps


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    make_demo(root / "demo", 0, Sizes(singles=40, pairs=40, clips=20, pages=8, tests=4))
    return root


@pytest.fixture
def inspect(data, capsys):
    def run(*more):
        held_out = [f"--stages.{stage}.validation.rows=4" for stage in ("singles", "pairs")]
        status = main(["--config", "demo.yaml", "--data-root", str(data), *more, *held_out, "--threads", "1"])
        return status, capsys.readouterr()

    return run


@pytest.fixture
def preprocessor(scratch_embedder):
    return scratch_embedder("qwen2_vl", prompt=RawPrompt(suffix="<|im_end|>"), min_pixels=784).backbone.preprocessor


@pytest.fixture
def pairs(picture):
    clip = Video(tuple(picture(56, 28, seed) for seed in range(4)))
    items = [
        (Item.of({"image": picture(56, 28), "instruction": "describe the clip"}), "a red circle", ()),
        (Item((clip, "and", Image(picture(28, 28)))), "blue", (Negative(Item.of("Find")),)),
        (Item.of("same"), "a red circle", ()),
    ]
    return [
        Pair(query, (Item.of(words),), negatives, query_id=f"q{i}", source="s")
        for i, (query, words, negatives) in enumerate(items)
    ]


@pytest.fixture
def batch(preprocessor, pairs):
    return PairPreparer(preprocessor, Chunks(rows=2))(7, pairs)


def nothing_masked(batch):
    return torch.zeros(len(batch.query_rows), len(batch.target_rows), dtype=torch.bool)


def test_every_token_is_there_once_with_its_kind(batch, preprocessor, pairs):
    views = view_pairs(batch, preprocessor.tokenizer, nothing_masked(batch))

    for pair, view in zip(pairs, views, strict=True):
        targets = [pair.positives[0], *(negative.item for negative in pair.negatives)]
        assert len(view.targets) == len(targets)
        for item, side, row in [(pair.query, "query", view.query), *zip(targets, ["target"] * 2, view.targets)]:  # noqa: B905
            prepared = preprocessor(item, side)
            words = [word for span in row.spans for word in span.words * span.repeats]
            kinds = [span.kind for span in row.spans for _ in range(len(span.words) * span.repeats)]
            assert words == [preprocessor.tokenizer.decode([token]) for token in prepared.ids.tolist()]
            assert kinds == prepared.kinds.tolist()
            assert row.tokens == len(prepared)
            for axis, positions in zip(("time", "height", "width"), prepared.positions.tolist(), strict=True):
                assert row.positions[axis] == (min(positions), max(positions))


def test_media_collapse_to_their_number_of_tokens(batch, preprocessor):
    first, second, _ = view_pairs(batch, preprocessor.tokenizer, nothing_masked(batch))

    assert first.query.spans[0] == Span(Kind.IMAGE, ("<|image_pad|>",), 2)
    media = [span for span in second.query.spans if span.kind in (Kind.IMAGE, Kind.VIDEO)]
    assert media == [Span(Kind.VIDEO, ("<|video_pad|>",), 4), Span(Kind.IMAGE, ("<|image_pad|>",), 1)]


def test_masked_targets_are_those_of_the_objective(batch, preprocessor):
    views = view_pairs(batch, preprocessor.tokenizer, Contrastive().build().excluded(batch.candidates))

    assert [view.masked for view in views] == [(3,), (), (0,)]
    plain = Contrastive(mask_duplicates=False).build().excluded(batch.candidates)
    assert [view.masked for view in view_pairs(batch, preprocessor.tokenizer, plain)] == [(), (), ()]


def test_chunks_say_what_is_computed(batch):
    views = view_chunks(batch)

    assert [view.rows for view in views] == [2, 2, 2]
    assert sum(view.tokens for view in views) == sum(int(chunk.lengths.sum()) for chunk in batch.chunks)
    for view, chunk in zip(views, batch.chunks, strict=True):
        block = torch.nn.utils.rnn.pad_sequence([torch.ones(n) for n in chunk.lengths.tolist()], batch_first=True)
        assert view.padding == pytest.approx((block == 0).float().mean().item())


def test_shares_stand_beside_what_the_weights_say():
    sampler = Sampler({"a": 50, "b": 50}, {"a": 3, "b": 1}, Sampling(8, 4, 4), seed=0)

    found = shares(sampler, 0, 10)

    assert [(share.source, share.expected) for share in found] == [("a", 60), ("b", 20)]
    assert [share.rows for share in found] == [60, 20]


def test_a_step_is_printed_within_100_columns(inspect):
    status, printed = inspect("--stage", "pairs", "--step", "5", "--rows", "3", "--steps", "40")

    lines = printed.out.splitlines()
    assert status == 0
    assert max(map(len, lines)) <= 100
    assert re.match(r"demo, stage pairs, step 5: 64 pairs, \d+ targets, ", lines[0])
    assert printed.out.count(" query ") == 3
    assert re.search(r"<\|(image|video)_pad\|> x\d", printed.out)
    assert "{<|im_end|>}" in printed.out
    assert "text  [instruction]  {template}" in printed.out
    assert "\x1b" not in printed.out
    assert "steps 5 to 44" in printed.out
    counted = [int(row.split()[2]) for row in lines if re.match(r"^  \w+ +[\d.]+ +\d+ +[\d.]+ +[+-]", row)]
    assert sum(counted) == 40 * 64


def test_the_first_stage_and_step_are_the_default(inspect):
    assert "demo, stage singles, step 0" in inspect("--rows", "1")[1].out


@pytest.mark.parametrize(
    "options, message",
    [
        (["--stage", "pair"], "--stage: expected a stage of demo, got 'pair'; did you mean 'pairs'?"),
        (["--step", f"{STEPS}"], f"expected 0 to {STEPS - 1} in stage 'singles', got {STEPS}; steps are counted from"),
        (["--step", "-1"], f"--step: expected 0 to {STEPS - 1} in stage 'singles', got -1"),
        (["--stages.singles.stepz", "1"], "got 'stepz'; did you mean 'steps'?"),
        (["--config", "demos.yaml"], "got 'demos.yaml'; did you mean 'demo.yaml'?"),
        (["--data-root", "nowhere"], "nowhere: expected prepared tables, got no demo/single_caption.jsonl"),
    ],
)
def test_wrong_options_are_refused_in_words(options, message, inspect):
    status, printed = inspect(*options)

    assert status == 2
    assert message in printed.err
