"""Our tasks as mteb's: the score that eval/run.py gives, or a reason why mteb cannot."""

from dataclasses import replace

import mteb
import pytest
from mteb.types import PromptType

from data_prep.demo import Sizes, make_demo
from eval.run import find_benchmark
from mmembed import Image, Item, Page, Region, Video
from mmembed.errors import InputError
from mmembed.evaluation.benchmark import Benchmark, Task
from mmembed.evaluation.crew import Crew
from mmembed.evaluation.evaluate import evaluate_task
from mmembed.evaluation.retrieval_set import RetrievalSet
from mmembed.models.settings import RawPrompt
from mmembed.serve.mteb import MtebEncoder, mteb_task, mteb_tasks, why_not
from tests.cases import draw

FIND = Task(name="find", data="find", metric="hit@1")
SHADES = [Image(draw(28, 28, seed)) for seed in range(6)]


@pytest.fixture(scope="module")
def model(scratch_embedder):
    return scratch_embedder("qwen2_vl", prompt=RawPrompt(suffix="<|im_end|>"))


@pytest.fixture(scope="module")
def encoder(model):
    return MtebEncoder(model)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    make_demo(root / "demo", 0, Sizes(singles=1, pairs=1, clips=1, pages=8, tests=8))
    return root


def through_mteb(task, encoder):
    found = mteb.evaluate(encoder, task, cache=None, co2_tracker=False, show_progress_bar=False)
    return found.task_results[0]


def theirs(value, metric):
    """A value as mteb gives it: but for mrr, with 5 digits."""
    return pytest.approx(value if metric.startswith("mrr") else round(value, 5), abs=1e-6)


def composed(count=6, **more):
    """Queries of a picture and a word that find pictures, graded; each shows a picture that is in the corpus."""
    words = ["red", "blue", "a circle", "the same", "no", "more"][:count]
    queries = {f"q{i}": Item.of({"image": SHADES[i], "text": word}, "Change it.") for i, word in enumerate(words)}
    corpus = {f"d{i}": Item.of(shade) for i, shade in enumerate(SHADES)}
    relevance = {f"q{i}": {f"d{(i + 1) % 6}": 2.0, f"d{(i + 2) % 6}": 1.0} for i in range(count)}
    return RetrievalSet(queries, corpus, relevance, **more)


@pytest.mark.parametrize("name", ["image_to_caption", "caption_to_image", "words_to_page", "composed"])
def test_a_task_of_the_demo_scores_through_mteb_as_it_does_here(name, model, encoder, data):
    benchmark = find_benchmark("demo")
    row = replace(benchmark.tasks[name], metric="mrr@10", blind=(), blind_targets=())
    (task,) = mteb_tasks(Benchmark("demo", {name: row}), data)

    own = evaluate_task(row, task.data, Crew(model.encode))

    result = through_mteb(task, encoder)
    (scores,) = result.scores["test"]
    assert task.metadata.name == f"demo.{name}"
    assert result.dataset_revision == task.data.fingerprint()
    assert 0 < own.score < 1
    for name, ours in [("mrr_at_10", "mrr@10"), ("hit_rate_at_1", "hit@1"), ("ndcg_at_5", "ndcg_linear@5")]:
        assert scores[name] == theirs(own.metrics[ours], name), name
    assert scores["main_score"] == scores["mrr_at_10"]


OWN = {f"q{i}": [f"d{(i + j) % 6}" for j in range(1, 5)] for i in range(6)}
TWO_CAPTIONS = Item((SHADES[0], "is red", "has no sleeves"), verbatim=False)
SHOWN = {f"q{i}": [f"d{i}"] for i in range(6)}


@pytest.mark.parametrize(
    ("row", "more"),
    [
        ({"metric": "ndcg_linear@3"}, {}),
        ({"metric": "ndcg_binary@3"}, {}),
        ({"metric": "map@2"}, {}),
        ({"metric": "map_all@1"}, {}),
        ({"metric": "recall@1"}, {}),
        ({"metric": "precision@3"}, {}),
        ({"metric": "hit@1", "query_instruction": "", "target_instruction": "Represent it."}, {}),
        ({"metric": "mrr@4", "candidates": "local"}, {"candidates": OWN}),
        ({"metric": "mrr@4", "join": "uniir"}, {}),
        ({"metric": "mrr@5", "reference": "removed"}, {"references": SHOWN}),
        ({"metric": "mrr@4", "reference": "removed", "candidates": "local"}, {"candidates": OWN, "references": SHOWN}),
    ],
)
def test_metrics_candidates_references_and_instructions_are_those_of_the_row(row, more, model, encoder):
    task, data = replace(FIND, **row), composed(**more)

    own = evaluate_task(task, data, Crew(model.encode)).score

    assert through_mteb(mteb_task(task, data), encoder).get_score() == theirs(own, task.metric)


def test_a_task_says_from_what_to_what_it_goes_and_under_which_words(encoder):
    metadata = mteb_task(FIND, composed()).metadata

    assert metadata.category == "it2i"
    assert metadata.modalities == ["text", "image"]
    assert metadata.main_score == "hit_rate_at_1"
    assert metadata.prompt == {"query": "Change it."}
    assert encoder.get_task_instruction(metadata, PromptType.document) == ""


