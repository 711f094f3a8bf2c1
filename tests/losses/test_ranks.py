"""Two gloo ranks, and four, against one process: one start of the ranks runs every case."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from mmembed.losses.candidates import Candidates
from mmembed.losses.gather import gather, total
from mmembed.losses.settings import Contrastive, LearnedTemperature, SourceRules

ROOT = Path(__file__).parents[2]
EVEN, UNEVEN, ALONE, ABSENT = [[0, 2, 4], [1, 3, 5]], [[0, 1, 2], [3, 4]], [[0, 1, 2, 3, 4], []], [[], [4, 2, 0, 1, 3]]
RAW = {"temperature": 0.1, "learn": "raw"}
MASKS = {"mask_classes": True, "margin": 0.1}
RULES = {"text": {}, "image": {"temperature": 0.2, "in_batch": "source"}}
SETTINGS = {
    "plain": ({}, {}),
    "blocks": ({"block_rows": 2}, {}),
    "both directions": ({"directions": (1.0, 1.0), "block_rows": 2}, {}),
    "each positive": ({"positives": "each", "directions": (0.5, 0.5)}, {}),
    "masks": (MASKS | {"directions": (0.5, 0.5), "block_rows": 3}, {}),
    "rules": (MASKS | {"share_negatives": False, "directions": (1.0, 0.5)}, RULES),
    "own": ({"in_batch": "own"}, {}),
    "logarithm": ({"learn": "log"}, RULES),
}
SPLITS = {"3+3": EVEN, "3+2": UNEVEN, "5+0": ALONE, "0+5": ABSENT}


def random_case(ranks, settings, rules):
    """One or two positives and up to two hard negatives a query; some contents, classes and sources meet again."""
    generator = torch.Generator().manual_seed(3)
    queries = sum(map(len, ranks))
    owner = torch.tensor([i for i in range(queries) for _ in range(2 + i % 3)])
    positive = torch.tensor([place <= i % 2 for i in range(queries) for place in range(2 + i % 3)])

    def numbers(count, size):
        return torch.randint(size, (count,), generator=generator)

    def rows(count):
        return torch.randn(count, 4, generator=generator, dtype=torch.float64)

    return {
        "ranks": ranks, "settings": RAW | settings, "rules": rules, "owner": owner, "positive": positive,
        "query_keys": numbers(queries, 8), "target_keys": numbers(len(owner), 20),
        "classes": numbers(queries, 3) - 1, "sources": numbers(queries, len(rules) or 1),
        "queries": rows(queries), "targets": rows(len(owner)),
    }  # fmt: skip


def golden_case(name, arrays):
    stage, settings = ("in_batch", {}) if name.endswith("in_batch_ce") else ("hardneg", {})
    if name.endswith("own_only"):
        settings = {"in_batch": "own"}
    queries = 6 if stage == "in_batch" else 4
    rows = torch.from_numpy(arrays[f"{stage}/E"]).double()
    targets = len(rows) - queries
    half = queries // 2
    return {
        "ranks": [list(range(half)), list(range(half, queries))],
        "settings": {"temperature": 0.05, "learn": "raw", "mask_duplicates": False} | settings,
        "rules": {}, "owner": torch.arange(targets) % queries, "positive": torch.arange(targets) < queries,
        "query_keys": torch.arange(queries), "target_keys": torch.arange(targets),
        "classes": torch.full((queries,), -1), "sources": torch.zeros(queries, dtype=torch.long),
        "queries": rows[:queries], "targets": rows[queries:],
    }  # fmt: skip


CASES = {
    f"{kind}, {split}": random_case(ranks, *SETTINGS[kind]) for kind in SETTINGS for split, ranks in SPLITS.items()
}
GOLDEN = ("world2/in_batch_ce", "world2/hardneg_ce", "world2/hardneg_own_only")


@pytest.fixture(scope="module")
def arrays(golden):
    return np.load(golden / "umarvel/losses.npz")


def run_ranks(folder, cases, world):
    """What each of so many ranks found."""
    torch.save(cases, folder / "cases.pt")
    command = [sys.executable, str(Path(__file__).parent / "one_rank.py"), str(folder)]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    started = [subprocess.Popen([*command, str(rank), str(world)], env=environment) for rank in range(world)]
    try:
        assert [process.wait(timeout=120) for process in started] == [0] * world
    finally:
        for process in started:
            process.kill()
    return [torch.load(folder / f"rank{rank}.pt", weights_only=True) for rank in range(world)]


@pytest.fixture(scope="module")
def ranks(tmp_path_factory, arrays):
    """What each of two ranks found."""
    cases = CASES | {name: golden_case(name, arrays) for name in GOLDEN}
    return run_ranks(tmp_path_factory.mktemp("ranks"), cases, 2)


def alone(case):
    """The same on one process."""
    names = ("owner", "positive", "query_keys", "target_keys", "classes", "sources")
    rules = {name: SourceRules(**rule) for name, rule in case["rules"].items()}
    settings = case["settings"] | {"learn": LearnedTemperature(case["settings"]["learn"])}
    objective = Contrastive(**settings).build(rules).double()
    queries, targets = case["queries"].requires_grad_(), case["targets"].requires_grad_()
    candidates = Candidates(**{name: case[name] for name in names})
    loss = objective(F.normalize(queries, dim=1), F.normalize(targets, dim=1), candidates)
    return loss, torch.autograd.grad(loss.share, [queries, targets, *objective.parameters()])


def close(found, expected):
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize("name", CASES)
def test_two_ranks_equal_one(name, ranks):
    equal_one(CASES[name], [rank["cases"][name] for rank in ranks])


def test_four_ranks_equal_one(tmp_path):
    quarters = [[0, 4], [1, 5, 6], [2], [3, 7]]
    cases = {kind: random_case(quarters, *SETTINGS[kind]) for kind in ("plain", "both directions", "rules")}

    found = run_ranks(tmp_path, cases, 4)

    for name, case in cases.items():
        equal_one(case, [rank["cases"][name] for rank in found])


def equal_one(case, found):
    """The ranks' losses and gradients, put together, are those of one process."""
    order = torch.tensor([number for numbers in case["ranks"] for number in numbers])

    loss, (of_queries, of_targets, of_temperatures) = alone(case)

    close(sum(rank["share"] for rank in found), loss.value)
    for rank in found:
        close(rank["value"], loss.value)
        assert rank["logs"] == pytest.approx(loss.logs)
    close(torch.cat([rank["per_query"] for rank in found]), loss.per_query[order])
    close(torch.cat([rank["of_queries"] for rank in found]), of_queries[order])
    close(torch.cat([rank["of_targets"] for rank in found]), of_targets[torch.cat([rank["targets"] for rank in found])])
    close(sum(rank["of_temperatures"][0] for rank in found), of_temperatures)


