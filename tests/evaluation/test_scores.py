import json

import pytest

from mmembed.errors import InputError
from mmembed.evaluation.benchmark import Benchmark, Task
from mmembed.evaluation.scores import mean_of, our_mean, percent, quick_words, read_scores
from tests.evaluation import drawn

BENCHMARK = Benchmark("toy", {n: Task(name=n, data=n, metric="hit@1") for n in ("a", "b")})


def test_a_mean_is_given_only_of_a_whole_benchmark():
    part = our_mean(drawn.scores(BENCHMARK, {"b": drawn.row(0.7)}), BENCHMARK)
    whole = our_mean(drawn.scores(BENCHMARK, {"b": drawn.row(0.7), "a": drawn.row(0.6)}), BENCHMARK)

    assert (part.mean, str(part)) == (None, "partial (1 of 2)")
    assert (whole.mean, str(whole)) == (pytest.approx(0.65), "mean of 2 tasks 65.0")
    assert str(mean_of({"a": 0.5}, BENCHMARK.only(["a"]))) == "mean of 1 task 50.0"


def test_scores_read_back(tmp_path):
    content = drawn.scores(BENCHMARK, {"a": drawn.row(0.6)}, failed={"b": "no"})
    drawn.write_evaluation(tmp_path, content, {})

    assert read_scores(tmp_path, BENCHMARK) == content


def test_scores_that_cannot_be_used_are_named(tmp_path):
    with pytest.raises(InputError, match=r"scores.json: expected scores of an evaluation, got no such file"):
        read_scores(tmp_path, BENCHMARK)
    (tmp_path / "scores.json").write_text("{")
    with pytest.raises(InputError, match=r"scores.json: expected JSON, got .*; evaluate again"):
        read_scores(tmp_path, BENCHMARK)
    (tmp_path / "scores.json").write_text(json.dumps(drawn.scores(BENCHMARK, {"a": drawn.row(0.6)})))
    with pytest.raises(InputError, match=r"scores.json: expected scores of other, got scores of toy"):
        read_scores(tmp_path, Benchmark("other", BENCHMARK.tasks))
    renamed = Benchmark("toy", {"b": BENCHMARK.tasks["b"]})
    with pytest.raises(InputError, match="a task of toy, got 'a'; known: b"):
        read_scores(tmp_path, renamed)


def test_a_quick_evaluation_says_so():
    quick = drawn.scores(BENCHMARK, {"a": drawn.row(0.6)}, quick={"queries": 100, "seed": 3})

    assert quick_words(quick) == "quick: 100 queries a task, seed 3"
    assert quick_words(drawn.scores(BENCHMARK, {})) is None
    assert str(our_mean(quick, BENCHMARK)) == "quick, no mean"


def test_fractions_print_times_100():
    assert [percent(value) for value in (0.12345, 1, None)] == ["12.3", "100.0", "–"]  # noqa: RUF001
