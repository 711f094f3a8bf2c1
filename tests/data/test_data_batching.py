"""Batches do not know how many workers prepared them."""

import json

import pytest
import torch

from mmembed.data.batching import StepDataset, step_loader
from mmembed.data.mixture import open_mixture
from mmembed.data.settings import Sampling, Source
from mmembed.data.tables import write_pairs
from mmembed.errors import InputError, MediaError
from mmembed.items import Item, Pair


def prepare(step, pairs):
    """A batch stands for everything that a model could see."""
    return {"step": step, "pairs": pairs}


def refuse_step_two(step, pairs):
    if step == 2:
        raise MediaError("clip.mp4", expected="a video", got="noise", remedy="fetch it again")
    return step


def dataset(folder, prepare=prepare):
    for name in ("a.jsonl", "b.parquet"):
        write_pairs(folder / name, [Pair(Item.of(f"{name} {i}"), (Item.of(f"target {i}"),)) for i in range(40)])
    sources = {"a": Source("a.jsonl"), "b": Source("b.parquet", weight=2.0)}
    sampling = Sampling(batch_size=12, block_size=4, window=8)
    return StepDataset(open_mixture(sources, sampling, seed=3, data_root=folder), prepare)


@pytest.mark.filterwarnings("ignore:This DataLoader will create 4 worker processes")
def test_workers_do_not_change_the_batches(tmp_path):
    steps = dataset(tmp_path)
    expected = [steps[step] for step in range(2, 9)]

    assert expected[0]["step"] == 2
    for num_workers in (0, 1, 4):
        assert list(step_loader(steps, 2, 9, num_workers)) == expected


def test_a_restart_goes_on_with_the_same_batches(tmp_path):
    steps = dataset(tmp_path)

    whole = list(step_loader(steps, 0, 10, 0))

    assert list(step_loader(steps, 0, 4, 0)) + list(step_loader(steps, 4, 10, 1)) == whole


@pytest.mark.parametrize("num_workers", [0, 1])
def test_an_error_in_a_worker_stays_what_it_is(tmp_path, num_workers):
    batches = iter(step_loader(dataset(tmp_path, refuse_step_two), 0, 5, num_workers))

    assert [next(batches), next(batches)] == [0, 1]
    with pytest.raises(MediaError) as caught:
        next(batches)
    assert str(caught.value) == "clip.mp4: expected a video, got noise; fetch it again"


@pytest.mark.parametrize("num_workers", [0, 1])
def test_a_bad_row_names_file_and_line_through_workers(tmp_path, num_workers):
    (tmp_path / "t.jsonl").write_text(json.dumps({"query": "", "positives": ["p"]}))
    mixture = open_mixture({"t": Source("t.jsonl")}, Sampling(1, 1, 1), seed=0, data_root=tmp_path)

    with pytest.raises(InputError, match=r"t\.jsonl: line 1: query: item: expected some text or media, got empty text"):
        list(step_loader(StepDataset(mixture, prepare), 0, 1, num_workers))


def test_loading_leaves_the_global_random_state_alone(tmp_path):
    before = torch.get_rng_state()

    list(step_loader(dataset(tmp_path), 0, 2, 1))

    assert torch.equal(torch.get_rng_state(), before)
