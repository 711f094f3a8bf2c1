"""What benchmarks of composed retrieval mean by their metrics."""

import json
from pathlib import Path

import pytest
import torch

from mmembed.evaluation.benchmark import Task
from mmembed.evaluation.metrics import judge, metric_values
from mmembed.evaluation.rankings import rank
from mmembed.evaluation.retrieval_set import RetrievalSet
from mmembed.items import Item

CIRR = json.loads((Path(__file__).parents[1] / "golden/metrics/cirr_searle.json").read_text())


def cirr_run(candidates, depth):
    """Rankings of the golden's queries over candidates of their own."""
    queries, corpus = (
        dict(zip(names, map(Item.of, names), strict=True))
        for names in ([f"q{i}" for i in range(len(CIRR["query_features"]))], CIRR["index_names"])
    )
    relevance = [{target: 1.0} for target in CIRR["target_names"]]
    cirr = RetrievalSet(
        queries, corpus, dict(zip(queries, relevance, strict=True)), dict(zip(queries, candidates, strict=True))
    )
    task = Task(name="cirr", data="cirr", metric="recall@1", candidates="local")
    # only targets are normalised there: a query's length does not move its ranking
    targets = torch.nn.functional.normalize(torch.tensor(CIRR["index_features"]))
    rankings = rank(task, cirr, torch.tensor(CIRR["query_features"]), targets, depth)
    return judge([ranking.targets for ranking in rankings], relevance, depth)


# CIRR's two rules: the picture that a query speaks of is no candidate, and the subset recall ranks only the other five
# members of its group
def test_cirr_ranks_without_the_reference_and_in_the_subset_only_the_group():
    without_reference = [[t for t in CIRR["index_names"] if t != reference] for reference in CIRR["reference_names"]]
    in_group = [
        [member for member in group if member != reference]
        for group, reference in zip(CIRR["group_members"], CIRR["reference_names"], strict=True)
    ]

    ours = {f"cirr_recall_at{k}": metric_values(cirr_run(without_reference, 50), f"recall@{k}") for k in (1, 5, 10, 50)}
    ours |= {f"cirr_group_recall_at{k}": metric_values(cirr_run(in_group, 3), f"recall@{k}") for k in (1, 2, 3)}

    # the published means are float32
    means = {name: 100 * values.mean() for name, values in ours.items()}
    assert means == pytest.approx(CIRR["outputs_percent"], rel=1e-6)


def test_circo_divides_by_the_smaller_of_cutoff_and_targets():
    three = judge([[str(i) for i in (7, 3, 9, 1, 5, 8, 2, 4, 6, 0)]], [{"3": 1.0, "5": 1.0, "4": 1.0}], depth=10)
    six = judge([list("abcde")], [dict.fromkeys("abcdef", 1.0)], depth=5)

    assert [metric_values(three, f"map@{k}")[0] for k in (1, 2, 5, 10)] == pytest.approx([0, 0.25, 0.3, 0.425])
    assert metric_values(six, "map@5")[0] == 1.0
    assert metric_values(six, "map_all@5")[0] == pytest.approx(5 / 6)


def test_genecis_and_m_beir_count_any_right_target_as_recall():
    judged = judge([["a", "b", "c"]], [{"b": 1.0, "c": 1.0}], depth=3)

    assert [metric_values(judged, f"any_recall@{k}")[0] for k in (1, 2, 3)] == [0.0, 1.0, 1.0]
    assert metric_values(judged, "recall@2")[0] == 0.5
