import pytest

from mmembed.errors import InputError
from mmembed.evaluation.benchmark import Benchmark, Task, Wording
from mmembed.evaluation.expected import Expected, ExpectedScore, compare, find_entry, read_expected
from tests.evaluation import drawn

WHOLE = """
entries:
  paper:
    model: group/model
    source: arXiv:2507.04590 table 2, 2025-07
    commit: 0a1b2c3
    tolerance: 0.01
    scores:
      a: 0.652
      b: {metric: ndcg_linear@5, score: 0.41, tolerance: 0.05, protocol_id: 0123456789ab}
  ours:
    model: runs/ours
    source: configs/ours.yaml
    scores: {a: 0.7}
"""
BENCHMARK = Benchmark("toy", {n: Task(name=n, data=n, metric="hit@1") for n in ("a", "b", "c")})


def entry(scores, **given):
    return Expected("paper", "group/model", "table 2", scores, **given)


def test_entries_are_read_by_name(tmp_path):
    (tmp_path / "toy.yaml").write_text(WHOLE)

    entries = read_expected(tmp_path / "toy.yaml")

    assert list(entries) == ["paper", "ours"]
    assert entries["paper"].scores == {
        "a": ExpectedScore(0.652),
        "b": ExpectedScore(0.41, metric="ndcg_linear@5", tolerance=0.05, protocol_id="0123456789ab"),
    }
    assert (entries["paper"].tolerance, entries["paper"].commit) == (0.01, "0a1b2c3")
    assert (entries["ours"].tolerance, entries["ours"].commit) == (0.02, None)
    assert find_entry(tmp_path, BENCHMARK, "ours") == entries["ours"]


def one(fields="model: m, source: s", scores="{a: 0.5}"):
    return f"entries: {{paper: {{{fields}, scores: {scores}}}}}"


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("entries: {}", "toy.yaml: expected one key, entries: a mapping of name to entry, got entries"),
        ("tasks: {a: 1}", "toy.yaml: expected one key, entries: a mapping of name to entry, got tasks"),
        ("[1]", "toy.yaml: expected one key, entries: a mapping of name to entry, got list"),
        ("entries: {paper: 3}", r"entries.paper: expected a mapping of fields, got int"),
        (one("model: m, source: s, name: x"), "entries.paper.name: expected no such field, got 'x'"),
        (one("model: m, sorce: s"), "entries.paper.sorce: .* did you mean 'source'"),
        (one("model: m"), "entries.paper.source: expected a value, got nothing"),
        (one(scores="{}"), "entries.paper.scores: expected a mapping of task to score, got {}"),
        (one(scores="0.5"), "entries.paper.scores: expected a mapping of task to score, got 0.5"),
        (one(scores="{a: 58.0}"), r"scores.a: score: expected a fraction from 0 to 1, got 58.0; 58.02 is written"),
        (one(scores="{a: high}"), "scores.a.score: expected float, got 'high'"),
        (one(scores="{a: {metric: hit@1}}"), "scores.a.score: expected a value, got nothing"),
        (one(scores="{a: {score: 0.5, tolerence: 0}}"), "scores.a.tolerence: .* did you mean 'tolerance'"),
        (one(scores="{a: {score: 0.5, tolerance: 2}}"), "scores.a: tolerance: expected a fraction .* got 2.0"),
        (one(scores="{a: {score: 0.5, metric: hot@1}}"), "scores.a: metric: .* did you mean 'hit'"),
        (one("model: m, source: s, tolerance: -1"), "entries.paper: tolerance: expected a fraction .* got -1.0"),
        (one("model: m, source: s, mean_tolerances: {a: 3}"), "paper: tolerance: expected a fraction .* got 3.0"),
        ("include: [toy]\nentries: {}", "toy.yaml: include: .* got toy.yaml again"),
    ],
)
def test_what_is_wrong_with_a_file_is_named(text, complaint, tmp_path):
    (tmp_path / "toy.yaml").write_text(text)

    with pytest.raises(InputError, match=complaint):
        read_expected(tmp_path / "toy.yaml")


def test_an_entry_is_chosen_unless_there_is_only_one(tmp_path):
    (tmp_path / "toy.yaml").write_text(WHOLE)
    with pytest.raises(InputError, match=r"toy.yaml: expected one entry, got paper, ours; choose one with --expected"):
        find_entry(tmp_path, BENCHMARK)
    with pytest.raises(InputError, match=r"an entry of the file, got 'papr'; did you mean 'paper'\?"):
        find_entry(tmp_path, BENCHMARK, "papr")

    (tmp_path / "toy.yaml").write_text(one())

    assert find_entry(tmp_path, BENCHMARK).name == "paper"


