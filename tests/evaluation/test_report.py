"""The pages of a report, from files written by hand; tests/acceptance/test_report_page.py opens one in a browser."""

import json
from dataclasses import replace

import PIL.Image
import pytest
from bs4 import BeautifulSoup

from mmembed.errors import InputError
from mmembed.evaluation.benchmark import Benchmark, Passing, Task
from mmembed.evaluation.expected import Expected, ExpectedScore
from mmembed.evaluation.rankings import Ranking
from mmembed.evaluation.report import NUM_OPEN, write_report
from tests.evaluation import drawn

SHADES = {"black": 0, "grey": 100, "white": 255}
FOUND = {"black": ["black", "grey", "white"], "grey": ["grey", "black", "white"], "white": ["black", "grey", "white"]}
BLINDS = {"no_instruction": 2 / 3, "grey_image": 1 / 3}
EXPECTED = Expected("paper", "group/model", "table <2>", {"shades": ExpectedScore(0.9)})


@pytest.fixture
def evaluated(tmp_path):
    """An evaluation of pictures of three shades against descriptions, where white is always missed."""
    data, output = tmp_path / "data/shades", tmp_path / "out"
    data.mkdir(parents=True)
    for name, shade in SHADES.items():
        PIL.Image.new("RGB", (24, 16), (shade,) * 3).save(data / f"{name}.png")
    right = {f"<{name}>": name for name in SHADES}
    drawn.write_set(
        data,
        {query: {"image": f"{name}.png"} for query, name in right.items()},
        {name: {"text": f"a {name} <b>wall</b>"} for name in SHADES},
        right,
        {
            query: {"tone": ["dark" if shade < 200 else "light"]}
            for query, shade in zip(right, SHADES.values(), strict=True)
        },
    )
    passing = Passing(chance_factor=1.5, aim=0.9)
    task = Task("shades", "shades", "hit@1", query_instruction="Find it.", blind=tuple(BLINDS), passing=passing)
    benchmark = Benchmark("toy", {"shades": task, "later": Task("later", "later", "hit@1")})
    row = drawn.row(
        2 / 3,
        blinds=BLINDS,
        chance=1 / 3,
        queries=3,
        corpus=3,
        interval=[0.25, 0.85],
        metrics={"hit@1": 2 / 3, "mrr@10": 0.77},
        groups={"tone": {"dark": {"score": 1.0, "queries": 2}, "light": {"score": 0.0, "queries": 1}}},
        macro={"tone": 0.5},
    )
    rankings = [
        Ranking(f"<{name}>", found, [0.9, 0.5, 0.25], {name: 1.0}, found.index(name) + 1)
        for name, found in FOUND.items()
    ]
    drawn.write_evaluation(output, drawn.scores(benchmark, {"shades": row}), {"shades": rankings})
    return benchmark, {"data_root": tmp_path / "data", "output": output}


def change_scores(where, change):
    path = where["output"] / "scores.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def opened(evaluated, **options):
    benchmark, where = evaluated
    return BeautifulSoup(write_report(benchmark=benchmark, **where, **options).read_text(), "html.parser")


@pytest.fixture
def page(evaluated):
    return opened(evaluated, num_targets=2)


def words(node):
    return " ".join(node.get_text(" ").split())


def of_100(node, name):
    return float(node[name].removesuffix("%"))


def test_the_table_shows_scores_times_100_and_marks(page):
    heads = [words(cell) for cell in page.select("thead th")]
    cells = page.select("tbody tr")[0].find_all(["th", "td"])

    assert dict(zip(heads, map(words, cells), strict=True)) == {
        "task": "shades",
        "metric": "hit@1",
        "score": "66.7",
        "95% interval": "25.0 – 85.0",  # noqa: RUF001
        "chance": "33.3",
        "blinded": "no_instruction 66.7 grey_image 33.3",
        "queries": "3",
        "corpus": "3",
        "protocol": drawn.PROTOCOL_ID,
        "passes": "✓ ✗ ✗",
    }
    marks = [mark["aria-label"] for mark in cells[-1].select(".mark")]
    assert marks == ["1.5 x chance: yes", "blind + 30: no", "aim 90: no"]


def test_the_page_needs_no_other_file_and_says_what_it_is(page):
    assert not page.select("link, iframe, script[src], [href^=http]")
    assert "default-src 'none'" in page.select_one("meta[http-equiv]")["content"]
    assert all(image["src"].startswith("data:image/") for image in page.select("img"))
    assert words(page.title) == "toy: runs/drawn/final"
    assert words(page.h1) == "toy partial"
    assert [words(tile) for tile in page.select(".tiles div")] == [
        "mean of 2 tasks partial 1 of 2",
        "tasks that pass 0 of 1",
    ]


