"""eval/run.py from a saved model to scores and report."""

import json
import math
from dataclasses import replace

import pytest

from data_prep.demo import Sizes, make_demo
from data_prep.engine.preparation import prepare
from data_prep.miniatures.draw import draw_source
from data_prep.source import read_source
from eval.choices import chosen
from eval.run import find_benchmark, main, make_parser
from mmembed.models.settings import RawPrompt, TextRegions

TASKS = (
    *("image_to_caption", "caption_to_image", "question", "video_to_caption"),
    *("caption_to_video", "region_to_label", "words_to_page", "composed"),
)
ROW = {
    *("metric", "score", "interval", "chance", "blind", "blinds", "metrics", "groups", "macro", "candidate_groups"),
    *("queries", "corpus", "dimension", "seconds", "part", "protocol_id"),
}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    make_demo(root / "demo", 0, Sizes(singles=1, pairs=1, clips=1, pages=8, tests=8))
    return root


@pytest.fixture
def evaluate(data, tmp_path, scratch_embedder):
    made = scratch_embedder("qwen2_vl", prompt=RawPrompt(suffix="<|im_end|>"), regions=TextRegions(scale=16))
    made.save(tmp_path / "model")

    def run(*more, model=tmp_path / "model"):
        arguments = ["--benchmark", "demo", "--data-root", str(data), "--output", str(tmp_path / "out"), *more]
        return main(["--model", str(model), *arguments])

    return run


def test_scores_have_the_promised_form(evaluate, tmp_path, capsys):
    assert evaluate() == 0

    scores = json.loads((tmp_path / "out/scores.json").read_text())
    assert scores.keys() == {"protocol", "tasks", "means", "failed", "partial", "about"}
    assert scores["means"]["overall"]["tasks"] == len(TASKS)
    assert {"python", "torch", "transformers", "commit"} <= scores["about"]["versions"].keys()
    assert scores["about"]["settings"]["prompt"]["class_path"] == "RawPrompt"
    assert not (tmp_path / "out/leaderboard.json").exists()  # the demo has no modalities
    assert scores["failed"] == {}
    assert scores["protocol"]["model"] == str(tmp_path / "model")
    assert scores["protocol"]["benchmark"] == "demo"
    assert scores["partial"] is False
    assert tuple(scores["tasks"]) == TASKS
    for name, task in scores["tasks"].items():
        assert task.keys() == ROW
        assert task["metric"] == "hit@1"
        assert task["score"] == task["metrics"]["hit@1"]
        assert all(0 <= task[key] <= 1 and math.isfinite(task[key]) for key in ("score", "chance", "blind"))
        assert (tmp_path / "out/rankings" / f"{name}.jsonl").is_file()
        assert task["protocol_id"] == scores["protocol"]["tasks"][name]["id"]
    assert [scores["tasks"][name]["queries"] for name in TASKS] == [8] * 8
    assert scores["tasks"]["question"]["corpus"] == 7
    assert "image_to_caption" in (printed := capsys.readouterr().out)
    assert str(tmp_path / "out/report.html") in printed
    assert (tmp_path / "out/report.html").is_file()


def test_a_part_of_the_tasks_is_marked_partial(evaluate, tmp_path):
    assert evaluate("--tasks", "question") == 0

    scores = json.loads((tmp_path / "out/scores.json").read_text())
    assert scores["partial"] is True
    assert list(scores["tasks"]) == ["question"]


def test_a_checkpoint_without_settings_needs_a_profile(evaluate, golden, tmp_path, capsys):
    assert evaluate("--tasks", "question", model=golden / "vlm2vec/qwen2_vl") == 2
    error = capsys.readouterr().err
    assert "expected embedder.yaml beside the weights, got none; name a profile" in error

    base, adapter = golden / "vlm2vec/qwen2_vl", str(golden / "vlm2vec/qwen2_vl_lora")
    assert evaluate("--tasks", "question", "--profile", "vlm2vec", model=base) == 0
    assert evaluate("--tasks", "question", "--profile", "vlm2vec", "--adapter", adapter, model=base) == 0
    assert list(json.loads((tmp_path / "out/scores.json").read_text())["tasks"]) == ["question"]


def test_tasks_whose_data_are_not_there_fail_alone_and_end_the_command_with_1(evaluate, data, tmp_path, capsys):
    (tmp_path / "part/demo/test").mkdir(parents=True)
    (tmp_path / "part/demo/test/question").symlink_to(data / "demo/test/question")

    assert evaluate("--data-root", str(tmp_path / "part")) == 1

    scores = json.loads((tmp_path / "out/scores.json").read_text())
    assert list(scores["tasks"]) == ["question"]
    assert set(scores["failed"]) == set(TASKS) - {"question"}
    assert str(tmp_path / "part/demo/test/composed") in scores["failed"]["composed"]
    assert scores["partial"] is True
    printed = capsys.readouterr()
    assert all(name in printed.out for name in TASKS)
    assert printed.err.endswith(f"failed: 7 of 8 tasks: {', '.join(scores['failed'])}\n")


