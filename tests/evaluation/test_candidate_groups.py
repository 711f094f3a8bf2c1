"""Scores among groups of candidates, from the vectors that a task has anyway."""

from dataclasses import replace

import numpy as np
import PIL.Image
import pytest
import torch

from mmembed.counters import counting
from mmembed.evaluation.benchmark import Benchmark, Task
from mmembed.evaluation.candidate_groups import candidate_group_scores
from mmembed.evaluation.crew import Crew
from mmembed.evaluation.evaluate import evaluate_task
from mmembed.evaluation.markdown import markdown
from mmembed.evaluation.report import templates
from mmembed.evaluation.retrieval_set import RetrievalSet
from mmembed.evaluation.scoring import Scoring
from mmembed.evaluation.tables import candidates_table
from mmembed.evaluation.vectors import TaskVectors
from mmembed.items import Image, Item, Region
from tests.evaluation import drawn, toy

KINDS = {"object": range(1, 4), "relation": range(4, 7), "scene": range(7, 10)}
TASK = Task("scar", "scar", "hit@1", candidates="local", ties="pessimistic")


def a_set(num=6):
    """Queries with ten candidates each, the first right and three swapped in each of three ways."""
    names = {f"q{i}": [f"q{i} c{k}" for k in range(10)] for i in range(num)}
    return RetrievalSet(
        {name: Item.of(name) for name in names},
        {target: Item.of(target) for own in names.values() for target in own},
        {name: {own[0]: 1.0} for name, own in names.items()},
        names,
        candidate_groups={
            name: {"swap": {kind: tuple(own[k] for k in places) for kind, places in KINDS.items()}}
            for name, own in names.items()
        },
    )


def vectors_of(similarities):
    """Vectors whose inner products with a query's own candidates are these ``[Q, 10]``."""
    num = len(similarities)
    targets = torch.zeros(num, 10, num)
    for query in range(num):
        targets[query, :, query] = torch.tensor(similarities[query])
    return TaskVectors(torch.eye(num), targets.reshape(num * 10, num))


def test_the_score_of_a_group_is_that_of_a_plain_loop():
    similarities = np.random.default_rng(0).integers(0, 6, (6, 10)).astype(np.float32)

    found = candidate_group_scores(TASK, a_set(), vectors_of(similarities))["swap"]

    for kind, places in KINDS.items():
        hits = [all(row[0] > row[k] for k in places) for row in similarities]
        assert found[kind]["score"] == pytest.approx(np.mean(hits))
        assert found[kind]["chance"] == pytest.approx(0.25)
        assert found[kind]["queries"] == 6
        assert found[kind]["interval"][0] <= found[kind]["score"] <= found[kind]["interval"][1]


def test_a_query_counts_only_where_it_has_the_group_and_no_group_makes_no_score():
    whole = a_set(3)
    part = replace(whole, candidate_groups={**whole.candidate_groups, "q1": {}})
    vectors = vectors_of(np.array([[1.0] + [0.0] * 9, [0.0] * 10, [0.5] + [0.0] * 3 + [1.0] * 6], np.float32))

    found = candidate_group_scores(TASK, part, vectors)["swap"]

    assert {kind: (own["score"], own["queries"]) for kind, own in found.items()} == {
        "object": (1.0, 2), "relation": (0.5, 2), "scene": (0.5, 2),
    }  # fmt: skip
    assert candidate_group_scores(replace(TASK, candidates="shared"), part, vectors) == {}
    assert candidate_group_scores(TASK, replace(whole, candidate_groups={}), vectors) == {}


def test_groups_cost_no_embedding_and_blinded_queries_have_scores_of_their_own():
    task = replace(TASK, blind=("shuffle_words",))
    with counting() as plain:
        evaluate_task(task, replace(worded(), candidate_groups={}), Crew(toy.encode))
    with counting() as grouped:
        result = evaluate_task(task, worded(), Crew(toy.encode))

    assert grouped["language_rows"] == plain["language_rows"]
    row = result.row()["candidate_groups"]["swap"]
    assert row["near"]["blinds"].keys() == {"shuffle_words"}
    # a bag of words: an anagram is a tie, which the right one loses
    assert (row["near"]["score"], row["far"]["score"]) == (0.0, 1.0)


def worded():
    queries = {"q1": "red square", "q2": "blue ball"}
    return RetrievalSet(
        {name: Item.of(text) for name, text in queries.items()},
        {text: Item.of(text) for text in ("red square", "square red", "green", "blue ball", "ball blue")},
        {name: {text: 1.0} for name, text in queries.items()},
        {"q1": ["red square", "square red", "green"], "q2": ["blue ball", "ball blue", "green"]},
        candidate_groups={
            "q1": {"swap": {"near": ("square red",), "far": ("green",)}},
            "q2": {"swap": {"near": ("ball blue",), "far": ("green",)}},
        },
    )


def test_tables_show_each_group_and_the_mean_over_tasks():
    groups = {"swap": {"object": entry(0.5, {"no_image": 0.3}), "scene": entry(0.25, {})}}
    benchmark = Benchmark("scar", {name: replace(TASK, name=name) for name in ("a", "b")})
    rows = {name: drawn.row(0.5, candidate_groups=groups) for name in ("a", "b")}
    content = drawn.scores(benchmark, rows)

    table, page = candidates_table(content), markdown(content, benchmark)

    assert table.row_count == 6
    assert "| a | swap object | 50.0 | 10.0 | 25.0 | 30.0 | 12 |" in page
    assert "| mean of 2 | swap scene | 25.0 |  | 25.0 | – |  |" in page  # noqa: RUF001
    without = drawn.scores(benchmark, {name: drawn.row(0.5) for name in ("a", "b")})
    assert candidates_table(without) is None
    assert "alone" not in markdown(without, benchmark)


def test_the_page_draws_a_group_with_its_interval_and_chance():
    charts = templates().get_template("charts.html.j2").module

    figure = charts.groups("wrong ones of one swap alone", {"object": entry(0.5, {})}, None)

    assert "wrong ones of one swap alone" in figure
    assert figure.count('class="whisker"') == figure.count('class="tick-chance"') == 1
    plain = charts.groups("by colour", {"red": {"score": 0.5, "queries": 3}}, 0.5)
    assert "by colour" in plain
    assert "whisker" not in plain and "tick-chance" not in plain


def entry(score, blinds):
    return {"score": score, "interval": [score - 0.1, score + 0.1], "chance": 0.25, "blinds": blinds, "queries": 12}


def test_intervals_draw_pictures_with_all_their_queries():
    pictures = [PIL.Image.new("RGB", (8, 8), (40 * i, 0, 0)) for i in range(6)]
    queries = {
        f"q{i}": Item((Image(pictures[i // 4], (Region(box=(i % 4, 0, i % 4 + 2, 4)),)),), verbatim=False)
        for i in range(24)
    }
    data = RetrievalSet(queries, {"a": Item.of("a"), "b": Item.of("b")}, {name: {"a": 1.0} for name in queries})
    values = np.repeat([0.0, 1.0] * 3, 4)

    (low, high), (low_each, high_each) = (
        Scoring(Task("t", "t", "hit@1", interval=drawn_), data).interval(values) for drawn_ in ("pictures", "queries")
    )

    assert high - low > 1.5 * (high_each - low_each)


def test_texts_are_pictures_of_their_own_where_pictures_are_drawn():
    data = a_set()
    values = np.array([0.0, 1.0] * 3)

    both = [Scoring(replace(TASK, interval=drawn_), data).interval(values) for drawn_ in ("pictures", "queries")]

    assert both[0] == both[1]
