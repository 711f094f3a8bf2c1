"""eval/run.py from a saved model to scores and report."""

import json
import math

import pytest

from data_prep.demo import Sizes, make_demo
from eval.run import main
from mmembed.models.settings import RawPrompt

TASKS = ("image_to_caption", "caption_to_image", "question", "video_to_caption")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    make_demo(root / "demo", 0, Sizes(singles=1, pairs=1, clips=1, tests=8))
    return root


@pytest.fixture
def evaluate(data, tmp_path, scratch_embedder):
    scratch_embedder("qwen2_vl", prompt=RawPrompt(suffix="<|im_end|>")).save(tmp_path / "model")

    def run(*more, model=tmp_path / "model"):
        arguments = ["--benchmark", "demo", "--data-root", str(data), "--output", str(tmp_path / "out"), *more]
        return main(["--model", str(model), *arguments])

    return run


def test_scores_have_the_promised_form(evaluate, tmp_path, capsys):
    assert evaluate() == 0

    scores = json.loads((tmp_path / "out/scores.json").read_text())
    assert scores.keys() == {"protocol", "tasks", "partial"}
    assert scores["protocol"]["model"] == str(tmp_path / "model")
    assert scores["protocol"]["benchmark"] == "demo"
    assert scores["partial"] is False
    assert tuple(scores["tasks"]) == TASKS
    for name, task in scores["tasks"].items():
        assert task.keys() == {"metric", "score", "chance", "blind", "metrics", "queries", "corpus", "seconds"}
        assert task["metric"] == "hit@1"
        assert task["score"] == task["metrics"]["hit@1"]
        assert all(0 <= task[key] <= 1 and math.isfinite(task[key]) for key in ("score", "chance", "blind"))
        assert (tmp_path / "out/rankings" / f"{name}.jsonl").is_file()
    # two test scenes of four questions each
    assert [scores["tasks"][name]["queries"] for name in TASKS] == [8, 8, 8, 8]
    assert scores["tasks"]["question"]["corpus"] == 7
    assert "image_to_caption" in (printed := capsys.readouterr().out)
    assert str(tmp_path / "out/report.html") in printed
    assert (tmp_path / "out/report.html").is_file()


def test_a_part_of_the_tasks_is_marked_partial(evaluate, tmp_path):
    assert evaluate("--tasks", "question") == 0

    scores = json.loads((tmp_path / "out/scores.json").read_text())
    assert scores["partial"] is True
    assert list(scores["tasks"]) == ["question"]


def test_a_checkpoint_without_settings_needs_a_profile(evaluate, golden, tmp_path, capsys):
    assert evaluate("--tasks", "question", model=golden / "vlm2vec/qwen2_vl") == 2
    error = capsys.readouterr().err
    assert "expected embedder.yaml beside the weights, got none; name a profile" in error

    assert evaluate("--tasks", "question", "--profile", "vlm2vec", model=golden / "vlm2vec/qwen2_vl") == 0
    assert list(json.loads((tmp_path / "out/scores.json").read_text())["tasks"]) == ["question"]


def test_data_that_are_not_there_are_named_with_their_task(evaluate, tmp_path, capsys):
    assert evaluate("--data-root", str(tmp_path / "nowhere")) == 2

    assert "task image_to_caption: " in (error := capsys.readouterr().err)
    assert str(tmp_path / "nowhere") in error
