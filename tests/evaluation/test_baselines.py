"""Image alone, words alone and their sum beside a method, out of the same cache."""

import json

import pytest
import torch
import torch.nn.functional as F

from eval.run import main
from mmembed import Embedder
from mmembed.counters import counting
from mmembed.evaluation.baselines import baseline_scores, embed_parts, is_composed
from mmembed.evaluation.benchmark import Benchmark, Task
from mmembed.evaluation.crew import Crew
from mmembed.evaluation.evaluate import evaluate_task
from mmembed.evaluation.markdown import markdown
from mmembed.evaluation.report import write_report
from mmembed.evaluation.retrieval_set import RetrievalSet
from mmembed.evaluation.scores import BASELINES
from mmembed.index.embedding_cache import EmbeddingCache
from mmembed.items import Image, Item
from mmembed.media.settings import MediaSettings
from mmembed.models.identity import identity
from tests.evaluation import drawn
from tests.families import family_settings

SIZE = 6


@pytest.fixture(scope="module")
def clip():
    return Embedder(family_settings("clip"), texts=["red"]).eval()


@pytest.fixture(scope="module")
def composed(tmp_path_factory, picture):
    """Pictures of which each is a query's reference, and the next one its target."""
    folder = tmp_path_factory.mktemp("composed")
    for i in range(SIZE):
        picture(56, 56, seed=i).save(folder / f"{i}.png")
    pictures = [Image(str(folder / f"{i}.png")) for i in range(SIZE)]
    words = ["redder", "bluer"]
    return RetrievalSet(
        {f"q{i}": Item((pictures[i], words[i % 2]), verbatim=False) for i in range(SIZE)},
        {f"d{i}": Item((pictures[i],)) for i in range(SIZE)},
        {f"q{i}": {f"d{(i + 1) % SIZE}": 1.0} for i in range(SIZE)},
        references={f"q{i}": [f"d{i}"] for i in range(SIZE)},
    )


def a_task(**fields):
    return Task(**{"name": "t", "data": "t", "metric": "mrr@5", "reference": "removed"} | fields)


def crew_of(model, folder):
    space = EmbeddingCache(folder, max_bytes=1 << 24).space(identity(model))
    return Crew(model.encode, space=space)


def test_the_sum_is_that_of_the_two_unit_vectors_of_the_halves(clip, composed):
    found = embed_parts(a_task(), composed, Crew(clip.encode), MediaSettings())

    pictures = clip.encode([item.media[0] for item in composed.queries.values()], side="target")
    words = clip.encode([item.text for item in composed.queries.values()])
    assert torch.allclose(found.image, pictures, atol=1e-6)
    assert torch.allclose(found.text, words, atol=1e-6)


def test_the_sum_baseline_of_a_dual_encoder_is_its_sum_composer(clip, composed):
    result = evaluate_task(a_task(), composed, Crew(clip.encode), baselines=True)

    assert result.baselines.keys() == BASELINES.keys()
    assert result.baselines["sum"]["score"] == pytest.approx(result.score, abs=1e-6)
    assert result.baselines["sum"]["metrics"] == pytest.approx(result.metrics)


def test_a_picture_alone_finds_itself_and_the_row_decides_what_becomes_of_it(clip, composed):
    kept, removed = (
        evaluate_task(a_task(metric="hit@1", reference=what), composed, Crew(clip.encode), baselines=True)
        for what in ("kept", "removed")
    )

    assert kept.baselines["image"]["score"] == 0.0
    assert removed.reference_first == kept.reference_first
    assert removed.baselines["image"]["metrics"]["hit@5"] == 1.0


def test_nothing_is_embedded_twice(clip, composed, tmp_path):
    with counting() as without:
        evaluate_task(a_task(), composed, crew_of(clip, tmp_path))
    with counting() as added:
        first = evaluate_task(a_task(), composed, crew_of(clip, tmp_path), baselines=True)
    with counting() as again:
        second = evaluate_task(a_task(), composed, crew_of(clip, tmp_path), baselines=True)
    with counting() as together:
        evaluate_task(a_task(), composed, crew_of(clip, tmp_path / "other"), baselines=True)

    # the pictures of queries are targets of the corpus, and were embedded as such
    assert added["tower_forwards"] == 0
    assert added["language_rows"] == 2
    assert again["tower_forwards"] == again["language_rows"] == 0
    assert together["tower_forwards"] == without["tower_forwards"]
    assert first.baselines == second.baselines


