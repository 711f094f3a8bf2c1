"""Grids of queries beside what they found: which, in which frames, as a picture and as a page."""

import shutil

import PIL.Image
import pytest
from bs4 import BeautifulSoup

from eval.grid import main
from mmembed.errors import InputError
from mmembed.evaluation.benchmark import read_benchmark
from mmembed.evaluation.grid import Choice, make_grids
from mmembed.evaluation.grid_picture import FRAMES, GAP, MARGIN, SIDE, TEXT_PX, WORDS, _font, _wrapped, grid_picture
from mmembed.evaluation.rankings import Ranking, write_rankings
from mmembed.evaluation.retrieval_set import Sample, read_retrieval_set
from mmembed.evaluation.scores import read_scores
from mmembed.evaluation.thumbnails import Thumbnails
from mmembed.media.settings import MediaSettings
from tests.evaluation import drawn
from tests.evaluation.composed_run import BENCHMARK, TEXTS, draw_run


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return draw_run(tmp_path_factory.mktemp("grid"))


@pytest.fixture
def grids(run):
    def make(tasks=("val", "subset"), **choice):
        benchmark = read_benchmark(run / "toy.yaml").only(tasks)
        scores = read_scores(run / "out", benchmark if tasks is None else None)
        shown = Thumbnails(MediaSettings(), num_frames=1)
        return make_grids(run / "out", scores, benchmark, run / "data", shown, Choice(**choice))

    return make


def only(found):
    (grid,) = found
    return grid


@pytest.mark.parametrize(
    ("select", "names"),
    [("worst", ["q3", "q2", "q1", "q0"]), ("best", ["q0", "q1", "q2", "q3"]), ("q2,q0", ["q2", "q0"])],
)
def test_queries_are_chosen_by_how_they_did_or_by_name(grids, select, names):
    assert [row.query_id for row in only(grids(select=select)).rows] == names


def test_fewer_are_the_first_of_them_and_random_ones_are_always_the_same(grids):
    assert [row.query_id for row in only(grids(select="worst", num=2)).rows] == ["q3", "q2"]
    drawn_twice = [[row.query_id for row in only(grids(select="random", num=3)).rows] for _ in range(2)]
    assert drawn_twice[0] == drawn_twice[1]
    assert len(set(drawn_twice[0])) == 3


def test_a_row_has_right_targets_the_reference_and_the_best_right_one_outside(grids):
    rows = {row.query_id: row for row in only(grids(num_targets=4)).rows}

    assert [tile.kind for tile in rows["q0"].tiles] == ["right", "other", "reference", "other"]
    assert [tile.kind for tile in rows["q1"].tiles] == ["other", "reference", "right", "other"]
    assert rows["q0"].missing is rows["q1"].missing is None
    assert (rows["q2"].missing.place, rows["q2"].missing.kind) == ("#6", "right")
    assert rows["q2"].missing.score == pytest.approx(0.65)
    assert (rows["q3"].missing.place, rows["q3"].missing.score) == ("beyond #8", None)
    assert rows["q1"].result == "map@5 33.3, rank 3"
    assert rows["q3"].result == "map@5 0.0, beyond #8"


def test_the_texts_of_a_query_are_told_apart(grids):
    (row,) = only(grids(select="q1")).rows

    assert row.texts == [("", TEXTS[1]), ("shared concept", "concept 1")]
    assert row.groups == {"aspect": ("addition",)}


def test_the_own_candidates_are_a_second_line_and_no_grid_of_their_own(grids):
    grid = only(grids())
    assert grid.name == "val"
    assert [[tile.kind for tile in row.own] for row in grid.rows] == [["other", "right"]] * 4
    assert only(grids(tasks=["val"])).has_own is False
    assert only(grids(tasks=["subset"])).name == "subset"


def test_a_blind_grid_says_nothing_of_what_is_right(grids):
    for row in only(grids(blind=True, num_targets=4)).rows:
        assert {tile.kind for tile in (*row.tiles, *row.own)} <= {"other", "reference"}
        assert row.missing is row.value is None
        assert row.result == ""


def test_clips_are_shown_by_their_middle_frame(grids):
    (clips,) = grids(tasks=["clips"])

    assert all(len(part.pictures) == 1 for row in clips.rows for tile in row.tiles for part in tile.parts)
    assert clips.rows[0].parts == []


@pytest.mark.parametrize(
    ("choice", "words"),
    [
        ({"select": "q7"}, r"--select: expected worst, best, random, or names of queries of val, got 'q7'"),
        ({"select": "wrost"}, r"got 'wrost'; did you mean 'worst'\?"),
        ({"num": 0}, "--n: expected at least 1, got 0"),
        ({"num_targets": 0}, "--k: expected at least 1, got 0"),
    ],
)
def test_a_choice_that_cannot_be_is_refused(grids, choice, words):
    with pytest.raises(InputError, match=words):
        grids(**choice)


