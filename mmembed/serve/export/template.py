"""A prompt style as a chat template: Jinja that writes, of another program's messages, the very string that we write.

The program hands over its prompt as a system message and the item as a user message of parts, in the item's order.
Around a checkpoint's own template each text is a placeholder until the template has run, as in
:mod:`mmembed.models.prompts`, so that the template sees no text of an item.
"""

import json
import re
import sys
import unicodedata
from dataclasses import dataclass
from datetime import date
from functools import cache

from mmembed.models.settings import ChatPrompt, PromptStyle, RawPrompt

# what the messages hold: an instruction, which may be none, and parts
_READ = """\
{%- set ns = namespace(instruction=none, parts=[], turn=[], texts=[], words='') -%}
{%- for message in messages -%}
{%- if message['role'] == 'system' -%}
{%- if message['content'] is string -%}
{%- set ns.instruction = message['content'] -%}
{%- else -%}
{%- set ns.instruction = message['content'] | map(attribute='text') | join -%}
{%- endif -%}
{%- elif message['role'] != 'user' -%}
{{- raise_exception('this model embeds one item: give it as a user message, its instruction as a system message') -}}
{%- elif message['content'] is string -%}
{%- set ns.parts = ns.parts + [{'type': 'text', 'text': message['content']}] -%}
{%- else -%}
{%- for part in message['content'] -%}
{%- set ns.parts = ns.parts + [part] -%}
{%- endfor -%}
{%- endif -%}
{%- endfor -%}
{%- set has_media = (ns.parts | rejectattr('type', 'equalto', 'text') | list | length) > 0 -%}
{%- set has_text = (ns.parts | selectattr('type', 'equalto', 'text') | list | length) > 0 -%}
"""


# how programs name the type of a part
_STILL, _CLIP = ["image", "image_url"], ["video", "video_url"]


@dataclass(frozen=True)
class Words:
    """What a program's processor and tokenizer expect in the string.

    Args:
        image: stands for a picture.
        video: stands for a clip; empty where the model reads none.
        first: tokens that every prompt begins with and that nobody else writes.
        last: tokens that every prompt ends with and that nobody else writes.
        begin: the token that a template may begin with though the tokenizer writes it too; empty for none.
        around_video: what the checkpoint's template writes for a clip, where ``video`` alone stands for all of it.
        today: what templates that write a date are told it is.
    """

    image: str = ""
    video: str = ""
    first: str = ""
    last: str = ""
    begin: str = ""
    around_video: str = ""
    today: date = date(1970, 1, 1)


def chat_template(style: PromptStyle, words: Words, own: str = "") -> str:
    """The template.

    Args:
        style: how items are written.
        words: see :class:`Words`.
        own: the checkpoint's own template, for a chat prompt that has no other.
    """
    if isinstance(style, RawPrompt):
        body = _raw(style, words)
    elif isinstance(style, ChatPrompt):
        body = _chat(style, words, style.template or own)
    else:
        raise TypeError(f"no template for {type(style).__name__}")
    begin, end = words.first + getattr(style, "prefix", ""), style.suffix + words.last
    return f"{_READ}{_unread(words)}{body}{{{{- {_said(begin)} ~ prompt ~ {_said(end)} -}}}}"


def _unread(words: Words) -> str:
    """Refuse a medium that the model has no input for."""
    read = ["text", *_STILL] if words.image else ["text"]
    read += _CLIP if words.video else []
    said = _said(
        f"this model reads {', '.join(w for w in ('text', words.image and 'image', words.video and 'video') if w)}"
    )
    return f"""\
{{%- if ns.parts | rejectattr('type', 'in', {json.dumps(read)}) | list -%}}
{{{{- raise_exception({said}) -}}}}
{{%- endif -%}}
"""


def _raw(style: RawPrompt, words: Words) -> str:
    """Media, then the instruction, then the texts, joined."""
    behind_media = style.separator if style.media_separator is None else style.media_separator
    return f"""\
{{%- for part in ns.parts if part['type'] != 'text' -%}}
{{%- set ns.turn = ns.turn + [{_medium("part", words)}] -%}}
{{%- endfor -%}}
{{%- if ns.instruction is not none -%}}
{{%- set ns.texts = ns.texts + [ns.instruction] -%}}
{{%- endif -%}}
{{%- for part in ns.parts if part['type'] == 'text' -%}}
{{%- set ns.texts = ns.texts + [{_phrased(style, "part['text']")}] -%}}
{{%- endfor -%}}
{{%- set between = {_said(behind_media)} if ns.turn and ns.texts else '' -%}}
{{%- set prompt = (ns.turn | join({_said(behind_media)})) ~ between ~ (ns.texts | join({_said(style.separator)})) -%}}
"""


