"""Submissions to CIRR's and CIRCO's servers: written as the reference code writes them, and every mistake told."""

import json
from dataclasses import replace

import pytest

from mmembed.errors import InputError
from mmembed.evaluation.rankings import rank
from mmembed.evaluation.submissions import (
    CIRCO,
    CIRR,
    FORMATS,
    GENERIC,
    MAX_BYTES,
    Names,
    format_of,
    formats_of,
    problems,
    read_file,
    size_problem,
    write_submission,
)
from tests.evaluation import composed

RECALL, SUBSET = CIRR["recall"], CIRR["recall_subset"]


def said(pairs, kind, task, retrieval_set):
    return [str(problem) for problem in problems(list(pairs.items()), kind, kind.rules(task), retrieval_set)]


@pytest.fixture(scope="module")
def cirr():
    return composed.cirr()


@pytest.fixture(scope="module")
def circo():
    return composed.circo("test")


@pytest.mark.parametrize(
    ("kind", "file"), [(RECALL, "submission_cirr_test1.json"), (SUBSET, "submission_cirr_test1_subset.json")]
)
def test_cirr_files_hold_what_the_reference_code_writes(tmp_path, cirr, kind, file):
    queries, targets = composed.golden_vectors(cirr, "cirr/test1")
    task = kind.rules(composed.CIRR)

    write_submission(tmp_path / "ours.json", kind, rank(task, cirr, queries, targets, kind.length))

    text = (tmp_path / "ours.json").read_text()
    assert json.loads(text) == composed.of_json(file)
    assert " " not in text
    assert list(problems(read_file(tmp_path / "ours.json"), kind, task, cirr)) == []


def test_circo_files_hold_the_reference_codes_ids_as_whole_numbers(tmp_path, circo):
    queries, targets = composed.golden_vectors(circo, "circo/test")

    write_submission(tmp_path / "ours.json", CIRCO, rank(composed.CIRCO, circo, queries, targets, 50))

    theirs = composed.of_json("submission_circo_test_searle.json")
    ours = json.loads((tmp_path / "ours.json").read_text())
    assert ours == {query: [int(name) for name in names] for query, names in theirs.items()}
    assert all(type(name) is int for names in ours.values() for name in names)
    assert list(problems(read_file(tmp_path / "ours.json"), CIRCO, composed.CIRCO, circo)) == []


@pytest.mark.parametrize("file", ["submission_circo_test_searle.json", "submission_circo_test_icir.json"])
def test_ids_as_strings_are_refused_with_the_remedy(circo, file):
    found = said(composed.of_json(file), CIRCO, composed.CIRCO, circo)

    assert len(found) == len(circo.queries)
    assert found[0] == ("query 0: expected numbers of images, got the string '478028'; write integers: 123 for '123'")


def without(rows, name):
    return {key: value for key, value in rows.items() if key != name}