def frame_at(picture, column, row):
    """The colour of the frame of a tile, and of the pixels just inside."""
    x = MARGIN + GAP + (0 if column < 0 else SIDE + GAP + WORDS + GAP + column * (SIDE + GAP))
    return picture.getpixel((x + 1, row + SIDE // 2))


def test_frames_on_the_picture_have_the_colours_of_what_they_frame(grids):
    grid = only(grids(select="q1", num_targets=4))

    picture = grid_picture(grid, "title", "legend")

    middle = next(y for y in range(picture.height) if frame_at(picture, -1, y - SIDE // 2) == FRAMES["query"])
    assert [frame_at(picture, column, middle) == FRAMES[kind] for column, kind in ((1, "reference"), (2, "right"))] == [
        True,
        True,
    ]
    assert frame_at(picture, 0, middle) not in (FRAMES["right"], FRAMES["reference"], FRAMES["query"])


def test_a_blind_picture_has_no_green(grids):
    seen, blind = (
        {colour for _, colour in grid_picture(only(grids(blind=blind)), "title", "").getcolors(1 << 20)}
        for blind in (False, True)
    )

    assert FRAMES["right"] in seen - blind
    assert FRAMES["query"] in seen & blind


def grid(run, output, *more):
    places = ["--run", str(run / "out"), "--benchmark", str(run / "toy.yaml"), "--data-root", str(run / "data")]
    return main([*places, "--output", str(output), *more])


def test_the_command_writes_a_picture_a_task_and_one_page(run, tmp_path, capsys):
    assert grid(run, tmp_path, "--k", "4") == 0

    assert {path.name for path in tmp_path.iterdir()} == {"grid_val.png", "grid_clips.png", "grid.html"}
    assert str(tmp_path / "grid.html") in capsys.readouterr().out
    with PIL.Image.open(tmp_path / "grid_val.png") as picture:
        assert picture.format == "PNG"
    page = BeautifulSoup((tmp_path / "grid.html").read_text(), "html.parser")
    rows = page.select("#task-val .row")
    assert [row["aria-label"] for row in rows] == ["query q3", "query q2", "query q1", "query q0"]
    assert [float(row["data-value"]) for row in rows] == pytest.approx([0, 0, 1 / 3, 1])
    assert len(rows[0].select(".tile.missing.right")) == 1
    assert TEXTS[1] in rows[0].text
    assert drawn.PROTOCOL_ID in page.text
    options = [option.get("value") or option.text for option in page.select("select[name=group] option")]
    assert {"aspect=addition", "aspect=negation", "aspect=viewpoint"} <= set(options)
    assert [option.text for option in page.select("select[name=order] option")][1] == "failures first"


def test_the_page_needs_no_other_file(run, tmp_path):
    grid(run, tmp_path)

    page = BeautifulSoup((tmp_path / "grid.html").read_text(), "html.parser")
    assert page.select("img")
    assert all(tag["src"].startswith("data:image/") for tag in page.select("[src]"))
    assert not page.select("link, [href^=http]")


def test_a_blind_page_hides_scores_of_the_run_too(run, tmp_path):
    assert grid(run, tmp_path, "--blind", "--tasks", "val") == 0

    page = BeautifulSoup((tmp_path / "grid.html").read_text(), "html.parser")
    assert not page.select(".tile.right, .tick, .result, [data-value], select[name=order]")
    assert "map@5" not in page.text


def test_rankings_of_other_data_are_refused(run, tmp_path, capsys):
    shutil.copytree(run / "out", tmp_path / "out")
    write_rankings(tmp_path / "out/rankings/val.jsonl", [Ranking("q9", ["red-circle"], [1.0], {}, None)])
    places = ["--benchmark", str(run / "toy.yaml"), "--data-root", str(run / "data"), "--output", str(tmp_path / "g")]

    assert main(["--run", str(tmp_path / "out"), *places]) == 2

    assert "expected rankings of these data, got query q9; check --data-root" in capsys.readouterr().err


def test_a_run_without_the_task_is_refused(run, tmp_path, capsys):
    (tmp_path / "toy.yaml").write_text(BENCHMARK + "  other: {data: other, metric: hit@1}\n")
    places = ["--run", str(run / "out"), "--data-root", str(run / "data"), "--output", str(tmp_path / "g")]

    assert main([*places, "--benchmark", str(tmp_path / "toy.yaml"), "--tasks", "other"]) == 2

    assert "expected a task of toy, got none; evaluate it first" in capsys.readouterr().err


def test_a_long_word_stays_in_its_column():
    lines = _wrapped("a " + "word" * 60 + " b", 100, _font(TEXT_PX))

    assert "".join(lines).replace(" ", "") == "a" + "word" * 60 + "b"
    assert all(_font(TEXT_PX).getlength(line) <= 100 for line in lines)


def test_a_quick_run_is_shown_though_another_row_ranks_candidates_of_the_same_data(run, tmp_path):
    benchmark = read_benchmark(run / "toy.yaml").only(["val"])
    sample = Sample(2, 3)
    part = read_retrieval_set(run / "data/composed").ranked("shared").sample(sample)
    rankings = [Ranking(query, list(part.corpus), [], dict(part.relevance[query]), None) for query in part.queries]
    write_rankings(tmp_path / "rankings/val.jsonl", rankings)
    scores = drawn.scores(benchmark, {"val": drawn.row(0.0)}, quick=vars(sample))

    (grid,) = make_grids(tmp_path, scores, benchmark, run / "data", Thumbnails(MediaSettings()), Choice())

    assert {row.query_id for row in grid.rows} == part.queries.keys()
