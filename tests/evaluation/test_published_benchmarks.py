"""The benchmarks of eval/ as they were published, and the published scores of three models."""

import json
from pathlib import Path

import pytest

from mmembed.evaluation.benchmark import read_benchmark
from mmembed.evaluation.expected import compare, find_entry
from mmembed.evaluation.means import compare_means, means
from tests.evaluation import drawn

ROOT = Path(__file__).parents[2]
PUBLISHED = json.loads((ROOT / "tests/golden/mmeb/scores.json").read_text())
MODELS = tuple(PUBLISHED["scores"])
SIZES = {
    "image": 36, "I-CLS": 10, "I-QA": 10, "I-RET": 12, "I-VG": 4,
    "video": 18, "V-CLS": 5, "V-QA": 5, "V-RET": 5, "V-MRET": 3,
    "visdoc": 24, "ViDoRe-V1": 10, "ViDoRe-V2": 4, "VisRAG": 6, "VisDoc-OOD": 4, "overall": 78,
}  # fmt: skip


def benchmark(name="mmeb_v2"):
    return read_benchmark(ROOT / f"eval/benchmarks/{name}.yaml")


def published(model):
    """The scores of a model by task, as the report of 2025-06-28 has them."""
    return {name: score for part in PUBLISHED["scores"][model].values() for name, score in part.items()}


def evaluated(scores, rows):
    """scores.json of an evaluation that found these."""
    tasks = {name: drawn.row(score, metric=rows.tasks[name].metric) for name, score in scores.items()}
    return drawn.scores(rows, tasks)


def test_the_tasks_are_those_of_the_published_reports_in_their_order():
    found = benchmark()

    assert list(found.tasks) == list(published(MODELS[0]))
    assert {name: len(tasks) for name, tasks in found.parts.items()} == SIZES
    assert list(benchmark("mmeb").tasks) == list(found.of_modality("image").tasks)
    assert not set(benchmark("mmeb_v2_extra").tasks) & set(found.tasks)


def test_what_a_task_ranks_and_is_scored_by_is_its_kinds():
    found = benchmark().tasks

    assert {task.metric for task in found.values() if task.modality == "visdoc"} == {"ndcg_linear@5"}
    assert {task.metric for task in found.values() if task.modality != "visdoc"} == {"hit@1"}
    shared = {name for name, task in found.items() if task.candidates == "shared"}
    pages = {name for name, task in found.items() if task.modality == "visdoc"}
    assert shared - pages == {"K700", "HMDB51", "UCF101", "Breakfast", "DiDeMo", "MSR-VTT", "MSVD", "VATEX", "YouCook2"}
    assert pages <= shared
    folders = {"image": "mmeb_eval", "video": "mmeb_v2_video", "visdoc": "visdoc"}
    assert all(task.data == f"{folders[task.modality]}/{name}" for name, task in found.items())


def test_the_published_averages_follow_from_the_published_scores():
    for model in MODELS:
        found = means(published(model), benchmark())
        averages = PUBLISHED["averages"][model]

        assert list(found) == list(SIZES)
        assert averages.keys() == SIZES.keys()
        for name, average in averages.items():
            digits = 2 if name in ("image", "video", "visdoc", "overall") else 1
            assert 100 * found[name].mean == pytest.approx(average, abs=0.51 * 10**-digits), (model, name)
    best = {name: round(100 * mean.mean, 2) for name, mean in means(published("vlm2vec_v2_2b"), benchmark()).items()}
    assert [best[name] for name in ("overall", "image", "video", "visdoc")] == [58.02, 64.85, 34.58, 65.36]


@pytest.mark.parametrize("model", MODELS)
def test_expected_scores_are_the_published_ones(model):
    entry = find_entry(ROOT / "eval/expected", benchmark(), model)

    assert {name: score.score for name, score in entry.scores.items()} == {
        name: pytest.approx(score, abs=5.1e-5) for name, score in published(model).items()
    }
    assert entry.source == f"all_scores/v2.0.0/{PUBLISHED['names'][model]}.json, 2025-06-28"
    assert entry.tolerance == 0.02
    assert entry.mean_tolerances == {"image": 0.003, "video": 0.005, "visdoc": 0.005, "overall": 0.005}
    image = find_entry(ROOT / "eval/expected", benchmark("mmeb"), model)
    assert image.scores.items() <= entry.scores.items()
    assert len(image.scores) == 36


@pytest.mark.parametrize("model", MODELS)
def test_older_sets_have_the_scores_that_were_published_under_the_new_names(model):
    old = find_entry(ROOT / "eval/expected", benchmark("mmeb_v2_extra"), model).scores
    renamed = {"ViDoSeek-page-2025-06": "ViDoSeek-page", "MMLongBench-page-2025-06": "MMLongBench-page"}
    renamed["MomentSeeker_1k8"] = "MomentSeeker"

    assert {name: score.score for name, score in old.items()} == {
        name: pytest.approx(published(model)[new], abs=5.1e-5) for name, new in renamed.items()
    }


