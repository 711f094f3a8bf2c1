import importlib.util
import json
import re
from pathlib import Path

import pytest

from mmembed.errors import InputError
from mmembed.evaluation.compare import compare_runs
from mmembed.evaluation.metrics import judge, metric_values
from mmembed.evaluation.published_fault import permuted_grades
from mmembed.evaluation.rankings import Ranking, write_rankings
from mmembed.evaluation.statistics import paired

COMMAND = Path(__file__).parents[2] / "eval" / "compare.py"
RELEVANT = {"q1": {"d1": 1.0}, "q2": {"d2": 1.0}, "q3": {"d3": 2.0, "d4": 1.0}, "q4": {"d4": 1.0}}
FOUND_A = {"q1": "d1 d2 d3", "q2": "d1 d2 d3", "q3": "d1 d2 d4", "q4": "d1 d2 d3"}
FOUND_B = {"q4": "d4 d1 d2", "q3": "d3 d4 d1", "q2": "d2 d1 d3", "q1": "d2 d1 d3"}


@pytest.fixture(scope="module")
def command():
    spec = importlib.util.spec_from_file_location("eval_compare", COMMAND)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def rankings(found, relevant=RELEVANT):
    return [Ranking(query, targets.split(), [0.9, 0.8, 0.7], relevant[query], None) for query, targets in found.items()]


def write_run(folder, tasks, **protocols):
    """An evaluation as files: the rankings of each task, and what its protocol has of its own."""
    rows, fields = {}, {}
    for name, own in tasks.items():
        protocol = {"metric": "hit@1", "ks": [1, 3], "macro": None, "ties": "index", "ndcg_fault_seed": None}
        fields[name] = protocol | protocols.get(name, {})
        rows[name] = {"metric": fields[name]["metric"], "protocol_id": fields[name].pop("id", "0123456789ab")}
        rows[name]["part"] = None
        write_rankings(folder / "rankings" / f"{name}.jsonl", own)
    scores = {
        "protocol": {"model": "m", "quick": None, "miniature": False, "chosen": None, "tasks": fields},
        "tasks": rows,
        "failed": {},
        "partial": False,
    }
    (folder / "scores.json").write_text(json.dumps(scores))
    return folder


@pytest.fixture
def runs(tmp_path):
    """Two evaluations with one task in both, and one in each alone."""
    a = write_run(tmp_path / "a", {"captions": rankings(FOUND_A), "old": rankings(FOUND_A)})
    b = write_run(tmp_path / "b", {"new": rankings(FOUND_B), "captions": rankings(FOUND_B)})
    return a, b


def test_runs_are_paired_by_query_whatever_their_order(runs):
    compared = compare_runs(*runs)

    (task,) = compared.tasks
    assert (task.task, task.metric, task.a, task.b) == ("captions", "hit@1", 0.25, 0.75)
    assert (task.change.wins, task.change.ties, task.change.losses) == (3, 0, 1)
    assert task.change.difference == 0.5
    assert (compared.only_a, compared.only_b) == (["old"], ["new"])


def test_another_metric_than_that_of_the_row_is_compared_if_asked_for(runs):
    (task,) = compare_runs(*runs, metric="mrr@3").tasks

    assert task.metric == "mrr@3"
    assert task.a == pytest.approx((1 + 1 / 2 + 1 / 3) / 4)
    assert task.b == pytest.approx((1 + 1 + 1 + 1 / 2) / 4)


