"""eval/run.py on composed retrieval: miniatures of every benchmark, data left out, and what a run without data says."""

import json
import shutil

import pytest

from data_prep.engine.preparation import Wishes, prepare
from eval.run import main
from tests.data_prep.composed_copies import READERS, small


@pytest.fixture
def evaluate(tmp_path, scratch_embedder):
    scratch_embedder("qwen2_vl").save(tmp_path / "model")

    def run(benchmark, *more):
        places = ["--data-root", str(tmp_path / "data"), "--output", str(tmp_path / "out"), "--cache-gb", "0"]
        return main(["--model", str(tmp_path / "model"), "--benchmark", benchmark, *places, *more])

    return run


def scores_of(tmp_path):
    return json.loads((tmp_path / "out/scores.json").read_text())


@pytest.mark.parametrize(
    ("benchmark", "tasks"),
    [
        ("fashioniq", ["dress", "shirt", "toptee", "dress_at_50", "shirt_at_50", "toptee_at_50"]),
        ("cirr", ["val", "val_subset"]),
        ("circo", ["val", "val_aspects"]),
        ("genecis", ["focus_attribute", "change_attribute", "focus_object", "change_object"]),
        ("covr", ["test"]),
    ],
)
def test_a_benchmark_runs_on_its_miniature(evaluate, tmp_path, benchmark, tasks):
    assert evaluate(benchmark, "--miniature") == 0

    scores = scores_of(tmp_path)
    assert (list(scores["tasks"]), scores["failed"]) == (tasks, {})
    assert scores["protocol"]["miniature"] is True
    if benchmark == "fashioniq":
        assert list(scores["means"]) == ["R@10", "R@50", "overall"]


def test_a_set_without_its_missing_pictures_makes_the_task_one_of_a_part(evaluate, tmp_path):
    shutil.copytree(READERS / "CIRR", tmp_path / "copies/CIRR")
    (tmp_path / "copies/CIRR/dev/dev-100-0-img0.png").unlink()
    prepare(small("cirr", "val"), tmp_path / "data", copies=tmp_path / "copies", wishes=Wishes(allow_missing=True))

    assert evaluate("cirr", "--tasks", "val") == 0

    part = scores_of(tmp_path)["tasks"]["val"]["part"]
    assert part == "without 0 queries and 1 targets whose media are missing"
    assert part in (tmp_path / "out/report.md").read_text()


def test_data_that_are_not_there_are_asked_for_with_a_folder(evaluate, capsys):
    assert evaluate("circo", "--tasks", "val") == 2

    said = capsys.readouterr().err
    assert "python data_prep/prepare.py circo/val --data-root" in said
    assert said.endswith("--source DIR\n")


def test_rewritten_queries_are_asked_under_the_protocol_of_the_row(evaluate, tmp_path, capsys):
    assert evaluate("circo", "--miniature", "--tasks", "val") == 0
    plain = scores_of(tmp_path)["tasks"]["val"]
    lines = (tmp_path / "data/miniature/circo/val/queries.jsonl").read_text().splitlines()
    names = [json.loads(line)["id"] for line in lines]
    rows = ({"query_id": n, "caption": "", "change": "x", "text": f"a {n}", "fallback": True} for n in names)
    (tmp_path / "val.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))

    assert evaluate("circo", "--miniature", "--tasks", "val", "--rewritten", str(tmp_path)) == 0

    scores = scores_of(tmp_path)
    assert scores["tasks"]["val"]["protocol_id"] == plain["protocol_id"]
    assert scores["about"]["rewritten"]["val"]["fallbacks"] == len(names)
    assert "are the bare change" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize("other", ["--baselines", "--why-not-cached"])
def test_rewritten_queries_have_no_halves(evaluate, tmp_path, capsys, other):
    with pytest.raises(SystemExit):
        evaluate("circo", "--rewritten", str(tmp_path), other)

    assert "--rewritten asks with texts alone" in capsys.readouterr().err


def test_predictions_are_scored_on_a_miniature_as_its_run_was(evaluate, tmp_path, capsys):
    row = ("--miniature", "--tasks", "focus_object")
    assert evaluate("genecis", *row) == 0
    plain = scores_of(tmp_path)["tasks"]["focus_object"]
    found = map(json.loads, (tmp_path / "out/rankings/focus_object.jsonl").read_text().splitlines())
    (tmp_path / "file.json").write_text(json.dumps({one["query_id"]: one["targets"] for one in found}))

    places = ["--data-root", str(tmp_path / "data"), "--output", str(tmp_path / "out")]
    assert main(["--benchmark", "genecis", *row, "--score", str(tmp_path / "file.json"), *places]) == 0

    scores = scores_of(tmp_path)
    assert scores["tasks"]["focus_object"]["score"] == plain["score"]
    assert scores["protocol"]["miniature"] is True
    assert "(miniature)" in capsys.readouterr().out