def test_a_score_of_a_task_that_the_benchmark_lacks_is_refused(tmp_path):
    (tmp_path / "toy.yaml").write_text(one(scores="{captions: 0.5}"))
    benchmark = Benchmark("toy", {"caption": Task(name="caption", data="x", metric="hit@1")})

    with pytest.raises(InputError, match=r"entries.paper.scores: .* got 'captions'; did you mean 'caption'\?"):
        find_entry(tmp_path, benchmark)


def test_a_benchmark_without_a_file_is_named(tmp_path):
    with pytest.raises(InputError, match=r"toy.yaml: expected a readable YAML file"):
        find_entry(tmp_path, BENCHMARK)


@pytest.mark.parametrize(
    ("ours", "verdict"), [(0.5, "ok"), (0.55, "ok"), (0.45, "ok"), (0.56, "above"), (0.44, "below")]
)
def test_the_tolerance_decides_and_belongs_to_it(ours, verdict):
    content = drawn.scores(BENCHMARK, {"a": drawn.row(ours), "b": drawn.row(ours)})
    expected = entry({"a": ExpectedScore(0.5), "b": ExpectedScore(0.5, tolerance=0.2)}, tolerance=0.05)

    compared = compare(content, expected, BENCHMARK)

    assert (compared["a"].verdict, compared["a"].tolerance) == (verdict, 0.05)
    assert (compared["b"].verdict, compared["b"].tolerance) == ("ok", 0.2)
    assert compared["a"].difference == pytest.approx(ours - 0.5)


def test_what_was_not_evaluated_is_missing_and_says_why():
    content = drawn.scores(BENCHMARK, {"a": drawn.row(0.5)}, failed={"b": "no such picture"})
    expected = entry({name: ExpectedScore(0.5) for name in "abc"})

    compared = compare(content, expected, BENCHMARK)

    assert [(c.task, c.verdict, c.ours, c.difference, c.why) for c in compared.values()] == [
        ("a", "ok", 0.5, 0.0, ""),
        ("b", "missing", None, None, "no such picture"),
        ("c", "missing", None, None, "not evaluated"),
    ]


def test_another_metric_is_never_compared():
    content = drawn.scores(BENCHMARK, {"a": drawn.row(0.5, metric="ndcg_linear@5"), "b": drawn.row(0.5)})
    expected = entry({"a": ExpectedScore(0.5), "b": ExpectedScore(0.5, metric="mrr@10")})

    compared = compare(content, expected, BENCHMARK, force=True)

    assert [(c.verdict, c.metric, c.why, c.ours) for c in compared.values()] == [
        ("other metric", "hit@1", "ours is ndcg_linear@5", None),
        ("other metric", "mrr@10", "ours is hit@1", None),
    ]


def test_another_protocol_is_compared_only_by_force():
    content = drawn.scores(BENCHMARK, {"a": drawn.row(0.5), "b": drawn.row(0.5)})
    expected = entry(
        {"a": ExpectedScore(0.5, protocol_id="f" * 12), "b": ExpectedScore(0.5, protocol_id=drawn.PROTOCOL_ID)}
    )

    compared, forced = (compare(content, expected, BENCHMARK, force=force) for force in (False, True))

    assert [c.verdict for c in compared.values()] == ["other protocol", "ok"]
    assert compared["a"].why == "ours is 0123456789ab, expected under ffffffffffff"
    assert [c.verdict for c in forced.values()] == ["ok", "ok"]


def test_a_quick_evaluation_is_compared_only_by_force():
    content = drawn.scores(BENCHMARK, {"a": drawn.row(0.5)}, quick={"queries": 100, "seed": 0})
    expected = entry({"a": ExpectedScore(0.5)})

    compared, forced = (compare(content, expected, BENCHMARK, force=force)["a"] for force in (False, True))

    assert (compared.verdict, compared.why) == ("other protocol", "ours is quick: 100 queries a task, seed 0")
    assert forced.verdict == "ok"


INCLUDED = """
entries:
  paper:
    model: group/model
    source: table 2
    tolerance: 0.05
    mean_tolerances: {image: 0.003, overall: 0.003}
    scores: {a: 0.652}
  ours: {model: runs/ours, source: configs/ours.yaml, scores: {a: 0.7}}
"""
INCLUDING = """
include: [part]
entries:
  paper:
    note: older data
    mean_tolerances: {overall: 0.01}
    scores: {b: {score: 0.41, differs: other judgements}}
"""


def test_entries_of_a_part_are_taken_in_and_added_to(tmp_path):
    (tmp_path / "part.yaml").write_text(INCLUDED)
    (tmp_path / "toy.yaml").write_text(INCLUDING)

    entries = read_expected(tmp_path / "toy.yaml")

    assert list(entries) == ["paper", "ours"]
    assert entries["ours"].scores == {"a": ExpectedScore(0.7)}
    paper = entries["paper"]
    assert (paper.model, paper.source, paper.tolerance, paper.note) == ("group/model", "table 2", 0.05, "older data")
    assert paper.mean_tolerances == {"image": 0.003, "overall": 0.01}
    assert paper.scores == {"a": ExpectedScore(0.652), "b": ExpectedScore(0.41, differs="other judgements")}


