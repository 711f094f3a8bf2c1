import io
from pathlib import Path

import pytest
from rich.console import Console

from mmembed.evaluation.benchmark import Benchmark, Passing, Task, Wording, read_benchmark
from mmembed.evaluation.expected import Expected, ExpectedScore, compare
from mmembed.evaluation.markdown import markdown
from mmembed.evaluation.means import compare_means
from mmembed.evaluation.tables import comparison_table, means_table, table_text
from mmembed.evaluation.words import SIGNS, marks, plain
from tests.evaluation import drawn

PASSING = Passing()
BENCHMARK = Benchmark("toy", {n: Task(name=n, data=n, metric="hit@1", passing=PASSING) for n in ("a", "b", "c")})
SCORES = drawn.scores(
    BENCHMARK,
    {"a": drawn.row(0.75, blinds={"grey_image": 0.2, "no_text": 0.5}), "b": drawn.row(0.9)},
    failed={"c": "a|b.jsonl: [row 7]: got <b>"},
)
EXPECTED = Expected(
    "paper", "group/model", "table 2", {"a": ExpectedScore(0.6), "c": ExpectedScore(0.5)}, commit="0a1b2c3"
)


@pytest.mark.parametrize(
    ("blind", "expected"),
    [
        (None, {"3 x chance": True, "aim 80": False}),
        (0.2, {"3 x chance": True, "blind + 30": True, "aim 80": False}),
        (0.5, {"3 x chance": True, "blind + 30": False, "aim 80": False}),
    ],
)
def test_marks_say_what_is_reached(blind, expected):
    row = {"score": 0.6, "chance": 0.1, "blind": blind}

    assert marks(row, Passing()) == expected
    assert marks(row, None) == {}


def lines_of(table, width=100):
    console = Console(width=width, record=True, file=io.StringIO())
    console.print(table)
    return [line.rstrip() for line in console.export_text().splitlines()]


def test_the_terminal_table_prints_times_100_what_passes_and_what_failed():
    title, _, heads, _, first, second, failed, _, *notes = lines_of(table_text(SCORES, BENCHMARK))

    assert title == "toy: runs/drawn/final"
    assert heads.split() == ["task", "metric", "score", "±", "chance", "blind", "queries", "protocol", "passes"]
    assert first.split() == ["a", "hit@1", "75.0", "5.0", "10.0", "50.0", "200", drawn.PROTOCOL_ID, "✓✗✗"]
    assert second.split() == ["b", "hit@1", "90.0", "5.0", "10.0", "–", "200", drawn.PROTOCOL_ID, "✓✓"]  # noqa: RUF001
    assert failed.split() == ["c", "failed"]
    assert notes == ["partial (2 of 3)", "failed: c: a|b.jsonl: [row 7]: got <b>"]


def test_the_terminal_table_shows_an_expected_entry():
    _, _, heads, _, first, second, *_ = lines_of(table_text(SCORES, BENCHMARK, expected=EXPECTED))

    assert heads.split()[6] == "published"
    assert first.split()[6:10] == ["60.0", "±", "2.0", "▲"]
    assert "▲" not in second
    assert "paper: table 2" in " ".join(lines_of(table_text(SCORES, BENCHMARK, expected=EXPECTED)))


def test_the_terminal_table_fits_whatever_the_names():
    long = "ViDoRe_esg_reports_human_labeled_v2_and_a_name_that_is_longer_still"
    passing = Task(name=long, data="x", metric="ndcg_exponential@10", passing=Passing())
    benchmark = Benchmark("toy", {long: passing})
    row = drawn.row(1.0, metric="ndcg_exponential@10", blinds={"no_text": 1.0}, queries=1234567)
    expected = Expected("paper", "m", "s", {long: ExpectedScore(1.0)})

    text = lines_of(table_text(drawn.scores(benchmark, {long: row}), benchmark, expected=expected))

    assert max(map(len, text)) <= 100
    joined = "".join(text)
    assert "1234567" in joined and "100.0 ± 2.0 ✓" in joined and "✓✗✓" in joined and "…" not in joined


def test_a_quick_evaluation_and_a_whole_one_are_told_apart():
    tasks = {name: drawn.row(0.5) for name in "abc"}

    quick = lines_of(table_text(drawn.scores(BENCHMARK, tasks, quick={"queries": 9, "seed": 1}), BENCHMARK))
    whole = lines_of(table_text(drawn.scores(BENCHMARK, tasks), BENCHMARK))

    assert quick[-2:] == ["quick, no mean", "quick: 9 queries a task, seed 1"]
    assert whole[-1] == "mean of 3 tasks 50.0"


