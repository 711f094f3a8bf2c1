"""A recipe made small keeps what makes it the recipe; a recipe without data says how to get them."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from data_prep.miniatures.draw import prepare_miniature
from mmembed.errors import InputError
from mmembed.models.settings import Sam2Scratch
from mmembed.recipe import make_preprocessor, read_recipe
from scripts import miniature as small_recipes
from scripts.miniature import architecture_of, checkpoint_of, miniature, prepare_data
from scripts.tables import check_data
from scripts.train import CONFIGS, main

RECIPES = sorted(path.stem for path in CONFIGS.glob("*.yaml"))
SMALL = """
name: own
embedder:
  backbone: {class_path: QwenVL, init_args: {path: Qwen/Qwen2-VL-2B-Instruct, dtype: bfloat16, max_pixels: 12544}}
  lora: {r: 2, alpha: 4, dora: true}
stages:
  main:
    mixture:
      question: {table: colpali_train/colpali_train_set.parquet, weight: 3}
      web: {table: mmeb_train/WebQA.parquet}
    steps: 900
    sampling: {batch_size: 1024, block_size: 64}
    precision: bf16-mixed
    workers: 8
"""


@pytest.fixture
def own(tmp_path):
    path = tmp_path / "own.yaml"
    path.write_text(SMALL)
    return path


@pytest.mark.parametrize("name", RECIPES)
def test_a_miniature_keeps_mixture_blocks_and_objective(name, tmp_path):
    whole = read_recipe(CONFIGS / f"{name}.yaml")

    small = miniature(whole, tmp_path)

    assert small.embedder.prompt == whole.embedder.prompt
    assert small.embedder.lora == whole.embedder.lora
    assert type(small.embedder.backbone) is type(whole.embedder.backbone)
    for stage, before in zip(small.stages.values(), whole.stages.values(), strict=True):
        assert (stage.steps, stage.sampling.batch_size) == (2, 32)
        blocks = [s.sampling.batch_size / s.sampling.block_size for s in (stage, before)]
        assert blocks[0] == min(blocks[1], 32)
        assert stage.mixture == before.mixture
        assert stage.objective == before.objective
        assert stage.optim.lr == before.optim.lr


@pytest.mark.parametrize("name", ["virtue_2b", "virtue_7b"])
def test_a_released_sam_becomes_a_small_random_one_of_the_same_settings(name, tmp_path):
    whole = read_recipe(CONFIGS / f"{name}.yaml")

    regions = miniature(whole, tmp_path).embedder.regions

    assert (regions.checkpoint, regions.dtype) == (None, "float32")
    assert regions.scratch == Sam2Scratch()
    assert regions.grid == whole.embedder.regions.grid == 3
    assert whole.embedder.regions.checkpoint == "facebook/sam2.1-hiera-base-plus"


def test_what_the_command_says_goes_before_what_is_made_small(own, tmp_path):
    small = miniature(
        read_recipe(own), tmp_path, ["--stages.main.steps", "5", "--stages.main.sampling.regime", "one_source"]
    )

    assert small.stages["main"].steps == 5
    assert small.stages["main"].sampling.regime == "one_source"


@pytest.mark.parametrize(
    ("path", "architecture"),
    [
        ("Qwen/Qwen2-VL-7B-Instruct", None),
        ("Qwen/Qwen2.5-VL-3B-Instruct", "qwen2_5_vl"),
        ("Qwen/Qwen3-VL-2B-Instruct", "qwen3_vl"),
        ("llava-hf/llava-v1.6-mistral-7b-hf", None),
        ("llava-hf/llava-onevision-qwen2-7b-ov-hf", "llava_onevision"),
        ("xtuner/llava-phi-3-mini-hf", "llava"),
    ],
)
def test_the_architecture_is_that_of_the_checkpoint(path, architecture):
    assert architecture_of(path) == architecture


def test_a_recipe_on_released_weights_trains_an_adapter_on_a_small_checkpoint(own, tmp_path, capsys):
    code = main(["--config", str(own), "--miniature", "--data-root", str(tmp_path), "--output", str(tmp_path / "run")])

    assert (code, capsys.readouterr().out) == (0, f"trained: {tmp_path / 'run/final'}\n")
    with safe_open(tmp_path / "run/final/adapter/adapter_model.safetensors", "pt") as weights:
        names = list(weights.keys())
        moved = [name for name in names if "lora_B" in name and weights.get_tensor(name).abs().max() > 0]
    assert any("lora_magnitude_vector" in name for name in names)
    assert moved
    checkpoint = checkpoint_of(read_recipe(own), tmp_path / "miniature")
    assert read_recipe(tmp_path / "run/recipe.yaml").embedder.backbone.path == str(checkpoint)
    assert checkpoint.is_dir()


def test_another_architecture_has_another_small_checkpoint(own, tmp_path):
    recipe = read_recipe(own)
    newer = read_recipe(own, ["--embedder.backbone.init_args.path", "Qwen/Qwen2.5-VL-3B-Instruct"])

    assert checkpoint_of(recipe, tmp_path) == checkpoint_of(recipe, tmp_path)
    assert checkpoint_of(recipe, tmp_path) != checkpoint_of(newer, tmp_path)


def test_without_data_a_recipe_stops_before_any_weight_is_loaded(own, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(torch, "load", None)

    code = main(["--config", str(own), "--data-root", str(tmp_path / "nowhere"), "--output", str(tmp_path / "run")])

    error = capsys.readouterr().err
    assert code == 2
    assert not (tmp_path / "run").exists()
    assert f"{tmp_path / 'nowhere'}: expected prepared tables, got no colpali_train/colpali_train_set.parquet" in error
    line = f"\n  python data_prep/prepare.py colpali_train mmeb_train/WebQA --data-root {tmp_path / 'nowhere'}\n"
    assert line in error


def test_tables_of_a_part_of_their_source_are_refused_until_one_says_so(own, tmp_path, capsys):
    for name in ("colpali_train", "mmeb_train/WebQA"):
        prepare_miniature(name, tmp_path / "data")
    recipe = ["--config", str(own), "--data-root", str(tmp_path / "data"), "--output", str(tmp_path / "run")]

    assert main(recipe) == 2

    error = capsys.readouterr().err
    assert "expected whole tables, got colpali_train/colpali_train_set: a miniature; mmeb_train/WebQA: a minia" in error
    assert f"prepare.py colpali_train mmeb_train/WebQA --data-root {tmp_path / 'data'}" in error
    check_data(read_recipe(own), tmp_path / "data", parts=True)


@pytest.mark.parametrize(("name", "line"), [("vlm2vec_v2", "mmeb_v2_train"), ("vlm2vec", "mmeb_train")])
def test_a_published_recipe_names_its_source_or_group(name, line, tmp_path):
    with pytest.raises(InputError, match=f"python data_prep/prepare.py {line} --data-root"):
        check_data(read_recipe(CONFIGS / f"{name}.yaml"), tmp_path)


def test_the_preprocessor_of_a_recipe_is_that_of_its_embedder(tmp_path):
    recipe = read_recipe(CONFIGS / "demo.yaml")
    assert (
        main(["--config", "demo", "--miniature", "--data-root", str(tmp_path), "--output", str(tmp_path / "run")]) == 0
    )
    small = miniature(recipe, tmp_path / "miniature")

    made = make_preprocessor(small, Path(tmp_path / "miniature"))

    assert made.tokenizer.get_vocab()
    assert made.settings == small.embedder.backbone


def test_processes_that_begin_together_make_one_checkpoint(own, tmp_path, monkeypatch):
    whole, made = read_recipe(own), []
    small = miniature(whole, tmp_path)
    make = small_recipes.make_embedder
    monkeypatch.setattr(small_recipes, "make_embedder", lambda *given: made.append(given) or make(*given))

    with ThreadPoolExecutor(2) as pool:
        for done in [pool.submit(prepare_data, small, whole, tmp_path) for _ in range(2)]:
            done.result()

    assert len(made) == 1
    assert checkpoint_of(whole, tmp_path).is_dir()
