"""Processes that embed together give what one gives, whatever the sizes; none waits for ever, nothing is done twice."""

import json
import os
import subprocess
import sys

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file

from mmembed.errors import InputError
from mmembed.evaluation.crew import Crew
from mmembed.evaluation.encode import encode_set
from mmembed.evaluation.units import UNIT_COST, UNIT_ROWS, cost, plan_units
from mmembed.index.embedding_cache import EmbeddingCache
from mmembed.items import Item
from tests.evaluation import toy

SIZES = (1, 7, 64, 65)


@given(st.lists(st.floats(0, 2 * UNIT_COST), min_size=1, max_size=60), st.integers(1, 5))
def test_units_hold_each_row_once_the_dearest_first(costs, world):
    units = plan_units(costs, world)

    assert sorted(row for unit in units for row in unit) == list(range(len(costs)))
    taken = [costs[row] for unit in units for row in unit]
    assert taken == sorted(taken, reverse=True)
    assert all(len(unit) == 1 or sum(costs[row] for row in unit) <= UNIT_COST for unit in units)


def test_units_are_bounded_in_rows_and_small_enough_to_be_shared():
    assert [len(unit) for unit in plan_units([1.0] * (2 * UNIT_ROWS + 1), 1)] == [UNIT_ROWS, UNIT_ROWS, 1]
    assert len(plan_units([1.0] * 64, 2)) == 8
    assert plan_units([], 2) == []


def test_a_clip_costs_more_than_a_picture_and_a_picture_more_than_a_sentence(picture):
    sentence, image = Item.of("a red circle left of a blue square"), Item.of({"image": picture(28, 28)})
    clip, long_clip = (Item.of({"video": [picture(28, 28)] * 4, "num_frames": n}) for n in (4, 16))

    assert cost(sentence) < cost(image) < cost(clip) < cost(long_clip)


def run(output, names, world, **environment):
    launcher = [] if world == 1 else ["-m", "torch.distributed.run", "--nproc-per-node", str(world)]
    output.mkdir(exist_ok=True)
    return subprocess.run(
        [sys.executable, *launcher, toy.__file__, str(output), *names],
        env=os.environ | {"OMP_NUM_THREADS": "1"} | environment, capture_output=True, text=True, timeout=300,
    )  # fmt: skip


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory):
    """One process and two on the same tasks, one of which holds an item that cannot be embedded."""
    root = tmp_path_factory.mktemp("crew")
    for size in SIZES:
        toy.write_texts(root / f"texts{size}", size)
    toy.write_texts(root / "bad", 30, bad=(11, 23))
    names = ["texts1", "texts7", "bad", "texts64", "texts65"]
    for world in (1, 2):
        # slow enough for neither process to be done before the other has begun
        done = run(root / f"out{world}", names, world, SLOW="0.01")
        assert done.returncode == 0, done.stderr[-3000:]
    return root


def scores_of(folder):
    return json.loads((folder / "scores.json").read_text())


@pytest.mark.parametrize("size", SIZES)
def test_two_processes_give_the_scores_of_one(evaluated, size):
    name = f"texts{size}"
    one, two = (scores_of(evaluated / f"out{world}")["tasks"][name] for world in (1, 2))

    assert {key: one[key] for key in one if key != "seconds"} == {key: two[key] for key in two if key != "seconds"}
    vectors = [load_file(evaluated / f"out{world}/embeddings/{name}.safetensors") for world in (1, 2)]
    assert all(torch.equal(vectors[0][side], vectors[1][side]) for side in ("queries", "targets"))
    ranked = [(evaluated / f"out{world}/rankings/{name}.jsonl").read_text() for world in (1, 2)]
    assert ranked[0] == ranked[1]


def test_no_row_is_embedded_twice_and_both_processes_work(evaluated):
    (one,), two = (json.loads((evaluated / f"out{world}/rows.json").read_text()) for world in (1, 2))

    # the tasks share their texts: 65 queries, 65 targets, and the queries with their words shuffled
    assert one == sum(two) == 3 * 65
    assert min(two) > 0