def test_the_words_alone_have_none_of_the_rows_words_around_them(composed):
    seen = []

    def encode(items, *, side):
        seen.extend(items)
        return F.normalize(torch.randn(len(items), 4), dim=-1)

    task = a_task(query_text="Change it: {text}", query_instruction="Find it.", target_text="Describe it:")
    embed_parts(task, composed, Crew(encode), MediaSettings())

    assert {item.content for item in seen if not item.media} == {("redder",), ("bluer",)}
    assert all(item.instruction is None and item.layout is None for item in seen)
    # as the gallery is embedded
    assert {item.content[1] for item in seen if item.media} == {"Describe it:"}


def test_words_of_two_orders_are_averaged_in_the_baseline_too(composed):
    def encode(items, *, side):
        return torch.tensor([[1.0, 0.0] if item.text.startswith("is red") else [0.0, 1.0] for item in items])

    queries = {name: Item((*item.media, "is red", "long"), verbatim=False) for name, item in composed.queries.items()}
    data = RetrievalSet(queries, composed.corpus, composed.relevance)

    found = embed_parts(a_task(join="searle"), data, Crew(encode), MediaSettings())

    assert torch.allclose(found.text, torch.full((SIZE, 2), 0.5**0.5))


def test_queries_that_are_not_all_composed_have_no_baselines(composed, clip):
    queries = composed.queries | {"q0": Item.of("words alone")}
    mixed = RetrievalSet(queries, composed.corpus, composed.relevance)

    assert is_composed(composed)
    assert not is_composed(mixed)
    targets = torch.eye(SIZE)
    assert baseline_scores(a_task(), mixed, Crew(clip.encode), MediaSettings(), targets) == {}


BENCHMARK = """
tasks:
  composed: {data: composed, metric: hit@1, blind: [no_text]}
  pictures: {data: pictures, metric: hit@1}
"""


@pytest.fixture(scope="module")
def root(tmp_path_factory, clip):
    root = tmp_path_factory.mktemp("baselines")
    drawn.draw_gallery(root)
    (root / "toy.yaml").write_text(BENCHMARK)
    clip.save(root / "model")
    return root


def test_the_command_shows_them_under_their_task(root, tmp_path, capsys):
    places = ["--benchmark", str(root / "toy.yaml"), "--data-root", str(root / "data"), "--output", str(tmp_path)]

    assert main(["--model", str(root / "model"), *places, "--baselines"]) == 0

    scores = json.loads((tmp_path / "scores.json").read_text())
    rows = scores["tasks"]["composed"]["baselines"]
    assert rows.keys() == BASELINES.keys()
    assert all(0 <= row["score"] <= 1 and row["metrics"]["hit@1"] == row["score"] for row in rows.values())
    assert scores["tasks"]["pictures"]["baselines"] == {}
    printed = capsys.readouterr().out.splitlines()
    place = next(i for i, line in enumerate(printed) if line.strip().startswith("composed "))
    names = [line.strip().split("  ")[0] for line in printed[place + 1 : place + 4]]
    assert names == list(BASELINES.values())
    assert all(scores["tasks"]["composed"]["protocol_id"] in line for line in printed[place : place + 4])
    assert any("no baselines of pictures: not every query is a picture and words" in line for line in printed)
    assert all(f"| {name} |" in (tmp_path / "report.md").read_text() for name in names)
    assert all(name in (tmp_path / "report.html").read_text() for name in names)


def test_without_the_option_there_are_none(tmp_path):
    benchmark, places, _ = drawn.draw_gallery(tmp_path)

    page = write_report(places["output"], benchmark, data_root=places["data_root"]).read_text()

    assert "text only" not in page
    scores = drawn.scores(Benchmark("b", {"t": a_task()}), {"t": drawn.row(0.5)})
    assert "text only" not in markdown(scores, Benchmark("b", {"t": a_task()}))


def test_the_page_warns_of_queries_that_find_themselves(root, tmp_path):
    benchmark, places, _ = drawn.draw_gallery(tmp_path)
    path = places["output"] / "scores.json"
    scores = json.loads(path.read_text())
    scores["tasks"]["composed"]["reference_first"] = 0.625
    path.write_text(json.dumps(scores))

    page = write_report(places["output"], benchmark, data_root=places["data_root"]).read_text()

    assert "warning: queries find their own reference first, which the row keeps: 62.5 % in composed" in page
    assert "own reference first 62.5 %" in page