MISTAKES = {
    "missing query": (lambda rows: without(rows, "23"), "query 23: expected a list for every query, got none"),
    "unknown query": (lambda rows: rows | {"999": rows["20"]}, "query 999: expected a query of the set"),
    "twice": (
        lambda rows: rows | {"20": [*rows["20"][:49], rows["20"][0]]},
        "query 20: expected each target once, got 'test1-536-0-img0' again",
    ),
    "short": (lambda rows: rows | {"20": rows["20"][:49]}, "query 20: expected 50 targets, got 49"),
    "long": (lambda rows: rows | {"20": [*rows["20"], rows["23"][-1]]}, "query 20: expected 50 targets, got 51"),
    "reference": (
        lambda rows: rows | {"20": ["test1-515-3-img1", *rows["20"][:49]]},
        "query 20: expected no reference among its predictions, got 'test1-515-3-img1'; remove it",
    ),
    "unknown target": (
        lambda rows: rows | {"20": ["./test1/a.png", *rows["20"][:49]]},
        "query 20: expected a target of the gallery, got './test1/a.png'; rank the gallery of the split; names carry "
        "no folder and no extension",
    ),
    "number": (lambda rows: rows | {"20": [7, *rows["20"][:49]]}, "query 20: expected names as strings, got 7"),
    "no list": (lambda rows: rows | {"20": "test1"}, "query 20: expected a list of targets, got 'test1'"),
    "version": (lambda rows: without(rows, "version"), 'version: expected "rc2", got none; write "version": "rc2"'),
    "other version": (lambda rows: rows | {"version": "rc1"}, "version: expected \"rc2\", got 'rc1'"),
    "metric": (lambda rows: rows | {"metric": "recall_subset"}, "metric: expected \"recall\", got 'recall_subset'"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_in_a_cirr_file_is_told_with_its_query(cirr, mistake):
    change, words = MISTAKES[mistake]

    found = said(change(composed.of_json("submission_cirr_test1.json")), RECALL, composed.CIRR, cirr)

    assert any(problem.startswith(words) for problem in found), found


def test_names_outside_the_group_are_told(cirr):
    rows = composed.of_json("submission_cirr_test1_subset.json")
    rows["20"] = [*rows["20"][:2], "test1-536-0-img0"]

    (found,) = said(rows, SUBSET, composed.CIRR, cirr)

    assert found.startswith(
        "query 20: expected targets of its own group, got 'test1-536-0-img0'; rank test1-521-1-img1"
    )


def test_an_image_that_is_not_in_circos_gallery_is_told(circo):
    rows = {
        query: list(map(int, names)) for query, names in composed.of_json("submission_circo_test_icir.json").items()
    }
    rows["2"][7] = 5

    (found,) = said(rows, CIRCO, composed.CIRCO, circo)

    assert found == "query 2: expected a target of the gallery, got 5; rank the gallery of the split"


@pytest.mark.parametrize("given", [[1000, 0.5], 1.5, True, None])
def test_what_is_no_whole_number_is_told_as_such(circo, given):
    rows = {
        query: list(map(int, names)) for query, names in composed.of_json("submission_circo_test_icir.json").items()
    }
    rows["2"][7] = given

    (found,) = said(rows, CIRCO, composed.CIRCO, circo)

    assert found == f"query 2: expected numbers of images, got {given!r}; write integers, without scores"


def test_circo_keeps_the_reference_as_its_protocol_does(circo):
    rows = {
        query: list(map(int, names)) for query, names in composed.of_json("submission_circo_test_icir.json").items()
    }
    own = int(circo.references["0"][0])
    rows["0"] = [own, *(name for name in rows["0"] if name != own)][:50]

    assert said(rows, CIRCO, composed.CIRCO, circo) == []


def test_padded_numbers_name_the_same_image(circo):
    padded = replace(circo, corpus={f"{int(name):012d}": item for name, item in circo.corpus.items()}, references={})
    rows = {
        query: list(map(int, names)) for query, names in composed.of_json("submission_circo_test_icir.json").items()
    }

    assert said(rows, CIRCO, composed.CIRCO, padded) == []


def test_a_query_that_a_file_has_twice_is_told(tmp_path, cirr):
    text = (composed.READERS / "submission_cirr_test1.json").read_text()
    (tmp_path / "twice.json").write_text(text.replace('{"20"', '{"20": [], "20"', 1))

    found = [str(problem) for problem in problems(read_file(tmp_path / "twice.json"), RECALL, composed.CIRR, cirr)]

    assert "query 20: expected each query once, got it again; drop one of the two" in found


@pytest.mark.parametrize(("text", "words"), [("{", "expected JSON"), ("[1, 2]", "expected a mapping of queries")])
def test_what_is_not_json_or_no_mapping_is_refused(tmp_path, text, words):
    (tmp_path / "file.json").write_text(text)

    with pytest.raises(InputError, match=words):
        read_file(tmp_path / "file.json")


def test_a_file_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(InputError, match="expected a file of predictions, got no such file"):
        read_file(tmp_path / "file.json")


def test_a_file_over_the_limit_is_told(tmp_path):
    (tmp_path / "large.json").write_bytes(b" " * MAX_BYTES)
    (tmp_path / "small.json").write_bytes(b" " * (MAX_BYTES - 1))

    assert "expected fewer than 5,000,000 bytes, got 5,000,000" in str(size_problem(tmp_path / "large.json", RECALL))
    assert size_problem(tmp_path / "small.json", RECALL) is None
    assert size_problem(tmp_path / "large.json", GENERIC) is None


def test_as_many_queries_as_cirr_has_fit_below_the_limit(tmp_path, cirr):
    queries, targets = composed.golden_vectors(cirr, "cirr/test1")
    (ranking, *_) = rank(RECALL.rules(composed.CIRR), cirr, queries, targets, 50)

    write_submission(tmp_path / "all.json", RECALL, [replace(ranking, query_id=str(i)) for i in range(4148)])

    assert len(json.loads((tmp_path / "all.json").read_text())) == 4150
    assert size_problem(tmp_path / "all.json", RECALL) is None


def test_the_file_says_which_of_the_two_it_is():
    assert format_of([("metric", "recall_subset")], FORMATS["cirr"], "a.json") is SUBSET
    assert format_of([], FORMATS["circo"], "a.json") is CIRCO
    with pytest.raises(InputError, match=r'a.json: metric: expected "recall" or "recall_subset", got none'):
        format_of([], FORMATS["cirr"], "a.json")


def test_an_unknown_format_is_refused():
    with pytest.raises(InputError, match=r"expected a known format, got 'cirr0'; did you mean 'cirr'\?"):
        formats_of("cirr0")


def test_targets_without_numbers_cannot_be_written_for_circo(tmp_path, cirr):
    queries, targets = composed.golden_vectors(cirr, "cirr/test1")

    with pytest.raises(InputError, match="expected the number of an image, got 'test1-"):
        write_submission(tmp_path / "a.json", CIRCO, rank(composed.CIRR, cirr, queries, targets, 50))


def test_a_metric_that_is_no_string_is_told():
    with pytest.raises(InputError, match=r"a.json: metric: expected .*, got \['recall'\]"):
        format_of([("metric", ["recall"])], FORMATS["cirr"], "a.json")


def test_a_folder_is_no_file_of_predictions(tmp_path):
    with pytest.raises(InputError, match="expected a file of predictions, got a folder"):
        read_file(tmp_path)


def test_an_empty_name_is_no_target_though_one_is_called_zero(circo):
    zero = replace(circo, corpus=dict(circo.corpus) | {"000": next(iter(circo.corpus.values()))})
    names = Names(GENERIC, zero, lenient=True)

    assert (names.target(0), names.target("0"), names.target("")) == ("000", "000", None)


def test_a_ranking_of_a_whole_gallery_is_checked_in_one_pass(circo):
    names = [str(i) for i in range(50_000)]
    large = replace(circo, corpus=dict.fromkeys(names, next(iter(circo.corpus.values()))), references={})

    (found,) = Names(GENERIC, large).problems("0", [*names, "7"], composed.CIRCO)

    assert str(found).startswith("query 0: expected each target once, got '7' again")
