"""A benchmark leaves whole files, whatever becomes of single tasks."""

import json
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, safe_open

from mmembed.counters import counting
from mmembed.errors import InputError
from mmembed.evaluation.benchmark import Benchmark
from mmembed.evaluation.crew import Crew
from mmembed.evaluation.protocol import FIELDS, OF_COMPOSED, OF_FORM, protocol_id
from mmembed.evaluation.rankings import read_rankings
from mmembed.evaluation.retrieval_set import Sample, read_retrieval_set
from mmembed.evaluation.runner import Evaluation, evaluate_benchmark
from mmembed.index.embedding_cache import EmbeddingCache
from tests.evaluation import toy

ROW = {
    *("metric", "score", "interval", "chance", "blind", "blinds", "metrics", "groups", "macro", "candidate_groups"),
    *("queries", "corpus", "dimension", "seconds", "part", "protocol_id"),
}


@pytest.fixture
def root(tmp_path):
    toy.write_texts(tmp_path / "data/few", 7)
    toy.write_texts(tmp_path / "data/many", 20)
    return tmp_path


def toy_benchmark(*names):
    return Benchmark("toy", {name: toy.text_task(name) for name in names or ("few", "many")})


def run(root, benchmark=None, crew=None, tasks=None, **fields):
    evaluation = Evaluation(benchmark or toy_benchmark(), root / "data", root / "out", "toy model", **fields)
    return evaluate_benchmark(evaluation, crew or Crew(toy.encode), tasks)


def test_a_benchmark_leaves_scores_rankings_and_embeddings(root):
    scores = run(root, identity="abc")

    assert json.loads((root / "out/scores.json").read_text()) == json.loads(json.dumps(scores))
    assert scores.keys() == {"protocol", "tasks", "means", "failed", "partial", "about"}
    assert (scores["partial"], scores["failed"]) == (False, {})
    assert (scores["protocol"]["model"], scores["protocol"]["identity"]) == ("toy model", "abc")
    row = scores["tasks"]["few"]
    assert row.keys() == ROW
    assert (row["metric"], row["queries"], row["corpus"], row["dimension"]) == ("mrr@10", 7, 7, 16)
    timings = dict(scores["about"]["timings"]["few"])
    assert timings.keys() == {"read", "embed", "rank", "score"}
    assert sum(timings.values()) - timings["read"] == pytest.approx(row["seconds"], abs=2e-3)
    assert row["score"] == row["metrics"]["mrr@10"]
    assert row["interval"][0] <= row["score"] <= row["interval"][1]
    assert row["blind"] == row["blinds"]["shuffle_words"]
    rankings = read_rankings(root / "out/rankings/few.jsonl")
    assert len(rankings) == 7
    assert sum(1 / r.first_hit for r in rankings) / 7 == pytest.approx(row["score"])
    assert load_file(root / "out/embeddings/few.safetensors")["queries"].shape == (7, 16)
    with safe_open(root / "out/embeddings/few.safetensors", "pt") as file:
        assert json.loads(file.metadata()["target_ids"]) == [f"d{i}" for i in range(7)]


def test_the_protocol_of_each_task_has_the_id_beside_its_score(root, caplog):
    caplog.set_level("INFO")
    scores = run(root)
    assert (
        f"few: mrr@10 {100 * scores['tasks']['few']['score']:.1f}, protocol {scores['tasks']['few']['protocol_id']}"
        in (caplog.text)
    )

    named = scores["protocol"]["tasks"]["few"]
    assert named["id"] == scores["tasks"]["few"]["protocol_id"]
    assert named["revision"] == read_retrieval_set(root / "data/few").fingerprint()
    assert named["blind"] == ("shuffle_words",)
    # the form of regions is a part only where it is another one than theirs, and so is what composed queries are asked
    decides = {name: named[name] for name in FIELDS if name not in (*OF_FORM, *OF_COMPOSED, "references")}
    assert protocol_id(decides) == named["id"]