def test_without_its_script_the_page_shows_everything_but_the_filters(page):
    assert [node["class"] for node in page.select("[hidden]")] == [["filters"], ["nothing"]]
    assert page.select_one("details.sheets").has_attr("open")


def test_a_whole_benchmark_has_a_mean_and_a_quick_one_says_so(evaluated):
    benchmark, where = evaluated
    quick = {"queries": 100, "seed": 3}
    change_scores(where, lambda scores: scores["protocol"].update(quick=quick))

    page = opened((benchmark.only(["shades"]), where))

    assert words(page.h1) == "toy quick"
    assert words(page.select_one("p.less")) == "quick: 100 queries a task, seed 3"
    assert words(page.select_one(".tiles div")) == "mean of 1 task quick no mean"


def test_failed_tasks_are_named_with_their_messages(evaluated):
    change_scores(evaluated[1], lambda scores: scores["failed"].update(later="row 7: <no> picture"))

    page = opened(evaluated)

    assert words(page.select_one("section.failed")) == "Failed later row 7: <no> picture"
    assert words(page.select("tbody tr")[1]) == "later failed"
    assert words(page.select(".tiles div")[-1]) == "failed 1 task"


def test_an_evaluation_of_which_everything_failed_is_a_page_too(evaluated):
    change_scores(evaluated[1], lambda scores: scores.update(tasks={}, failed={"shades": "no", "later": "no"}))

    page = opened(evaluated)

    assert [words(row) for row in page.select("tbody tr")] == ["shades failed", "later failed"]
    assert not page.select("form, section.task")


def test_an_expected_entry_stands_beside_the_scores(evaluated):
    page = opened(evaluated, expected=EXPECTED)

    heads = [words(cell) for cell in page.select("thead th")]
    cell = page.select("tbody tr")[0].find_all(["th", "td"])[heads.index("published")]
    assert words(cell) == "90.0 ± 2.0 ▼ below"
    assert cell.select_one(".below")["title"] == "difference -23.3"
    assert words(page.select_one(".note")) == "published: paper , group/model, table <2>"
    assert of_100(page.select_one("svg.published"), "x") == 90
    assert "as published, of those compared 0 of 1" in [words(tile) for tile in page.select(".tiles div")]


def test_misses_show_the_right_target_framed_although_it_is_not_among_the_first(page):
    (miss,) = page.select(".example.miss")

    assert words(miss.select_one(".query")) == "query <white> Find it. light"
    assert miss.select_one(".query img")["src"].startswith("data:image/png;base64,")
    assert (miss.select_one(".query img")["width"], miss.select_one(".query img")["height"]) == ("24", "16")
    cards = miss.select(".card")
    assert [words(card.select_one(".place")).split()[-2] for card in cards] == ["#1", "#2", "#3"]
    assert ["right" in card["class"] for card in cards] == [False, False, True]
    assert [words(card.select_one(".words")) for card in cards] == [f"a {n} <b>wall</b>" for n in SHADES]
    assert [words(card.select_one(".id")) for card in cards] == list(SHADES)


def test_an_id_that_is_the_text_is_not_said_twice(evaluated):
    _, where = evaluated
    corpus = {name: {"text": text} for name, text in zip(SHADES, ("black", "a grey wall", "white"), strict=True)}
    drawn.write_rows(where["data_root"] / "shades/corpus.jsonl", [{"id": n, **item} for n, item in corpus.items()])

    (miss,) = opened(evaluated).select(".example.miss")

    assert [words(node) for node in miss.select(".card .id")] == ["grey"]


def test_hits_frame_the_first_target(page):
    hits = page.select(".example.hit")

    assert [words(hit.select_one(".id")) for hit in hits] == ["<black>", "<grey>"]
    assert all(hit.select(".card")[0]["class"] == ["card", "right"] for hit in hits)
    assert all(len(hit.select(".card.right")) == 1 for hit in hits)


def test_examples_say_what_the_filters_ask_for(page):
    found = [
        (node["data-task"], node["data-kind"], node["data-groups"].split("\n")) for node in page.select(".example")
    ]

    assert found == [
        ("shades", "miss", ["tone=light", ""]),
        ("shades", "hit", ["tone=dark", ""]),
        ("shades", "hit", ["tone=dark", ""]),
    ]
    options = [option.get("value") for option in page.select("select[name=group] option")]
    assert options == ["", "tone=dark", "tone=light"]


