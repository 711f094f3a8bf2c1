"""All 78 tasks of MMEB-V2, end to end: drawn and prepared miniatures, a tiny model, one command."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file

from eval.run import main
from mmembed.counters import counting
from mmembed.evaluation.benchmark import read_benchmark
from mmembed.evaluation.leaderboard import KS, METRICS, leaderboard
from mmembed.evaluation.retrieval_set import read_retrieval_set
from mmembed.media.settings import MediaSettings, UniformFrames
from mmembed.models.settings import RawPrompt
from tests.cases import small_embedder

ROOT = Path(__file__).parents[2]
PARTS = {
    "image": 36, "I-CLS": 10, "I-QA": 10, "I-RET": 12, "I-VG": 4,
    "video": 18, "V-CLS": 5, "V-QA": 5, "V-RET": 5, "V-MRET": 3,
    "visdoc": 24, "ViDoRe-V1": 10, "ViDoRe-V2": 4, "VisRAG": 6, "VisDoc-OOD": 4, "overall": 78,
}  # fmt: skip
FEW = ("VOC2007", "WebQA", "CIRR", "HMDB51", "MSVD", "QVHighlight", "MomentSeeker", "MVBench", "MMLongBench-doc")
"""Tasks of every kind of ranking and modality, whose items split unevenly over two processes."""

pytestmark = pytest.mark.acceptance


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A model that embeds as VLM2Vec-V2 does, pictures and frames as small as they come."""
    root = tmp_path_factory.mktemp("mmeb_v2")
    media = MediaSettings(alpha="drop", sampling=UniformFrames(8))
    settings = {"min_side": 28, "max_pixels": 3136, "resize": "pil", "positions": "sequential", "media": media}
    small_embedder("qwen2_vl", prompt=RawPrompt(), **settings).eval().save(root / "model")
    return root


@pytest.fixture(scope="module")
def benchmark():
    return read_benchmark(ROOT / "eval/benchmarks/mmeb_v2.yaml")


def arguments(place, output, *options, benchmark="mmeb_v2", data=("--miniature", ".")):
    *flag, root = data
    given = {"model": place / "model", "data-root": place / root, "output": place / output, "cache": place / "cache"}
    return [
        *(word for name, path in given.items() for word in (f"--{name}", str(path))),
        *("--benchmark", benchmark, *flag, *options),
    ]


def scores_of(place, output):
    return json.loads((place / output / "scores.json").read_text())


@pytest.fixture(scope="module")
def first(place):
    """The exit code and the work of the first evaluation of all tasks."""
    with counting() as work:
        return main(arguments(place, "first")), work


def test_all_78_tasks_make_a_complete_report(place, first, benchmark):
    code, work = first
    scores = scores_of(place, "first")

    assert code == 0
    assert len(benchmark.tasks) == 78
    assert list(scores["tasks"]) == list(benchmark.tasks)
    assert not scores["failed"]
    assert not scores["partial"]
    assert scores["protocol"]["miniature"]
    assert {name: (mean["tasks"], mean["of"]) for name, mean in scores["means"].items()} == {
        name: (count, count) for name, count in PARTS.items()
    }
    assert all(0 <= mean["mean"] <= 1 for mean in scores["means"].values())
    assert work["language_rows"] > 1000
    assert work["tower_forwards"] > 0
    page = (place / "first/report.html").read_text()
    assert all(name in page for name in benchmark.tasks)
    assert "mmeb_v2 (miniature)" in page
    assert {path.stem for path in (place / "first/rankings").iterdir()} == set(benchmark.tasks)


def test_the_leaderboard_has_every_key_of_the_published_schema(place, first, benchmark):
    board = leaderboard(scores_of(place, "first"), benchmark)

    assert not (place / "first/leaderboard.json").exists()  # a miniature has none to hand in
    assert {name: len(tasks) for name, tasks in board["metrics"].items()} == {"image": 36, "video": 18, "visdoc": 24}
    published = {f"{metric}@{k}" for metric in METRICS for k in KS} | {"num_pred", "num_data"}
    assert len(published) == 26
    assert all(set(row) == published for tasks in board["metrics"].values() for row in tasks.values())
    assert {"ViDoSeek-page-fixed", "MMLongBench-page-fixed"} <= set(board["metrics"]["visdoc"])
    assert set(board) == {"metadata", "metrics"}


