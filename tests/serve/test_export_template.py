"""The exported chat template writes, of a program's messages, the very string that is embedded here."""

from datetime import date

import pytest

from mmembed import Item
from mmembed.models.plain.reading import prompt_of
from mmembed.models.profiles import load_profile
from mmembed.models.settings import ChatPrompt, Phrases, RawPrompt, Request
from mmembed.serve.export.layout import words_of
from mmembed.serve.export.template import Words, chat_template
from tests.cases import draw
from tests.families import family_embedder

FRAMES = {"video": tuple(draw(56, 56, seed) for seed in range(2))}
PICTURE = {"image": draw(56, 56)}
CONTENTS = {
    "text": {"text": "a red circle"},
    "image": PICTURE,
    "image and text": PICTURE | {"text": "the same, but \ud55c\uad6d {{ 1 }} blue"},
    "video": FRAMES,
    "all": FRAMES | PICTURE | {"text": "both"},
}
ASKED = Request(text="\nSummarize: ", media="\nWhat is it? ", both="\nBoth: ")
BOTH = Phrases(text="<{text}>", both='Modify with "{text}", then')
SMILING = Phrases(both="a {text} \U0001f600")
STRING = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] | trim }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
STYLES = {
    "raw": RawPrompt(),
    "raw with all": RawPrompt(" | ", media_separator="", prefix="begin ", suffix="<|im_end|>", phrases=SMILING),
    "chat": ChatPrompt(),
    "no answer": ChatPrompt(generation_prompt=False, suffix="<|endoftext|>"),
    "asked": ChatPrompt(request=ASKED, phrases=BOTH, answer='<emb>. "so"'),
    "user": ChatPrompt(instruction_role="user", instruction_markers=("<s>", "</s>")),
    "before the text": ChatPrompt(instruction_role="text", instruction_separator=" ", request=ASKED),
    "punctuated": ChatPrompt(punctuate=True, default_instruction="Represent the user's input."),
    "one string": ChatPrompt(content="text", template=STRING, request=ASKED, phrases=BOTH, instruction_role="text"),
}  # fmt: skip
INSTRUCTIONS = (None, "Find it.", "  ", " Find the \u300cpicture\u300d", "what?")


def messages_of(content, instruction):
    """As sentence-transformers writes them."""
    parts = [{"type": "text", "text": value} if kind == "text" else {"type": kind} for kind, value in content.items()]
    head = [] if instruction is None else [{"role": "system", "content": [{"type": "text", "text": instruction}]}]
    return [*head, {"role": "user", "content": parts}]


def written(model, content, instruction, *, video=True):
    style, tokenizer = model.settings.prompt, model.backbone.checkpoint.tokenizer
    own = tokenizer.chat_template if isinstance(style, ChatPrompt) else ""
    template = chat_template(style, words_of(model, video=video), own or "")
    return tokenizer.apply_chat_template(messages_of(content, instruction), chat_template=template, tokenize=False)


@pytest.mark.parametrize("name", STYLES)
@pytest.mark.parametrize("family", ["qwen2_vl", "qwen3_vl"])
def test_a_template_writes_what_is_embedded_here(name, family, scratch_embedder):
    model = scratch_embedder(family, prompt=STYLES[name])

    for content in CONTENTS.values():
        for instruction in INSTRUCTIONS:
            item = Item.of(content, instruction)
            assert written(model, content, instruction) == prompt_of(model.backbone, item)


@pytest.mark.parametrize("profile", ["e5_v", "lamra", "u_marvel", "gme", "mme5", "vlm2vec"])
def test_the_prompts_of_profiles_leave_unchanged(profile, scratch_embedder):
    model = scratch_embedder("qwen2_vl", prompt=load_profile(profile).embedder.prompt)

    for content in CONTENTS.values():
        for instruction in INSTRUCTIONS[:2]:
            item = Item.of(content, instruction)
            assert written(model, content, instruction) == prompt_of(model.backbone, item)


@pytest.mark.parametrize("style", [RawPrompt(suffix="!"), ChatPrompt()])
@pytest.mark.parametrize("family", ["llama", "bert", "qwen3"])
def test_a_model_of_text_gets_the_tokens_that_its_tokenizer_would_add(family, style):
    model = family_embedder(family, prompt=style)
    tokenizer = model.backbone.checkpoint.tokenizer
    if isinstance(style, ChatPrompt) and not tokenizer.chat_template:
        tokenizer.chat_template = STRING.replace("message['content'] | trim", "message['content'][0]['text']")

    prompt = written(model, CONTENTS["text"], "Find it.")

    (row,) = model.prepare([Item.of(CONTENTS["text"], "Find it.")], "query")
    assert tokenizer(prompt, add_special_tokens=False).input_ids == row.ids.tolist()


def test_a_date_is_the_same_every_day():
    own = "{{ strftime_now('%d %b %Y') }}{% for m in messages %}{{ m['content'][0]['text'] }}{% endfor %}"
    model = family_embedder("qwen2", prompt=ChatPrompt())
    template = chat_template(ChatPrompt(), Words(today=date(2024, 7, 26)), own)

    made = model.backbone.checkpoint.tokenizer.apply_chat_template(
        messages_of(CONTENTS["text"], None), chat_template=template, tokenize=False
    )

    assert made == "26 Jul 2024a red circle"


def test_a_medium_that_is_not_read_is_refused(scratch_embedder):
    model = scratch_embedder("qwen2_vl", prompt=RawPrompt())

    with pytest.raises(Exception, match="this model reads text, image"):
        written(model, CONTENTS["video"], None, video=False)
