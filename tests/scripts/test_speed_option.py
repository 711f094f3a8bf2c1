"""``--speed`` of the commands that open an embedder."""

import json

import pytest

from eval import run, submit, sweep
from eval.opened import open_model, speed_of
from mmembed.counters import counting
from mmembed.errors import InputError
from mmembed.models.settings import Speed
from scripts import app, embed

PLACES = {
    run: ["--benchmark", "demo", "--output", "out"],
    sweep: ["--benchmark", "demo", "--output", "out"],
    submit: ["--benchmark", "demo", "--output", "out"],
    embed: ["--input", "items.jsonl", "--output", "out"],
    app: ["--index", "items"],
}


@pytest.fixture
def model(tmp_path, scratch_embedder):
    scratch_embedder("qwen2_vl").save(tmp_path / "model")
    return tmp_path / "model"


@pytest.mark.parametrize("command", PLACES)
def test_every_command_that_opens_a_model_takes_it(command):
    words = ["--speed", "last_layer=pooled", "--speed", "sort=false"]

    options = command.make_parser().parse_args(["--model", "m", *PLACES[command], *words])

    assert speed_of(options.speed) == {"last_layer": "pooled", "sort": False}
    assert command.make_parser().parse_args(["--model", "m", *PLACES[command]]).speed == []


@pytest.mark.parametrize("command", [run, sweep, submit, embed])
def test_the_model_is_opened_so(command, model):
    words = ["--model", str(model), *PLACES[command], "--speed", "last_layer=pooled", "--speed", "packing=off"]

    opened = open_model(command.make_parser().parse_args(words))

    assert opened.settings.speed == Speed(last_layer="pooled", packing="off")
    assert opened.last_layer_at_one_token


@pytest.mark.parametrize(
    ("words", "values"),
    [
        (["packing=on"], {"packing": "on"}),
        (["packing=off", "packing=auto"], {"packing": "auto"}),
        (["autocast=bfloat16", "compile=true"], {"autocast": "bfloat16", "compile": True}),
        (["autocast=null", "deduplicate=off"], {"autocast": None, "deduplicate": False}),
    ],
)
def test_values_are_read_as_yaml(words, values):
    assert speed_of(words) == values


@pytest.mark.parametrize(
    ("word", "told"),
    [
        ("sorrt=false", r"--speed: expected NAME=VALUE of a known NAME, got 'sorrt=false'; did you mean 'sort'\?"),
        ("sort", "--speed: expected NAME=VALUE, got 'sort'; write sort=VALUE"),
        ("last_layer=poled", r"--speed: last_layer: expected one of auto, pooled, all, got 'poled'; .* 'pooled'\?"),
        ("sort=5", "--speed: sort: expected a value of type bool, got 5"),
        ("sort=[", "--speed sort: expected YAML"),
    ],
)
def test_what_cannot_be_used_is_said(word, told):
    with pytest.raises(InputError, match=told):
        speed_of([word])


def test_rows_are_embedded_so_and_a_wrong_word_ends_the_command(model, tmp_path, capsys):
    rows = [{"id": f"t{i}", "text": "a red circle " * (i % 3 + 1)} for i in range(6)]
    (tmp_path / "items.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))

    def embedded(name, *words):
        places = ["--model", str(model), "--input", str(tmp_path / "items.jsonl"), "--output", str(tmp_path / name)]
        with counting() as work:
            assert embed.main([*places, *words]) == (2 if name == "wrong" else 0)
        return work

    whole, pooled = (embedded(name, "--speed", f"last_layer={name}") for name in ("all", "pooled"))
    apart = embedded("apart", "--speed", "deduplicate=false")
    embedded("wrong", "--speed", "last_layer=first")

    assert whole["last_layer_tokens"] == whole["padded_tokens"] == pooled["padded_tokens"] > 3
    assert pooled["last_layer_tokens"] == pooled["language_rows"] == 3
    assert apart["language_rows"] == 6
    assert "--speed: last_layer: expected one of auto, pooled, all, got 'first'" in capsys.readouterr().err
