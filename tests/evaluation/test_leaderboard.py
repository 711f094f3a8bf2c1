"""leaderboard.json has the keys of the published reports."""

import json
from datetime import datetime
from pathlib import Path

import pytest

from mmembed.errors import InputError
from mmembed.evaluation.benchmark import Benchmark, Task, read_benchmark
from mmembed.evaluation.leaderboard import Metadata, leaderboard, read_metadata, write_leaderboard
from tests.evaluation import drawn

ROOT = Path(__file__).parents[2]
PUBLISHED = json.loads((ROOT / "tests/golden/mmeb/scores.json").read_text())
SAMPLE = PUBLISHED["leaderboard_sample"]
TASKS = {
    "ImageNet-1K": Task("ImageNet-1K", "x", "hit@1", modality="image"),
    "K700": Task("K700", "x", "hit@1", modality="video"),
    "pages": Task("pages", "x", "ndcg_linear@5", modality="visdoc", published_as="pages-fixed"),
    "other": Task("other", "x", "hit@1"),
}
BENCHMARK = Benchmark("toy", TASKS)


def measured(values, queries):
    """A row whose metrics are those of a published report, and more that no report has."""
    metrics = {name: value for name, value in values.items() if not name.startswith("num_")}
    return drawn.row(values["hit@1"], metrics={**metrics, "map_all@5": 0.1, "ndcg_binary@5": 0.2}, queries=queries)


def test_a_published_report_comes_back_from_its_numbers():
    image = SAMPLE["metrics"]["image"]["ImageNet-1K"]
    scores = drawn.scores(BENCHMARK, {"ImageNet-1K": measured(image, image["num_data"])})

    found = leaderboard(scores, BENCHMARK)

    assert found.keys() == SAMPLE.keys()
    assert found["metrics"].keys() == SAMPLE["metrics"].keys()
    assert list(found["metrics"]["image"]["ImageNet-1K"].items()) == list(image.items())
    assert SAMPLE["metadata"].keys() <= found["metadata"].keys()


def test_what_has_no_score_is_named_as_the_published_script_names_it():
    found = leaderboard(drawn.scores(BENCHMARK, {}), BENCHMARK)["metrics"]

    assert found == {
        "image": {"ImageNet-1K": "FILE_N/A"}, "video": {"K700": "FILE_N/A"}, "visdoc": {"pages-fixed": "FILE_N/A"},
    }  # fmt: skip


def test_the_whole_benchmark_has_the_published_names():
    benchmark = read_benchmark(ROOT / "eval/benchmarks/mmeb_v2.yaml")

    found = leaderboard(drawn.scores(benchmark, {}), benchmark)["metrics"]

    published = PUBLISHED["scores"]["vlm2vec_v2_2b"]
    fixed = {"ViDoSeek-page": "ViDoSeek-page-fixed", "MMLongBench-page": "MMLongBench-page-fixed"}
    for modality, names in published.items():
        assert list(found[modality]) == [fixed.get(name, name) for name in names]


def test_metadata_say_what_is_known_and_null_elsewhere():
    scores = drawn.scores(BENCHMARK, {"K700": drawn.row(0.5, metrics=metrics_of(), dimension=1536)})

    found = leaderboard(scores, BENCHMARK, now=datetime(2026, 1, 2))["metadata"]

    assert found == {
        "model_name": "runs/drawn/final",
        "model_backbone": None,
        "model_size": None,
        "embedding_dimension": 1536,
        "max_length_tokens": None,
        "model_release_date": None,
        "data_source": "Self-Reported",
        "url": None,
        "report_generated_date": "2026-01-02T00:00:00",
    }


def metrics_of():
    return {name: value for name, value in SAMPLE["metrics"]["video"]["K700"].items() if not name.startswith("num_")}


def test_metadata_are_read_from_a_file(tmp_path):
    path = tmp_path / "model.yaml"
    path.write_text(
        "model_name: Mine-2B\nmodel_size: 2B parameters\nembedding_dimension: 8\nurl: https://example.org\n"
    )

    metadata = read_metadata(path)

    assert metadata == Metadata("Mine-2B", None, "2B parameters", 8, url="https://example.org")
    shown = leaderboard(drawn.scores(BENCHMARK, {}), BENCHMARK, metadata)["metadata"]
    assert (shown["model_name"], shown["embedding_dimension"]) == ("Mine-2B", 8)
    path.write_text("model_nam: Mine-2B\n")
    with pytest.raises(InputError, match=r"model.yaml.*model_nam.* did you mean 'model_name'\?"):
        read_metadata(path)


def test_it_is_written_for_whole_evaluations_of_modalities(tmp_path):
    content = drawn.scores(BENCHMARK, {"K700": drawn.row(0.5, metrics=metrics_of())})
    drawn.write_evaluation(tmp_path, content, {})

    path = write_leaderboard(tmp_path, BENCHMARK, Metadata(model_name="Mine"))

    assert path == tmp_path / "leaderboard.json"
    written = json.loads(path.read_text())
    assert written["metadata"]["model_name"] == "Mine"
    assert written["metrics"]["video"]["K700"]["num_pred"] == 200


@pytest.mark.parametrize("change", ["quick", "no modality", "part", "miniature"])
def test_an_earlier_one_does_not_stay_beside_scores_that_have_none(tmp_path, change):
    benchmark = BENCHMARK.only(["other"]) if change == "no modality" else BENCHMARK
    quick = {"queries": 5, "seed": 0} if change == "quick" else None
    row = drawn.row(0.5, metrics=metrics_of(), part="only the first 3 rows" if change == "part" else None)
    tasks = {} if change == "no modality" else {"K700": row}
    content = drawn.scores(benchmark, tasks, quick=quick, miniature=change == "miniature")
    drawn.write_evaluation(tmp_path, content, {})
    (tmp_path / "leaderboard.json").write_text("{}")

    assert write_leaderboard(tmp_path, benchmark) is None
    assert not (tmp_path / "leaderboard.json").exists()