def test_the_comparison_says_what_is_off_and_why():
    title, _, heads, _, first, second, *rest = lines_of(
        comparison_table(SCORES, list(compare(SCORES, EXPECTED, BENCHMARK).values()), EXPECTED, BENCHMARK)
    )

    assert title == "paper: group/model"
    assert heads.split() == ["task", "metric", "ours", "published", "diff", "within", "protocol", "verdict"]
    assert first.split() == ["a", "hit@1", "75.0", "60.0", "+15.0", "2.0", "0123456789ab", "above"]
    assert second.split()[:6] == ["c", "hit@1", "–", "50.0", "–", "2.0"]  # noqa: RUF001
    assert second.split()[-1] == "missing"
    assert rest[-3:] == [
        "1 of 2 tasks compared",
        "table 2, held at 0a1b2c3",
        "missing: c: a|b.jsonl: [row 7]: got <b>",
    ]


def test_the_whole_means_of_both_sides_stand_in_a_line_of_their_own():
    tasks = {name: drawn.row(0.5) for name in "abc"}
    expected = Expected("paper", "m", "table 2", {name: ExpectedScore(0.6) for name in "abc"})
    scores = drawn.scores(BENCHMARK, tasks)
    compared = list(compare(scores, expected, BENCHMARK).values())

    lines = lines_of(comparison_table(scores, compared, expected, BENCHMARK))

    assert lines[-3:-1] == [
        "3 of 3 tasks compared", "overall, all 3 tasks as they are: ours 50.00, published 60.00",
    ]  # fmt: skip


def test_markdown_has_the_table_the_failures_and_the_protocols():
    text = markdown(SCORES, BENCHMARK, expected=EXPECTED).splitlines()

    assert text[0] == "# toy: runs/drawn/final"
    assert "- partial (2 of 3)" in text
    rows = [line for line in text if line.startswith("|")]
    assert rows[0].startswith("| task | metric | score | ± | chance | blind | published | queries |")
    assert rows[2] == (
        "| `a` | hit@1 | 75.0 | 5.0 | 10.0 | 50.0 | 60.0 ± 2.0 ▲ | 200 | `0123456789ab` "
        "| ✓ 3 x chance, ✗ blind + 30, ✗ aim 80 |"
    )
    assert rows[4].startswith("| `c` | failed |")
    assert {line.count(" |") for line in rows} == {10}
    assert r"- `c`: a\|b.jsonl: [row 7]: got \<b>" in text
    assert any(line.startswith("- `0123456789ab` `a`: data a; metric hit@1; ") for line in text)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (None, "none"),
        ("", "none"),
        ([], "none"),
        ([1, 5], "1, 5"),
        (0, "0"),
        (False, "False"),
        ({"aim": 0.8, "x": None}, "aim 0.8, x none"),
    ],
)
def test_fields_of_a_protocol_are_words(value, words):
    assert plain(value) == words


PARTS = {"a": ("image", "QA"), "b": ("image", "CLS"), "c": ("video", "")}
PARTED = Benchmark("toy", {n: Task(n, n, "hit@1", modality=m, category=c) for n, (m, c) in PARTS.items()})
HALF = drawn.scores(PARTED, {"a": drawn.row(0.75), "b": drawn.row(0.9)}, failed={"c": "no data"})
OLDER = Expected(
    "paper", "m", "s", {"a": ExpectedScore(0.76), "b": ExpectedScore(0.5, differs="old"), "c": ExpectedScore(0.5)}
)


def test_columns_that_no_task_fills_are_left_out():
    heads = lines_of(table_text(HALF, PARTED))[2].split()

    assert heads == ["task", "metric", "score", "±", "chance", "queries", "protocol"]
    assert "| task | metric | score | ± | chance | queries | protocol |" in markdown(HALF, PARTED)


def test_means_of_parts_stand_in_a_table_of_their_own():
    _, _, heads, _, *rows = lines_of(means_table(HALF, PARTED))

    assert heads.split() == ["mean", "tasks", "score"]
    assert [row.split(maxsplit=2) for row in rows if row] == [
        ["image", "2", "82.5"],
        ["QA", "1", "75.0"],
        ["CLS", "1", "90.0"],
        ["video", "1", "partial (0 of 1)"],
        ["overall", "3", "partial (2 of 3)"],
    ]
    assert means_table(SCORES, BENCHMARK) is None


def test_published_means_stand_beside_ours_and_say_what_they_are_over():
    rows = [row.split() for row in lines_of(means_table(HALF, PARTED, expected=OLDER))]

    assert rows[2] == ["mean", "tasks", "score", "published", "compared"]
    assert rows[4] == ["image", "2", "82.5", "63.0", "±", "2.0", "✓", "-1.0,", "over", "1", "of", "2"]
    assert rows[6] == ["CLS", "1", "90.0", "50.0", "±", "2.0", "≠"]
    assert rows[7][-4:] == ["50.0", "±", "2.0", SIGNS["missing"]]


def test_markdown_has_the_means_before_the_tasks():
    lines = markdown(HALF, PARTED, expected=OLDER).splitlines()

    first = lines.index("| mean | tasks | score | published | compared |")
    assert lines[first + 2] == "| **image** | 2 | 82.5 | 63.0 ± 2.0 | ✓ -1.0, over 1 of 2 |"
    assert lines[first + 3] == "| QA | 1 | 75.0 | 76.0 ± 2.0 | ✓ -1.0 |"
    assert lines[first + 7] == ""
    assert lines[first + 8].startswith("| task |")


