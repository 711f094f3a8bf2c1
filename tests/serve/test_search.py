"""Hits are exact, items come once with their best region, and strangers are refused."""

import json
import shutil
from dataclasses import replace

import pytest
import torch

from mmembed import Item
from mmembed.errors import InputError
from mmembed.index.embedding_store import read_vectors
from mmembed.items import Image
from mmembed.models.settings import TextRegions
from mmembed.serve.search import Index, Searcher
from scripts.embed import main
from tests.cases import small_embedder


def copied(folder, tmp_path, **changes):
    """The index with another manifest."""
    shutil.copytree(folder / "index", tmp_path / "index")
    path = tmp_path / "index/manifest.json"
    manifest = json.loads(path.read_text())
    about = manifest["about"] | changes.pop("about", {})
    path.write_text(json.dumps(manifest | {"about": about} | changes))
    return tmp_path / "index"


def test_an_item_comes_once_by_its_best_vector(searcher, folder):
    query = Item.of("a red circle")

    hits = searcher.search(query, 10)

    read = read_vectors(folder / "index")
    scores = (searcher.model.encode(query).double() @ read.embeddings.double().T)[0]
    best = {}
    for name, region, score in zip(read.ids, read.regions, scores.tolist(), strict=True):
        if score > best.get(name, (-2, 0))[0]:
            best[name] = (score, region)
    assert [hit.id for hit in hits] == sorted(best, key=lambda name: -best[name][0])
    assert [hit.region for hit in hits] == [best[hit.id][1] for hit in hits]
    assert [hit.score for hit in hits] == pytest.approx([best[hit.id][0] for hit in hits], abs=1e-6)
    assert len({hit.id for hit in hits}) == len(hits) == 10


@pytest.mark.parametrize("k", [1, 2, 3])
def test_fewer_hits_are_the_first_of_more(searcher, k):
    query = Item.of("a yellow cross")

    assert [hit.id for hit in searcher.search(query, k)] == [hit.id for hit in searcher.search(query, 10)][:k]


@pytest.mark.parametrize("number", [1, 2])
def test_a_region_of_the_index_finds_itself_and_says_which(searcher, index, number):
    name, item = index.table[3]
    (image,) = item.content
    one = replace(
        item, content=(Image(image.source, image.regions[number - 1 : number]),), instruction="what is here ?"
    )

    hit = searcher.search(one, 1)[0]

    assert (hit.id, hit.region) == (name, number)
    assert hit.score == pytest.approx(1, abs=1e-5)
    assert hit.item.content[0].regions == image.regions[number - 1 : number]


def test_the_whole_finds_the_whole(searcher, index):
    name, item = index.table[2]
    whole = replace(item, content=(Image(item.content[0].source),))

    hit = searcher.search(whole, 1)[0]

    assert (hit.id, hit.region, hit.item.content[0].regions) == (name, 0, ())


def test_clips_and_pages_are_items_like_others(searcher, index):
    assert len(index) == 10
    assert index.most_vectors == 3
    for row in (6, 9):
        name, item = index.table[row]
        assert searcher.search(item, 1)[0].id == name


def test_a_plain_index_is_searched_with_its_items_as_they_are(folder, tmp_path):
    table = folder / "gallery/items.jsonl"
    main(["--model", str(folder / "model"), "--input", str(table), "--output", str(tmp_path / "plain")])

    searcher = Searcher.open(str(folder / "model"), tmp_path / "plain", device="cpu")

    assert not searcher.index.is_by_region
    name, item = searcher.index.table[0]
    hit = searcher.search(item, 1)[0]
    assert (hit.id, hit.region, hit.item) == (name, 0, item)


def test_another_model_is_refused_and_both_are_named(folder, tmp_path, index):
    other = small_embedder(regions=TextRegions(scale=8))
    with torch.no_grad():
        other.backbone.model.language_model.norm.weight[0] += 1

    with pytest.raises(InputError) as told:
        Searcher(other.eval(), index)

    assert f"{folder / 'index'}: weights: expected those of the model that made it" in str(told.value)
    assert f"('{folder / 'model'}')" in str(told.value)
    assert "embed the table again with this one" in str(told.value)


def test_other_settings_are_refused_by_name(folder, index):
    with pytest.raises(InputError, match=r"backbone\.max_pixels: expected \d+, as when it was made, got 6272"):
        Searcher.open(str(folder / "model"), index.directory, device="cpu", max_pixels=6272)


def test_another_device_library_or_code_is_told_not_refused(folder, tmp_path, searcher):
    there = searcher.index.about["identity"]
    elsewhere = there | {"device": "cuda", "library.torch": "1.0", "code": "x"}
    index = Index(copied(folder, tmp_path, about={"identity": elsewhere}))

    notes = Searcher(searcher.model, index).notes

    assert notes == [
        "other code of this package",
        "device cuda then, cpu now",
        f"torch 1.0 then, {torch.__version__.split('+')[0]} now",
    ]
    assert searcher.notes == []


def test_an_index_of_an_older_version_is_refused(folder, tmp_path):
    directory = copied(folder, tmp_path)
    manifest = json.loads((directory / "manifest.json").read_text())
    del manifest["about"], manifest["regions"]
    (directory / "manifest.json").write_text(json.dumps(manifest))

    with pytest.raises(InputError, match="got one of an older version; embed the table again"):
        Index(directory)


def test_a_table_that_is_gone_or_changed_is_refused_and_one_that_moved_is_named(folder, tmp_path):
    gone = copied(folder, tmp_path, about={"table": str(tmp_path / "gone.jsonl")})

    with pytest.raises(InputError, match=r"table: expected the item table that was embedded, got no file .*--table"):
        Index(gone)
    with pytest.raises(InputError, match="got a file of other bytes; embed it again"):
        (tmp_path / "other.jsonl").write_text('{"id": "a", "text": "red"}\n')
        Index(gone, table=tmp_path / "other.jsonl")
    assert len(Index(gone, table=folder / "gallery/items.jsonl")) == 10


def test_more_results_than_items_are_all_items_and_fewer_than_one_are_refused(searcher):
    assert len(searcher.search(Item.of("red"), 1000)) == 10
    with pytest.raises(InputError, match="results: expected 1 or more, got 0"):
        searcher.search(Item.of("red"), 0)


def test_many_queries_at_once_find_what_each_finds_alone(searcher, index):
    queries = [Item.of("a red circle"), index.table[3][1], index.table[7][1]]

    together = searcher.search_all(queries, 4)

    alone = [searcher.search(query, 4) for query in queries]
    assert [[(hit.id, hit.region) for hit in hits] for hits in together] == [
        [(hit.id, hit.region) for hit in hits] for hits in alone
    ]
    assert [hit.score for hits in together for hit in hits] == pytest.approx(
        [hit.score for hits in alone for hit in hits], abs=1e-5
    )
    assert searcher.search_all([], 4) == []


def test_a_folder_with_another_manifest_is_refused_by_what_it_lacks(tmp_path):
    for content, lacks in (('{"model": "m"}', "input, input_fingerprint"), ("[1]", "everything")):
        (tmp_path / "manifest.json").write_text(content)
        with pytest.raises(InputError, match=f"expected a manifest of scripts/embed.py, got a file without {lacks}"):
            Index(tmp_path)
