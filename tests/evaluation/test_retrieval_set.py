import json

import pytest

from mmembed.errors import InputError
from mmembed.evaluation.retrieval_set import RetrievalSet, Sample, read_retrieval_set
from mmembed.items import Item

FILES = {
    "queries.jsonl": [{"id": "q1", "text": "red"}, {"id": "q2", "text": "blue", "instruction": "Find the colour."}],
    "corpus.jsonl": [{"id": "d1", "text": "crimson"}, {"id": "d2", "text": "navy"}, {"id": "d3", "text": "olive"}],
    "relevance.jsonl": [
        {"query_id": "q1", "targets": {"d1": 2, "d3": 0}},
        {"query_id": "q2", "targets": {"d2": 1, "d1": 0.5}},
    ],
    "candidates.jsonl": [{"query_id": "q1", "targets": ["d3", "d1"]}, {"query_id": "q2", "targets": ["d1", "d2"]}],
}


def written(folder, **changes):
    """The files of a set; ``file=[rows]`` replaces one, ``file=None`` leaves it out."""
    for name, rows in (FILES | {f"{name}.jsonl": rows for name, rows in changes.items()}).items():
        if rows is not None:
            (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def test_a_folder_becomes_a_set(tmp_path):
    found = read_retrieval_set(written(tmp_path))

    assert list(found.queries.values()) == [Item.of("red"), Item.of("blue", instruction="Find the colour.")]
    assert list(found.corpus) == ["d1", "d2", "d3"]
    assert found.relevance == {"q1": {"d1": 2.0, "d3": 0.0}, "q2": {"d2": 1.0, "d1": 0.5}}
    assert found.candidates == {"q1": ["d3", "d1"], "q2": ["d1", "d2"]}


def test_without_candidates_every_query_ranks_the_corpus(tmp_path):
    assert read_retrieval_set(written(tmp_path, candidates=None)).candidates is None


@pytest.mark.parametrize(
    ("name", "row"),
    [("queries", {"id": "q2", "text": "azure"}), ("corpus", {"id": "d3", "text": "teal"}), ("relevance", None)],
)
def test_the_fingerprint_changes_with_the_content(tmp_path, name, row):
    before = read_retrieval_set(written(tmp_path)).fingerprint()
    row = row or {"query_id": "q2", "targets": {"d2": 2, "d1": 0.5}}

    after = read_retrieval_set(written(tmp_path, **{name: [*FILES[f"{name}.jsonl"][:-1], row]})).fingerprint()

    assert before != after
    assert read_retrieval_set(written(tmp_path)).fingerprint() == before


def row(query_id="q2", **fields):
    return {"query_id": query_id} | fields


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"queries": [*FILES["queries.jsonl"], {"id": "q1", "text": "x"}]},
            r"queries.jsonl: line 3: id: .* 'q1' again",
        ),
        ({"corpus": [{"id": "d1", "text": "x"}] * 2}, r"corpus.jsonl: line 2: id: .* 'd1' again"),
        ({"corpus": None}, r"corpus.jsonl: expected one file, .* got no such file"),
        ({"corpus": []}, r"corpus.jsonl: expected at least one row"),
        ({"relevance": FILES["relevance.jsonl"][:1]}, r"relevance: expected a row for query 'q2', got none"),
        ({"relevance": [row("q9", targets={"d1": 1})]}, r"line 1: query_id: expected the id of a query, got 'q9'"),
        ({"relevance": [row("q1", targets={"d1": 1})] * 2}, r"line 2: query_id: .* got 'q1' again"),
        ({"relevance": [row(targets={"d99": 1})]}, r"relevance.jsonl: line 1: targets: .* got 'd99'"),
        (
            {"relevance": [row(targets={"d1": 0})]},
            r"line 1: targets: expected at least one target with a grade above 0",
        ),
        ({"relevance": [row(targets={"d1": -1})]}, r"line 1: targets.d1: expected a grade of 0 to 100, got -1"),
        ({"relevance": [row(targets={"d1": 2000})]}, r"line 1: targets.d1: expected a grade of 0 to 100, got 2000"),
        ({"relevance": [row(targets={"d1": "yes"})]}, r"targets.d1: .* got 'yes'"),
        ({"relevance": [row(targets={"d1": True})]}, r"targets.d1: .* got True"),
        ({"relevance": [row(targets=["d1"])]}, r"line 1: targets: expected a mapping .* got \['d1'\]"),
        (
            {"relevance": [row(target={"d1": 1})]},
            r"line 1: expected the fields query_id and targets, got query_id, target",
        ),
        ({"candidates": [row(targets=["d1", "d1"])]}, r"candidates.jsonl: line 1: targets: .* got 'd1' again"),
        ({"candidates": [row(targets=["d8"])]}, r"candidates.jsonl: line 1: targets: .* got 'd8'"),
        ({"candidates": [row(targets={})]}, r"line 1: targets: expected a list of target ids, got {}"),
        ({"candidates": [row(targets=["d2"])]}, r"candidates: expected a row for query 'q1', got none"),
        (
            {"candidates": [row("q1", targets=["d3"]), row(targets=["d1", "d2"])]},
            r"candidates: query q1: expected every relevant target, got no 'd1'",
        ),
    ],
)
def test_an_unusable_folder_is_refused_by_file_row_and_field(tmp_path, changes, message):
    folder = written(tmp_path, **changes)

    with pytest.raises(InputError, match=message) as caught:
        read_retrieval_set(folder)

    assert str(caught.value).startswith(str(tmp_path))