def test_an_item_that_fails_on_any_process_fails_its_task_alone(evaluated):
    for world in (1, 2):
        scores = scores_of(evaluated / f"out{world}")
        assert list(scores["failed"]) == ["bad"]
        assert "expected words, got 'unreadable'; leave it out" in scores["failed"]["bad"]
        assert list(scores["tasks"]) == [f"texts{size}" for size in SIZES]
        assert scores["partial"] is True


@pytest.mark.parametrize("world", [1, 2])
def test_a_run_that_is_killed_embeds_the_rest_and_nothing_twice(tmp_path, world):
    toy.write_texts(tmp_path / "texts1200", 1200)
    output = tmp_path / "out"

    killed = run(output, ["texts1200"], world, KILL_AFTER="2")
    space = EmbeddingCache(output / "cache", max_bytes=toy.CACHE_BYTES).space(toy.PARTS)
    kept = len(space)
    again = run(output, ["texts1200"], world)

    assert killed.returncode != 0
    assert again.returncode == 0, again.stderr[-3000:]
    assert not (tmp_path / "rows.json").exists()
    # queries, targets and the queries with words shuffled, all different; a kill costs the units under way
    assert 0 < kept < 3600
    assert kept + sum(json.loads((output / "rows.json").read_text())) == 3600
    space.refresh()
    assert len(space) == 3600


@pytest.mark.parametrize("rank", [0, 1])
def test_an_error_that_nobody_expected_on_any_process_ends_the_task_on_all_and_is_told(tmp_path, rank):
    toy.write_texts(tmp_path / "texts64", 64)

    done = run(tmp_path / "out", ["texts64"], 2, FAILING_RANK=str(rank))

    assert done.returncode == 0, done.stderr[-3000:]
    failed = scores_of(tmp_path / "out")["failed"]["texts64"]
    assert f"process {rank}: IndexError: list index out of range" in failed


def test_processes_with_different_models_are_refused_before_anything_is_embedded(tmp_path):
    toy.write_texts(tmp_path / "texts7", 7)

    done = run(tmp_path / "out", ["texts7"], 2, DIFFERENT="1")

    assert done.returncode != 0
    words = "process 1: expected the model of process 0, got device gpu 0 -> gpu 1; give every machine the same files"
    assert words in done.stderr
    assert not (tmp_path / "out/cache").exists()


def test_a_second_run_embeds_nothing(evaluated):
    before = scores_of(evaluated / "out2")
    done = run(evaluated / "out2", ["texts7", "texts64"], 2)

    assert done.returncode == 0, done.stderr[-3000:]
    assert json.loads((evaluated / "out2/rows.json").read_text()) == [0, 0]
    after = scores_of(evaluated / "out2")
    assert after["tasks"]["texts64"]["metrics"] == before["tasks"]["texts64"]["metrics"]


def test_errors_of_libraries_keep_their_words():
    def broken(items, *, side):
        raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError, match="out of memory"):
        encode_set([("query", Item.of("a"))], Crew(broken), side="query")


def test_an_interrupted_job_leaves_its_finished_units_in_the_cache(tmp_path):
    space = EmbeddingCache(tmp_path, max_bytes=1 << 20).space({"weights": "w"})
    items = [(f"query {i}", Item.of(f"text {i}")) for i in range(2 * UNIT_ROWS)]
    calls = []

    def fails_late(items, *, side):
        calls.append(len(items))
        if len(calls) == 2:
            raise InputError("text", expected="words", got="none", remedy="leave it out")
        return torch.ones(len(items), 2)

    with pytest.raises(InputError, match="expected words"):
        encode_set(items, Crew(fails_late, space=space), side="query")

    assert len(space) == UNIT_ROWS
