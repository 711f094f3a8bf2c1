"""Files of predictions, scored without a model: as the official evaluation scores them, and refused where not whole."""

import json

import pytest

from eval.run import main
from mmembed.errors import InputError
from mmembed.evaluation.scored_files import read_predictions
from tests.evaluation import composed

BENCHMARK = """
tasks:
  val: {data: circo/val, metric: map@5, ks: [5, 10, 25, 50]}
  aspects: {data: circo/val, metric: map@10, ks: [5, 10, 25, 50], macro: aspect}
  short: {data: circo/val, metric: map@5, ks: [5]}
"""


@pytest.fixture
def root(tmp_path):
    composed.write_set(tmp_path / "data/circo/val", composed.circo())
    (tmp_path / "circo.yaml").write_text(BENCHMARK)
    return tmp_path


def score(root, file, *more):
    places = ["--benchmark", str(root / "circo.yaml"), "--data-root", str(root / "data"), "--score", str(file)]
    return main([*places, "--output", str(root / "out"), *more])


def test_circos_own_scores_are_reproduced(root, capsys):
    assert score(root, composed.READERS / "predictions_circo_val.json", "--tasks", "val") == 0

    scores = json.loads((root / "out/scores.json").read_text())
    row = scores["tasks"]["val"]
    official = composed.of_json("golden.json")["circo"]["circo/val/official"]
    for k in (5, 10, 25, 50):
        assert row["metrics"][f"map@{k}"] == pytest.approx(official["mAP"][str(k)], abs=1e-5)
        assert row["metrics"][f"best_hit@{k}"] == pytest.approx(official["recall"][str(k)], abs=1e-5)
    assert row["score"] == row["metrics"]["map@5"]
    assert scores["protocol"]["model"].startswith("predictions in ")
    printed = capsys.readouterr().out
    assert row["protocol_id"] in printed
    assert "best_hit@25" in printed
    assert f"{100 * official['mAP']['25']:.4f}" in printed


def test_the_scores_of_aspects_are_reproduced(root, capsys):
    assert score(root, composed.READERS / "predictions_circo_val.json", "--tasks", "aspects") == 0

    groups = json.loads((root / "out/scores.json").read_text())["tasks"]["aspects"]["groups"]["aspect"]
    official = composed.of_json("golden.json")["circo"]["circo/val/official"]["semantic_mAP10"]
    assert groups.keys() == official.keys()
    assert {name: group["score"] for name, group in groups.items()} == pytest.approx(official, abs=1e-5)
    assert "map@10, aspect negation: 66.6667 of 1" in capsys.readouterr().out


def test_ids_as_strings_score_the_same(root):
    rows = composed.of_json("predictions_circo_val.json")
    (root / "strings.json").write_text(json.dumps({query: list(map(str, ids)) for query, ids in rows.items()}))
    score(root, composed.READERS / "predictions_circo_val.json", "--tasks", "val")
    ours = json.loads((root / "out/scores.json").read_text())["tasks"]["val"]["metrics"]

    assert score(root, root / "strings.json", "--tasks", "val") == 0

    assert json.loads((root / "out/scores.json").read_text())["tasks"]["val"]["metrics"] == ours


def test_without_an_output_only_the_table_is_printed(root, capsys):
    places = ["--benchmark", str(root / "circo.yaml"), "--data-root", str(root / "data"), "--tasks", "val"]

    assert main([*places, "--score", str(composed.READERS / "predictions_circo_val.json")]) == 0

    assert "map@5" in capsys.readouterr().out
    assert not (root / "out").exists()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda rows: rows.pop("3"), "query 3: expected a list for every query, got none"),
        (lambda rows: rows["3"].pop(), "query 3: expected at least 50 targets, for metrics at 50, got 49"),
        (lambda rows: rows["3"].append(rows["3"][0]), "query 3: expected each target once"),
        (lambda rows: rows["3"].append(1), "query 3: expected a target of the gallery, got 1"),
        (lambda rows: rows.update({"77": rows["3"]}), "query 77: expected a query of the set, got an unknown one"),
    ],
)
def test_a_file_that_is_not_whole_is_refused(root, capsys, change, words):
    rows = composed.of_json("predictions_circo_val.json")
    change(rows)
    (root / "bad.json").write_text(json.dumps(rows))

    assert score(root, root / "bad.json", "--tasks", "val") == 2

    assert f"{root / 'bad.json'}: {words}" in capsys.readouterr().err
    assert not (root / "out").exists()


def test_a_row_of_small_cut_offs_takes_a_short_file(root):
    rows = {query: ids[:5] for query, ids in composed.of_json("predictions_circo_val.json").items()}
    (root / "short.json").write_text(json.dumps(rows))

    assert score(root, root / "short.json", "--tasks", "short") == 0


def test_several_tasks_are_refused(root, capsys):
    assert score(root, composed.READERS / "predictions_circo_val.json") == 2

    assert "--score: expected one task, got 3; add --tasks val" in capsys.readouterr().err


@pytest.mark.parametrize("more", [["--model", "m"], ["--baselines"], ["--quick"]])
def test_options_of_a_model_do_not_go_with_a_file(root, more):
    with pytest.raises(SystemExit) as ended:
        score(root, "a.json", *more)

    assert ended.value.code == 2


def test_without_a_file_a_model_is_needed(capsys):
    with pytest.raises(SystemExit):
        main(["--benchmark", "demo", "--output", "out"])

    assert "--model is required, but for --score" in capsys.readouterr().err


def predictions(tmp_path, change=lambda rows: None, *, subset=False):
    val = composed.cirr("val")
    ranked = {
        query: [name for name in (val.candidates[query] if subset else val.corpus) if name not in val.references[query]]
        for query in val.queries
    }
    change(ranked)
    head = {"version": "rc2", "metric": "recall_subset" if subset else "recall"}
    (tmp_path / "a.json").write_text(json.dumps(head | ranked))
    return tmp_path / "a.json", val


def test_a_file_of_cirr_is_read_with_its_head(tmp_path):
    path, val = predictions(tmp_path)

    rankings = read_predictions(path, composed.CIRR, val)

    assert [ranking.query_id for ranking in rankings] == list(val.queries)
    assert all(ranking.targets[ranking.first_hit - 1] in ranking.relevant for ranking in rankings)


def test_a_reference_among_predictions_is_refused_where_the_row_removes_it(tmp_path):
    first = next(iter(composed.cirr("val").queries))
    own = composed.cirr("val").references[first]
    path, val = predictions(tmp_path, lambda rows: rows[first].insert(5, own[0]))

    with pytest.raises(InputError, match=rf"query {first}: expected no reference among its predictions"):
        read_predictions(path, composed.CIRR, val)


def test_the_five_of_a_group_are_enough_for_its_own_row(tmp_path):
    path, val = predictions(tmp_path, subset=True)
    row = composed.Task("subset", "cirr/val", "hit@1", ks=(1, 2, 3), reference="removed", candidates="local")

    assert all(len(ranking.targets) == 5 for ranking in read_predictions(path, row, val))
