"""Prompts that are laid out by side and by what an item holds."""

import pytest

from mmembed import Item
from mmembed.errors import InputError
from mmembed.models.layouts import laid_out
from mmembed.models.profiles import load_profile
from mmembed.models.prompts import Kind, render
from mmembed.models.settings import LaidOutPrompt, Layouts, RawPrompt

BGE = load_profile("bge_vl_mllm").embedder.prompt
PICTURE, BOTH = {"image": "a.png"}, {"image": "a.png", "text": "make it red"}


def segments(item, side, style=BGE):
    item = Item.of(item) if isinstance(item, dict | str) else item
    return render(laid_out(item, style, side), style, ["<image>"] * len(item.media))


def written(item, side, style=BGE):
    return "".join(segment.text for segment in segments(item, side, style))


def test_a_query_and_a_target_are_written_otherwise():
    assert written(BOTH | {"instruction": "Find it."}, "query") == (
        "[INST] \n <instruct> Find it. <query>  make it red \n <image> [/INST]"
    )
    assert written(BOTH, "target") == "[INST]  make it red \n <image> [/INST]"


def test_a_query_without_an_instruction_has_words_of_its_own_or_those_with_an_empty_one():
    assert written("a dog", "query") == "[INST] \n <instruct>  <query> a dog \n [/INST]"
    assert written("a dog", "query", LaidOutPrompt(Layouts(text="<{instruction}> {text}"))) == "<> a dog"


def test_an_instruction_without_a_place_begins_the_text():
    told = {"instruction": "Represent the image."}

    assert written(PICTURE | told, "target") == "[INST]  Represent the image. \n <image> [/INST]"
    assert written(BOTH | told, "target") == "[INST]  Represent the image. make it red \n <image> [/INST]"


def test_the_layout_is_template_and_the_rest_is_what_it_is():
    kinds = {s.text: s.kind for s in segments(BOTH | {"instruction": "Find it."}, "query")}

    assert kinds["Find it."] is Kind.INSTRUCTION
    assert kinds["make it red"] is Kind.TEXT
    assert kinds["<image>"] is Kind.IMAGE
    assert {kind for text, kind in kinds.items() if "INST" in text} == {Kind.TEMPLATE}


def test_a_layout_of_the_items_own_and_its_order_give_way():
    item = Item.of(BOTH | {"layout": "{media}, {text}"})

    assert written(item, "target") == "[INST]  make it red \n <image> [/INST]"


def test_another_style_leaves_the_item_as_it_is():
    item = Item.of(BOTH)

    assert laid_out(item, RawPrompt(), "query") is item


@pytest.mark.parametrize("layout", ["{media}", "{text} {media}", "words"])
def test_a_layout_without_a_place_for_what_it_is_for_is_refused(layout):
    with pytest.raises(InputError, match=r"layouts\.text: expected \{text\}, got"):
        Layouts(text=layout)


def test_a_raw_prompt_may_begin_with_words():
    style = RawPrompt(prefix="<user>", suffix="<end>")

    found = render(Item.of(BOTH), style, ["<image>"])

    assert "".join(segment.text for segment in found) == "<user><image> make it red<end>"
    assert found[0].kind is found[-1].kind is Kind.TEMPLATE


def test_an_item_that_was_not_laid_out_is_a_mistake_of_the_caller():
    with pytest.raises(ValueError, match="gets its layout"):
        render(Item.of("a dog"), BGE, [])
