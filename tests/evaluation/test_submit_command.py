"""eval/submit.py: from a model to files that a server takes, and files of others checked."""

import json
from dataclasses import replace

import pytest

from eval.run import main as evaluate
from eval.submit import main
from mmembed.models.settings import RawPrompt
from tests.evaluation import composed

CIRR = """
tasks:
  val: &row {data: drawn_cirr/val, metric: hit@1, reference: removed, blind: [no_text]}
  test1: {<<: *row, data: drawn_cirr/test1, judged: false}
  test1_subset: {<<: *row, data: drawn_cirr/test1, judged: false, candidates: local, ks: [1, 2, 3]}
"""
CIRCO = """
tasks:
  val: &row {data: drawn_circo/val, metric: map@5, join: megapairs_concept}
  test: {<<: *row, data: drawn_circo/test, judged: false}
"""


@pytest.fixture(scope="module")
def root(tmp_path_factory, scratch_embedder):
    root = tmp_path_factory.mktemp("submit")
    for split in ("val", "test1"):
        composed.write_set(root / "data/drawn_cirr" / split, composed.cirr(split))
    for split in ("val", "test"):
        composed.write_set(root / "data/drawn_circo" / split, composed.circo(split))
    (root / "cirr.yaml").write_text(CIRR)
    (root / "circo.yaml").write_text(CIRCO)
    scratch_embedder("qwen2_vl", prompt=RawPrompt(suffix="<|im_end|>")).save(root / "model")
    return root


@pytest.fixture
def submit(root, tmp_path):
    def run(benchmark, *more, check=None):
        places = ["--benchmark", str(root / f"{benchmark}.yaml"), "--data-root", str(root / "data")]
        what = ["--check", str(check)] if check else ["--model", str(root / "model"), "--output", str(tmp_path)]
        return main([*places, *what, "--cache", str(root / "cache"), *more])

    return run


def test_both_files_of_cirr_are_written_once_for_rows_over_the_same_data(submit, tmp_path, capsys):
    assert submit("cirr") == 0

    files = {path.name: json.loads(path.read_text()) for path in tmp_path.iterdir()}
    assert files.keys() == {"cirr_test1_recall.json", "cirr_test1_recall_subset.json"}
    test1 = composed.cirr()
    for name, length in (("recall", 50), ("recall_subset", 3)):
        rows = files[f"cirr_test1_{name}.json"]
        assert (rows.pop("version"), rows.pop("metric")) == ("rc2", name)
        assert rows.keys() == test1.queries.keys()
        assert {len(ids) for ids in rows.values()} == {length}
        assert not any(test1.references[query][0] in ids for query, ids in rows.items())
    assert "4 queries" in capsys.readouterr().out


def test_the_file_of_circo_is_whole_numbers(submit, tmp_path):
    assert submit("circo") == 0

    rows = json.loads((tmp_path / "circo_test.json").read_text())
    assert rows.keys() == composed.circo("test").queries.keys()
    assert all(type(number) is int for ids in rows.values() for number in ids)
    assert {len(set(ids)) for ids in rows.values()} == {50}


def test_rewritten_queries_are_asked_and_every_one_must_be_there(submit, tmp_path, capsys):
    queries = list(composed.circo("test").queries)
    rows = [
        {"query_id": name, "caption": "", "change": "x", "text": f"a {name} cat", "fallback": False}
        for name in queries
    ]  # fmt: skip
    file = tmp_path / "texts/test.jsonl"
    file.parent.mkdir()
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))

    assert submit("circo") == 0
    plain = (tmp_path / "circo_test.json").read_text()
    assert submit("circo", "--rewritten", str(file.parent)) == 0
    assert (tmp_path / "circo_test.json").read_text() != plain

    file.write_text("".join(json.dumps(row) + "\n" for row in rows[1:]))
    assert submit("circo", "--rewritten", str(file.parent)) == 2
    assert f"expected a row for query '{queries[0]}', got none" in capsys.readouterr().err