def test_a_score_that_a_part_has_already_is_refused(tmp_path):
    (tmp_path / "part.yaml").write_text(INCLUDED)
    (tmp_path / "toy.yaml").write_text(INCLUDING.replace("{b: {", "{a: {"))

    with pytest.raises(InputError, match=r"toy.yaml: entries.paper.scores.a: expected each task once"):
        read_expected(tmp_path / "toy.yaml")


def test_a_tolerance_of_a_mean_that_the_benchmark_lacks_is_refused(tmp_path):
    (tmp_path / "toy.yaml").write_text(one("model: m, source: s, mean_tolerances: {overal: 0.1}"))

    with pytest.raises(InputError, match=r"paper.mean_tolerances: expected a mean of toy, got 'overal'; .*'overall'"):
        find_entry(tmp_path, BENCHMARK)


def test_what_differs_is_shown_and_compared_only_by_force():
    content = drawn.scores(BENCHMARK, {name: drawn.row(0.5) for name in "abc"})
    given = {"a": ExpectedScore(0.5, differs="older data"), "b": ExpectedScore(0.5, prompts="2")}
    expected = entry(given | {"c": ExpectedScore(0.5, prompts="1")})

    compared, forced = (compare(content, expected, BENCHMARK, force=force) for force in (False, True))

    assert [(c.verdict, c.why, c.ours) for c in compared.values()] == [
        ("differs", "older data", None),
        ("differs", "ours has prompts 1, published under 2", None),
        ("ok", "", 0.5),
    ]
    assert [c.verdict for c in forced.values()] == ["ok", "ok", "ok"]


def test_a_version_of_prompts_that_the_row_lacks_is_refused(tmp_path):
    (tmp_path / "toy.yaml").write_text(one(scores='{a: {score: 0.5, prompts: "2025-6"}}'))
    task = Task("a", "a", "hit@1", prompts="2025-11", wordings={"2025-06": Wording()})

    with pytest.raises(InputError, match=r"scores.a.prompts: .* prompts of a, got '2025-6'; did you mean '2025-06'\?"):
        find_entry(tmp_path, Benchmark("toy", {"a": task}))


def test_prompts_that_were_chosen_are_another_protocol_and_not_the_entrys_difference():
    task = Task("a", "a", "hit@1", prompts="new", wordings={"old": Wording(query_instruction="")})
    rows = Benchmark("toy", {"a": task})
    expected = {name: entry({"a": ExpectedScore(0.5, prompts=name)}) for name in ("new", "old")}

    def verdicts(prompts):
        content = drawn.scores(rows.worded(prompts), {"a": drawn.row(0.5)})
        return {name: compare(content, given, rows)["a"].verdict for name, given in expected.items()}

    assert verdicts("new") == {"new": "ok", "old": "differs"}
    assert verdicts("old") == {"new": "other protocol", "old": "ok"}


def test_a_part_of_the_data_is_compared_only_by_force_and_a_miniature_never():
    expected = entry({"a": ExpectedScore(0.5)})
    part = drawn.scores(BENCHMARK, {"a": drawn.row(0.5, part="only the first 3 rows")})
    small = drawn.scores(BENCHMARK, {"a": drawn.row(0.5)}, miniature=True)

    found = [compare(content, expected, BENCHMARK, force=force)["a"] for content in (part, small) for force in (0, 1)]

    assert [c.verdict for c in found] == ["other protocol", "ok", "other protocol", "other protocol"]
    assert found[0].why == "ours is on a part of its data: only the first 3 rows"
    assert found[2].why == "ours is a miniature"


def test_only_tasks_that_were_chosen_are_compared():
    expected = entry({"a": ExpectedScore(0.5), "b": ExpectedScore(0.5)})
    content = drawn.scores(BENCHMARK, {"a": drawn.row(0.5)}, chosen=["a"])

    assert list(compare(content, expected, BENCHMARK)) == ["a"]


def test_a_file_of_entries_may_hold_includes_alone_and_no_loop(tmp_path):
    (tmp_path / "part.yaml").write_text(INCLUDED)
    (tmp_path / "toy.yaml").write_text("include: [part]\n")
    assert list(read_expected(tmp_path / "toy.yaml")) == ["paper", "ours"]

    (tmp_path / "part.yaml").write_text("include: [toy]\n")
    with pytest.raises(InputError, match=r"part.yaml: include: .* got toy.yaml again"):
        read_expected(tmp_path / "toy.yaml")
