import io
import json

import PIL.Image
import pytest
import torch
from bs4 import BeautifulSoup
from rich.console import Console

from mmembed.errors import InputError
from mmembed.evaluation.benchmark import Benchmark, Passing, Task
from mmembed.evaluation.evaluate import evaluate_benchmark
from mmembed.evaluation.report import marks, table_text, write_report

SHADES = {"black": 0, "grey": 100, "white": 255}


def write_rows(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def encode(items, *, side):
    """One shade as an angle; words name it, pictures show it, and white is taken for black."""
    shades = []
    for item in items:
        if item.media:
            picture = PIL.Image.open(item.media[0].source)
            shade = picture.convert("L").getpixel((0, 0))
        else:
            shade = next(SHADES[word] for word in item.text.split() if word in SHADES)
        shades.append(0 if item.media and shade == 255 else shade)
    angles = torch.tensor(shades) / 255
    return torch.stack([angles.cos(), angles.sin()], dim=1)


@pytest.fixture
def evaluated(tmp_path):
    """An evaluation of pictures of three shades against descriptions, where white is always missed."""
    data = tmp_path / "data/shades"
    data.mkdir(parents=True)
    for name, shade in SHADES.items():
        PIL.Image.new("RGB", (24, 16), (shade,) * 3).save(data / f"{name}.png")
    write_rows(data / "queries.jsonl", [{"id": f"<{n}>", "image": f"{n}.png"} for n in SHADES])
    write_rows(data / "corpus.jsonl", [{"id": n, "text": f"a {n} <b>wall</b>"} for n in SHADES])
    write_rows(data / "relevance.jsonl", [{"query_id": f"<{n}>", "targets": {n: 1}} for n in SHADES])
    passing = Passing(chance_factor=1.5, aim=0.9)
    task = Task(
        name="shades",
        data="shades",
        metric="hit@1",
        query_instruction="Find it.",
        blind="no_instruction",
        passing=passing,
    )
    benchmark = Benchmark("toy", {"shades": task, "later": Task(name="later", data="later", metric="hit@1")})
    where = {"data_root": tmp_path / "data", "output": tmp_path / "out"}
    evaluate_benchmark(benchmark, encode, model="runs/toy", tasks=["shades"], **where)
    return benchmark, where


@pytest.fixture
def page(evaluated):
    benchmark, where = evaluated
    return BeautifulSoup(write_report(benchmark=benchmark, num_targets=2, **where).read_text(), "html.parser")


def words(node):
    return " ".join(node.get_text(" ").split())


def test_the_table_shows_scores_times_100_and_marks(page):
    heads = [words(cell) for cell in page.select("thead th")]
    cells = dict(zip(heads, [words(cell) for cell in page.select("tbody td")], strict=True))

    assert cells == {
        "task": "shades",
        "metric": "hit@1",
        "score": "66.7",
        "chance": "33.3",
        "blind": "66.7",
        "queries": "3",
        "corpus": "3",
        "seconds": cells["seconds"],
        "passes": "✓ 1.5 x chance ✗ blind + 30 ✗ aim 90",
    }


def test_the_page_needs_no_other_file_and_says_what_it_is(page):
    assert not page.select("script, link, iframe")
    assert all(image["src"].startswith("data:image/") for image in page.select("img"))
    assert words(page.title) == "toy · runs/toy"
    assert words(page.h1) == "toy partial"


def test_misses_show_the_right_target_framed_although_it_is_not_among_the_first(page):
    (miss,) = page.select(".misses .example")

    assert words(miss.select_one(".query")) == "query <white> Find it."
    assert miss.select_one(".query img")["src"].startswith("data:image/png;base64,")
    cards = miss.select(".card")
    assert [words(card.select_one(".place")).split()[-2] for card in cards] == ["#1", "#2", "#3"]
    assert ["right" in card["class"] for card in cards] == [False, False, True]
    assert [words(card.select_one(".words")) for card in cards] == [f"a {n} <b>wall</b>" for n in SHADES]


def test_hits_frame_the_first_target(page):
    hits = page.select(".hits .example")

    assert [words(hit.select_one(".id")) for hit in hits] == ["<black>", "<grey>"]
    assert all(hit.select(".card")[0]["class"] == ["card", "right"] for hit in hits)
    assert all(len(hit.select(".card.right")) == 1 for hit in hits)


def test_the_chart_draws_score_blind_and_chance_to_scale(page):
    score, blind = (float(page.select_one(f"rect.bar-{name}")["width"]) for name in ("score", "blind"))
    start = float(page.select_one("rect.bar-score")["x"])
    chance = float(page.select_one("line.tick-chance")["x1"]) - start

    assert (score, blind) == (pytest.approx(560 * 2 / 3, abs=0.1),) * 2
    assert chance == pytest.approx(560 / 3, abs=0.1)


def test_words_of_the_data_cannot_become_markup(page):
    assert not page.select(".words b")


def test_a_right_target_beyond_the_ranking_is_shown_without_a_rank(evaluated):
    benchmark, where = evaluated
    rankings = where["output"] / "rankings/shades.jsonl"
    rows = [json.loads(line) for line in rankings.read_text().splitlines()]
    rows[2] |= {"targets": rows[2]["targets"][:2], "scores": rows[2]["scores"][:2], "first_hit": None}
    write_rows(rankings, rows)

    page = BeautifulSoup(write_report(benchmark=benchmark, **where).read_text(), "html.parser")

    assert words(page.select(".misses .card")[-1]) == "✓ beyond #2 a white <b>wall</b>"


def test_a_few_examples_are_spread_over_all_queries(evaluated):
    benchmark, where = evaluated

    page = BeautifulSoup(write_report(benchmark=benchmark, num_examples=1, **where).read_text(), "html.parser")

    assert len(page.select(".hits .example")) == len(page.select(".misses .example")) == 1


def test_scores_of_another_benchmark_are_refused(evaluated):
    _, where = evaluated
    other = Benchmark("other", {"shade": Task(name="shade", data="x", metric="hit@1")})

    with pytest.raises(InputError, match=r"a task of other, got 'shades'; did you mean 'shade'\?"):
        write_report(benchmark=other, **where)


@pytest.mark.parametrize(
    ("blind", "expected"),
    [
        (None, {"3 x chance": True, "aim 80": False}),
        (0.2, {"3 x chance": True, "blind + 30": True, "aim 80": False}),
        (0.5, {"3 x chance": True, "blind + 30": False, "aim 80": False}),
    ],
)
def test_marks_say_what_is_reached(blind, expected):
    assert marks({"score": 0.6, "chance": 0.1, "blind": blind}, Passing()) == expected
    assert marks({"score": 0.6, "chance": 0.1, "blind": blind}, None) == {}


def rendered(scores, benchmark=None, width=100):
    console = Console(width=width, record=True, file=io.StringIO())
    console.print(table_text(scores, benchmark))
    return console.export_text()


def test_the_terminal_table_fits_and_prints_times_100(evaluated):
    benchmark, where = evaluated
    scores = json.loads((where["output"] / "scores.json").read_text())
    long = "ViDoRe_esg_reports_human_labeled_v2_and_a_name_that_is_longer_still"
    row = scores["tasks"]["shades"] | {"metric": "ndcg_exponential@10", "queries": 123456, "corpus": 1234567}
    scores["tasks"][long] = row | {"blind": None, "seconds": 12345.67}
    benchmark.tasks[long] = benchmark.tasks["shades"]

    text = rendered(scores, benchmark)

    assert max(map(len, text.splitlines())) <= 100
    assert "partial" in text
    assert "66.7" in text and "✓ ✗ ✗" in text and "12345.7" in text and "…" not in text
    assert "passes" not in rendered(scores)