def test_a_run_under_the_published_fault_is_compared_under_it(tmp_path):
    relevant = {f"q{i}": {"d1": 3.0, "d2": 1.0, "d3": 2.0} for i in range(4)}
    own = {"task": rankings(dict.fromkeys(relevant, "d1 d2 d3"), relevant)}
    protocol = {"metric": "ndcg_linear@3"}
    a = write_run(tmp_path / "a", own, task=protocol | {"ndcg_fault_seed": 1, "id": "a" * 12})
    b = write_run(tmp_path / "b", own, task=protocol | {"id": "b" * 12})

    (task,) = compare_runs(a, b, force=True).tasks

    targets = [["d1", "d2", "d3"]] * 4
    faulty, right = (
        metric_values(judge(targets, grades, 3), "ndcg_linear@3")
        for grades in (permuted_grades(list(relevant.values()), 1), list(relevant.values()))
    )
    assert faulty.tolist() != right.tolist()
    assert task.change == paired(faulty, right)


def test_a_short_ranking_is_whole_up_to_the_cutoffs_that_were_evaluated(tmp_path):
    row = {"metric": "recall@20", "ks": [1, 10]}
    a, b = (write_run(tmp_path / name, {"task": rankings(FOUND_A)}, task=row) for name in "ab")

    assert compare_runs(a, b).tasks[0].a == pytest.approx((1 + 1 + 0.5 + 0) / 4)
    with pytest.raises(InputError, match=r"a/rankings/task.jsonl: hit@21: expected k of at most 20, .* got 21;"):
        compare_runs(a, b, metric="hit@21")


def test_a_forced_comparison_and_a_macro_score_say_so(tmp_path):
    a = write_run(tmp_path / "a", {"task": rankings(FOUND_A)}, task={"macro": "category"})
    b = write_run(tmp_path / "b", {"task": rankings(FOUND_B)}, task={"ties": "pessimistic", "id": "f" * 12})

    (task,) = compare_runs(a, b, force=True).tasks

    assert task.remarks == [
        "protocols differ: 0123456789ab and ffffffffffff (macro: 'category' and None, ties: 'index' and 'pessimistic')",
        "compared by means over queries; the score is the mean over groups of category",
    ]


def test_a_message_names_the_first_fields_that_differ_and_counts_the_rest(tmp_path):
    other = {"ks": [1], "macro": "x", "ties": "pessimistic", "ndcg_fault_seed": 3, "blind": ["no_text"], "id": "f" * 12}
    a = write_run(tmp_path / "a", {"task": rankings(FOUND_A)})
    b = write_run(tmp_path / "b", {"task": rankings(FOUND_B)}, task=other)

    with pytest.raises(
        InputError,
        match=re.escape(
            "task task: expected one protocol in both, got 0123456789ab and ffffffffffff "
            "(ks: [1, 3] and [1], macro: None and 'x', ties: 'index' and 'pessimistic', 1 more); evaluate both alike"
        ),
    ):
        compare_runs(a, b)


def test_a_quick_evaluation_is_not_compared_with_a_whole_one(tmp_path):
    a = write_run(tmp_path / "a", {"task": rankings(FOUND_A)})
    b = write_run(tmp_path / "b", {"task": rankings(FOUND_B)}, task={"sample": {"queries": 4}, "id": "f" * 12})

    with pytest.raises(InputError, match=r"ffffffffffff \(sample: None and {'queries': 4}\)"):
        compare_runs(a, b)


def test_protocols_that_differ_in_what_no_file_holds_are_refused_too(tmp_path):
    a = write_run(tmp_path / "a", {"task": rankings(FOUND_A)})
    b = write_run(tmp_path / "b", {"task": rankings(FOUND_B)}, task={"id": "f" * 12})

    with pytest.raises(InputError, match=r"ffffffffffff \(in no field that scores.json holds\); .* --force"):
        compare_runs(a, b)


def test_other_queries_are_refused_even_by_force(runs, tmp_path):
    fewer = {query: targets for query, targets in FOUND_B.items() if query != "q2"}
    b = write_run(tmp_path / "c", {"captions": rankings(fewer)})

    with pytest.raises(InputError, match="the same queries in both, got 1 only in a, 0 only in b, the first is 'q2'"):
        compare_runs(runs[0], b, force=True)