def test_groups_of_queries_have_scores_of_their_own_and_a_mean(root):
    aspects = [["a"], ["a", "b"], ["b"], [], ["a"], ["b"], ["b"]]
    rows = [{"query_id": f"q{i}", "groups": {"aspect": own}} for i, own in enumerate(aspects)]
    toy.write_rows(root / "data/few/groups.jsonl", rows)
    macro = toy.Task(name="macro", data="few", metric="mrr@10", macro="aspect")

    scores = run(root, Benchmark("toy", {"few": toy.text_task("few"), "macro": macro}))["tasks"]

    ranks = [ranking.first_hit for ranking in read_rankings(root / "out/rankings/few.jsonl")]
    means = {
        name: sum(1 / ranks[i] for i, own in enumerate(aspects) if name in own) / sum(name in own for own in aspects)
        for name in "ab"
    }
    assert {name: group["score"] for name, group in scores["few"]["groups"]["aspect"].items()} == pytest.approx(means)
    assert [group["queries"] for group in scores["few"]["groups"]["aspect"].values()] == [3, 4]
    assert scores["few"]["macro"]["aspect"] == scores["macro"]["score"] == pytest.approx(sum(means.values()) / 2)
    assert scores["few"]["score"] == pytest.approx(sum(1 / rank for rank in ranks) / 7)
    assert scores["macro"]["protocol_id"] != scores["few"]["protocol_id"]


def test_some_tasks_of_a_benchmark_are_marked_partial(root):
    scores = run(root, tasks=["many"])

    assert (list(scores["tasks"]), scores["partial"]) == (["many"], True)


def test_a_task_that_fails_is_named_and_the_others_are_scored(root):
    toy.write_texts(root / "data/bad", 5, bad=(3,))

    scores = run(root, toy_benchmark("few", "lost", "bad", "many"))

    assert list(scores["tasks"]) == ["few", "many"]
    lost = scores["failed"]["lost"]
    assert lost.startswith(f"{root / 'data/lost'}: expected the folder of a retrieval set, got no such folder")
    assert "expected words, got 'unreadable'" in scores["failed"]["bad"]
    assert scores["partial"] is True
    assert json.loads((root / "out/scores.json").read_text())["failed"] == scores["failed"]
    assert not (root / "out/rankings/bad.jsonl").exists()


def test_a_task_without_data_says_how_to_get_them(root):
    scores = run(root, toy_benchmark("few", "lost"), remedy=lambda task: f"make {task.data}")

    assert scores["failed"]["lost"].endswith("got no such folder; make lost")


def test_a_folder_without_queries_is_not_taken_for_a_set(root):
    (root / "data/empty").mkdir()

    scores = run(root, toy_benchmark("empty"))

    assert "queries.jsonl: expected one file, queries.jsonl or queries.parquet" in scores["failed"]["empty"]


def test_means_follow_the_scores_and_are_null_while_one_is_missing(root):
    benchmark = toy_benchmark("few", "many", "lost")
    tasks = {name: replace(task, modality="text") for name, task in benchmark.only(["few", "many"]).tasks.items()}
    rows = Benchmark("toy", benchmark.tasks | tasks)

    scores = run(root, rows)

    mean = (scores["tasks"]["few"]["score"] + scores["tasks"]["many"]["score"]) / 2
    assert scores["means"]["text"] == {"mean": pytest.approx(mean), "tasks": 2, "of": 2}
    assert scores["means"]["overall"] == {"mean": None, "tasks": 2, "of": 3}


def test_scores_hold_what_one_says_of_how_they_came_about_and_the_time(root):
    scores = run(root, about={"versions": {"python": "3.11"}})

    assert scores["about"]["versions"] == {"python": "3.11"}
    assert scores["about"]["seconds"] > 0


def test_whatever_a_library_raises_fails_one_task_and_is_logged_whole(root, caplog):
    def fails_on_many(items, *, side):
        if len(items) > 15:
            raise KeyError("rope_scaling")
        return toy.encode(items, side=side)

    scores = run(root, crew=Crew(fails_on_many))

    assert list(scores["tasks"]) == ["few"]
    assert scores["failed"] == {"many": "KeyError: 'rope_scaling'"}
    assert "fails_on_many" in caplog.text


def test_a_kind_of_group_that_no_query_is_in_fails_its_task_in_words(root):
    rows = [{"query_id": f"q{i}", "groups": {"aspect": []}} for i in range(7)]
    toy.write_rows(root / "data/few/groups.jsonl", rows)
    macro = toy.Task(name="macro", data="few", metric="mrr@10", macro="aspect")

    scores = run(root, Benchmark("toy", {"macro": macro, "many": toy.text_task("many")}))

    assert "macro.macro: expected a kind of group of the set, got 'aspect'" in scores["failed"]["macro"]
    assert list(scores["tasks"]) == ["many"]


