"""From a folder and a CSV to a recipe: the model found, the sizes chosen, each step's command shown."""

import csv
import shlex
from argparse import Namespace
from dataclasses import replace

import PIL.Image
import pytest

from data_prep.own.made import Choice, make
from data_prep.own.rows import Columns
from data_prep.own.written import FIND_TEXT
from mmembed import Embedder
from mmembed.errors import InputError
from mmembed.models.settings import ChatPrompt, EmbedderSettings, Lora, QwenVL, RawPrompt, Scratch
from mmembed.recipe import read_recipe
from scripts.own_data import main
from scripts.own_recipe import batch_for, find_base, own_recipe, steps_for, write_recipe
from scripts.own_steps import Run, evaluation_key, usage

TEXTS = [f"number {i}" for i in range(60)]
SMALL = {"min_pixels": 784, "max_pixels": 784, "min_side": 0}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Pictures, a CSV, a saved model, the same without what it says of itself, and an adapter on it."""
    folder = tmp_path_factory.mktemp("own")
    (folder / "photos").mkdir()
    for i in range(60):
        PIL.Image.new("RGB", (28, 28), (4 * i, 20, 200 - i)).save(folder / f"photos/{i:02d}.png")
    with (folder / "products.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("file", "title"), *((f"{i:02d}.png", text) for i, text in enumerate(TEXTS))])
    Embedder(EmbedderSettings(QwenVL(scratch=Scratch(), **SMALL), RawPrompt()), texts=TEXTS).save(folder / "model")
    Embedder(EmbedderSettings(QwenVL(scratch=Scratch()), RawPrompt()), texts=TEXTS).save(folder / "plain")
    (folder / "plain/embedder.yaml").unlink()
    base = QwenVL(path=str(folder / "model"), **SMALL)
    Embedder(EmbedderSettings(base, RawPrompt(), lora=Lora(r=2, alpha=4))).save(folder / "adapted")
    return folder


@pytest.fixture(scope="module")
def made(folder):
    return make(Choice(folder / "photos", folder / "products.csv", Columns("file", ("title",))), folder / "made")


@pytest.fixture
def run(folder, tmp_path):
    def command(*more, model="model"):
        places = ["--pictures", str(folder / "photos"), "--csv", str(folder / "products.csv")]
        columns = ["--picture-column", "file", "--text-column", "title"]
        return main([*places, *columns, "--model", str(folder / model), "--output", str(tmp_path / "run"), *more])

    return command


def recipe_for(folder, made, model="model", **choices):
    base = find_base(str(folder / model), None, None, choices.pop("settings", {}))
    usual = {"train": "lora", "steps": None, "overrides": ()}
    return own_recipe(base, made, "products", **(usual | choices))


def test_a_saved_model_goes_on_as_it_embeds_with_a_fresh_adapter(folder, made):
    recipe = recipe_for(folder, made)

    assert recipe.embedder.backbone.path == str(folder / "model")
    assert recipe.embedder.backbone.max_pixels == 784
    assert recipe.embedder.prompt == RawPrompt()
    assert recipe.embedder.lora.r == 16
    assert [source.table for source in recipe.stages["main"].mixture.values()] == [
        "own_data/text_to_picture.jsonl", "own_data/picture_to_text.jsonl",
    ]  # fmt: skip


def test_a_model_that_was_not_trained_to_embed_does_so_as_is_usual_for_its_kind(folder, made):
    base = find_base(str(folder / "plain"), None, None, {})

    assert base.profile == "chat"
    assert isinstance(base.settings.prompt, ChatPrompt)
    assert base.settings.backbone.positions == "mrope"
    named = find_base(str(folder / "plain"), None, "vlm2vec", {"max_pixels": 4096})
    assert named.options == ["--model", str(folder / "plain"), "--profile", "vlm2vec", "--max-pixels", "4096"]
    assert named.settings.backbone.max_pixels == 4096


def test_an_adapter_is_trained_further_and_never_as_whole_weights(folder, made):
    recipe = recipe_for(folder, made, "adapted")

    assert recipe.embedder.lora.r == 2
    assert recipe.embedder.backbone.adapter == str(folder / "adapted/adapter")
    with pytest.raises(InputError, match="--train all: expected a model of whole weights, got an adapter"):
        recipe_for(folder, made, "adapted", train="all")


def test_all_weights_train_at_a_lower_rate(folder, made):
    whole, adapter = recipe_for(folder, made, train="all"), recipe_for(folder, made)

    assert whole.embedder.lora is None
    assert whole.stages["main"].optim.lr == adapter.stages["main"].optim.lr / 10


def test_half_precision_weights_train_in_half_precision(folder, made):
    recipe = recipe_for(folder, made, settings={"dtype": "bfloat16"})

    assert recipe.embedder.backbone.dtype == "bfloat16"
    assert recipe.stages["main"].precision == "bf16-mixed"
    assert recipe_for(folder, made).stages["main"].precision == "32-true"


def test_all_weights_in_half_precision_are_not_trained_for_nothing(folder, made):
    with pytest.raises(
        InputError, match=r"--train all: expected weights in float32.*got weights in bfloat16; add --dt"
    ):
        recipe_for(folder, made, train="all", settings={"dtype": "bfloat16"})


def test_what_the_command_says_goes_before_what_was_chosen(folder, made):
    recipe = recipe_for(folder, made, steps=7, overrides=["--stages.main.optim.lr", "3e-4", "--threads", "1"])

    assert (recipe.stages["main"].steps, recipe.stages["main"].optim.lr, recipe.threads) == (7, 3e-4, 1)
    with pytest.raises(InputError, match="did you mean 'steps'"):
        recipe_for(folder, made, overrides=["--stages.main.step", "7"])


@pytest.mark.parametrize(
    ("pairs", "batch", "steps"), [(20, 8, 50), (200, 16, 125), (3000, 256, 117), (10_000, 256, 391), (10**6, 256, 4000)]
)
def test_sizes_follow_the_number_of_pairs_and_every_batch_is_full(pairs, batch, steps):
    assert batch_for(pairs) == batch <= pairs
    assert steps_for(2 * pairs, batch) == steps


def test_a_model_of_no_known_kind_is_refused_in_words(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "swin"}')

    with pytest.raises(InputError, match="a model of a known kind, got a 'swin'; say how it embeds with --profile"):
        find_base(str(tmp_path), None, None, {})


def test_a_recipe_that_was_changed_by_hand_is_kept(folder, made, tmp_path):
    path, recipe = tmp_path / "recipe.yaml", recipe_for(folder, made)
    other = replace(recipe, seed=7)

    assert [write_recipe(path, one) for one in (recipe, recipe, other)] == ["wrote", "there already", "wrote"]
    assert read_recipe(path) == other
    path.write_text(path.read_text().replace("seed: 7", "seed: 8"))
    assert write_recipe(path, recipe) == "kept, changed by hand"
    assert read_recipe(path).seed == 8


def test_each_step_shows_the_command_that_does_it_alone(run, folder, tmp_path, capsys):
    assert run("--until", "recipe", "--held-out", "22") == 0

    out = capsys.readouterr().out
    commands = [line.removeprefix("$ python ") for line in out.splitlines() if line.startswith("$ ")]
    assert [shlex.split(command)[0] for command in commands] == ["data_prep/own_data.py", "scripts/train.py"]
    assert f"--held-out 22 --output {tmp_path / 'run'}" in commands[0]
    assert commands[1] == f"scripts/train.py --config {tmp_path / 'run/recipe.yaml'} --print_config"
    assert "wrote: " in out
    assert read_recipe(tmp_path / "run/recipe.yaml").name == "run"


def test_a_trial_reads_few_rows_takes_few_steps_and_has_a_folder_of_its_own(run, tmp_path, capsys):
    assert run("--until", "recipe", "--quick") == 0

    recipe = read_recipe(tmp_path / "run-quick/recipe.yaml")
    assert recipe.stages["main"].steps == 10
    assert "--limit 300" in capsys.readouterr().out
    assert not (tmp_path / "run").exists()


def test_a_csv_or_a_model_that_cannot_be_used_ends_the_command_in_words(run, capsys):
    assert run("--until", "data", "--limit", "30") == 2
    assert "expected 40 different pairs" in capsys.readouterr().err

    assert run("--until", "recipe", model="nowhere") == 2
    assert "nowhere: expected a" in capsys.readouterr().err
    assert run("--until", "recipe", "--stages.main.stepps", "3") == 2
    assert "did you mean 'steps'" in capsys.readouterr().err


def test_a_misspelt_option_is_refused_before_anything_is_read(run, tmp_path, capsys):
    for word, meant in (("--limt", "--limit"), ("--thread", "--threads"), ("--stage.main.steps", "--stages")):
        assert run("--until", "data", word, "3") == 2
        said = f"{word}: expected an option, or a setting of the recipe, got neither; did you mean '{meant}'?"
        assert said in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_no_number_is_taken_for_another(run, capsys):
    assert run("--until", "data", "--quick", "--limit", "0") == 2
    assert "--limit: expected 1 or more, got 0" in capsys.readouterr().err
    assert run("--until", "recipe", "--steps", "0") == 2
    assert "steps: expected" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("tasks", "told", "query"),
    [
        (["text_to_picture", "picture_to_text"], {}, '[{"image": "photos/NAME"}], instruction="Find the words that'),
        (["text_to_picture", "picture_to_text"], {"find_text": ""}, '[{"image": "photos/NAME"}])'),
        (["picture_to_picture"], {"find_picture": 'A "twin":'}, '[{"image": "photos/NAME"}], instruction="A \\"twin'),
        (
            ["composed"],
            {},
            '[{"image": "photos/NAME", "text": "CHANGE"}], instruction="Find the picture that the words',
        ),
    ],
)
def test_the_use_that_is_shown_asks_as_was_trained(made, tmp_path, tasks, told, query):
    options = {"pictures": "photos", "find_text": FIND_TEXT, "find_picture": None, "to": "st"} | told

    said = usage(Run(Namespace(**options), (), tmp_path, ()), replace(made, test=dict.fromkeys(tasks, 20)))

    assert f"model.encode({query}" in said
    shown = [line.strip() for line in said.splitlines() if line.startswith("  ")]
    compile("\n".join(shown), "shown", "exec")


def test_an_evaluation_is_another_where_the_adapter_is_another(run, folder, tmp_path):
    assert run("--until", "recipe") == 0
    (tmp_path / "adapter").mkdir()
    words = ["--model", "some/model", "--adapter", str(tmp_path / "adapter")]
    call = Run(Namespace(), (), tmp_path / "run", ())
    first = evaluation_key(call, words)

    (tmp_path / "adapter/weights").write_bytes(b"others")

    assert evaluation_key(call, words) != first


def test_a_model_that_could_not_be_exported_is_refused_before_it_is_trained(run, tmp_path, capsys):
    assert run() == 2

    err = capsys.readouterr().err
    assert "export to sentence-transformers: resize: expected torchvision" in err
    assert "--without-video exports the rest" in err
    assert (tmp_path / "run/before/scores.json").is_file()
    assert not (tmp_path / "run/run").exists()
