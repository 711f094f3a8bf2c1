import pytest
import torch

from mmembed.errors import InputError
from mmembed.index.embedding_store import EmbeddingStore, Origin, read_embeddings


@pytest.fixture
def store(tmp_path):
    return EmbeddingStore(tmp_path / "out", Origin("m", "i.jsonl", "w", "s", "f", rows=3, width=2, shard_rows=2))


def test_written_shards_read_back_as_float32_in_order(store):
    first, second = store.shards
    store.write(second, ["c"], torch.tensor([[5.0, 6.0]]).bfloat16())
    store.write(first, ["a", "b"], torch.tensor([[1.0, 2.0], [3.0, 4.0]]))

    ids, embeddings = read_embeddings(store.directory)

    assert ids == ["a", "b", "c"]
    assert torch.equal(embeddings, torch.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]))


def test_a_folder_not_finished_is_not_read(store):
    store.write(store.shards[0], ["a", "b"], torch.ones(2, 2))

    with pytest.raises(InputError, match=r"expected 2 shards, got 1, without shard-00001.safetensors; start the same"):
        read_embeddings(store.directory)


def test_embeddings_of_another_shape_are_refused(store):
    with pytest.raises(InputError, match=r"expected \[2, 2\] and as many ids, got \[2, 3\] and 2 ids"):
        store.write(store.shards[0], ["a", "b"], torch.ones(2, 3))
    with pytest.raises(InputError, match=r"got \[2, 2\] and 1 ids"):
        store.write(store.shards[0], ["a"], torch.ones(2, 2))


def test_embeddings_that_are_not_finite_are_refused_by_id(store):
    with pytest.raises(InputError, match=r"shard-00000.*NaN or infinity in 1 rows, first 'b'; try --dtype float32"):
        store.write(store.shards[0], ["a", "b"], torch.tensor([[1.0, 2.0], [3.0, float("nan")]]))
    assert store.missing() == store.shards


def test_a_shard_that_is_not_as_the_manifest_says_is_named(store):
    store.write(store.shards[1], ["c"], torch.ones(1, 2))
    (store.directory / "shard-00000.safetensors").write_bytes(
        (store.directory / "shard-00001.safetensors").read_bytes()
    )

    with pytest.raises(InputError, match=r"shard-00000.*expected \[2, 2\], as the manifest says, got \[1, 2\]"):
        read_embeddings(store.directory)


def test_a_folder_without_embeddings_is_named(tmp_path):
    with pytest.raises(InputError, match=r"manifest.json: expected a manifest, got no such file"):
        read_embeddings(tmp_path)


def test_a_shard_of_no_rows_is_refused():
    with pytest.raises(InputError, match="shard_rows: expected 1 or more, got 0"):
        Origin("m", "i", "w", "s", "f", rows=3, width=2, shard_rows=0)