@pytest.mark.parametrize("name", GOLDEN)
def test_two_ranks_equal_two_ranks_of_the_published_code(name, ranks, golden, arrays):
    expected = json.loads((golden / "umarvel/losses.json").read_text())[name]
    temperatures = sum(rank["cases"][name]["of_temperatures"][0] for rank in ranks)

    for number, rank in enumerate(ranks):
        found = rank["cases"][name]
        assert found["value"].item() == pytest.approx(expected["loss_per_rank"][number], abs=1e-6)
        # the published code adds up the rows' gradients too, and its ranks hold their own rows
        rows = torch.cat([found["of_queries"], found["of_targets"]])
        np.testing.assert_allclose(rows, arrays[f"{name}/grad_E_rank{number}"], rtol=0, atol=1e-5)
    per_rank = expected["grad_temp_per_rank"]
    # its gathered losses give each rank the whole gradient of the temperature, its local one a part
    whole = sum(per_rank) if name.endswith("own_only") else per_rank[0]
    assert temperatures.item() == pytest.approx(whole, rel=1e-4)


def test_gathering_concatenates_uneven_rows_and_sums_gradients(ranks):
    for number, rank in enumerate(ranks):
        found = rank["gathered"]
        assert found["rows"][:, 0].tolist() == [0, 1, 2, 10, 11]
        # rank 0 weighs row k by k, rank 1 by 2 k
        assert found["gradient"][:, 0].tolist() == ([0, 3, 6], [9, 12])[number]
        # three rows of two floats, padded, from each of two, and once the two lengths; one piece comes back
        assert found["work"] == {"gathered_bytes": 2 * 24 + 2 * 8, "scattered_bytes": 24}
        assert found["none_on_one"].tolist() == [[1, 1, 1]] * 2
        assert found["none"].shape == (0, 3)
        assert found["counted"].tolist() == [0, 0, 1]
        assert found["total"].item() == 2 * (0 + 1 + 2 + 10 + 11)


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("kind", ["blocks", "both directions"])
def test_no_rank_holds_the_whole_matrix_or_receives_gradients_of_others(kind, split, ranks):
    case = CASES[f"{kind}, {split}"]
    queries = len(case["query_keys"])
    longest = max(map(len, case["ranks"]))

    for rank in ranks:
        found = rank["cases"][f"{kind}, {split}"]
        work, targets = found["work"], len(found["targets"])
        # two rows of float64 by the rank's own targets, once forward and once again backward
        assert work.get("score_bytes_at_once", 0) == 8 * 2 * targets
        assert work.get("score_bytes", 0) == 2 * 8 * queries * targets
        # of its queries' embeddings [longest, 4], and of one number for each query
        assert work["scattered_bytes"] == 8 * (4 * longest + queries)


def test_one_process_gathers_nothing():
    rows = torch.ones(2, 3, requires_grad=True)

    assert gather(rows) is rows
    assert torch.equal(total(rows), rows)
    assert not total(rows).requires_grad