def _chat(style: ChatPrompt, words: Words, own: str) -> str:
    """The item's turns around the checkpoint's template."""
    before, after = style.instruction_markers
    instruction = _text(f"{_said(before)} ~ ns.instruction ~ {_said(after)}")
    head, turns = "", ""
    if style.instruction_role == "system":
        head = f"{{%- if ns.instruction is not none -%}}{instruction}{_turn('system', style)}{{%- endif -%}}\n"
    elif style.instruction_role == "user":
        head = f"{{%- if ns.instruction is not none -%}}{instruction}{{%- endif -%}}\n"
    else:
        separated = _text(_said(style.instruction_separator)) if style.instruction_separator else ""
        turns = f"""\
{{%- if part['type'] == 'text' and ns.instruction is not none and not ns.said -%}}
{instruction}{separated}{{%- set ns.said = true -%}}
{{%- endif -%}}
"""
    media = (
        f"{{%- set ns.turn = ns.turn + [{{'type': 'image' if part['type'] in {json.dumps(_STILL)} else 'video'}}] -%}}"
    )
    if style.content == "text":
        media = f"{{%- set ns.words = ns.words ~ {_medium('part', words)} -%}}"
    late = ""
    if style.instruction_role == "text":
        late = f"{{%- if ns.instruction is not none and not ns.said -%}}{instruction}{{%- endif -%}}\n"
    ask = style.request
    both = "has_text or ns.told" if style.instruction_role == "text" else "has_text"
    request = f"({_said(ask.text)} if not has_media else {_said(ask.both)} if {both} else {_said(ask.media)})"
    answer = f"{_text(_said(style.answer))}{_turn('assistant', style)}" if style.answer else ""
    return f"""\
{{%- set ns.said = false -%}}
{{%- set ns.told = ns.instruction is not none -%}}
{{%- set ns.messages = [] -%}}
{_instructed(style)}{head}\
{{%- for part in ns.parts -%}}
{{%- if part['type'] == 'text' -%}}
{turns}{_text(_phrased(style, "part['text']"))}
{{%- else -%}}
{media}
{{%- endif -%}}
{{%- endfor -%}}
{late}\
{{%- set request = {request} -%}}
{{%- if request -%}}{_text("request")}{{%- endif -%}}
{_turn("user", style)}
{answer}\
{{%- set messages = ns.messages -%}}
{{%- set add_generation_prompt = {str(style.generation_prompt).lower()} -%}}
{_dated(own, words)}{{%- set written %}}
{own.removesuffix(chr(10))}{{{{ '' }}}}{{% endset -%}}
{_unbegun(words)}{_unwrapped(words)}\
{{%- set ns.words = written -%}}
{{%- for text in ns.texts -%}}
{{%- set ns.words = ns.words | replace({_placeholder("loop.index0")}, text, 1) -%}}
{{%- endfor -%}}
{{%- set prompt = ns.words -%}}
"""


def _instructed(style: ChatPrompt) -> str:
    """The instruction as the style has it: with punctuation at its end, or the style's own where there is none."""
    made = ""
    if style.punctuate:
        made = f"""\
{{%- if ns.instruction is not none -%}}{{%- set ns.instruction = ns.instruction.strip() or none -%}}{{%- endif -%}}
{{%- if ns.instruction is not none and ns.instruction[-1] not in {_said(_punctuation())} -%}}
{{%- set ns.instruction = ns.instruction ~ '.' -%}}
{{%- endif -%}}
"""
    if style.default_instruction is not None:
        own = _said(style.default_instruction)
        made += f"{{%- if ns.instruction is none -%}}{{%- set ns.instruction = {own} -%}}{{%- endif -%}}\n"
    return made


@cache
def _punctuation() -> str:
    every = map(chr, range(sys.maxunicode + 1))
    return "".join(character for character in every if unicodedata.category(character).startswith("P"))


def _text(value: str) -> str:
    """Put a placeholder for a text into the turn, and keep the text."""
    kept = f"{{%- set ns.texts = ns.texts + [{value}] -%}}"
    held = _placeholder("((ns.texts | length) - 1)")
    return f"""{kept}{{%- set ns.turn = ns.turn + [{{'type': 'text', 'text': {held}}}] -%}}\
{{%- set ns.words = ns.words ~ {held} -%}}"""


def _turn(role: str, style: ChatPrompt) -> str:
    """End a turn: its parts as a list, or joined as one string."""
    content = "ns.words" if style.content == "text" else "ns.turn"
    return f"""{{%- set ns.messages = ns.messages + [{{'role': '{role}', 'content': {content}}}] -%}}\
{{%- set ns.turn = [] -%}}{{%- set ns.words = '' -%}}"""


def _placeholder(number: str) -> str:
    """Private-use characters around a number, which no text of a template has."""
    return f"('\\ue000' ~ {number} ~ '\\ue001')"


def _unbegun(words: Words) -> str:
    """Take off the beginning-of-text token that the tokenizer writes itself."""
    if not words.begin:
        return ""
    begin = _said(words.begin)
    return (
        f"{{%- if written.startswith({begin}) -%}}{{%- set written = written[{len(words.begin)}:] -%}}{{%- endif -%}}\n"
    )


def _unwrapped(words: Words) -> str:
    """A clip's word in the place of all that the template writes for a clip."""
    if not words.around_video:
        return ""
    return f"{{%- set written = written | replace({_said(words.around_video)}, {_said(words.video)}) -%}}\n"


def _dated(own: str, words: Words) -> str:
    """The date that a template asks for, the same every day."""
    formats = {found[1] for found in re.findall(r"strftime_now\(\s*(['\"])(.*?)\1", own)}
    if not formats:
        return ""
    known = ", ".join(f"{_said(form)}: {_said(words.today.strftime(form))}" for form in sorted(formats))
    return f"{{%- macro strftime_now(form) -%}}{{{{- {{{known}}}[form] -}}}}{{%- endmacro -%}}\n"


def _medium(part: str, words: Words) -> str:
    if not words.video:
        return _said(words.image)
    return f"({_said(words.image)} if {part}['type'] in {json.dumps(_STILL)} else {_said(words.video)})"


def _phrased(style: RawPrompt | ChatPrompt, text: str) -> str:
    """The words around a text, by what the item holds."""
    alone, both = (phrase.partition("{text}") for phrase in (style.phrases.text, style.phrases.both))
    if alone == both == ("", "{text}", ""):
        return text
    before, after = (f"({_said(both[i])} if has_media else {_said(alone[i])})" for i in (0, 2))
    return f"{before} ~ {text} ~ {after}"


def _said(text: str) -> str:
    """A Jinja string literal, in characters that any program reads alike."""
    escaped = text.encode("unicode_escape").decode("ascii").replace('"', '\\"')
    return f'"{escaped}"'
