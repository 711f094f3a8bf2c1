"""The prompts of ``prompts.yaml`` as messages, and the versions that records name."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from data_prep.writers import Message
from mmembed.errors import InputError, nearest
from mmembed.files import fingerprint
from mmembed.settings import load_yaml, read_settings

PROMPTS = Path(__file__).with_name("prompts.yaml")
CONTENT, CHANGE, EDITED = "Image Content:", "Instruction:", "Edited Description:"
"""What a caption, a change and an answer begin with, as CIReVL writes them (arXiv:2310.09291)."""
CAPTION, KIND = "Caption:", "Kind of edit:"
"""What a caption and the kind of an edit begin with where a triplet is asked for."""
QUESTION = "Describe the image in complete detail. You must especially focus on all the objects in the image"
"""What CIReVL asks BLIP-2 of each reference (arXiv:2310.09291)."""


@dataclass(frozen=True)
class TripletExample:
    """A caption, the kind of an edit, and a good answer."""

    caption: str
    kind: str
    instruction: str
    modified_caption: str


@dataclass(frozen=True)
class TripletPrompt:
    """How a triplet is asked for."""

    version: str
    """Counts up with the words."""
    task: str
    """What is to be done, and the form of the answer."""
    kinds: dict[str, str]
    """Kinds of edits, each with what it means."""
    examples: list[TripletExample]
    """Good answers."""


@dataclass(frozen=True)
class RewritingExample:
    """A caption, a change, and a good answer."""

    content: str
    change: str
    edited: str


@dataclass(frozen=True)
class RewritingKind:
    """What one benchmark asks for besides the task."""

    advice: str
    """What the description is to be like."""
    examples: list[RewritingExample]
    """Good answers."""


@dataclass(frozen=True)
class RewritingPrompt:
    """How a description of the changed picture is asked for."""

    version: str
    """Counts up with the words."""
    task: str
    """What is to be done, and the form of the answer."""
    kinds: dict[str, RewritingKind]
    """By the names of the paper's prompts."""


@dataclass(frozen=True)
class Prompts:
    """All of the file."""

    triplets: TripletPrompt
    """For InstructCIR's triplets."""
    rewriting: RewritingPrompt
    """For CIReVL's queries."""


@cache
def prompts() -> Prompts:
    """The file, read once."""
    return read_settings(Prompts, load_yaml(PROMPTS), where=PROMPTS)


def edit_kinds() -> list[str]:
    """The kinds of edits, in the order of the file."""
    return list(prompts().triplets.kinds)


def triplet_messages(caption: str, kind: str) -> list[Message]:
    """The chat that asks for an edit of a kind; one turn, for some templates know no system prompt.

    Raises:
        InputError: a kind that is not known.
    """
    prompt = prompts().triplets
    if kind not in prompt.kinds:
        raise InputError("edit_type", expected="a kind of edit", got=f"'{kind}'", remedy=nearest(kind, prompt.kinds))
    # the examples of other kinds show the form, and leave the kind at hand to the model
    shown = [
        _edit_block(example.caption, example.kind, prompt) + _json_words(example.instruction, example.modified_caption)
        for example in prompt.examples
    ]
    return _turn([prompt.task.strip(), *shown, _edit_block(caption, kind, prompt)])


def triplet_version() -> str:
    """The version of the prompt and a hash of its words."""
    prompt = prompts().triplets
    return _version(prompt.version, triplet_messages("", next(iter(prompt.kinds))), repr(prompt.kinds))


def rewriting_messages(kind: str, caption: str, change: str) -> list[Message]:
    """The chat that asks for the description of a changed picture.

    Raises:
        InputError: a prompt that is not known.
    """
    prompt = prompts().rewriting
    if kind not in prompt.kinds:
        raise InputError("--prompt", expected="a known prompt", got=f"'{kind}'", remedy=nearest(kind, prompt.kinds))
    chosen = prompt.kinds[kind]
    shown = [f"{_change_block(one.content, one.change)}{EDITED} {one.edited}" for one in chosen.examples]
    return _turn([f"{prompt.task}{chosen.advice}".strip(), *shown, _change_block(caption, change)])


def rewriting_version(kind: str) -> str:
    """The version of a prompt and a hash of its words."""
    return _version(prompts().rewriting.version, rewriting_messages(kind, "", ""))


def _turn(blocks: Sequence[str]) -> list[Message]:
    return [{"role": "user", "content": "\n\n".join(block.rstrip() for block in blocks)}]


def _edit_block(caption: str, kind: str, prompt: TripletPrompt) -> str:
    return f"{CAPTION} {_one_line(caption)}\n{KIND} {kind} ({prompt.kinds[kind]})\n"


def _json_words(instruction: str, modified_caption: str) -> str:
    return json.dumps({"instruction": instruction, "modified_caption": modified_caption}, ensure_ascii=False)


def _change_block(caption: str, change: str) -> str:
    return f"{CONTENT} {_one_line(caption)}\n{CHANGE} {_one_line(change)}\n"


def _one_line(text: str) -> str:
    """A caption of several lines would end the block that it stands in."""
    return " ".join(text.split())


def _version(version: str, *words: Any) -> str:
    return f"{version}-{fingerprint(*(word if isinstance(word, str) else repr(word) for word in words))[:8]}"
