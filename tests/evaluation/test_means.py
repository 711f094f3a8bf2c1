"""Means over modalities and categories: only of whole parts, and like beside like."""

import pytest

from mmembed.errors import InputError
from mmembed.evaluation.benchmark import Benchmark, Task
from mmembed.evaluation.expected import Expected, ExpectedScore, compare
from mmembed.evaluation.means import compare_means, means, means_row, part_means
from tests.evaluation import drawn

PARTS = {"a": ("image", "QA"), "b": ("image", "QA"), "c": ("image", "CLS"), "d": ("video", ""), "e": ("", "")}
BENCHMARK = Benchmark(
    "toy", {n: Task(name=n, data=n, metric="hit@1", modality=m, category=c) for n, (m, c) in PARTS.items()}
)


def expected(tolerances=None, **scores):
    given = {
        name: score if isinstance(score, ExpectedScore) else ExpectedScore(score) for name, score in scores.items()
    }
    return Expected("paper", "m", "table 2", given, mean_tolerances=tolerances or {})


def compared_means(ours, entry, force=False):
    content = drawn.scores(BENCHMARK, {name: drawn.row(score) for name, score in ours.items()})
    found = compare_means(content, compare(content, entry, BENCHMARK, force=force), entry, BENCHMARK)
    return {mean.task: mean for mean in found}


def test_a_mean_is_given_where_every_task_of_its_part_has_a_score():
    found = means({"a": 0.2, "b": 0.4, "d": 0.5}, BENCHMARK)

    assert list(found) == ["image", "QA", "CLS", "video", "overall"]
    assert {name: str(mean) for name, mean in found.items()} == {
        "image": "partial (2 of 3)", "QA": "mean of 2 tasks 30.0", "CLS": "partial (0 of 1)",
        "video": "mean of 1 task 50.0", "overall": "partial (3 of 5)",
    }  # fmt: skip
    ours = {"a": drawn.row(0.2), "b": drawn.row(0.4), "d": drawn.row(0.5)}
    row = means_row(drawn.scores(BENCHMARK, ours), BENCHMARK)
    assert row["QA"] == {"mean": pytest.approx(0.3), "tasks": 2, "of": 2}
    assert row["overall"] == {"mean": None, "tasks": 3, "of": 5}


def test_a_mean_over_all_weighs_tasks_and_not_parts():
    scores = {"a": 0.0, "b": 0.0, "c": 0.0, "d": 1.0, "e": 1.0}

    assert means(scores, BENCHMARK)["overall"].mean == pytest.approx(0.4)


def test_a_benchmark_without_modalities_has_one_mean():
    plain = Benchmark("toy", {"a": Task("a", "a", "hit@1")})

    assert list(means({"a": 0.5}, plain)) == ["overall"]


@pytest.mark.parametrize(
    "fields",
    [
        {"b": ("video", "QA")},
        {"b": ("QA", "x")},
        {"b": ("overall", "")},
        {"b": ("image", "overall")},
        {"b": ("image", "image")},
    ],
)
def test_a_part_has_a_name_of_its_own(fields):
    tasks = {n: Task(n, n, "hit@1", modality=m, category=c) for n, (m, c) in (PARTS | fields).items()}

    with pytest.raises(InputError, match=r"expected names of its own for modalities and categories, got '\w+' twice"):
        Benchmark("toy", tasks)


def test_our_means_stand_beside_those_of_an_entry():
    content = drawn.scores(BENCHMARK, {"a": drawn.row(0.2), "b": drawn.row(0.4), "d": drawn.row(0.5)})
    entry = expected(a=0.21, b=0.41, c=0.5)

    found = {part.name: part for part in part_means(content, BENCHMARK, entry)}

    assert (found["QA"].is_category, found["image"].is_category) == (True, False)
    assert found["QA"].published == pytest.approx(0.31)
    assert (found["QA"].comparison.verdict, found["image"].comparison.verdict) == ("ok", "missing")
    # the entry has no score of d
    assert (found["video"].published, found["video"].comparison) == (None, None)
    assert all(part.published is None for part in part_means(content, BENCHMARK))