def test_a_quick_look_is_marked(evaluate, tmp_path, capsys):
    assert evaluate("--quick", "3") == 0

    scores = json.loads((tmp_path / "out/scores.json").read_text())
    assert scores["protocol"]["quick"]["queries"] == 3
    assert {task["queries"] for task in scores["tasks"].values()} == {3}
    assert scores["partial"] is True
    assert "quick" in capsys.readouterr().out


def test_an_entry_of_expected_scores_stands_beside_ours(evaluate, capsys):
    assert evaluate("--tasks", "question", "--expected", "demo") == 0

    assert "published" in capsys.readouterr().out


def test_an_unknown_entry_ends_the_command_before_the_model_is_loaded(evaluate, tmp_path, capsys):
    assert evaluate("--expected", "dem", model=tmp_path / "nowhere") == 2

    assert "did you mean 'demo'?" in capsys.readouterr().err


ROWS = """
tasks:
  question:
    data: demo/test/question
    metric: hit@1
    modality: image
    category: QA
    prompts: new
    wordings: {old: {query_instruction: "Say:"}}
  graded: {data: demo/test/composed, metric: ndcg_linear@5, modality: image}
  clips: {data: mmeb_eval/OK-VQA, metric: hit@1, modality: video}
"""


@pytest.fixture
def rows(tmp_path):
    path = tmp_path / "rows.yaml"
    path.write_text(ROWS)
    return str(path)


def test_a_modality_is_scored_alone_and_has_its_mean(evaluate, rows, tmp_path, capsys):
    assert evaluate("--benchmark", rows, "--modality", "image") == 0

    scores = json.loads((tmp_path / "out/scores.json").read_text())
    assert list(scores["tasks"]) == ["question", "graded"]
    assert scores["partial"] is True
    assert scores["means"]["image"]["mean"] is not None
    assert scores["means"]["overall"] == {"mean": None, "tasks": 2, "of": 3}
    board = json.loads((tmp_path / "out/leaderboard.json").read_text())
    assert board["metrics"]["image"]["question"]["hit@1"] == scores["tasks"]["question"]["score"]
    assert board["metrics"]["video"] == {"clips": "FILE_N/A"}
    assert board["metadata"]["embedding_dimension"] == scores["tasks"]["question"]["dimension"]
    printed = capsys.readouterr().out
    assert "partial (2 of 3)" in printed
    assert "leaderboard.json" in printed


def test_prompts_and_the_ndcg_fault_reach_the_protocol(evaluate, rows, tmp_path):
    options = ("--benchmark", rows, "--modality", "image", "--prompts", "old", "--ndcg-fault", "0")
    assert evaluate(*options) == 0

    protocols = json.loads((tmp_path / "out/scores.json").read_text())["protocol"]["tasks"]
    assert (protocols["question"]["prompts"], protocols["question"]["query_instruction"]) == ("old", "Say:")
    assert protocols["graded"]["prompts"] == "1"
    assert protocols["graded"]["ndcg_fault_seed"] is None  # its grades do not differ: the fault changes nothing


def test_the_ndcg_fault_reaches_the_chosen_tasks_alone(rows):
    options = ["--model", "m", "--benchmark", rows, "--output", "out", "--ndcg-fault", "7"]

    benchmark, tasks = chosen(find_benchmark(rows), make_parser().parse_args([*options, "--tasks", "graded"]))

    assert tasks == ["graded"]
    assert [benchmark.tasks[name].ndcg_fault_seed for name in ("question", "graded")] == [None, 7]


def test_data_that_are_not_there_name_the_line_that_prepares_them(evaluate, rows, tmp_path):
    assert evaluate("--benchmark", rows, "--tasks", "question,clips") == 1

    failed = json.loads((tmp_path / "out/scores.json").read_text())["failed"]
    assert list(failed) == ["clips"]
    assert "; run\n  python data_prep/prepare.py mmeb_eval/OK-VQA --data-root " in failed["clips"]


@pytest.mark.parametrize(
    ("options", "lines"),
    [
        (("--modality", "image"), ["mmeb"]),
        (("--tasks", "OK-VQA,K700"), ["mmeb_eval/OK-VQA mmeb_v2_video/K700"]),
        (("--tasks", "K700"), ["mmeb_v2_video/K700"]),
        ((), ["mmeb_v2"]),
    ],
)
def test_without_any_data_no_model_is_opened(evaluate, options, lines, tmp_path, capsys):
    benchmark = "mmeb" if "--modality" in options else "mmeb_v2"
    data = ("--data-root", str(tmp_path / "not here"))

    assert evaluate("--benchmark", benchmark, *data, *options, model=tmp_path / "nowhere") == 2

    error = capsys.readouterr().err
    said = [line.split("prepare.py ")[1].split(" --data-root ") for line in error.splitlines() if "prepare.py" in line]
    assert said == [[line, f"'{tmp_path / 'not here'}'"] for line in lines]
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (("--modality", "vidoe"), "modality: expected a modality of mmeb_v2, got 'vidoe'; did you mean 'video'?"),
        (("--prompts", "2025-6"), "of the prompts that one of the tasks has, got '2025-6'; did you mean"),
        (
            ("--modality", "image", "--tasks", "OK-VQA,K700"),
            "--modality image --tasks: expected tasks on image, got K700, which is on video; leave them out",
        ),
        (("--modality", "image", "--tasks", "K70"), "expected a task of mmeb_v2, got 'K70'; did you mean 'K700'?"),
        (("--modality", "image", "--prompts", "2025-06"), "that one of the tasks has, got '2025-06'; known: 1"),
        (("--modality", "image", "--ndcg-fault", "0"), "expected a task with a graded metric, got none"),
        (("--miniature", "--expected", "vlm2vec_v2_2b"), "--expected: expected real data, got --miniature"),
        (("--leaderboard", "none.yaml"), "none.yaml: expected a readable YAML file"),
    ],
)
def test_wrong_choices_are_named(evaluate, options, complaint, tmp_path, capsys):
    assert evaluate("--benchmark", "mmeb_v2", *options, model=tmp_path / "nowhere") == 2

    assert complaint in capsys.readouterr().err


