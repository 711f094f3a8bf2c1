"""What stands on the page: every picture with words for those who cannot see it, nothing taken for markup."""

import pytest
from bs4 import BeautifulSoup

from mmembed import Item
from mmembed.errors import InputError
from mmembed.items import Page
from mmembed.media.settings import MediaSettings
from mmembed.serve import shown
from mmembed.serve.search import Hit


def read(html):
    return BeautifulSoup(html, "html.parser")


@pytest.fixture
def items(index):
    return dict(index.table)


def test_hits_are_a_list_with_scores_pictures_and_the_object_that_was_found(items):
    hits = [
        Hit("picture-00001", 0.98765, items["picture-00001"], 2),
        Hit("clip-00000", 0.5, items["clip-00000"], 0),
        Hit("page-00000-1", 0.25, items["page-00000-1"], 0),
        Hit("<b>\"'", -0.1, Item.of("a < b & c"), 0),
    ]

    page = read(shown.results(hits, MediaSettings(), asked="“<i>red</i>”", num_items=1200))

    assert page.select_one(".asked[role=status]").text == "4 of 1,200 items for “<i>red</i>”"
    cards = page.select("ol[aria-label=results] > li")
    assert [card["data-id"] for card in cards] == [hit.id for hit in hits]
    assert [card.select_one(".score").text for card in cards] == ["0.988", "0.500", "0.250", "-0.100"]
    assert [card.select_one(".place").text for card in cards] == ["1", "2", "3", "4"]
    assert [len(card.select("img")) for card in cards] == [1, 4, 1, 0]
    assert all(image["alt"] and image["src"].startswith("data:image/") for image in page.select("img"))
    assert cards[0].select_one("img")["alt"] == "picture, 2 boxes"
    assert [node.text for node in page.select(".object")] == ["object 2"]
    assert cards[3].select_one("blockquote").text == "a < b & c"
    assert page.select("b") == []


def test_a_file_that_went_away_spoils_its_own_card_only(items, tmp_path):
    gone = Hit("gone", 0.5, Item.of({"image": tmp_path / "gone.png"}), 0)

    hits = [gone, Hit("there", 0.4, items["picture-00000"], 0)]
    page = read(shown.results(hits, MediaSettings(), asked="a", num_items=2))

    assert "gone.png" in page.select_one("li .warning").text
    assert len(page.select("img")) == 1


def test_a_warning_says_where_what_and_what_to_do():
    page = read(shown.warning(InputError("box", expected="two <corners>", got="one.", remedy="click again")))

    assert page.select_one("[role=alert] strong").text == "box"
    assert [p.text for p in page.select("p")] == ["Expected two <corners>, got one.", "Click again."]


def test_a_clip_and_a_page_are_previewed_as_the_model_sees_them(items):
    assert len(read(shown.preview(items["clip-00001"], MediaSettings())).select("img")) == 4
    assert len(read(shown.preview(items["page-00000-2"], MediaSettings())).select("img")) == 1
    with pytest.raises(InputError):
        shown.preview(Item((Page("gone.pdf"),)), MediaSettings())


def test_facts_name_model_and_index(searcher, folder):
    page = read(shown.facts(searcher))

    told = {row.th.text: row.td.text for row in page.select("tr")}
    assert told["weights"] == searcher.weights
    assert told["regions"] == "TextRegions(scale=8)"
    assert (told["dtype"], told["width"]) == ("float32", "64")
    assert (told["items"], told["vectors"], told["region-indexed"]) == ("10", "22", "yes, 12 regions")
    assert told["made by"] == str(folder / "model")
    assert told["of regions"] == "what is here ?"
    assert page.select("li") == []
    assert told["regions.scale"] == "8"
    assert {"config", "tokenizer", "backbone.max_pixels", "library.torch"} <= set(told)