@pytest.mark.parametrize(("ours", "verdict"), [(0.5, "ok"), (0.512, "above"), (0.488, "below")])
def test_a_mean_has_the_tolerance_of_its_part_else_of_the_entry(ours, verdict):
    scores = dict.fromkeys("abc", ours)
    entry = expected({"image": 0.01}, a=0.5, b=0.5, c=0.5)

    found = compared_means(scores, entry)

    assert (found["image"].verdict, found["image"].tolerance) == (verdict, 0.01)
    assert (found["QA"].verdict, found["QA"].tolerance) == ("ok", 0.02)


def test_what_is_not_compared_is_left_out_of_both_means():
    entry = expected(a=0.5, b=ExpectedScore(0.1, differs="older data"), c=0.5)

    found = compared_means({"a": 0.5, "b": 0.9, "c": 0.5}, entry)
    forced = compared_means({"a": 0.5, "b": 0.9, "c": 0.5}, entry, force=True)

    assert (found["image"].verdict, found["image"].metric, found["image"].published) == ("ok", "mean of 2 of 3", 0.5)
    assert (found["QA"].ours, found["QA"].metric) == (0.5, "mean of 1 of 2")
    assert (forced["image"].verdict, forced["image"].metric) == ("above", "mean of 3")


def test_a_part_of_which_nothing_is_compared_has_no_verdict_on_it():
    entry = expected(a=0.5, b=0.5, c=ExpectedScore(0.1, prompts="old"))

    found = compared_means({"a": 0.5, "b": 0.5, "c": 0.5}, entry)

    assert (found["CLS"].verdict, found["CLS"].ours) == ("differs", None)
    assert found["CLS"].why == "none of its tasks is compared"
    assert found["image"].verdict == "ok"


def test_a_benchmark_without_parts_has_no_means_to_compare():
    plain = Benchmark("toy", {"a": Task("a", "a", "hit@1")})
    entry = expected(a=0.5)
    content = drawn.scores(plain, {"a": drawn.row(0.5)})

    assert compare_means(content, compare(content, entry, plain), entry, plain) == []


@pytest.mark.parametrize(
    ("content", "image"),
    [
        (drawn.scores(BENCHMARK, {n: drawn.row(0.5) for n in PARTS}), {"mean": 0.5, "tasks": 3, "of": 3}),
        (
            drawn.scores(BENCHMARK, {n: drawn.row(0.5) for n in PARTS}, quick={"queries": 9, "seed": 1}),
            {"mean": None, "tasks": 0, "of": 3},
        ),
        (
            drawn.scores(BENCHMARK, {n: drawn.row(0.5, part="too few" if n == "a" else None) for n in PARTS}),
            {"mean": None, "tasks": 2, "of": 3},
        ),
    ],
)
def test_a_mean_counts_neither_samples_nor_parts_of_data(content, image):
    found = means_row(content, BENCHMARK)

    assert found["image"] == image
    assert (found["overall"]["mean"] is None) == (image["mean"] is None)


def stated(**means):
    return Expected("paper", "m", "a card", means=means, tolerance=0.02)


def test_a_mean_whose_tasks_are_not_published_is_compared_over_all_of_ours():
    ours = {"a": 0.2, "b": 0.4, "c": 0.6, "d": 0.5, "e": 0.1}

    found = compared_means(ours, stated(image=0.41, overall=0.5))

    assert (found["image"].verdict, found["image"].metric) == ("ok", "mean of 3")
    assert found["image"].ours == pytest.approx(0.4)
    assert found["overall"].verdict == "below"
    assert set(found) == {"image", "overall"}


def test_a_mean_that_is_stated_waits_for_every_task_of_ours_and_is_not_of_a_miniature():
    entry, rows = stated(image=0.4), {name: drawn.row(0.4) for name in BENCHMARK.tasks}

    some = compared_means({"a": 0.2, "b": 0.4}, entry)["image"]
    content = drawn.scores(BENCHMARK, rows, miniature=True)
    small = compare_means(content, compare(content, entry, BENCHMARK), entry, BENCHMARK)

    assert (some.verdict, some.why, some.ours) == ("missing", "1 of 3 tasks are missing", None)
    assert [(mean.verdict, mean.why) for mean in small] == [("other protocol", "ours is a miniature")]


def test_a_mean_that_is_stated_stands_beside_ours():
    content = drawn.scores(BENCHMARK, {name: drawn.row(0.4) for name in BENCHMARK.tasks})

    found = {part.name: part.published for part in part_means(content, BENCHMARK, stated(image=0.4))}

    assert found == {"image": 0.4, "QA": None, "CLS": None, "video": None, "overall": None}
