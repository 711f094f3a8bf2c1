"""The rows of the benchmarks of composed retrieval: protocols, words and published scores."""

import numpy as np
import pytest

from data_prep.source import read_source
from mmembed.evaluation.expected import find_entry, read_expected
from mmembed.evaluation.retrieval_set import read_retrieval_set
from mmembed.evaluation.written import written
from mmembed.items import Image, Item
from tests.data_prep.composed_copies import SOURCES
from tests.evaluation.cir_goldens import (
    BENCHMARKS,
    CATEGORIES,
    GOLDEN,
    ROOT,
    prepare_goldens,
)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """The goldens, prepared."""
    return prepare_goldens(tmp_path_factory.mktemp("goldens"))


@pytest.mark.parametrize("split", ["cirr/val", "cirr/test1", "circo/val", "circo/test"])
def test_a_row_says_the_words_that_searle_and_instructcir_composed(data, split):
    benchmark, _, row = split.partition("/")
    rows = BENCHMARKS[benchmark].tasks | BENCHMARKS[benchmark].unjudged
    made = read_retrieval_set(data / split)

    said = [written(rows[row], "query", item)[0].text for item in made.queries.values()]

    texts = GOLDEN["searle"]["composed_texts"]
    assert [f"a photo of $ that {text}" for text in said] == [texts[f"{split}/{i}"] for i in range(len(said))]


def test_the_rows_say_the_protocols_of_the_published_evaluations():
    rows = {name: task for name in ("cirr", "circo", "genecis", "covr") for task in [BENCHMARKS[name].tasks]}
    everything = [task for name in BENCHMARKS for part in (BENCHMARKS[name].tasks, BENCHMARKS[name].unjudged)
                  for task in part.values()]  # fmt: skip

    assert {task.ties for task in everything} == {"pessimistic"}
    assert {task.reference for task in BENCHMARKS["fashioniq"].tasks.values()} == {"kept"}
    assert {task.reference for task in rows["cirr"].values()} == {rows["covr"]["test"].reference} == {"removed"}
    assert {task.reference for task in rows["circo"].values()} == {"kept"}
    assert [rows["cirr"]["val_subset"].candidates, rows["cirr"]["val"].candidates] == ["local", "shared"]
    assert {task.candidates for task in rows["genecis"].values()} == {"local"}
    assert list(BENCHMARKS["cirr"].unjudged) == ["test1", "test1_subset"]
    assert list(BENCHMARKS["circo"].unjudged) == ["test"]
    assert {task.data for task in BENCHMARKS["fashioniq_val_union"].tasks.values()} == {
        f"fashioniq/{category}_val_union" for category in CATEGORIES
    }
    sources = {source.name: source.sets for source in map(read_source, (*SOURCES, "covr"))}
    assert all(task.data.partition("/")[2] in sources[task.data.partition("/")[0]] for task in everything)


@pytest.mark.parametrize("name", BENCHMARKS)
def test_every_wording_writes_every_query_in_full(name):
    texts = {"circo": ("is red", "a dog"), "fashioniq": ("is red", "is long")}.get(
        name.partition("_val")[0], ("is red",)
    )
    query, target = Item((Image("a.jpg"), *texts), verbatim=False), Item((Image("b.jpg"),), verbatim=False)
    benchmark = BENCHMARKS[name]

    for row in (*benchmark.tasks.values(), *benchmark.unjudged.values()):
        for version in (row.prompts, *row.wordings):
            task = row.worded(version)
            for item in written(task, "query", query):
                assert item.media == query.media
                assert "is red" in item.text.lower()
                assert len([part for part in item.content if isinstance(part, str)]) == 1
            (shown,) = written(task, "target", target)
            assert shown.text == (task.target_text or "")


def test_the_prompts_of_e5_v_and_the_shared_concepts_are_the_published_strings():
    fashion, circo = BENCHMARKS["fashioniq"].tasks, BENCHMARKS["circo"].tasks["val"]
    two = Item((Image("a.jpg"), "is red.", "is longer"), verbatim=False)
    asked = Item((Image("a.jpg"), "is red", "a dog"), verbatim=False)

    ways = written(fashion["toptee"].worded("e5_v"), "query", two)

    assert [item.content[1] for item in ways] == [
        f" change the style of this shirt to {text}\n Desribe this modified shirt in one word based on its style:"
        for text in ("is red, is longer", "is longer, is red")
    ]
    said = {
        version: written(circo.worded(version), "query", asked)[0].text for version in (circo.prompts, *circo.wordings)
    }
    assert said == {
        "change": "is red",
        "magiclens": "find a dog but is red",
        "megapairs": "Find a picture that also a dog, but is red.",
        "e5_v": 'Modify this image with "is red", desribe modified image in one word:',
        "lamra": "is red",
        "vlm2vec": "is red",
    }


@pytest.mark.parametrize("name", SOURCES)
def test_the_published_scores_are_of_rows_that_there_are(name):
    folder = ROOT / "eval/expected"
    entries = read_expected(folder / f"{name}.yaml")

    assert len(entries) == {"fashioniq": 5, "cirr": 12, "circo": 14, "genecis": 1}[name]
    for entry in entries:
        found = find_entry(folder, BENCHMARKS[name], entry)
        # a score of a test server stands beside one of val, and is not compared with it
        assert name in ("fashioniq", "genecis") or all(score.differs for score in found.scores.values())


def test_the_published_means_of_fashioniq_follow_from_its_categories():
    published = {"image_only_b32": (5.90, 13.37), "text_only_b32": (18.70, 36.84), "image_text_b32": (14.78, 29.60),
                 "searle_b32": (22.89, 42.53)}  # fmt: skip
    parts = BENCHMARKS["fashioniq"].parts
    for entry, means in published.items():
        scores = find_entry(ROOT / "eval/expected", BENCHMARKS["fashioniq"], entry).scores
        found = [100 * np.mean([scores[name].score for name in parts[part]]) for part in ("R@10", "R@50")]
        # the R@50 of the picture alone is printed 0.03 lower than its categories say
        assert found == pytest.approx(means, abs=0.0051 if entry != "image_only_b32" else 0.03)