def test_broken_json_is_refused_by_line(tmp_path):
    folder = written(tmp_path)
    (folder / "relevance.jsonl").write_text('{"query_id": "q1", "targets": {"d1": 1}}\n{"query_id"\n')

    with pytest.raises(InputError, match=r"relevance.jsonl: line 2: expected a JSON object"):
        read_retrieval_set(folder)


def test_two_tables_of_one_side_are_refused(tmp_path):
    folder = written(tmp_path)
    (folder / "queries.parquet").touch()

    with pytest.raises(InputError, match=r"got queries.jsonl and queries.parquet"):
        read_retrieval_set(folder)


@pytest.mark.parametrize("side", ["queries", "corpus"])
def test_a_set_made_in_code_needs_both_sides(side):
    parts = {"queries": {"q": Item.of("a")}, "corpus": {"d": Item.of("b")}, "relevance": {"q": {"d": 1.0}}} | {side: {}}

    with pytest.raises(InputError, match=f"{side}: expected at least one row, got none"):
        RetrievalSet(**parts)


def test_groups_are_one_name_or_several_of_a_kind(tmp_path):
    rows = [
        {"query_id": "q1", "groups": {"category": "dress", "aspect": ["addition", "negation"]}},
        {"query_id": "q2", "groups": {}},
    ]

    found = read_retrieval_set(written(tmp_path, groups=rows))

    assert found.groups == {"q1": {"category": ("dress",), "aspect": ("addition", "negation")}, "q2": {}}
    # they change no score of all queries
    (tmp_path / "groups.jsonl").unlink()
    assert found.fingerprint() == read_retrieval_set(tmp_path).fingerprint()


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        ([{"query_id": "q1", "groups": {}}], "groups: expected a row for query 'q2', got none"),
        ([{"query_id": "q9", "groups": {}}], "groups.jsonl: line 1: query_id: expected the id of a query, got 'q9'"),
        (
            [{"query_id": "q1", "groups": ["dress"]}],
            r"line 1: groups: expected a mapping of kind to names, got \['dress",
        ),
        ([{"query_id": "q1", "groups": {"c": ["a", "a"]}}], "groups.c: expected a name, or several different ones"),
        ([{"query_id": "q1", "groups": {"c": 3}}], "groups.c: expected a name, or several different ones, got 3"),
        ([{"query_id": "q1", "targets": {}}], "line 1: expected the fields query_id and groups, got query_id, targets"),
    ],
)
def test_groups_that_cannot_be_used_are_named(tmp_path, groups, message):
    with pytest.raises(InputError, match=message):
        read_retrieval_set(written(tmp_path, groups=groups))


def large_set(num_queries=50, num_targets=200, local=False):
    queries = {f"q{i}": Item.of(f"query {i}") for i in range(num_queries)}
    corpus = {f"d{i}": Item.of(f"target {i}") for i in range(num_targets)}
    relevance = {f"q{i}": {f"d{3 * i}": 1.0, f"d{3 * i + 1}": 0.0} for i in range(num_queries)}
    own = {f"q{i}": [f"d{3 * i + j}" for j in range(3)] for i in range(num_queries)}
    groups = {f"q{i}": {"parity": ("even" if i % 2 == 0 else "odd",)} for i in range(num_queries)}
    return RetrievalSet(queries, corpus, relevance, own if local else None, groups)


def test_a_sample_keeps_what_its_queries_need_and_distractors():
    whole = large_set()

    part = whole.sample(Sample(queries=10, distractors=30))

    assert (len(part.queries), len(part.corpus)) == (10, 20 + 30)
    assert list(part.corpus) == [name for name in whole.corpus if name in part.corpus]
    assert part.groups.keys() == part.relevance.keys() == part.queries.keys()
    assert part == whole.sample(Sample(queries=10, distractors=30))
    assert part.queries.keys() != whole.sample(Sample(queries=10, distractors=30, seed=1)).queries.keys()


