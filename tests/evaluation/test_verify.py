"""eval/verify.py on folders written by hand, and what it passes on to eval/run.py."""

import json

import pytest

from eval import verify
from tests.evaluation import drawn

TASKS = "tasks:\n  a: {data: a, metric: hit@1}\n  b: {data: b, metric: hit@1}\n"
EXPECTED = "entries: {ours: {model: runs/x, source: configs/x.yaml, tolerance: 0.1, scores: {a: 0.5, b: 0.6}}}\n"


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A benchmark, what is expected of it, and an evaluation of two tasks."""
    (tmp_path / "toy.yaml").write_text(TASKS)
    (tmp_path / "expected").mkdir()
    (tmp_path / "expected/toy.yaml").write_text(EXPECTED)
    monkeypatch.setattr(verify.evaluation, "EXPECTED", tmp_path / "expected")
    return tmp_path


def evaluated(place, prompts=None, given=None, **scores):
    benchmark = verify.evaluation.find_benchmark(str(place / "toy.yaml"))
    benchmark = benchmark if prompts is None else benchmark.worded(prompts)
    content = drawn.scores(benchmark, {name: drawn.row(score) for name, score in scores.items()}, **given or {})
    drawn.write_evaluation(place / "out", content, {})


def call(place, *more):
    return verify.main(["--benchmark", str(place / "toy.yaml"), "--output", str(place / "out"), *more])


@pytest.mark.parametrize(
    ("scores", "code", "verdicts"),
    [
        ({"a": 0.45, "b": 0.7}, 0, ["ok", "ok"]),
        ({"a": 0.45, "b": 0.75}, 1, ["ok", "above"]),
        ({"a": 0.3, "b": 0.7}, 1, ["below", "ok"]),
        ({"a": 0.5}, 1, ["ok", "missing"]),
    ],
)
def test_the_exit_code_says_whether_all_is_as_expected(place, scores, code, verdicts, capsys):
    evaluated(place, **scores)

    assert call(place, "--no-run") == code

    printed = capsys.readouterr().out
    rows = [line.rstrip() for line in printed.splitlines() if " hit@1 " in line]
    assert all(row.endswith(verdict) for row, verdict in zip(rows, verdicts, strict=True))
    assert max(map(len, printed.splitlines())) <= 100


def test_a_task_that_failed_is_off_even_where_no_score_is_expected_of_it(place):
    (place / "expected/toy.yaml").write_text(EXPECTED.replace(", b: 0.6", ""))
    evaluated(place, a=0.5)
    assert call(place, "--no-run") == 0
    path = place / "out/scores.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"failed": {"b": "no data"}}))

    assert call(place, "--no-run") == 1


def test_force_compares_a_quick_evaluation(place):
    evaluated(place, given={"quick": {"queries": 10, "seed": 0}}, a=0.5, b=0.6)

    assert call(place, "--no-run") == 1
    assert call(place, "--no-run", "--force") == 0


def test_what_differs_as_the_entry_says_is_not_off_unless_nothing_else_is_compared(place):
    evaluated(place, a=0.5, b=0.1)
    older = EXPECTED.replace("b: 0.6", "b: {score: 0.6, differs: older data}")

    (place / "expected/toy.yaml").write_text(older)
    assert call(place, "--no-run") == 0
    assert call(place, "--no-run", "--force") == 1
    (place / "expected/toy.yaml").write_text(older.replace("a: 0.5", "a: {score: 0.5, differs: older data}"))
    assert call(place, "--no-run") == 1


def test_a_mean_may_be_off_where_no_task_is(place, capsys):
    (place / "toy.yaml").write_text(TASKS.replace("metric: hit@1", "metric: hit@1, modality: image"))
    (place / "expected/toy.yaml").write_text(
        EXPECTED.replace("tolerance: 0.1", "tolerance: 0.1, mean_tolerances: {image: 0.05}")
    )

    evaluated(place, a=0.54, b=0.64)
    assert call(place, "--no-run") == 0
    evaluated(place, a=0.58, b=0.68)
    assert call(place, "--no-run") == 1

    row = next(line for line in capsys.readouterr().out.splitlines()[::-1] if line.startswith(" image"))
    assert row.split() == ["image", "mean", "of", "2", "63.0", "55.0", "+8.0", "5.0", "above"]


def test_it_evaluates_first_and_passes_the_rest_on(place, monkeypatch):
    calls = []

    def run(argv):
        calls.append(argv)
        evaluated(place, a=0.5, b=0.6)
        return 0

    monkeypatch.setattr(verify.evaluation, "main", run)

    assert call(place, "--model", "runs/x", "--data-root", "elsewhere") == 0

    options = ["--benchmark", str(place / "toy.yaml"), "--output", str(place / "out"), "--expected", "ours"]
    assert calls == [["--model", "runs/x", *options, "--data-root", "elsewhere"]]


def test_a_failed_task_is_off_and_bad_input_ends_it(place, monkeypatch):
    evaluated(place, a=0.5)
    for code, expected in ((1, 1), (2, 2)):
        monkeypatch.setattr(verify.evaluation, "main", lambda argv, code=code: code)
        assert call(place, "--model", "runs/x") == expected


@pytest.mark.parametrize(
    ("change", "more", "complaint"),
    [
        (lambda place: None, (), "scores.json: expected scores of an evaluation, got no such file; evaluate first"),
        (lambda place: evaluated(place, a=0.5), ("--expected", "our"), "got 'our'; did you mean 'ours'?"),
        (lambda place: (place / "expected/toy.yaml").unlink(), (), "expected/toy.yaml: expected a readable YAML file"),
        (lambda place: (place / "toy.yaml").write_text("tasks: {}"), (), "toy.yaml: expected one key, tasks"),
    ],
)
def test_bad_input_is_named(place, change, more, complaint, capsys):
    change(place)

    assert call(place, "--no-run", *more) == 2

    assert complaint in capsys.readouterr().err


def test_scores_of_another_benchmark_are_bad_input(place, capsys):
    evaluated(place, a=0.5)
    path = place / "out/scores.json"
    content = json.loads(path.read_text())
    content["protocol"]["benchmark"] = "other"
    path.write_text(json.dumps(content))

    assert call(place, "--no-run") == 2

    assert "expected scores of toy, got scores of other" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "complaint"),
    [((), "--model is required"), (("--no-run", "--tasks", "a"), "--no-run evaluates nothing, and so has no --tasks")],
)
def test_options_that_do_not_go_together_are_refused(place, more, complaint, capsys):
    with pytest.raises(SystemExit) as ended:
        call(place, *more)

    assert ended.value.code == 2
    assert complaint in capsys.readouterr().err


def test_the_help_teaches(capsys):
    with pytest.raises(SystemExit) as ended:
        verify.main(["--help"])

    text = capsys.readouterr().out
    assert ended.value.code == 0
    assert "example: python eval/verify.py --model" in text
    assert "eval/run.py" in text


def test_prompts_of_ones_own_choice_are_off(place, capsys):
    worded = TASKS.replace("b: {", 'b: {prompts: new, wordings: {old: {query_instruction: ""}}, ')
    (place / "toy.yaml").write_text(worded)
    (place / "expected/toy.yaml").write_text(EXPECTED.replace("b: 0.6", "b: {score: 0.6, prompts: new}"))

    evaluated(place, a=0.5, b=0.6)
    assert call(place, "--no-run") == 0
    evaluated(place, prompts="old", a=0.5, b=0.6)
    assert call(place, "--no-run") == 1

    assert "other protocol: b: ours has prompts old, published under new" in capsys.readouterr().out


def test_chosen_tasks_are_compared_alone(place, capsys):
    evaluated(place, given={"chosen": ["a"]}, a=0.5)

    assert call(place, "--no-run") == 0

    assert "1 of 1 tasks compared" in capsys.readouterr().out


def test_a_miniature_is_not_as_expected_even_by_force(place):
    evaluated(place, given={"miniature": True}, a=0.5, b=0.6)

    assert call(place, "--no-run") == call(place, "--no-run", "--force") == 1