METADATA = "model_name: Mine\n"


@pytest.mark.parametrize(
    ("options", "got"),
    [
        (("--quick", "3"), "--quick"),
        (("--miniature",), "--miniature"),
        (("--benchmark", "demo"), "demo, whose rows have no modality"),
        (("--modality", "video"), "parts of the data of clips"),
    ],
)
def test_metadata_of_a_leaderboard_that_will_not_be_written_are_refused(evaluate, rows, options, got, tmp_path, capsys):
    (tmp_path / "mine.yaml").write_text(METADATA)
    (tmp_path / "limited").mkdir()
    limit(tmp_path / "limited")
    data = ("--data-root", str(tmp_path / "limited"), "--leaderboard", str(tmp_path / "mine.yaml"))

    assert evaluate("--benchmark", rows, *data, *options, model=tmp_path / "nowhere") == 2

    assert f"--leaderboard: expected an evaluation that writes leaderboard.json, got {got};" in capsys.readouterr().err


def limit(data_root):
    """The first two rows of a miniature, as prepare.py leaves them under a limit."""
    source = read_source("mmeb_eval")
    one = replace(source, sets={"OK-VQA": source.sets["OK-VQA"]})
    draw_source(one, data_root / "copies")
    prepare(one, data_root, copies=data_root / "copies", limit=2)


def test_data_prepared_with_a_limit_are_marked_and_make_no_leaderboard(evaluate, rows, tmp_path, capsys):
    limit(tmp_path / "limited")

    assert evaluate("--benchmark", rows, "--tasks", "clips", "--data-root", str(tmp_path / "limited")) == 0

    scores = json.loads((tmp_path / "out/scores.json").read_text())
    assert "2 rows" in scores["tasks"]["clips"]["part"]
    assert scores["partial"] is True
    assert scores["means"]["video"] == {"mean": None, "tasks": 0, "of": 1}
    assert not (tmp_path / "out/leaderboard.json").exists()
    said = "1 task on a part of its data, which no mean counts: clips: "
    assert said in " ".join(capsys.readouterr().out.split())
    assert said in (tmp_path / "out/report.md").read_text()
    assert said in (tmp_path / "out/report.html").read_text()


def test_a_miniature_is_drawn_and_marked(evaluate, tmp_path, capsys):
    data = ("--data-root", str(tmp_path / "data"))

    assert evaluate("--benchmark", "mmeb", "--tasks", "OK-VQA,WebQA", "--miniature", *data) == 0

    assert (tmp_path / "data/miniature/mmeb_eval/manifest.json").is_file()
    scores = json.loads((tmp_path / "out/scores.json").read_text())
    assert scores["protocol"]["miniature"] is True
    assert scores["protocol"]["chosen"] == ["OK-VQA", "WebQA"]
    assert {row["part"] for row in scores["tasks"].values()} == {None}
    assert not (tmp_path / "out/leaderboard.json").exists()
    assert "mmeb (miniature): " in capsys.readouterr().out


def test_a_miniature_of_what_is_no_source_is_refused(evaluate, tmp_path, capsys):
    assert evaluate("--miniature", model=tmp_path / "nowhere") == 2

    assert "--miniature: expected data of a source, got demo/test/" in capsys.readouterr().err


def test_a_task_without_data_does_not_keep_the_others_from_being_explained(evaluate, rows, capsys):
    assert evaluate("--benchmark", rows, "--why-not-cached") == 1

    printed = capsys.readouterr()
    assert "question" in printed.out and "graded" in printed.out
    assert "failed: clips: " in printed.err


def test_a_setting_that_the_model_lacks_is_named(evaluate, capsys):
    assert evaluate("--num-crops", "4") == 2

    assert "num_crops" in capsys.readouterr().err


def test_workers_do_not_change_the_scores(evaluate, tmp_path):
    found = []
    for workers in ("0", "2"):
        assert evaluate("--tasks", "question", "--cache-gb", "0", "--workers", workers) == 0
        found.append(json.loads((tmp_path / "out/scores.json").read_text())["tasks"]["question"]["metrics"])

    assert found[0] == found[1]
