"""Rendering of Items: raw joins and chat templates, and texts that look like templates."""

import pytest

from mmembed import Image, Item, Video
from mmembed.errors import InputError
from mmembed.models.prompts import Kind, Segment, render
from mmembed.models.settings import ChatPrompt, Phrases, PromptStyle, RawPrompt, Request

PICTURE, CLIP = Image("a.png"), Video("v.mp4")
RAW, CHAT = RawPrompt(), ChatPrompt()


def template(messages, generation_prompt):
    """A chat template in the style of the family's own."""
    text = ""
    for message in messages:
        text += f"<|im_start|>{message['role']}\n"
        for part in message["content"]:
            text += part["text"] if part["type"] == "text" else f"<|vision_start|><|{part['type']}_pad|><|vision_end|>"
        text += "<|im_end|>\n"
    return text + ("<|im_start|>assistant\n" if generation_prompt else "")


def written(item, style=RAW, words=("<I>",) * 9):
    return "".join(s.text for s in render(item, style, words[: len(item.media)], template))


@pytest.mark.parametrize(
    ("item", "prompt"),
    [
        (Item.of("words"), "words"),
        (Item.of("words", "Find it:"), "Find it: words"),
        (Item.of("words", ""), " words"),
        (Item.of({"text": "words", "image": "a.png"}, "Find it:"), "<I> Find it: words"),
        (Item.of({"image": ["a.png", "b.png"], "video": "v.mp4"}), "<I> <I> <I>"),
        (Item(("before ", PICTURE, " between ", PICTURE)), "before <I> between <I>"),
        (Item(("before ", PICTURE, "after"), instruction="Find it:"), "Find it: before <I>after"),
    ],
)
def test_raw_prompts_join_named_fields_and_keep_verbatim_content(item, prompt):
    assert written(item) == prompt


def test_separator_and_suffix_are_settings():
    item = Item.of({"image": "a.png", "text": "words"}, "Find it:")

    assert written(item, RawPrompt(separator="\n", suffix="<end>")) == "<I>\nFind it:\nwords<end>"
    assert render(item, RawPrompt(suffix="<end>"), ["<I>"])[-1] == Segment("<end>", Kind.TEMPLATE)


def test_what_stands_behind_media_may_differ_from_what_stands_between_words():
    item = Item.of({"image": ["a.png", "b.png"], "text": "words"}, "Find it:")

    assert written(item, RawPrompt(media_separator="\n")) == "<I>\n<I>\nFind it: words"
    assert written(item, RawPrompt(media_separator="")) == "<I><I>Find it: words"
    assert written(Item.of("words", "Find it:"), RawPrompt(media_separator="")) == "Find it: words"


@pytest.mark.parametrize(
    ("style", "prompt"),
    [
        (CHAT, "<|im_start|>system\nFind it.<|im_end|>\n<|im_start|>user\n{}words<|im_end|>\n<|im_start|>assistant\n"),
        (ChatPrompt(generation_prompt=False, suffix="<end>"),
         "<|im_start|>system\nFind it.<|im_end|>\n<|im_start|>user\n{}words<|im_end|>\n<end>"),
        (ChatPrompt(instruction_role="user"),
         "<|im_start|>user\nFind it.{}words<|im_end|>\n<|im_start|>assistant\n"),
    ],
)  # fmt: skip
def test_chat_prompts_follow_the_template_and_the_role(style, prompt):
    item = Item.of({"image": "a.png", "text": "words"}, "Find it.")

    assert written(item, style) == prompt.format("<|vision_start|><I><|vision_end|>")


@pytest.mark.parametrize(
    ("instruction", "said"),
    [(None, "Say it."), ("", ""), ("Find it", "Find it"), (" Find it ", " Find it ")],
)
def test_a_chat_may_have_an_instruction_of_its_own_for_items_that_bring_none(instruction, said):
    style = ChatPrompt(default_instruction="Say it.")

    assert f"system\n{said}<|im_end|>" in written(Item.of("words", instruction), style)


@pytest.mark.parametrize(
    ("instruction", "said"),
    [
        (" Find it ", "Find it."),
        ("Find it!", "Find it!"),
        ("找到它。", "找到它。"),
        ("(it)", "(it)"),
        ("  ", "Say it."),
    ],
)
def test_a_chat_may_end_instructions_with_punctuation(instruction, said):
    style = ChatPrompt(default_instruction="Say it.", punctuate=True)

    assert f"system\n{said}<|im_end|>" in written(Item.of("words", instruction), style)


def test_a_default_instruction_is_an_instruction():
    segments = render(Item.of("words"), ChatPrompt(default_instruction="Say it."), [], template)

    assert Segment("Say it.", Kind.INSTRUCTION) in segments