def test_the_chart_draws_score_interval_blinds_and_chance_to_scale(page):
    chart = page.select_one(".chart.overview")

    assert of_100(chart.select_one("rect.bar-score"), "width") == pytest.approx(200 / 3, abs=0.01)
    assert [of_100(bar, "width") for bar in chart.select("rect.bar-blind")] == pytest.approx(
        [200 / 3, 100 / 3], abs=0.01
    )
    assert [of_100(chart.select_one(".whisker line"), end) for end in ("x1", "x2")] == [25, 85]
    assert of_100(chart.select_one("line.tick-chance"), "x1") == pytest.approx(100 / 3, abs=0.01)


def test_groups_and_hit_rates_have_charts(page):
    groups, rates = page.select_one(".chart.groups"), page.select_one(".chart.rates")

    assert words(groups.figcaption) == "by tone mean 50.0"
    assert [words(label) for label in groups.select(".bar-label")] == ["dark 2", "light 1"]
    assert [of_100(bar, "width") for bar in groups.select("rect")] == [100, 0]
    heights = [float(bar["height"]) for bar in rates.select("rect")]
    assert [height / heights[2] for height in heights] == pytest.approx([2 / 3, 2 / 3, 1], abs=0.01)
    assert [bar["class"] for bar in rates.select("rect")] == [["column", "cutoff"], ["column"], ["column"]]


def test_the_protocol_of_a_task_is_told_in_full(page):
    fold = page.select_one("#protocol-shades")
    told = {words(row.dt): words(row.dd) for row in fold.select("dl div")}

    assert words(fold.summary) == f"protocol {drawn.PROTOCOL_ID}"
    assert told["query_instruction"] == '"Find it."'
    assert told["blind"] == "no_instruction, grey_image"
    assert told["target_instruction"] == "the data's own"
    assert told["query_layout"] == "joined by separators"
    assert not {"wordings", "name"} & told.keys()
    assert page.select_one("tbody code").parent["href"] == "#protocol-shades"


def test_words_of_the_data_cannot_become_markup(page):
    assert not page.select(".words b")


def test_a_right_target_beyond_the_ranking_is_shown_without_a_rank(evaluated):
    path = evaluated[1]["output"] / "rankings/shades.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    rows[2] |= {"targets": rows[2]["targets"][:2], "scores": rows[2]["scores"][:2], "first_hit": None}
    drawn.write_rows(path, rows)

    page = opened(evaluated)

    assert words(page.select(".miss .card")[-1]) == "✓ beyond #2 a white <b>wall</b> white"


def test_a_target_that_shows_the_picture_of_its_query_is_marked(tmp_path):
    benchmark, where, _ = drawn.draw_gallery(tmp_path)

    page = opened((benchmark, where), num_examples=8)

    composed = page.select_one("#task-composed")
    for example in composed.select(".example"):
        own = example.select_one(".query .id")["title"].split("-")[0] + "-circle"
        marked = [
            (words(card.select_one(".id")), words(card.select_one(".tag"))) for card in example.select(".of-query")
        ]
        assert marked in ([(own, "the query's own")], [])
    assert len(composed.select(".card.of-query")) == 8
    assert not page.select("#task-pictures .of-query")


def test_a_few_examples_are_spread_over_all_queries(evaluated):
    page = opened(evaluated, num_examples=1)

    assert len(page.select(".example.hit")) == len(page.select(".example.miss")) == 1


def test_many_tasks_get_a_table_of_contents_and_closed_sheets(evaluated):
    _, where = evaluated
    names = ["shades", *(f"shades_{i}" for i in range(NUM_OPEN))]
    many = Benchmark("toy", {name: Task(name, "shades", "hit@1") for name in names})
    row = json.loads((where["output"] / "scores.json").read_text())["tasks"]["shades"]
    rankings = where["output"] / "rankings"
    for name in names[1:]:
        (rankings / f"{name}.jsonl").write_text((rankings / "shades.jsonl").read_text())
    drawn.write_evaluation(where["output"], drawn.scores(many, dict.fromkeys(names, row)), {})

    page = opened((many, where))

    links = [link["href"] for link in page.select("nav a")]
    assert links == [f"#task-{name}" for name in names]
    assert all(page.select_one(link) for link in links)
    assert not page.select("details.sheets[open]")
    assert all(image["loading"] == "lazy" for image in page.select("img"))


def test_the_table_is_written_as_markdown_too(evaluated):
    opened(evaluated, expected=EXPECTED)

    text = (evaluated[1]["output"] / "report.md").read_text()

    assert "| `shades` | hit@1 | 66.7 | 30.0 | 33.3 | 66.7 | 90.0 ± 2.0 ▼ | 3 |" in text


