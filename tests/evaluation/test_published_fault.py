import json
from pathlib import Path

import pytest

from mmembed.errors import InputError
from mmembed.evaluation.metrics import judge, mean_metrics
from mmembed.evaluation.published_fault import permuted_grades

GRADED = json.loads((Path(__file__).parents[1] / "golden/metrics/vlm2vec_ranking_metrics.json").read_text())["graded"]


def published_run():
    """Rankings and grades of the published cases."""
    cases = GRADED["cases"]
    relevance = [dict(zip(case["label"], case["rel_scores"], strict=True)) for case in cases]
    return [case["prediction"] for case in cases], relevance


# nDCG_linear@10 of the published code on the golden's cases, to four digits
FAULTY = {0: 0.2181, 1: 0.2021, 2: 0.2216, 3: 0.2144, 4: 0.2218}


@pytest.mark.parametrize("hash_seed", FAULTY)
def test_the_published_fault_is_reproduced_under_its_hash_seed(hash_seed):
    rankings, relevance = published_run()

    ours = mean_metrics(judge(rankings, permuted_grades(relevance, hash_seed), 10), [1, 5, 10])

    assert round(ours["ndcg_linear@10"], 4) == FAULTY[hash_seed]
    if str(hash_seed) == GRADED["PYTHONHASHSEED"]:
        theirs = GRADED["evaluate_output_this_hash_seed"]
        assert {name: ours[name] for name in theirs} == pytest.approx(theirs, rel=1e-14)


def test_the_fault_moves_grades_between_targets_of_a_query_and_nothing_else():
    _, relevance = published_run()

    permuted = permuted_grades(relevance, 3)

    assert permuted != relevance
    for before, after in zip(relevance, permuted, strict=True):
        assert after.keys() == before.keys()
        assert sorted(after.values()) == sorted(before.values())


@pytest.mark.parametrize("hash_seed", [-1, 2**32])
def test_a_hash_seed_that_python_does_not_take_is_refused(hash_seed):
    with pytest.raises(InputError, match=rf"a PYTHONHASHSEED, 0 to 4294967295, got {hash_seed};"):
        permuted_grades([{"a": 1.0}], hash_seed)