def test_scores_of_an_earlier_run_do_not_outlive_the_start_of_this_one(root):
    run(root)
    seen = []

    def looks(items, *, side):
        seen.append(json.loads((root / "out/scores.json").read_text()))
        return toy.encode(items, side=side)

    run(root, crew=Crew(looks))

    assert (seen[0]["tasks"], seen[0]["partial"]) == ({}, True)


def test_embeddings_that_are_no_numbers_are_refused_for_each_task(root):
    def broken(items, *, side):
        return torch.full((len(items), 3), torch.nan)

    scores = run(root, crew=Crew(broken))

    assert set(scores["failed"]) == {"few", "many"}
    assert all(": expected finite numbers" in words for words in scores["failed"].values())


def test_the_tasks_share_what_is_cached(root):
    crew = Crew(toy.encode, space=EmbeddingCache(root / "cache", max_bytes=1 << 20).space(toy.PARTS))

    with counting() as first:
        run(root, crew=crew)
    with counting() as second:
        again = run(root, crew=crew)

    # 20 queries, 20 targets, 20 queries of shuffled words; those of the smaller task are among them
    assert first["language_rows"] == 60
    assert second["language_rows"] == 0
    assert again["tasks"].keys() == {"few", "many"}


def test_a_quick_look_is_the_same_part_each_time_and_says_so(root):
    whole, once, twice = run(root), run(root, sample=Sample(5, 3)), run(root, sample=Sample(5, 3))

    assert once["partial"] is True
    assert once["protocol"]["quick"] == {"queries": 5, "distractors": 3, "seed": 0}
    row = once["tasks"]["many"]
    assert (row["queries"], row["corpus"]) == (5, 8)
    assert row["metrics"] == twice["tasks"]["many"]["metrics"]
    assert row["protocol_id"] == twice["tasks"]["many"]["protocol_id"]
    assert row["protocol_id"] != whole["tasks"]["many"]["protocol_id"]


def test_data_of_another_revision_than_the_row_names_are_refused(root):
    found = read_retrieval_set(root / "data/few").fingerprint()
    rows = {
        name: toy.Task(name=name, data="few", metric="hit@1", revision=revision)
        for name, revision in (("right", found), ("wrong", "0" * 32))
    }

    scores = run(root, Benchmark("toy", rows))

    assert list(scores["tasks"]) == ["right"]
    assert f"few: revision: expected {'0' * 32}, got {found}; prepare the data" in scores["failed"]["wrong"]


def test_a_task_that_is_not_in_the_benchmark_is_refused(root):
    with pytest.raises(InputError, match="tasks: expected a task of toy, got 'man'; did you mean 'many'"):
        run(root, tasks=["man"])


def test_what_an_earlier_run_left_goes_and_what_is_not_of_a_run_stays(root):
    run(root)
    for name in ("leaderboard.json", "report.html", "report.md", "notes.txt", "rankings/notes.txt"):
        (root / "out" / name).write_text("{}")
    seen = []

    def looks(items, *, side):
        seen.append({path.relative_to(root / "out").as_posix() for path in (root / "out").rglob("*.*")})
        return toy.encode(items, side=side)

    run(root, crew=Crew(looks))

    assert seen[0] == {"scores.json", "notes.txt", "rankings/notes.txt"}


def test_a_task_on_a_part_of_its_data_says_so_and_counts_in_no_mean(root):
    scores = run(root, why_partial=lambda task: "only the first 7 rows" if task.name == "few" else None)

    assert (scores["tasks"]["few"]["part"], scores["tasks"]["many"]["part"]) == ("only the first 7 rows", None)
    assert scores["partial"] is True
    assert scores["means"]["overall"] == {"mean": None, "tasks": 1, "of": 2}


def test_a_quick_look_at_all_tasks_has_no_mean(root):
    scores = run(root, sample=Sample(5, 3))

    assert len(scores["tasks"]) == 2
    assert scores["means"]["overall"] == {"mean": None, "tasks": 0, "of": 2}


def test_scores_say_which_tasks_were_chosen_and_whether_data_are_miniatures(root):
    whole, part = run(root, miniature=True)["protocol"], run(root, tasks=["few"])["protocol"]

    assert (whole["chosen"], whole["miniature"]) == (None, True)
    assert (part["chosen"], part["miniature"]) == (["few"], False)
