"""Every recipe, benchmark and profile is read strictly, and what it describes is built small."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from mmembed import Embedder
from mmembed.evaluation.benchmark import read_benchmark
from mmembed.evaluation.expected import find_entry, read_expected
from mmembed.models.profiles import load_profile, profile_names
from mmembed.models.settings import Scratch
from mmembed.models.settings.regions import Sam2Regions, Sam2Scratch
from mmembed.recipe import read_recipe
from mmembed.settings import dump_yaml, parse_yaml, read_settings
from mmembed.training.optim import make_optimizer

ROOT = Path(__file__).parents[2]
RECIPES = sorted((ROOT / "configs").glob("*.yaml"))
BENCHMARKS = sorted((ROOT / "eval/benchmarks").glob("*.yaml"))
EXPECTED = sorted((ROOT / "eval/expected").glob("*.yaml"))
TEXTS = ["a red circle", "describe the image"]


def names(paths):
    return [path.stem for path in paths]


def small(settings):
    """The same embedder around a small random checkpoint, where the settings name a released one."""
    if settings.backbone.scratch is not None:
        return settings
    plain = {"path": None, "revision": None, "adapter": None, "scratch": Scratch(), "dtype": "float32"}
    if hasattr(settings.backbone, "attention"):
        plain["attention"] = "sdpa"
    regions = settings.regions
    if isinstance(regions, Sam2Regions) and regions.checkpoint is not None:
        regions = replace(regions, checkpoint=None, scratch=Sam2Scratch())
    backbone = replace(settings.backbone, **plain)
    return replace(settings, backbone=backbone, lora=None, regions=regions, regions_weights=None)


def embeds(settings):
    vectors = Embedder(small(settings), texts=TEXTS).encode(TEXTS)
    return bool(vectors.isfinite().all()) and torch.linalg.vector_norm(vectors, dim=1).min() > 0


def test_the_files_are_found_and_none_is_left_over():
    assert {"demo"} <= set(names(RECIPES))
    assert {"demo"} <= set(names(BENCHMARKS))
    assert {"demo"} <= set(names(EXPECTED))
    assert {"chat", "vlm2vec"} <= set(profile_names())
    found = {path for folder in ("configs", "eval") for path in (ROOT / folder).rglob("*.yaml")}
    assert found - {*RECIPES, *BENCHMARKS, *EXPECTED} == set()


@pytest.mark.parametrize("path", RECIPES, ids=names(RECIPES))
def test_a_recipe_is_read_and_its_parts_are_built(path):
    recipe = read_recipe(path)

    assert embeds(recipe.embedder)
    for stage in recipe.stages.values():
        assert stage.objective.build() is not None
        optimizer = make_optimizer([{"params": [torch.nn.Parameter(torch.ones(2, 2))]}], stage.optim)
        assert optimizer.param_groups[0]["lr"] == stage.optim.lr


@pytest.mark.parametrize("path", RECIPES, ids=names(RECIPES))
def test_a_resolved_recipe_reads_back_equal(path):
    recipe = read_recipe(path)

    resolved = parse_yaml(dump_yaml(recipe), "resolved")

    assert read_settings(type(recipe), resolved) == recipe


@pytest.mark.parametrize("path", RECIPES, ids=names(RECIPES))
def test_a_recipe_says_where_its_numbers_come_from(path):
    header = path.read_text(encoding="utf-8").split("\nname:")[0]

    assert header.startswith("#")


@pytest.mark.parametrize("path", BENCHMARKS, ids=names(BENCHMARKS))
def test_a_benchmark_is_read(path):
    benchmark = read_benchmark(path)

    assert benchmark.name == path.stem
    assert all(task.name == name for name, task in benchmark.tasks.items())


@pytest.mark.parametrize("path", EXPECTED, ids=names(EXPECTED))
def test_expected_scores_are_of_tasks_that_their_benchmark_has(path):
    benchmark = read_benchmark(ROOT / "eval/benchmarks" / path.name)

    for name in read_expected(path):
        entry = find_entry(path.parent, benchmark, name)
        assert entry.scores or entry.means


@pytest.mark.parametrize("name", profile_names())
def test_a_profile_reads_as_settings_and_embeds(name):
    assert embeds(load_profile(name).embedder)