def test_segments_say_what_they_are_and_which_medium_they_stand_for():
    item = Item((PICTURE, "words", CLIP), instruction="Find it.")

    kinds = [(s.kind, s.medium) for s in render(item, CHAT, ["<I>", "<V>"], template) if s.kind != Kind.TEMPLATE]

    assert kinds == [(Kind.INSTRUCTION, None), (Kind.IMAGE, 0), (Kind.TEXT, None), (Kind.VIDEO, 1)]


@pytest.mark.parametrize(
    "text",
    [
        "\ue0000\ue001",
        "\ue0001\ue001 \ue0007\ue001 \ue000",
        "<|im_end|>\n<|im_start|>assistant\n",
        "<|vision_start|><|image_pad|><|vision_end|>",
        "<|video_pad|><image>",
        "{{ messages }} {% if x %}",
    ],
)
def test_texts_that_look_like_templates_or_placeholders_stay_words(text):
    item = Item((text, PICTURE, text), instruction=text)

    segments = render(item, CHAT, ["<I>"], template)

    assert [s for s in segments if s.kind == Kind.TEXT] == [Segment(text, Kind.TEXT)] * 2
    assert [s for s in segments if s.kind == Kind.INSTRUCTION] == [Segment(text, Kind.INSTRUCTION)]
    assert [s.text for s in segments if s.medium is not None] == ["<I>"]
    expected = template(
        [
            {"role": "system", "content": [{"type": "text", "text": text}]},
            {
                "role": "user",
                "content": [{"type": "text", "text": text}, {"type": "picture"}, {"type": "text", "text": text}],
            },
        ],
        True,
    ).replace("<|picture_pad|>", "<I>")
    assert "".join(s.text for s in segments) == expected


LOSSES = {
    "not once: image, instruction, text": lambda messages: "nothing",
    "not once: instruction": lambda messages: "<|image_pad|>" + messages[1]["content"][1]["text"],
    "not once: text": lambda messages: "<|image_pad|>" + messages[0]["content"][0]["text"],
    "not once: instruction, text": lambda messages: "<|image_pad|>" + 2 * "".join(texts_of(messages)),
    "a list of parts as Python": lambda messages: "<|image_pad|>" + "{'type'".join(texts_of(messages)),
}


def texts_of(messages):
    return [part["text"] for message in messages for part in message["content"] if "text" in part]


@pytest.mark.parametrize(("lost", "template"), LOSSES.items(), ids=LOSSES)
def test_a_template_that_loses_or_repeats_a_part_is_refused(lost, template):
    item = Item((PICTURE, "words"), "Find it.")

    with pytest.raises(InputError, match=f"writes every part of an item once, got {lost}.*use RawPrompt"):
        render(item, CHAT, ["<I>"], lambda messages, generation_prompt: template(messages))


def test_the_chat_style_needs_a_template_and_unknown_styles_are_refused():
    with pytest.raises(ValueError, match="the chat style needs the tokenizer's template"):
        render(Item.of("x"), CHAT, [])
    with pytest.raises(TypeError, match="no renderer for PromptStyle"):
        render(Item.of("x"), PromptStyle(), [])


MARKED = "(box 1 2 3 4)"


@pytest.mark.parametrize(
    ("item", "prompt"),
    [
        (Item.of({"image": ["a.png", "b.png"], "text": "words"}, "Find it:"), f"<I> {MARKED} <I> Find it: words"),
        (Item(("before ", PICTURE, " between ", PICTURE), "Find it:"), f"Find it: before <I> {MARKED} between <I>"),
    ],
)
def test_region_words_stand_right_behind_their_picture(item, prompt):
    segments = render(item, RAW, ["<I>", "<I>"], region_words=[MARKED, ""])

    assert "".join(s.text for s in segments) == prompt
    assert [s for s in segments if s.kind is Kind.REGION] == [Segment(MARKED, Kind.REGION)]


def test_region_words_stand_behind_their_picture_in_a_chat_and_no_template_reads_them():
    item = Item.of({"image": "a.png", "text": "words"}, "Find it.")
    told = "(box <|image_pad|>)"

    segments = render(item, CHAT, ["<I>"], template, [told])

    assert f"<|vision_start|><I><|vision_end|>{told}words" in "".join(s.text for s in segments)
    assert Segment(told, Kind.REGION) in segments


ASKING = ChatPrompt(
    instruction_role="text",
    instruction_markers=("<s>", "</s>"),
    instruction_separator=" ",
    request=Request(text=" T", media=" M", both=" B"),
    answer="<emb>.",
)
SEEN = "<|vision_start|><I><|vision_end|>"


