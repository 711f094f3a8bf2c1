"""scripts/search.py: the searcher's own hits, on a terminal or as JSON, for one query or a table of them."""

import json
from io import StringIO

import PIL.Image
import pytest
from rich.console import Console

from data_prep.demo_gallery import make_gallery
from mmembed import Item
from mmembed.errors import InputError
from mmembed.items import Image
from mmembed.models.settings import TextRegions
from mmembed.serve.search import Hit, Searcher
from scripts import embed
from scripts.search import hits_table, in_words, main, make_parser, queries_of
from tests.cases import small_embedder


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """``model``, ``gallery/items.jsonl`` and its region-indexed ``index``."""
    root = tmp_path_factory.mktemp("search")
    small_embedder(regions=TextRegions(scale=8)).save(root / "model")
    make_gallery(root / "gallery", 1, pictures=6, clips=2, pages=2)
    made = ["--model", str(root / "model"), "--input", str(root / "gallery/items.jsonl"), "--output"]
    assert embed.main([*made, str(root / "index"), "--regions"]) == 0
    return root


def found(capsys):
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_words_find_what_the_searcher_finds_with_the_model_that_the_index_names(folder, capsys):
    ask = ["--index", str(folder / "index"), "a red circle", "--instruction", "Find it.", "--top", "4"]
    assert main([*ask, "--json"]) == 0

    hits = Searcher.open(str(folder / "model"), folder / "index").search(Item.of("a red circle", "Find it."), 4)
    wanted = [{"id": hit.id, "score": pytest.approx(hit.score, abs=1e-6), "region": hit.region} for hit in hits]
    assert found(capsys) == [{"query": "a red circle", "hits": wanted}]


def test_a_table_of_queries_is_asked_in_its_order(folder, tmp_path, capsys):
    PIL.Image.new("RGB", (56, 28), "red").save(tmp_path / "red.png")
    rows = [{"id": "second", "text": "a blue square"}, {"id": "first", "image": "red.png"}]
    (tmp_path / "queries.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))

    assert main(["--index", str(folder / "index"), "--input", str(tmp_path / "queries.jsonl"), "--json"]) == 0

    lines = found(capsys)
    assert [line["query"] for line in lines] == ["second", "first"]
    assert [len(line["hits"]) for line in lines] == [10, 10]


def test_a_person_gets_a_table_that_fits_the_terminal(folder, capsys):
    assert main(["--index", str(folder / "index"), "a red circle", "--top", "2"]) == 0

    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 120
    assert [word in "\n".join(lines) for word in ("score", "region", "what it is")] == [True] * 3


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        (["--image", "a.png"], {"image": "a.png"}),
        (["--image", "a.png", "the same, but blue"], {"image": "a.png", "text": "the same, but blue"}),
        (
            ["--image", "a.png", "--box", "1", "2", "8", "9"],
            {"image": "a.png", "regions": [{"box": [1.0, 2.0, 8.0, 9.0]}]},
        ),
        (["--video", "a.mp4", "--instruction", "Find it."], {"video": "a.mp4", "instruction": "Find it."}),
        (["--pdf", "a.pdf", "--page", "3"], {"pdf": "a.pdf", "page": 3}),
    ],
)
def test_the_options_are_one_query(given, wanted):
    (query,) = queries_of(make_parser().parse_args(["--index", "x", *given])).values()

    assert query == Item.of(wanted)


def test_an_item_is_one_line_of_words_and_file_names():
    assert in_words(Item(("a\nred ", Image("x/circle.png"), " thing"))) == "a red circle.png thing"


def test_brackets_are_shown_as_they_are():
    hits = [Hit("a[red]", 0.5, Item(("what is [/b]", Image("x/img[a].png"))), 0)]
    console = Console(width=100, file=StringIO())

    console.print(hits_table("is it [/b] ?", hits, by_region=False))

    lines = console.file.getvalue()
    assert all(words in lines for words in ("is it [/b] ?", "a[red]", "what is [/b] img[a].png"))


def test_an_id_that_stands_twice_in_a_table_is_refused(folder, tmp_path, capsys):
    (tmp_path / "queries.jsonl").write_text(2 * (json.dumps({"id": "a", "text": "red"}) + "\n"))

    assert main(["--index", str(folder / "index"), "--input", str(tmp_path / "queries.jsonl")]) == 2
    assert "each id once" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("given", "words"),
    [([], "something to search for"), (["red", "--input", "t.jsonl"], "a table, or one query")],
)
def test_nothing_and_both_are_refused(given, words):
    with pytest.raises(InputError, match=words):
        queries_of(make_parser().parse_args(["--index", "x", *given]))


def test_what_cannot_be_searched_is_said_in_words(folder, tmp_path, capsys):
    assert main(["--index", str(tmp_path), "red"]) == 2
    assert "manifest.json" in capsys.readouterr().err

    assert main(["--index", str(folder / "index"), "red", "--top", "0"]) == 2
    assert "1 or more" in capsys.readouterr().err
