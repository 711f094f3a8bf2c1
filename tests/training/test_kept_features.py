"""A frozen tower's features kept on disk across epochs: the work saved, the same gradient, and what is refused."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from safetensors.torch import load_file as load_tensors

from mmembed import Embedder, Image, Item, Pair
from mmembed.counters import counting
from mmembed.data.settings import RegionMixing, Source
from mmembed.errors import InputError
from mmembed.losses.settings import Contrastive, Distillation
from mmembed.models.settings import EmbedderSettings, Lora, QwenVL, RawPrompt
from mmembed.models.settings.regions import MaskChannel, MaskPool, Overlay, RoiReplay
from mmembed.recipe import Recipe, run_key
from mmembed.training.batches import PairPreparer
from mmembed.training.module import EmbedderModule
from mmembed.training.pseudo_words import make_module
from mmembed.training.settings import Chunks, FeatureFiles, Optim, Stage
from tests.cases import draw, small_embedder
from tests.training import ranks
from tests.training.test_module import fit

ROOT = Path(__file__).parents[2]
MEDIA = 3
TOWER = ("model.visual",)


@pytest.fixture
def pairs():
    """Three pictures in five pairs; two of them stand on both sides."""
    shown = [Image(draw(56, 56 + 28 * i, i)) for i in range(MEDIA)]
    rows = [
        (Item((shown[0], "what?")), Item((shown[1],))),
        (Item.of("a red circle"), Item((shown[0],))),
        (Item((shown[1], "but blue")), Item.of("blue")),
        (Item.of("seen?"), Item((shown[2],))),
        (Item((shown[0], "and this?")), Item.of("a ring")),
    ]
    return [Pair(query, (target,), query_id=str(i), source="s") for i, (query, target) in enumerate(rows)]


def lora_embedder(golden):
    lora = Lora(r=4, targets=("q_proj", "v_proj"))
    settings = EmbedderSettings(QwenVL(path=str(golden / "vlm2vec/qwen2_5_vl")), RawPrompt(), lora=lora)
    return Embedder(settings).train()


def stage_of(folder, **choices):
    features = None if folder is None else FeatureFiles(str(folder))
    given = {
        "steps": 4, "objective": Contrastive(temperature=0.1), "optim": Optim(lr=1e-2), "features": features,
        "chunks": Chunks(rows=2, keep_mb=0),
    }  # fmt: skip
    return Stage({}, **(given | choices))


def step(embedder, pairs, folder, **choices):
    """Gradient, loss and work of one step by a module of its own, as another epoch or run would have."""
    module = EmbedderModule(embedder, stage_of(folder, **choices), seed=0)
    embedder.zero_grad()
    batch = PairPreparer(embedder.backbone.preprocessor, module.stage.chunks)(0, pairs)
    # a lora has dropout
    torch.manual_seed(5)
    with counting() as work:
        loss, _ = module.gradients(batch)
    return {n: p.grad.clone() for n, p in embedder.named_parameters() if p.grad is not None}, loss.value.item(), work


def files(folder):
    return sorted(folder.glob("*/*/*.safetensors"))


def test_a_second_epoch_needs_no_tower_and_has_the_same_gradient_to_the_bit(golden, pairs, tmp_path):
    embedder = lora_embedder(golden)
    plain, loss, without = step(embedder, pairs, None)
    assert not any("visual" in name for name in plain)

    epochs = [step(embedder, pairs, tmp_path) for _ in range(2)]

    assert [(work["tower_forwards"], work["feature_hits"]) for *_, work in epochs] == [(MEDIA, 0), (0, MEDIA)]
    assert (without["tower_forwards"], without["feature_hits"]) == (MEDIA, 0)
    for gradient, value, _ in epochs:
        assert value == loss
        assert gradient.keys() == plain.keys()
        assert all(torch.equal(gradient[name], g) for name, g in plain.items())
    assert len(files(tmp_path)) == MEDIA


def test_another_tower_has_features_of_its_own_and_a_changed_language_model_has_not(pairs, tmp_path):
    embedder = small_embedder("qwen3_vl").train()
    step(embedder, pairs, tmp_path, freeze=TOWER)
    with torch.no_grad():
        next(embedder.backbone.model.language_model.parameters()).add_(1)
    trained = step(embedder, pairs, tmp_path, freeze=TOWER)[2]
    with torch.no_grad():
        next(embedder.backbone.tower.parameters()).add_(1)

    other = step(embedder, pairs, tmp_path, freeze=TOWER)[2]

    assert (trained["tower_forwards"], trained["feature_hits"]) == (0, MEDIA)
    assert (other["tower_forwards"], other["feature_hits"]) == (MEDIA, 0)
    assert len(list(tmp_path.glob("*/space.json"))) == 2


def test_a_damaged_file_costs_one_picture_and_no_wrong_gradient(golden, pairs, tmp_path, caplog):
    embedder = lora_embedder(golden)
    expected = step(embedder, pairs, tmp_path)[0]
    damaged = files(tmp_path)[0]
    damaged.write_bytes(damaged.read_bytes()[:-9])

    gradient, _, work = step(embedder, pairs, tmp_path)

    assert (work["tower_forwards"], work["feature_hits"]) == (1, MEDIA - 1)
    assert f"{damaged}: damaged" in caplog.text
    assert all(torch.allclose(gradient[name], g, rtol=1e-4, atol=1e-6) for name, g in expected.items())
    assert step(embedder, pairs, tmp_path)[2]["tower_forwards"] == 0


@pytest.mark.parametrize("regions", [MaskPool(layers=(0, -1)), MaskChannel()], ids=["taps", "marked patches"])
def test_what_a_region_encoder_reads_of_the_tower_is_kept_too(regions, pairs, tmp_path):
    embedder = small_embedder("qwen2_vl", regions=regions).train()
    # the weights that mark patches run with the tower
    embedder.regions.requires_grad_(False)
    embedder.trainable = frozenset(name for name in embedder.trainable if not name.startswith("regions"))

    plain, first, second = (step(embedder, pairs, folder, freeze=TOWER) for folder in (None, tmp_path, tmp_path))

    assert first[2]["tower_forwards"] == MEDIA
    assert second[2]["tower_forwards"] == 0
    for gradient, *_ in (first, second):
        assert all(torch.equal(gradient[name], g) for name, g in plain[0].items())
    names = set(load_tensors(files(tmp_path)[0]))
    assert names == {"map", "crc32"} | ({"taps.0", "taps.1"} if isinstance(regions, MaskPool) else set())


def test_a_run_in_half_precision_keeps_halves_and_ends_in_the_same_weights(golden, pairs, tmp_path):
    ends = []
    for folder in (None, tmp_path):
        torch.manual_seed(0)
        embedder = lora_embedder(golden)
        module = EmbedderModule(embedder, stage_of(folder, precision="bf16-mixed"), seed=0)
        prepare = PairPreparer(embedder.backbone.preprocessor, module.stage.chunks)
        with counting() as work:
            fit(module, [prepare(number, pairs) for number in range(4)], precision="bf16-mixed")
        ends.append(({name: p.detach().clone() for name, p in module.trained().items()}, work))

    (plain, without), (kept, work) = ends
    assert (without["tower_forwards"], work["tower_forwards"], work["feature_hits"]) == (4 * MEDIA, MEDIA, 3 * MEDIA)
    assert all(torch.equal(kept[name], p) for name, p in plain.items())
    assert load_tensors(files(tmp_path)[0])["map"].dtype == torch.bfloat16
    said = json.loads(next(tmp_path.glob("*/space.json")).read_text())
    assert said["autocast"] == "torch.bfloat16"


def test_a_bound_is_kept_and_what_does_not_fit_is_computed(golden, pairs, tmp_path):
    embedder = lora_embedder(golden)
    step(embedder, pairs, tmp_path / "all")
    sizes = [path.stat().st_size for path in files(tmp_path / "all")]
    bound = (sum(sizes) - 1) / (1 << 30)

    works = [
        step(embedder, pairs, None, features=FeatureFiles(str(tmp_path / "some"), max_gb=bound))[2] for _ in range(2)
    ]

    assert sum(path.stat().st_size for path in files(tmp_path / "some")) < sum(sizes)
    assert works[0]["tower_forwards"] == MEDIA
    assert works[1]["tower_forwards"] + works[1]["feature_hits"] == MEDIA
    assert works[1]["tower_forwards"] > 0


def test_a_tower_that_trains_is_refused_in_words(tmp_path):
    with pytest.raises(InputError, match=r"stage.features: expected a tower that does not train.*backbone: .* trains"):
        EmbedderModule(small_embedder("qwen2_vl"), stage_of(tmp_path), seed=0)
    marked = small_embedder("qwen2_vl", regions=MaskChannel())
    with pytest.raises(InputError, match=r"regions: channel.weight trains"):
        EmbedderModule(marked, stage_of(tmp_path, freeze=TOWER), seed=0)


def test_a_tower_with_dropout_is_refused_where_it_draws(pairs, tmp_path):
    embedder = small_embedder("qwen2_vl").train()
    embedder.backbone.tower.blocks[0].mlp.act = torch.nn.Dropout(0.25)

    with pytest.raises(InputError, match=r"without dropout, got blocks.0.mlp.act drops a share of 0.25"):
        step(embedder, pairs, tmp_path, freeze=TOWER)
    embedder.backbone.tower.eval()
    assert step(embedder, pairs, tmp_path, freeze=TOWER)[2]["tower_forwards"] == MEDIA


@pytest.mark.parametrize(("regions", "told"), [(Overlay(), True), (RoiReplay(), False)])
def test_regions_redrawn_into_pixels_at_each_step_are_told_to_be_of_no_use(regions, told, tmp_path, caplog):
    embedder = small_embedder("qwen2_vl", regions=regions)

    EmbedderModule(embedder, stage_of(tmp_path, freeze=TOWER, region_prompts=RegionMixing({"box": 1})), seed=0)

    assert ("hardly ever met again" in caplog.text) is told


def test_no_room_at_all_is_refused():
    with pytest.raises(InputError, match=r"features.max_gb: expected more than 0"):
        FeatureFiles(max_gb=0)


def test_the_folder_is_relative_to_the_data_root(tmp_path):
    embedder, choices = small_embedder("qwen2_vl"), {"seed": 0, "facts": {}, "data_root": tmp_path}
    relative, absolute = (stage_of(path, freeze=TOWER) for path in ("features", "/elsewhere"))

    assert make_module(embedder, relative, **choices).stage.features.path == str(tmp_path / "features")
    assert make_module(embedder, absolute, **choices).stage.features.path == "/elsewhere"


def test_a_run_may_go_on_with_or_without_kept_features(tmp_path):
    (tmp_path / "t.jsonl").write_text("")
    stages = [replace(stage_of(folder), mixture={"s": Source("t.jsonl")}) for folder in (None, tmp_path)]

    keys = {run_key(Recipe("r", EmbedderSettings(QwenVL()), {"main": stage}), tmp_path) for stage in stages}

    assert len(keys) == 1


def ranks_run(world, output, features):
    """What so many processes end in, case by case: the weights, and what rank 0 reported of the first step."""
    output.mkdir()
    cases = ("stored-ddp", "stored-fsdp2")
    launcher = [] if world == 1 else ["-m", "torch.distributed.run", "--nproc-per-node", str(world)]
    done = subprocess.run(
        [sys.executable, *launcher, str(ROOT / "tests/training/ranks.py"), str(output), *cases],
        env=os.environ | {"OMP_NUM_THREADS": "1", "FEATURES": features}, capture_output=True, text=True, timeout=300,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-4000:]
    reports = [json.loads((output / f"{case}.json").read_text())[0] for case in cases]
    return [load_file(output / f"{case}.safetensors") for case in cases], reports


def test_two_ranks_with_one_store_whole_and_sharded_step_as_one_without(tmp_path):
    features = tmp_path / "features"

    alone, without = ranks_run(1, tmp_path / "one", "")
    together, reports = ranks_run(2, tmp_path / "two", str(features))

    for one, two in zip(alone, together, strict=True):
        assert max(np.abs(one[name] - two[name]).max() for name in one) <= 1e-6
    # the sharded run reads what the first wrote; rank 1, which has words alone, adds the picture of its filler
    assert [report["tower_forwards"] for report in without] == [9, 9]
    assert [report["tower_forwards"] for report in reports] == [3, 0]
    assert len(files(features)) == 4


def test_a_mapping_network_trains_on_kept_features(tmp_path):
    works, ends = [], []
    for _ in range(2):
        torch.manual_seed(0)
        embedder, stage, batches = ranks.mapping(Distillation(teachers=ranks.TEACHERS.name), ranks.phrased_pairs())
        stage = replace(stage, features=FeatureFiles(str(tmp_path)))
        module = make_module(embedder, stage, seed=0, facts={}, data_root=ranks.TEACHERS.parent)
        prepare = PairPreparer(embedder.backbone.preprocessor, stage.chunks, filled=stage.objective.filled)
        with counting() as work:
            fit(module, [prepare(number, pairs) for number, pairs in enumerate(batches)])
        works.append(work)
        ends.append({name: p.detach().clone() for name, p in module.trained().items()})

    assert [work["tower_forwards"] for work in works] == [3, 0]
    assert [work["feature_hits"] for work in works] == [6, 9]
    assert all(torch.equal(ends[1][name], p) for name, p in ends[0].items())
