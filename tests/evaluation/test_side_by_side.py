"""Evaluations side by side, from files written by hand."""

import io
import json

import PIL.Image
import pytest
from bs4 import BeautifulSoup
from rich.console import Console

from eval.side_by_side import main, named_runs
from mmembed.errors import InputError
from mmembed.evaluation.benchmark import Benchmark, Task
from mmembed.evaluation.rankings import Ranking
from mmembed.evaluation.side_by_side import read_runs, runs_table, shared_tasks, write_page
from tests.evaluation import drawn

SHADES = {"black": 0, "grey": 100, "white": 255}
FOUND = {
    "good": {"black": "black", "grey": "grey", "white": "white"},
    "fair": {"black": "black", "grey": "white", "white": "white"},
    "poor": {"black": "black", "grey": "white", "white": "black"},
}
BENCHMARK = Benchmark("toy", {"shades": Task("shades", "shades", "hit@1", query_instruction="Find it.")})


@pytest.fixture
def evaluated(tmp_path):
    """Three evaluations of pictures of three shades, which all get black right and differ on the others."""
    folder = tmp_path / "data/shades"
    folder.mkdir(parents=True)
    for name, shade in SHADES.items():
        PIL.Image.new("RGB", (24, 16), (shade,) * 3).save(folder / f"{name}.png")
    drawn.write_set(
        folder,
        {f"<{name}>": {"image": f"{name}.png"} for name in SHADES},
        {name: {"text": f"a {name} wall"} for name in SHADES},
        {f"<{name}>": name for name in SHADES},
    )
    outputs = {}
    for run, found in FOUND.items():
        score = sum(query == target for query, target in found.items()) / 3
        blinds = {"no_image": 0.2} if run == "good" else {"no_image": 0.3, "no_instruction": 0.4}
        row = drawn.row(score, blinds=blinds, chance=1 / 3, queries=3, corpus=3)
        rankings = [
            Ranking(f"<{query}>", [target, *(t for t in SHADES if t != target)], [0.9, 0.5, 0.2], {query: 1.0}, None)
            for query, target in found.items()
        ]
        rankings = [Ranking(r.query_id, r.targets, r.scores, r.relevant, _place(r)) for r in rankings]
        outputs[run] = tmp_path / run
        drawn.write_evaluation(outputs[run], drawn.scores(BENCHMARK, {"shades": row}), {"shades": rankings})
    return outputs, tmp_path / "data"


def _place(ranking):
    return next(i for i, target in enumerate(ranking.targets, start=1) if target in ranking.relevant)


def text_of(table):
    written = io.StringIO()
    Console(width=100, file=written).print(table)
    return written.getvalue()


def test_each_run_is_a_row_with_its_score_its_blinds_and_its_facts(evaluated):
    outputs, _ = evaluated
    runs = read_runs(outputs, BENCHMARK, {"fair": {"trained": "1.5 min"}})

    said = text_of(runs_table(runs, "shades"))

    rows = {
        line.split()[0]: line.split()[1:] for line in said.splitlines() if line.split() and line.split()[0] in FOUND
    }
    assert "shades: hit@1, chance 33.3" in said
    assert rows["good"] == ["100.0", "95.0-100.0", "20.0", "–"]  # noqa: RUF001
    assert rows["fair"] == ["66.7", "61.7-71.7", "30.0", "40.0", "1.5", "min"]
    assert rows["poor"][0] == "33.3"


def test_the_page_shows_the_same_queries_for_all_and_those_first_on_which_they_differ(evaluated):
    outputs, data = evaluated
    runs = read_runs(outputs, BENCHMARK)

    page = BeautifulSoup(write_page(data / "page.html", runs, BENCHMARK, data_root=data).read_text(), "html.parser")

    answers = page.select("table.answers tbody tr")
    right = [[cell.select_one("[aria-label]")["aria-label"] for cell in row.select("td")] for row in answers]
    assert right == [["right", "wrong", "wrong"], ["right", "right", "wrong"], ["right", "right", "right"]]
    assert [row.select_one("th .instruction").text for row in answers] == ["Find it."] * 3
    assert len(page.select("table.answers th img")) == 3
    scores = [row.select_one("td.score").text for row in page.select("table.runs tbody tr")]
    assert scores == ["100.0", "66.7", "33.3"]
    assert not page.select("script, link, [src^=http]")


def test_a_page_shows_no_more_queries_than_asked_for(evaluated):
    outputs, data = evaluated
    runs = read_runs(outputs, BENCHMARK)

    path = write_page(data / "page.html", runs, BENCHMARK, data_root=data, num_examples=1)

    assert len(BeautifulSoup(path.read_text(), "html.parser").select("table.answers tbody tr")) == 1


def test_only_tasks_that_all_runs_have_are_laid_beside_each_other(evaluated):
    outputs, _ = evaluated
    runs = read_runs(outputs, BENCHMARK)
    assert shared_tasks(runs) == ["shades"]

    scores = json.loads((outputs["poor"] / "scores.json").read_text())
    scores["tasks"] = {}
    (outputs["poor"] / "scores.json").write_text(json.dumps(scores))

    with pytest.raises(InputError, match=r"good, fair, poor: expected a task that all of them have, got none"):
        read_runs(outputs, BENCHMARK)


@pytest.mark.parametrize("field", ["revision", "sample"])
def test_runs_on_other_data_or_another_part_are_not_laid_beside_each_other(evaluated, field):
    outputs, _ = evaluated
    scores = json.loads((outputs["poor"] / "scores.json").read_text())
    scores["protocol"]["tasks"]["shades"][field] = "another"
    (outputs["poor"] / "scores.json").write_text(json.dumps(scores))

    with pytest.raises(InputError, match="poor: shades: expected the data of good, got others, or another part"):
        read_runs(outputs, BENCHMARK)


def test_the_command_names_runs_by_their_folders_unless_told_otherwise(tmp_path):
    assert named_runs([str(tmp_path / "a"), f"b={tmp_path / 'a'}"]) == {"a": tmp_path / "a", "b": tmp_path / "a"}
    with pytest.raises(InputError, match="a: expected a name for each run, got two of it; write NAME=DIR"):
        named_runs(["x/a", "y/a"])


def test_the_command_prints_the_table_and_writes_the_page(evaluated, tmp_path, capsys):
    outputs, data = evaluated
    rows = tmp_path / "toy.yaml"
    rows.write_text("tasks: {shades: {data: shades, metric: hit@1, query_instruction: Find it.}}\n")
    arguments = [
        *(f"{name}={path}" for name, path in outputs.items()),
        "--benchmark",
        str(rows),
        "--data-root",
        str(data),
    ]

    assert main([*arguments, "--output", str(tmp_path / "page.html")]) == 0
    said = capsys.readouterr().out
    assert "66.7" in said
    assert str(tmp_path / "page.html") in said

    assert main(["nowhere", "--benchmark", str(rows)]) == 2
    assert "nowhere/scores.json: expected scores of an evaluation, got no such file" in capsys.readouterr().err