def test_what_was_measured_otherwise_is_not_compared_and_the_means_leave_it_out():
    rows = benchmark()
    scores = evaluated(published(MODELS[0]), rows)
    entry = find_entry(ROOT / "eval/expected", rows, MODELS[0])

    compared = compare(scores, entry, rows)
    found = {mean.task: mean for mean in compare_means(scores, compared, entry, rows)}

    differ = {name for name, row in compared.items() if row.verdict == "differs"}
    v2 = set(rows.parts["ViDoRe-V2"])
    assert differ == v2 | {"ViDoSeek-page", "MMLongBench-page", "MomentSeeker"}
    assert {row.verdict for name, row in compared.items() if name not in differ} == {"ok"}
    assert {name: mean.metric for name, mean in found.items() if " of " in mean.metric[8:]} == {
        "video": "mean of 17 of 18", "V-MRET": "mean of 2 of 3", "visdoc": "mean of 18 of 24",
        "ViDoRe-V2": "mean of 0 of 4", "VisDoc-OOD": "mean of 2 of 4", "overall": "mean of 71 of 78",
    }  # fmt: skip
    assert {mean.verdict for name, mean in found.items() if name != "ViDoRe-V2"} == {"ok"}
    assert found["ViDoRe-V2"].verdict == "differs"


def test_the_older_prompts_are_compared_with_what_was_published_under_them():
    rows = benchmark()
    scores = evaluated(published(MODELS[0]), rows.worded("2025-06"))
    entry = find_entry(ROOT / "eval/expected", rows, MODELS[0])

    verdicts = {name: row.verdict for name, row in compare(scores, entry, rows).items()}

    assert {verdicts[name] for name in rows.parts["ViDoRe-V2"]} == {"ok"}
    assert {verdicts[name] for name in rows.parts["ViDoRe-V1"]} == {"other protocol"}
    assert {verdicts[name] for name in rows.parts["VisRAG"]} == {"ok"}


def test_force_compares_all_and_reaches_the_published_means():
    rows = benchmark()
    entry = find_entry(ROOT / "eval/expected", rows, MODELS[0])

    scores = evaluated(published(MODELS[0]), rows)

    found = compare_means(scores, compare(scores, entry, rows, force=True), entry, rows)

    assert {mean.verdict for mean in found} == {"ok"}
    assert {mean.task: round(100 * mean.ours, 2) for mean in found}["overall"] == 58.02
    assert {mean.task: mean.tolerance for mean in found if not mean.task.startswith(("I-", "V-", "Vi"))} == {
        "image": 0.003, "video": 0.005, "visdoc": 0.005, "overall": 0.005,
    }  # fmt: skip


@pytest.mark.parametrize("model", [name for name in MODELS if name.startswith("vlm2vec_qwen2vl")])
def test_what_the_first_checkpoints_saw_otherwise_is_not_compared(model):
    rows = benchmark()
    entry = find_entry(ROOT / "eval/expected", rows, model)

    compared = compare(evaluated(published(model), rows), entry, rows)

    why = {compared[name].why for name in rows.parts["V-QA"]}
    assert (why, len(rows.parts["V-QA"])) == ({"frames not made squares"}, 5)
    assert {compared[name].verdict for name in rows.parts["V-CLS"]} == {"ok"}
    assert sum(row.verdict == "differs" for row in compared.values()) == 7 + 5


@pytest.mark.parametrize("model", ["gme_2b", "gme_7b", "lamra_7b", "lamra_qwen25_7b"])
def test_models_that_were_shown_one_frame_of_a_clip_are_not_compared_on_clips(model):
    rows = benchmark()
    entry = find_entry(ROOT / "eval/expected", rows, model)

    compared = compare(evaluated(published(model), rows), entry, rows)

    assert {compared[name].why for name in rows.parts["video"]} == {"one frame of each clip"}
    assert {compared[name].verdict for name in rows.parts["image"]} == {"ok"}


def test_the_sets_that_were_corrected_later_are_compared_with_what_was_published_of_them():
    rows = benchmark()
    entry = find_entry(ROOT / "eval/expected", rows, "vlm2vec_v2_2b_corrected")
    scores = evaluated({"MomentSeeker": 0.42884, "ViDoSeek-page": 0.80297, "MMLongBench-page": 0.44704}, rows)

    assert {row.verdict for row in compare(scores, entry, rows).values()} == {"ok"}
    assert set(entry.scores) == {"MomentSeeker", "ViDoSeek-page", "MMLongBench-page"}
    old = find_entry(ROOT / "eval/expected", rows, MODELS[0]).scores
    assert all(old[name].differs for name in entry.scores)