def test_the_comparison_has_the_means_below_and_each_reason_once():
    compared = compare(HALF, OLDER, PARTED)

    table = comparison_table(
        HALF, list(compared.values()), OLDER, PARTED, means=compare_means(HALF, compared, OLDER, PARTED)
    )
    lines = lines_of(table)

    image = next(line for line in lines if line.startswith(" image"))
    assert image.split() == ["image", "mean", "of", "1", "of", "2", "75.0", "76.0", "-1.0", "2.0", "ok"]
    assert lines[-5:] == [
        "differs: b: old",
        "missing: c: no data",
        "differs: CLS: none of its tasks is compared",
        "missing: video: 1 of 1 tasks are missing",
        "missing: overall: 1 of 3 tasks are missing",
    ]
    assert max(map(len, lines)) <= 100


def test_the_tables_of_seventy_eight_tasks_fit():
    benchmark = read_benchmark(Path(__file__).parents[2] / "eval/benchmarks/mmeb_v2.yaml")
    rows = {name: drawn.row(1.0, metric=task.metric) for name, task in benchmark.tasks.items()}
    scores = drawn.scores(benchmark, rows)
    expected = Expected("paper", "m", "s", {name: ExpectedScore(1.0) for name in rows})
    compared = compare(scores, expected, benchmark)
    tables = [
        table_text(scores, benchmark, expected=expected),
        means_table(scores, benchmark, expected=expected),
        comparison_table(
            scores,
            list(compared.values()),
            expected,
            benchmark,
            means=compare_means(scores, compared, expected, benchmark),
        ),
    ]

    for table in tables:
        lines = lines_of(table)
        assert max(map(len, lines)) <= 100
        assert "…" not in "".join(lines)
    assert len(lines_of(tables[1])) < 25


PARTLY = drawn.scores(
    PARTED,
    {
        "a": drawn.row(0.75, part="only the first 3 rows"),
        "b": drawn.row(0.9, part="only the first 3 rows"),
        "c": drawn.row(0.5),
    },
)


def test_tasks_on_parts_of_their_data_are_marked_and_counted_in_no_mean():
    note = "2 tasks on parts of their data, which no mean counts: a, b: only the first 3 rows"

    table, page = " ".join(lines_of(table_text(PARTLY, PARTED))), markdown(PARTLY, PARTED)

    assert note in table and f"- {note}" in page
    assert "a (part)" in table and "| `a (part)` |" in page
    assert "partial (1 of 3)" in table
    rows = {row.split()[0]: row.split(maxsplit=2)[2] for row in lines_of(means_table(PARTLY, PARTED))[4:] if row}
    assert rows == {
        "image": "partial (0 of 2)", "QA": "partial (0 of 1)", "CLS": "partial (0 of 1)", "video": "50.0",
        "overall": "partial (1 of 3)",
    }  # fmt: skip


def test_a_miniature_says_in_every_table_that_it_is_one():
    scores = drawn.scores(PARTED, {name: drawn.row(0.5) for name in "abc"}, miniature=True)
    compared = list(compare(scores, OLDER, PARTED).values())

    texts = [
        " ".join(lines_of(table_text(scores, PARTED))), markdown(scores, PARTED),
        " ".join(lines_of(comparison_table(scores, compared, OLDER, PARTED))),
    ]  # fmt: skip

    assert all("no score of the benchmark" in text for text in texts)
    assert all("toy (miniature)" in text and "mean of 3 tasks of a miniature 50.0" in text for text in texts[:2])


def test_the_legend_has_the_signs_of_the_table_and_reasons_follow():
    said = " ".join(" ".join(lines_of(table_text(HALF, PARTED, expected=OLDER))).split())
    quick = drawn.scores(PARTED, {"a": drawn.row(0.76)}, quick={"queries": 9, "seed": 1})

    assert "published (✓ within its tolerance, ≠ not compared): paper: s" in said
    assert "≠ differs: b: old" in said
    assert "- ≠ differs: b: old" in markdown(HALF, PARTED, expected=OLDER)
    assert "published (≠ not compared): paper" in markdown(quick, PARTED, expected=OLDER)


def test_prompts_are_shown_as_strings_and_only_those_in_force():
    task = Task(
        "a", "a", "hit@1", query_instruction="", query_layout="{media}\n{instruction} {text}\n",
        wordings={"old": Wording(query_instruction="Elder:")},
    )  # fmt: skip
    benchmark = Benchmark("toy", {"a": task})
    scores = drawn.scores(benchmark, {"a": drawn.row(0.5)})

    (line,) = (line for line in markdown(scores, benchmark).splitlines() if line.startswith("- `0123456789ab`"))

    assert r'query_layout `"{media}\n{instruction} {text}\n"`' in line
    assert 'query_instruction `""`' in line
    assert "target_instruction the data's own; " in line
    assert "target_layout joined by separators" in line
    assert "Elder" not in line and "wordings" not in line