@pytest.mark.parametrize(
    ("item", "said"),
    [
        (Item.of("words"), "words T"),
        (Item.of("words", "Find it."), "<s>Find it.</s> words T"),
        (Item.of({"image": "a.png"}), f"{SEEN} M"),
        (Item.of({"image": "a.png"}, "Find it."), f"{SEEN}<s>Find it.</s> B"),
        (Item.of({"image": "a.png", "text": "words"}), f"{SEEN}words B"),
        (Item.of({"image": "a.png", "text": "words"}, "Find it."), f"{SEEN}<s>Find it.</s> words B"),
        (Item(("words ", PICTURE, ".")), f"words {SEEN}. B"),
        (Item((PICTURE, "."), "Find it."), f"{SEEN}<s>Find it.</s>. B"),
    ],
)
def test_a_chat_may_mark_the_instruction_before_the_text_ask_for_a_vector_and_answer(item, said):
    expected = f"<|im_start|>user\n{said}<|im_end|>\n<|im_start|>assistant\n<emb>.<|im_end|>\n<|im_start|>assistant\n"

    assert written(item, ASKING) == expected


def test_markers_count_as_instruction_and_requests_and_answers_as_template():
    item = Item.of({"image": "a.png", "text": "words"}, "Find it.")

    kinds = {s.text: s.kind for s in render(item, ASKING, ["<I>"], template)}

    assert kinds["<s>Find it.</s>"] is Kind.INSTRUCTION
    assert kinds[" "] is kinds[" B"] is kinds["<emb>."] is Kind.TEMPLATE
    assert (kinds["<I>"], kinds["words"]) == (Kind.IMAGE, Kind.TEXT)


def as_one_string(messages, generation_prompt):
    """A chat template that takes a message as text, as Phi-3's."""
    return "".join(f"<|{m['role']}|>\n{m['content']}<|end|>\n" for m in messages)


def test_a_template_of_strings_gets_media_and_words_in_their_order():
    item = Item(("before ", PICTURE, " after <|image_pad|>"), "Find it.")

    segments = render(item, ChatPrompt(content="text"), ["<I>"], as_one_string)

    said = "before <I> after <|image_pad|>"
    assert "".join(s.text for s in segments) == f"<|system|>\nFind it.<|end|>\n<|user|>\n{said}<|end|>\n"
    assert [(s.text, s.kind, s.medium) for s in segments if s.medium is not None] == [("<I>", Kind.IMAGE, 0)]


PHRASES = Phrases(text="a photo of {text}", both="a photo of $ that {text}")


@pytest.mark.parametrize(
    ("item", "prompt"),
    [
        (Item.of("a dog"), "a photo of a dog"),
        (Item.of({"image": "a.png", "text": "is red"}), "<I> a photo of $ that is red"),
        (Item.of({"image": "a.png", "text": "is red"}, "Find it:"), "<I> Find it: a photo of $ that is red"),
        (Item.of({"image": "a.png"}), "<I>"),
        (Item((PICTURE, "is red")), "<I>is red"),
        (Item.of({"image": "a.png", "text": "is red", "layout": "{media}\n{text}"}), "<I>\nis red"),
        (Item.of("{text} and <|image_pad|>"), "a photo of {text} and <|image_pad|>"),
    ],
)
def test_phrases_stand_around_the_text_of_what_is_not_verbatim(item, prompt):
    assert written(item, RawPrompt(phrases=PHRASES)) == prompt


def test_phrases_stand_in_chat_turns_and_are_no_words_of_the_item():
    segments = render(
        Item.of({"image": "a.png", "text": "is red"}), ChatPrompt(phrases=PHRASES, generation_prompt=False),
        ["<I>"], template,
    )  # fmt: skip

    assert "".join(s.text for s in segments) == "<|im_start|>user\n<|vision_start|><I><|vision_end|>" + (
        "a photo of $ that is red<|im_end|>\n"
    )
    assert [s.text for s in segments if s.kind is Kind.TEXT] == ["is red"]


@pytest.mark.parametrize("phrase", ["", "a photo", "{text} {text}"])
def test_a_phrase_has_one_place_for_the_text(phrase):
    with pytest.raises(InputError, match=r"phrases.both: expected '\{text\}' once"):
        Phrases(both=phrase)


@pytest.mark.parametrize(("role", "asked"), [("system", "picture?"), ("user", "picture?"), ("text", "both?")])
def test_a_picture_is_asked_for_as_one_of_both_where_its_instruction_is_its_text(role, asked):
    style = ChatPrompt(instruction_role=role, request=Request(media="picture?", both="both?"), content="text")
    item = Item.of({"image": "a.png"}, "Find it.")

    segments = render(item, style, ["<I>"], lambda messages, _: "".join(message["content"] for message in messages))

    assert segments[-1].text == asked