def test_a_task_that_only_one_run_has_is_refused_by_name(runs):
    with pytest.raises(InputError, match="a task of both runs, got 'caption'; did you mean 'captions'"):
        compare_runs(*runs, tasks=["caption"])


def test_runs_without_a_common_task_are_refused(runs, tmp_path):
    other = write_run(tmp_path / "c", {"new": rankings(FOUND_B)})

    with pytest.raises(InputError, match="a task in both, got captions, old and new; evaluate both on one benchmark"):
        compare_runs(runs[0], other)


def test_a_folder_without_scores_or_rankings_is_refused(runs, tmp_path):
    with pytest.raises(InputError, match=r"nowhere/scores.json: expected scores of an evaluation, got no such file"):
        compare_runs(runs[0], tmp_path / "nowhere")
    (runs[1] / "rankings/captions.jsonl").unlink()
    with pytest.raises(InputError, match=r"b/rankings/captions.jsonl: expected the rankings of a task, got no such"):
        compare_runs(*runs)


def test_scores_without_protocol_ids_are_refused(runs):
    path = runs[1] / "scores.json"
    scores = json.loads(path.read_text())
    del scores["tasks"]["captions"]["protocol_id"]
    path.write_text(json.dumps(scores))

    with pytest.raises(
        InputError,
        match=r"scores.json: expected scores with protocol ids, got those of another version; evaluate again",
    ):
        compare_runs(*runs)


def test_the_command_prints_a_table_of_at_most_100_columns_and_what_is_only_in_one(command, runs, capsys):
    assert command.main([*map(str, runs), "--tasks", "captions"]) == 0

    out = capsys.readouterr().out
    (row,) = [line.split() for line in out.splitlines() if line.lstrip().startswith("captions")]
    assert row == [
        "captions",
        "hit@1",
        "25.0",
        "75.0",
        "+50.0",
        "-50.0",
        "to",
        "+100.0",
        "0.625",
        "3/1",
        "0123456789ab",
    ]
    assert out.endswith("only in a: old\nonly in b: new\n")
    table = out.splitlines()[2:]
    assert max(map(len, table)) <= 100


def test_long_names_and_wide_numbers_stay_in_100_columns(command, tmp_path, capsys):
    name, metric = "ViDoRe_esg_reports_human_labeled_v2", "ndcg_exponential@10"
    relevant = {f"q{i}": {"d1": 1.0} for i in range(2000)}
    found = [dict.fromkeys(relevant, targets) for targets in ("d2 d1", "d1 d2")]
    a, b = (
        write_run(tmp_path / run, {name: rankings(own, relevant)}, **{name: {"metric": metric, "ks": [10]}})
        for run, own in zip("ab", found, strict=True)
    )

    assert command.main([str(a), str(b)]) == 0

    table = capsys.readouterr().out.splitlines()[2:]
    assert max(map(len, table)) <= 100
    assert "2000/0" in "".join(table)
    assert "<0.001" in "".join(table)


def test_what_is_refused_ends_the_command_with_2_unless_forced(command, tmp_path, capsys):
    a = write_run(tmp_path / "a", {"task": rankings(FOUND_A)})
    b = write_run(tmp_path / "b", {"task": rankings(FOUND_B)}, task={"ties": "pessimistic", "id": "f" * 12})

    assert command.main([str(a), str(b)]) == 2
    refused = capsys.readouterr()
    assert command.main([str(a), str(b), "--force"]) == 0
    forced = capsys.readouterr()

    assert refused.out == ""
    assert "(ties: 'index' and 'pessimistic'); evaluate both alike" in refused.err
    assert "task: protocols differ: 0123456789ab and ffffffffffff" in forced.out


def test_the_help_teaches(command, capsys):
    with pytest.raises(SystemExit) as ended:
        command.main(["--help"])

    text = capsys.readouterr().out
    assert ended.value.code == 0
    assert "example: python eval/compare.py runs/demo/eval" in text
    assert "--force" in text