def test_scores_are_those_of_the_vectors_counted_by_hand(place, first, benchmark):
    """Hit@1 of every image and video task, from the vectors that were written and the prepared data."""
    rows = scores_of(place, "first")["tasks"]
    counted = {}
    for name, task in benchmark.tasks.items():
        if task.metric != "hit@1":
            continue
        data = read_retrieval_set(place / "miniature" / task.data)
        vectors = load_file(place / f"first/embeddings/{name}.safetensors")
        similarity = vectors["queries"] @ vectors["targets"].T
        targets = list(data.corpus)
        hits = 0
        for row, query in enumerate(data.queries):
            own = [targets.index(target) for target in (data.candidates or {}).get(query, targets)]
            best = max(own, key=lambda column, row=row: (similarity[row, column].item(), -column))
            hits += data.relevance[query].get(targets[best], 0) > 0
        counted[name] = hits / len(data.queries)

    assert len(counted) == 54
    assert {name: rows[name]["score"] for name in counted} == pytest.approx(counted)


def test_the_second_run_costs_no_forward(place, first):
    with counting() as work:
        assert main(arguments(place, "second")) == 0

    assert work["language_rows"] == 0
    assert work["tower_forwards"] == 0
    one, two = scores_of(place, "first"), scores_of(place, "second")
    assert one["means"] == two["means"]
    assert {name: row["protocol_id"] for name, row in one["tasks"].items()} == {
        name: row["protocol_id"] for name, row in two["tasks"].items()
    }


def test_two_processes_with_uneven_shards_give_the_same_scores(place, first):
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", str(ROOT / "eval/run.py")]
    options = arguments(place, "two", "--tasks", ",".join(FEW))
    options[options.index("--cache") + 1] = str(place / "cache_of_two")

    done = subprocess.run(
        [*launcher, *options], cwd=place, capture_output=True, text=True, check=False,
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
    )  # fmt: skip

    assert done.returncode == 0, done.stderr[-3000:]
    one, two = scores_of(place, "first")["tasks"], scores_of(place, "two")["tasks"]
    assert set(two) == set(FEW)
    assert any(row[side] % 2 for row in two.values() for side in ("queries", "corpus"))
    for name in FEW:
        assert {key: two[name][key] for key in ("score", "metrics", "protocol_id")} == {
            key: one[name][key] for key in ("score", "metrics", "protocol_id")
        }, name
    # each shard into the cache once: nothing was embedded by both
    files = list((place / "cache_of_two").glob("*/*.safetensors"))
    keys = [key for file in files for key in map(bytes, load_file(file)["keys"].numpy())]
    assert len(keys) == len(set(keys))


def test_a_task_without_its_frames_fails_alone_and_prepared_miniatures_count_in_no_mean(place, first, capsys):
    data = read_retrieval_set(place / "miniature/mmeb_v2_video/EgoSchema")
    frames = Path(data.queries["q1"].media[0].source).resolve()
    away = frames.with_name("away")
    frames.rename(away)
    try:
        code = main(arguments(place, "failed", data=("miniature",)))
    finally:
        away.rename(frames)

    said = capsys.readouterr()
    assert code == 1
    assert "partial (0 of 78)" in said.out
    assert "77 tasks on parts of their data, which no mean counts: " in " ".join(said.out.split())
    assert "failed: 1 of 78 tasks: EgoSchema" in said.err
    scores = scores_of(place, "failed")
    assert list(scores["failed"]) == ["EgoSchema"]
    assert frames.name in scores["failed"]["EgoSchema"]
    assert scores["partial"]
    assert {row["part"] for row in scores["tasks"].values()} == {"a miniature"}
    assert scores["means"]["overall"] == {"mean": None, "tasks": 0, "of": 78}
    assert not (place / "failed/leaderboard.json").exists()
    board = leaderboard(scores, read_benchmark(ROOT / "eval/benchmarks/mmeb_v2.yaml"))
    assert board["metrics"]["video"]["EgoSchema"] == "FILE_N/A"


def test_the_older_prompts_are_those_of_the_pages_alone(place, first, benchmark):
    assert main(arguments(place, "older", "--modality", "visdoc", "--prompts", "2025-06")) == 0

    older, ours = scores_of(place, "older")["tasks"], scores_of(place, "first")["tasks"]
    assert len(older) == 24
    changed = {name for name, row in older.items() if row["protocol_id"] != ours[name]["protocol_id"]}
    assert changed == {name for name in older if not name.startswith("VisRAG")}


def test_what_is_evaluated_beside_the_78_tasks_runs_too(place):
    extra = read_benchmark(ROOT / "eval/benchmarks/mmeb_v2_extra.yaml")

    assert main(arguments(place, "beside", benchmark="mmeb_v2_extra")) == 0

    scores = scores_of(place, "beside")
    assert set(scores["tasks"]) == set(extra.tasks)
    assert {"ViDoSeek-page-2025-06", "MMLongBench-page-2025-06", "MomentSeeker_1k8"} <= set(extra.tasks)