def with_query(item):
    data = composed(1)
    return replace(data, queries={"q0": item})


def with_target(item):
    data = composed(1)
    return replace(data, corpus={**data.corpus, "d5": item})


def test_captions_that_a_join_makes_one_text_are_one_text_there(model, encoder):
    task = replace(FIND, metric="mrr@4", join="clip4cir")
    data = replace(composed(1), queries={"q0": TWO_CAPTIONS})

    ours = mteb_task(task, data)
    ours.load_data()

    assert ours.dataset["default"]["test"]["queries"]["text"] == ["Is red and has no sleeves"]
    assert through_mteb(ours, encoder).get_score() == theirs(evaluate_task(task, data, Crew(model.encode)).score, "mrr")


HALF = Region(box=(0, 0, 14, 14))
TWO_WORDS = {"q0": Item.of(SHADES[0], "Change it."), "q1": Item.of(SHADES[1], "Keep it.")}


@pytest.mark.parametrize(
    ("row", "data", "reason"),
    [
        ({"metric": "best_hit@1"}, None, "mteb has no metric best_hit"),
        ({"metric": "ndcg_exponential@5"}, None, "mteb has no metric ndcg_exponential"),
        ({"macro": "category"}, None, "a mean over groups"),
        ({"ties": "pessimistic"}, None, "ties go to the wrong target"),
        ({"judged": False}, None, "answers are not public"),
        ({"ndcg_fault_seed": 0}, None, "does not permute grades"),
        ({"query_regions": "crop"}, None, "shown as 'crop'"),
        ({"join": "searle"}, with_query(TWO_CAPTIONS), "written in 2 ways whose vectors are averaged (join searle)"),
        ({"query_text": "Change it: {text}"}, None, "spelt out"),
        ({"target_layout": "{instruction} {media}"}, None, "spelt out"),
        ({"candidates": "local"}, composed(), "its data have none"),
        ({"reference": "removed"}, composed(), "do not name it"),
        ({"metric": "map@1"}, composed(), "2 relevant targets"),
        ({"metric": "ndcg_linear@1"}, replace(composed(1), relevance={"q0": {"d0": 0.5}}), "not whole numbers"),
        ({}, replace(composed(2), queries=TWO_WORDS), "2 different instructions"),
        ({}, with_query(Item.of({"image": Image(SHADES[0].source, (HALF,))})), "query q0: it has regions"),
        ({}, with_query(Item(("red", SHADES[0]))), "an order or layout of their own"),
        ({}, with_query(Item((SHADES[0], "a", "b"), verbatim=False)), "several texts"),
        ({}, with_query(Item((Video(b"1"), Video(b"2")), verbatim=False)), "several clips"),
        ({}, with_query(Item((Video(b"1", num_frames=4),), verbatim=False)), "which frames"),
        ({}, with_query(Item((Video((SHADES[0].source,)),), verbatim=False)), "its clip is frames"),
        ({}, with_query(Item((Page(b"1"), SHADES[0]), verbatim=False)), "behind pages"),
        ({}, with_query(Item((Video(b"1"), SHADES[0]), verbatim=False)), "kinds of rows"),
        ({}, with_target(Item.of(" red")), "target d5: its text begins or ends with a space"),
    ],
)
def test_what_mteb_cannot_express_is_refused_for_a_reason(row, data, reason):
    task = replace(FIND, **row)

    assert reason in why_not(task, data)
    if data is not None:
        assert why_not(task) is None
        with pytest.raises(InputError, match="expected a task that mteb can express"):
            mteb_task(task, data)


def test_ties_and_layouts_can_be_left_to_mteb_and_the_model():
    task = replace(FIND, ties="pessimistic", query_layout="{media} {instruction} {text}")

    assert why_not(task, composed(), loose=True) is None
    assert mteb_task(task, composed(), loose=True).metadata.category == "it2i"
    assert "a mean over groups" in why_not(replace(task, macro="category"), loose=True)


def test_tasks_that_mteb_cannot_express_are_left_out_unless_they_are_named(data, caplog):
    benchmark = find_benchmark("demo")
    with caplog.at_level("INFO"):
        found = mteb_tasks(benchmark, data)

    assert [task.metadata.name for task in found] == [
        *("demo.image_to_caption", "demo.caption_to_image", "demo.words_to_page", "demo.composed")
    ]
    assert "region_to_label is no task of mteb: query q0: it has regions" in caplog.text
    with pytest.raises(InputError, match=r"question: expected .* different instructions"):
        mteb_tasks(benchmark, data, ["question"])


def test_published_tasks_of_composed_retrieval_are_expressed_but_for_ties():
    rows = {name: find_benchmark(name).tasks.values() for name in ("cirr", "genecis", "scar", "circo", "fashioniq")}

    judged = [task for name in rows for task in rows[name] if task.judged]
    assert all("ties" in why_not(task) for task in judged)
    assert all(why_not(task, loose=True) is None for task in judged)
