"""eval/run.py --benchmark mteb:NAME: mteb's tasks, its results below the output, and scores as ours."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from eval.run import main
from mmembed.evaluation.scores import read_scores
from mmembed.models.settings import RawPrompt

ROOT = Path(__file__).parents[2]
T2I, QA = "MockAny2AnyRetrievalT2I", "MockVisionCentricQA"


@pytest.fixture(scope="module")
def model(tmp_path_factory, scratch_embedder):
    folder = tmp_path_factory.mktemp("runs") / "toy/final"
    scratch_embedder("qwen2_vl", prompt=RawPrompt(suffix="<|im_end|>")).save(folder)
    return folder


@pytest.fixture
def evaluate(model, tmp_path):
    def run(benchmark, *more):
        return main(["--model", str(model), "--benchmark", benchmark, "--output", str(tmp_path / "out"), *more])

    return run


@pytest.fixture
def results(tmp_path):
    """The files of mteb's results by the name of their task, and when each was written."""

    def found():
        return {path.stem: path.stat().st_mtime_ns for path in tmp_path.glob("out/mteb/results/*/*/Mock*.json")}

    return found


def test_scores_have_our_form_and_name_mtebs_version_and_data(evaluate, tmp_path, capsys):
    assert evaluate("mteb:mock", "--tasks", f"{T2I},{QA}") == 0

    scores = read_scores(tmp_path / "out")
    assert scores["protocol"]["benchmark"] == "mteb:mock"
    assert scores["protocol"]["chosen"] == [T2I, QA]
    assert scores["partial"] is True
    assert scores["failed"] == {}
    assert list(scores["tasks"]) == [T2I, QA]
    row, protocol = scores["tasks"][T2I], scores["protocol"]["tasks"][T2I]
    assert row["metric"] == "ndcg_at_10"
    assert row["score"] == row["metrics"]["ndcg_at_10"] == row["splits"]["test"]["default"]
    assert row["protocol_id"] == protocol["id"]
    assert protocol["mteb"].startswith("2.")
    assert protocol["revision"] == "NA"
    assert scores["means"]["overall"] == {"mean": None, "tasks": 2, "of": 50}
    assert scores["means"]["VisionCentricQA"]["mean"] is None  # there are two
    assert "settings" in scores["about"]
    printed = capsys.readouterr().out
    assert T2I in printed
    assert row["protocol_id"] in printed
    assert str(tmp_path / "out/scores.json") in printed


def test_what_mteb_found_before_is_not_evaluated_again(evaluate, results, tmp_path):
    assert evaluate("mteb:mock", "--tasks", f"{T2I},{QA}") == 0
    first, scores = results(), read_scores(tmp_path / "out")["tasks"]
    next(tmp_path.glob(f"out/mteb/results/*/*/{QA}.json")).unlink()

    assert evaluate("mteb:mock", "--tasks", f"{T2I},{QA}") == 0

    assert results()[T2I] == first[T2I]
    assert results()[QA] > first[QA]
    again = read_scores(tmp_path / "out")["tasks"]
    assert again[T2I] == scores[T2I]
    assert again[QA]["protocol_id"] == scores[QA]["protocol_id"]


def test_results_that_cannot_be_read_fail_alone_and_are_named(evaluate, tmp_path, capsys):
    assert evaluate("mteb:mock", "--tasks", f"{T2I},{QA}") == 0
    damaged = next(tmp_path.glob(f"out/mteb/results/*/*/{T2I}.json"))
    damaged.write_text("{")

    assert evaluate("mteb:mock", "--tasks", f"{T2I},{QA}") == 1

    scores = read_scores(tmp_path / "out")
    assert list(scores["tasks"]) == [QA]
    assert "remove the file and evaluate again" in scores["failed"][T2I]
    assert f"failed: 1 of 2 tasks: {T2I}" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("benchmark", "more", "said"),
    [
        ("mteb:MIEB(light)", (), "did you mean 'MIEB(lite)'?"),
        ("mteb:NFCorpu", (), "did you mean 'NFCorpus'?"),
        ("mteb:zzzzzzzz", (), "mteb.get_benchmarks() and mteb.get_tasks() list them"),
        ("mteb:mock", ("--tasks", "MockAny2AnyRetrievalT2"), f"did you mean '{T2I}'?"),
        ("mteb:mock", ("--quick",), "--quick: expected a benchmark of ours beside it, got mteb:mock"),
        ("mteb:mock", ("--ndcg-fault", "0"), "--ndcg-fault: expected a benchmark of ours"),
        ("mteb:mock", ("--modality", "image"), "--modality: expected a benchmark of ours"),
    ],
)
def test_what_mteb_has_not_is_refused_before_a_model_is_opened(benchmark, more, said, tmp_path, capsys):
    assert main(["--model", "no such model", "--benchmark", benchmark, "--output", str(tmp_path / "out"), *more]) == 2

    assert said in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_data_that_cannot_be_fetched_are_said_in_words_and_leave_no_results(evaluate, tmp_path, capsys):
    assert evaluate("mteb:NFCorpus") == 1

    scores = json.loads((tmp_path / "out/scores.json").read_text())
    assert "expected the data set mteb/nfcorpus of the Hub" in scores["failed"]["NFCorpus"]
    assert "connect to the Hub" in scores["failed"]["NFCorpus"]
    assert scores["tasks"] == {}
    assert scores["means"]["overall"] == {"mean": None, "tasks": 0, "of": 1}
    assert not list(tmp_path.glob("out/mteb/**/*.json"))
    assert "failed: 1 of 1 tasks: NFCorpus" in capsys.readouterr().err


def test_a_task_that_the_model_does_not_read_fails_alone(evaluate, tmp_path):
    assert evaluate("mteb:AudioCapsT2ARetrieval") == 1

    failed = read_scores(tmp_path / "out")["failed"]["AudioCapsT2ARetrieval"]
    assert "it has audio, which this model does not read" in failed


def test_without_mteb_the_command_says_how_to_get_it(tmp_path):
    program = "import sys; sys.modules['mteb'] = None; from eval.run import main; sys.exit(main(sys.argv[1:]))"
    options = ["--model", "DIR", "--benchmark", "mteb:mock", "--output", str(tmp_path / "out")]

    done = subprocess.run(
        [sys.executable, "-c", program, *options],
        cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True,
    )  # fmt: skip

    assert done.returncode == 2
    assert "pip install mmembed[mteb]" in done.stderr
    assert not (tmp_path / "out").exists()