def test_scores_of_another_benchmark_are_refused(evaluated):
    _, where = evaluated

    with pytest.raises(InputError, match="scores of other, got scores of toy"):
        write_report(benchmark=Benchmark("other", {}), **where)


@pytest.fixture
def parted(evaluated):
    """The same evaluation, its tasks of a modality each, without blinded scores and marks."""
    benchmark, where = evaluated
    kinds = {"shades": {"modality": "image", "category": "QA"}, "later": {"modality": "video"}}
    tasks = {
        name: replace(task, passing=None, blind=(), **kinds[name]) for name, task in benchmark.tasks.items()
    }  # fmt: skip
    change_scores(where, lambda content: content["tasks"]["shades"].update(blind=None, blinds={}))
    return Benchmark("toy", tasks), where


def test_means_of_parts_stand_before_the_tasks_and_in_tiles(parted):
    page = opened(parted, expected=replace(EXPECTED, note="older data"))

    rows = [[words(cell) for cell in row.find_all(["th", "td"])] for row in page.select("table.means tr")]
    assert rows == [
        ["mean", "tasks", "score", "published", "compared"],
        ["image", "1", "66.7", "90.0 ± 2.0", "▼ -23.3"],
        ["QA", "1", "66.7", "90.0 ± 2.0", "▼ -23.3"],
        ["video", "1", "partial (0 of 1)", "–", ""],  # noqa: RUF001
        ["overall", "2", "partial (1 of 2)", "–", ""],  # noqa: RUF001
    ]
    tiles = {words(tile.dt): words(tile.dd) for tile in page.select(".tiles div")}
    assert (tiles["image, 1 task"], tiles["video, 1 task"]) == ("66.7", "partial 0 of 1")
    assert "older data" in words(page.select_one(".note"))


def test_a_page_without_parts_has_no_table_of_means(page):
    assert page.select("table.means") == []


def test_columns_that_no_task_fills_are_left_out(parted):
    page = opened(parted)
    heads = [words(cell) for cell in page.select("table.scores thead th")]
    assert "blinded" not in words(page.select_one(".legend"))

    assert heads == ["task", "metric", "score", "95% interval", "chance", "queries", "corpus", "protocol"]


def test_a_task_on_a_part_of_its_data_is_marked_and_named(evaluated):
    benchmark, where = evaluated
    change_scores(where, lambda scores: scores["tasks"]["shades"].update(part="only the first 3 rows"))

    page = opened((benchmark.only(["shades"]), where))

    assert words(page.h1) == "toy partial"
    assert words(page.select_one("p.less")).endswith("no mean counts: shades: only the first 3 rows")
    assert words(page.select_one("tbody tr th")) == "shades (part)"
    assert words(page.select_one(".tiles div")) == "mean of 1 task partial 0 of 1"


def test_a_miniature_is_called_one_wherever_it_is_named(evaluated):
    benchmark, where = evaluated
    change_scores(where, lambda scores: scores["protocol"].update(miniature=True))

    page = opened((benchmark.only(["shades"]), where))

    assert words(page.title) == "toy (miniature): runs/drawn/final"
    assert words(page.h1) == "toy miniature"
    assert "no score of the benchmark" in words(page.select_one("p.less"))
    assert words(page.select_one(".tiles div")) == "mean of 1 task of a miniature 66.7"


def test_a_published_score_that_is_not_compared_has_a_mark_of_its_own_in_the_chart(evaluated):
    other = replace(EXPECTED, scores={"shades": ExpectedScore(0.9, differs="older data")})

    compared, not_compared = (opened(evaluated, expected=entry) for entry in (EXPECTED, other))

    assert [mark["class"] for mark in compared.select(".overview svg.published")] == [["published"]]
    assert [mark["class"] for mark in not_compared.select(".overview svg.published")] == [["published", "other"]]
    assert "not compared" not in words(compared.select_one(".legend"))
    assert "published, not compared" in words(not_compared.select_one(".legend"))
    assert "as published, of those compared 0 of 0" in [words(tile) for tile in not_compared.select(".tiles div")]


def test_examples_have_the_instruction_that_was_in_force(evaluated):
    prompts = {"query_instruction": "Elder words:"}
    change_scores(evaluated[1], lambda scores: scores["protocol"]["tasks"]["shades"].update(prompts))

    shown = [words(query) for query in opened(evaluated).select(".example .query")]

    assert shown and all("Elder words:" in text and "Find it." not in text for text in shown)