def test_a_sample_draws_distractors_that_do_not_follow_the_queries():
    names = [f"{i}.png" for i in range(1000)]
    whole = RetrievalSet(
        {name: Item.of(f"change {name}") for name in names},
        {name: Item.of(name) for name in names} | {f"right {name}": Item.of(f"right {name}") for name in names},
        {name: {f"right {name}": 1.0} for name in names},
    )

    part = whole.sample(Sample(queries=100, distractors=200))

    # the ids of queries are those of pictures in the corpus: a tenth of the distractors by chance
    assert 2 <= len(part.queries.keys() & part.corpus.keys()) <= 25


def test_a_sample_of_local_candidates_keeps_those_and_no_others():
    part = large_set(local=True).sample(Sample(queries=7))

    assert set(part.corpus) == {target for own in part.candidates.values() for target in own}
    assert len(part.corpus) == 21


def test_a_sample_of_a_set_that_grew_keeps_most_of_its_queries():
    small, large = (large_set(n).sample(Sample(queries=20)).queries.keys() for n in (50, 60))

    assert len(small & large) >= 12


def test_a_sample_larger_than_the_set_is_the_set():
    assert large_set().sample(Sample(queries=99, distractors=999)) == large_set()


def test_a_sample_of_no_query_is_refused():
    with pytest.raises(InputError, match="quick: expected at least 1 query, got 0 queries and 900 distractors"):
        Sample(queries=0)


def among(**groups):
    rows = [{"query_id": "q1", "groups": {"swap": {name: list(own) for name, own in groups.items()}}}]
    return [*rows, {"query_id": "q2", "groups": {}}]


def test_groups_of_candidates_are_read_and_sampled_with_their_queries(tmp_path):
    found = read_retrieval_set(written(tmp_path, candidate_groups=among(colour=["d3"], other=["d1", "d3"])))

    assert found.candidate_groups == {"q1": {"swap": {"colour": ("d3",), "other": ("d1", "d3")}}, "q2": {}}
    part = found.sample(Sample(queries=1))
    assert part.candidate_groups == {name: found.candidate_groups[name] for name in part.queries}
    assert found.fingerprint() == read_retrieval_set(written(tmp_path, candidate_groups=None)).fingerprint()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"candidate_groups": among(colour=["d2"])}, r"query q1: expected candidates of the query, got 'd2'"),
        ({"candidate_groups": among(colour=["d3"]), "candidates": None}, r"query q1: expected candidates of the query"),
        ({"candidate_groups": among(colour=["d3"])[:1]}, r"expected a row for query 'q2'"),
        ({"candidate_groups": among(colour=["d3", "d3"])}, r"groups.swap: groups.colour: expected a name, or several"),
        ({"candidate_groups": [row("q1", groups={"swap": "d3"})]}, r"expected a mapping of kind to groups"),
    ],
)
def test_groups_of_what_is_no_candidate_are_refused(tmp_path, changes, message):
    with pytest.raises(InputError, match=message):
        read_retrieval_set(written(tmp_path, **changes))


REFERENCES = [{"query_id": "q1", "targets": ["d3"]}, {"query_id": "q2", "targets": ["d1", "d2"]}]


def test_references_are_read_and_sampled_with_their_queries(tmp_path):
    found = read_retrieval_set(written(tmp_path, candidates=None, references=REFERENCES))

    assert found.references == {"q1": ["d3"], "q2": ["d1", "d2"]}
    part = found.sample(Sample(queries=1, distractors=0))
    assert part.references == {name: found.references[name] for name in part.queries}
    # what a row may remove, and whose rank one may ask for, is there
    assert {target for own in part.references.values() for target in own} <= part.corpus.keys()


def test_references_do_not_change_what_a_set_is_called(tmp_path):
    plain, told = tmp_path / "plain", tmp_path / "told"
    for folder in (plain, told):
        folder.mkdir()

    named = read_retrieval_set(written(plain)).fingerprint()

    assert read_retrieval_set(written(told, references=REFERENCES)).fingerprint() == named


@pytest.mark.parametrize(
    ("references", "message"),
    [
        (REFERENCES[:1], "references: expected a row for query 'q2', got none"),
        ([row(targets=["d9"])], "line 1: targets: expected the id of a target in the corpus, got 'd9'"),
        ([row(targets=["d1", "d1"])], "line 1: targets: expected each target once, got 'd1' again"),
    ],
)
def test_references_that_cannot_be_used_are_named(tmp_path, references, message):
    with pytest.raises(InputError) as caught:
        read_retrieval_set(written(tmp_path, references=references))

    assert message in str(caught.value)


def test_a_set_whose_answers_are_not_public_has_no_relevance(tmp_path):
    found = read_retrieval_set(written(tmp_path, relevance=None))

    assert not found.judged
    assert found.relevance == {}
    assert found.candidates == {"q1": ["d3", "d1"], "q2": ["d1", "d2"]}
    assert found.sample(Sample(queries=1)).relevance == {}