def test_a_judged_row_is_written_where_it_is_named_and_scores_as_the_evaluation_does(root, submit, tmp_path):
    assert submit("circo", "--tasks", "val") == 0

    places = ["--benchmark", str(root / "circo.yaml"), "--data-root", str(root / "data"), "--tasks", "val"]
    assert evaluate([*places, "--score", str(tmp_path / "circo_val.json"), "--output", str(tmp_path / "file")]) == 0
    assert evaluate([*places, "--model", str(root / "model"), "--output", str(tmp_path / "model")]) == 0
    ours, theirs = (json.loads((tmp_path / f"{name}/scores.json").read_text()) for name in ("file", "model"))
    assert ours["tasks"]["val"]["score"] == theirs["tasks"]["val"]["score"]
    assert ours["tasks"]["val"]["protocol_id"] == theirs["tasks"]["val"]["protocol_id"]


def test_a_file_as_it_must_be_passes(submit, capsys):
    assert submit("cirr", check=composed.READERS / "submission_cirr_test1.json") == 0
    assert "4 queries of test1, as cirr recall must be" in capsys.readouterr().out
    assert submit("cirr", check=composed.READERS / "submission_cirr_test1_subset.json") == 0


def test_every_problem_of_a_file_is_printed(submit, capsys):
    assert submit("circo", check=composed.READERS / "submission_circo_test_searle.json") == 1

    lines = capsys.readouterr().err.splitlines()
    assert [line.split(":")[0] for line in lines[:-1]] == [f"query {i}" for i in range(4)]
    assert all("write integers" in line for line in lines[:-1])
    assert lines[-1].endswith("4 problems as circo")


def test_a_file_without_its_metric_is_refused(submit, tmp_path, capsys):
    (tmp_path / "bare.json").write_text("{}")

    assert submit("cirr", check=tmp_path / "bare.json") == 2

    assert 'metric: expected "recall" or "recall_subset", got none' in capsys.readouterr().err


def test_data_that_are_not_there_name_the_command_and_a_part_of_them_is_warned_of(tmp_path, capsys):
    (tmp_path / "circo.yaml").write_text("tasks: {test: {data: circo/test, metric: map@5, judged: false}}")
    file = composed.READERS / "submission_circo_test_icir.json"
    places = ["--benchmark", str(tmp_path / "circo.yaml"), "--data-root", str(tmp_path), "--check", str(file)]

    assert main(places) == 2
    assert "data_prep/prepare.py" in capsys.readouterr().err
    composed.write_set(tmp_path / "circo/test", composed.circo("test"))
    assert main(places) == 1
    assert "circo/test: not prepared: a server takes nothing less than all" in capsys.readouterr().err


def test_a_gallery_that_is_too_small_leaves_no_file(root, tmp_path, capsys):
    small = composed.circo("test")
    kept = [target for own in small.references.values() for target in own]
    small = type(small)(small.queries, {name: small.corpus[name] for name in kept}, {}, references=small.references)
    composed.write_set(tmp_path / "data/drawn_circo/test", small)
    places = ["--benchmark", str(root / "circo.yaml"), "--data-root", str(tmp_path / "data")]

    assert main([*places, "--model", str(root / "model"), "--output", str(tmp_path / "out")]) == 2

    assert "circo_test.json: query 0: expected 50 targets, got 4" in capsys.readouterr().err
    assert not list((tmp_path / "out").iterdir())


def test_an_unknown_row_is_refused(submit, capsys):
    assert submit("cirr", "--tasks", "test2") == 2

    assert "--tasks: expected a row of cirr, got 'test2'; did you mean 'test1" in capsys.readouterr().err


def test_a_benchmark_whose_answers_are_all_public_needs_a_row(root, tmp_path, capsys):
    (tmp_path / "own.yaml").write_text("tasks: {val: {data: drawn_circo/val, metric: map@5}}")

    assert main(["--benchmark", str(tmp_path / "own.yaml"), "--check", "a.json"]) == 2

    assert "--tasks: expected a row, for the answers of all are public, got none; add --tasks val" in (
        capsys.readouterr().err
    )


def test_a_model_is_needed_to_write(capsys):
    with pytest.raises(SystemExit):
        main(["--benchmark", "cirr"])

    assert "--model and --output are required, but for --check" in capsys.readouterr().err


def test_a_file_of_groups_is_not_checked_against_data_without_them(root, tmp_path, capsys):
    bare = replace(composed.cirr(), candidates=None)
    composed.write_set(tmp_path / "drawn_cirr/test1", bare)
    places = ["--benchmark", str(root / "cirr.yaml"), "--data-root", str(tmp_path)]

    assert main([*places, "--check", str(composed.READERS / "submission_cirr_test1_subset.json")]) == 2

    assert "candidates: expected 'shared' for a set without candidates" in capsys.readouterr().err
