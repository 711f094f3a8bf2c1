"""What workers prepare of a stage's batches is what the process itself would have, and comes through shared memory."""

import warnings
from dataclasses import fields

import pytest
import torch
from lightning import Trainer
from torch import Tensor

from mmembed import Item, Pair
from mmembed.counters import counting
from mmembed.data.mixture import open_mixture
from mmembed.data.settings import Sampling, Source
from mmembed.data.tables import write_pairs
from mmembed.processes import ALONE
from mmembed.training.batches import PairPreparer
from mmembed.training.settings import Chunks, Stage
from mmembed.training.stage_data import StageData

STEPS, BATCH = 3, 4


@pytest.fixture
def loader(tmp_path, picture, scratch_embedder):
    """The training loader of a small stage, by its number of workers."""
    for number in range(BATCH):
        picture(56, 56, number).save(tmp_path / f"{number}.png")
    rows = [Pair(Item.of(f"query {i}"), (Item.of({"image": tmp_path / f"{i}.png"}),)) for i in range(BATCH)]
    write_pairs(tmp_path / "rows.jsonl", rows)
    source, sampling = {"rows": Source("rows.jsonl")}, Sampling(BATCH, BATCH, BATCH)

    def make(workers):
        stage = Stage(source, STEPS, sampling=sampling, chunks=Chunks(rows=3), workers=workers)
        mixture = open_mixture(source, sampling, seed=0, data_root=tmp_path)
        data = StageData(
            mixture, PairPreparer(scratch_embedder("qwen2_vl").backbone.preprocessor, stage.chunks), stage, ALONE
        )
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*GPU available but not used.*|.*LeafSpec.*")
            data.trainer = Trainer(
                accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False
            )
        return data.train_dataloader()

    return make


def tensors(batch):
    """All tensors of a batch, in a fixed order."""
    parts = [*batch.chunks, batch.candidates, batch]
    held = [getattr(part, field.name) for part in parts for field in fields(part)]
    return [value for value in held if isinstance(value, Tensor)]


def test_batches_of_workers_are_bit_by_bit_those_without(loader):
    alone, ahead = (list(loader(workers)) for workers in (0, 1))

    assert len(alone) == len(ahead) == STEPS
    for one, other in zip(alone, ahead, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(tensors(one), tensors(other), strict=True))
        assert (one.sources, one.query_ids, one.number) == (other.sources, other.query_ids, other.number)


def test_a_batch_comes_in_one_piece_of_shared_memory_and_not_through_a_pipe(loader):
    batch = next(iter(loader(1)))

    found = [tensor for tensor in tensors(batch) if tensor.numel()]
    assert len(found) > 20
    assert all(tensor.is_shared() for tensor in found)
    assert len({tensor.untyped_storage().data_ptr() for tensor in found}) == 1


@pytest.mark.parametrize("workers", [0, 1])
def test_media_that_workers_decode_are_counted(loader, workers):
    with counting() as counted:
        list(loader(workers))

    assert counted["media_decoded"] == STEPS * BATCH


def test_the_loader_has_no_length_that_lightning_could_stop_at(loader):
    with pytest.raises(TypeError):
        len(loader(0))
