"""Prompts mixed in training: at which rows, at which steps, and refused before the first one if a model cannot tell."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from mmembed import Embedder, Image, Item, Pair, Region
from mmembed.data.batching import StepDataset, step_loader
from mmembed.data.settings import RegionMixing, Sampling, Source
from mmembed.data.tables import write_pairs
from mmembed.errors import InputError
from mmembed.items import Negative
from mmembed.models.settings import TextModel
from mmembed.models.settings.regions import Crop, MaskChannel, Overlay, TextRegions
from mmembed.processes import ALONE
from mmembed.recipe import Recipe
from mmembed.settings import parse_yaml, read_settings
from mmembed.training.batches import PairPreparer
from mmembed.training.settings import Stage, Validation
from mmembed.training.stage_data import StageData, make_mixer, open_training
from tests.cases import WORDS, draw, small_embedder
from tests.families import family_settings

SIZE = (56, 42)
MIXING = RegionMixing({"none": 1, "point": 2, "points": 2, "box": 1, "jittered_box": 2, "mask": 1, "scribble": 1})
STAGE = Stage({"s": Source("t.jsonl")}, steps=6, sampling=Sampling(4, 4, 2), region_prompts=MIXING)


@pytest.fixture(scope="module")
def embedder():
    return small_embedder(regions=Overlay())


@pytest.fixture
def folder(tmp_path):
    draw(*SIZE).save(tmp_path / "p.png")
    mask = np.zeros(SIZE[::-1], dtype=bool)
    mask[8:30, 10:40] = True
    image = Image(str(tmp_path / "p.png"), (Region(mask=mask),))
    write_pairs(
        tmp_path / "t.jsonl",
        [
            Pair(Item((image, f"what {i}")), (Item((image,)),), (Negative(Item((image, "no"))),), query_id=str(i))
            for i in range(10)
        ],
    )
    return tmp_path


def mixer_of(embedder, stage=STAGE, name="main", seed=0):
    backbone = embedder.settings.backbone
    return make_mixer(name, stage, seed=seed, preprocessor=embedder.backbone.preprocessor, backbone=backbone)


def preparer_of(embedder, stage=STAGE):
    mixer = mixer_of(embedder, stage)
    return PairPreparer(embedder.backbone.preprocessor, stage.chunks, list(stage.mixture), mixer=mixer)


def content(batch):
    """Everything of a batch that the model or the loss sees."""
    tensors = [[chunk.ids, chunk.pixels, chunk.lengths] for chunk in batch.chunks]
    places = [batch.query_rows, batch.target_rows, batch.candidates.query_keys, batch.candidates.target_keys]
    return [t.tolist() for t in [*(t for chunk in tensors for t in chunk), *places]]


def test_queries_change_from_step_to_step_and_targets_do_not(embedder, folder):
    pair = open_training("main", STAGE, seed=0, data_root=folder).pairs(0)[0]
    prepared = [preparer_of(embedder).prepare(pair, number) for number in range(20)]
    as_it_is = PairPreparer(embedder.backbone.preprocessor, STAGE.chunks).prepare(pair)

    assert len({one.query.fingerprint for one in prepared}) > 10
    for one in prepared:
        assert [row.fingerprint for row in one.targets] == [row.fingerprint for row in as_it_is.targets]
        assert (one.pair, one.target_keys) == (pair, as_it_is.target_keys)


def test_rows_are_equal_by_what_their_table_has(embedder, folder):
    pairs = open_training("main", STAGE, seed=0, data_root=folder).pairs(0)
    mixed = preparer_of(embedder)(3, pairs)
    plain = PairPreparer(embedder.backbone.preprocessor, STAGE.chunks, list(STAGE.mixture))(3, pairs)

    for name in ("query_keys", "target_keys", "owner", "positive", "sources"):
        assert torch.equal(getattr(mixed.candidates, name), getattr(plain.candidates, name))
    assert content(mixed) != content(plain)


def test_without_it_nothing_changes(embedder, folder):
    stage = replace(STAGE, region_prompts=None)
    pairs = open_training("main", stage, seed=0, data_root=folder).pairs(0)

    assert mixer_of(embedder, stage) is None
    plain = PairPreparer(embedder.backbone.preprocessor, stage.chunks, list(stage.mixture))
    assert content(preparer_of(embedder, stage)(3, pairs)) == content(plain(3, pairs))


@pytest.mark.filterwarnings("ignore:This DataLoader will create 2 worker processes")
@pytest.mark.parametrize("num_workers", [0, 1, 2])
def test_a_stage_gone_on_with_draws_what_it_would_have_drawn(embedder, folder, num_workers):
    def steps(**ranks):
        mixture = open_training("main", STAGE, seed=0, data_root=folder)
        return StepDataset(mixture, preparer_of(embedder), **ranks)

    whole = steps()
    expected = [content(whole[number]) for number in range(6)]

    assert [content(batch) for batch in step_loader(steps(), 2, 6, num_workers)] == expected[2:]
    ranks = [steps(rank=rank, world=2)[4] for rank in range(2)]
    shared = [rank.chunks[0] for rank in ranks]
    assert {name for chunk in shared for name in chunk.media} == {name for c in whole[4].chunks for name in c.media}


def test_stages_and_seeds_draw_other_prompts(embedder, folder):
    pair = open_training("main", STAGE, seed=0, data_root=folder).pairs(0)[0]
    mixers = [mixer_of(embedder), mixer_of(embedder, name="other"), mixer_of(embedder, seed=1)]

    drawn = [tuple(mixer.query(pair, step).fingerprint() for step in range(5)) for mixer in mixers]

    assert len(set(drawn)) == 3


def test_held_out_rows_keep_their_regions(embedder, folder):
    stage = replace(STAGE, validation=Validation(rows=3))
    plain = replace(stage, region_prompts=None)
    mixture = open_training("main", stage, seed=0, data_root=folder)

    held_out = [
        content(next(iter(StageData(mixture, preparer_of(embedder, chosen), chosen, ALONE).val_dataloader())))
        for chosen in (stage, plain)
    ]

    assert held_out[0] == held_out[1]


@pytest.mark.parametrize(
    ("regions", "mixing", "message"),
    [
        (TextRegions(), {"box": 1, "mask": 1},
         r"stages\.main\.region_prompts\.weights\.mask: .*regions\[0\]: expected a box or points.* got a mask"),
        (TextRegions(), {"scribble": 1}, r"stages\.main\.region_prompts\.weights\.scribble: .* got a mask"),
        (Crop(), {"points": 1},
         r"stages\.main\.region_prompts\.weights\.points: .* points inside, which a crop can tell"),
        (None, {"none": 1, "box": 1},
         r"stages\.main\.region_prompts\.weights\.box: image\.regions: expected no regions: this model has no region"),
    ],
)  # fmt: skip
def test_a_kind_that_the_model_cannot_tell_is_refused_before_the_first_step(regions, mixing, message):
    with pytest.raises(InputError, match=message):
        mixer_of(small_embedder(regions=regions), replace(STAGE, region_prompts=RegionMixing(mixing)))


@pytest.mark.parametrize(
    ("regions", "mixing"),
    [
        (TextRegions(), RegionMixing({"none": 1, "point": 1, "points": 1, "box": 1, "jittered_box": 1, "mask": 0})),
        (Crop(), RegionMixing(MIXING.weights, outside=0)),
        (Overlay(), MIXING),
        (MaskChannel(), MIXING),
    ],
)
def test_every_kind_that_the_model_tells_is_taken(regions, mixing):
    assert mixer_of(small_embedder(regions=regions), replace(STAGE, region_prompts=mixing)) is not None


def test_a_model_of_text_alone_is_refused():
    settings = family_settings("qwen2")
    assert isinstance(settings.backbone, TextModel)
    embedder = Embedder(replace(settings, regions=Overlay()), texts=WORDS)

    with pytest.raises(InputError, match=r"stages\.main\.region_prompts\.weights\.point: "):
        mixer_of(embedder)


RECIPE = """
name: tiny
embedder: {backbone: {class_path: QwenVL, init_args: {scratch: {}}}, regions: {class_path: Overlay}}
stages:
  main:
    mixture: {s: {table: t.jsonl}}
    steps: 1
    region_prompts: {weights: {none: 1, jittered_box: 2.5}, jitter: 0.2}
"""


def test_a_recipe_says_what_is_mixed_and_the_command_line_may_say_otherwise():
    values = parse_yaml(RECIPE, "recipe")
    override = ["--stages.main.region_prompts.jitter", "0.3"]

    plain, changed = (read_settings(Recipe, values, overrides=more).stages["main"] for more in ([], override))

    assert plain.region_prompts == RegionMixing({"none": 1, "jittered_box": 2.5}, jitter=0.2)
    assert changed.region_prompts == RegionMixing({"none": 1, "jittered_box": 2.5}, jitter=0.3)
    with pytest.raises(InputError, match="expected a kind of prompt, got 'boxes'; did you mean 'box'"):
        read_settings(Recipe, parse_yaml(RECIPE.replace("jittered_box", "boxes"), "recipe"))
