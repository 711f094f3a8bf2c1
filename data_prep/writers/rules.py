"""A writer without a model: it edits captions by a lexicon, offline and at once, so that all else can be tried.

It reads what a language model would be sent, and answers in the form that is asked of it. Its changes are right, but of
few kinds: data for a model come from a language model.
"""

import json
import random
import re
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any, TypeAlias

from data_prep.writers import Message
from data_prep.writers.lexicon import FILE as LEXICON
from data_prep.writers.lexicon import found, lexicon, swapped, with_articles
from data_prep.writers.prompts import CAPTION, CHANGE, CONTENT, EDITED, KIND
from data_prep.writers.rewrites import rewritten
from mmembed.errors import InputError
from mmembed.files import file_fingerprint, fingerprint

VERSION = 1
"""Counts up when the same caption gives another answer."""
Edit: TypeAlias = tuple[str, str]
"""An instruction, and the caption after it."""
Rule: TypeAlias = Callable[[str, random.Random], Edit | None]


class RuleWriter:
    """See the module."""

    @cached_property
    def facts(self) -> Mapping[str, Any]:
        """See :class:`data_prep.writers.Writer`."""
        return {"writer": "rules", "model": f"rules-{VERSION}", "lexicon": file_fingerprint(LEXICON)}

    def write(self, messages: Sequence[Message]) -> str:
        """See :meth:`data_prep.writers.Writer.write`.

        Raises:
            InputError: messages that ask for neither of the two things it can do.
        """
        words = str(messages[-1]["content"])
        caption, kind = _last(CAPTION, words), _last(KIND, words)
        if caption is not None and kind is not None:
            instruction, modified = edited(caption, kind.partition(" (")[0]) or ("", "")
            return json.dumps({"instruction": instruction, "modified_caption": modified}, ensure_ascii=False)
        content, change = _last(CONTENT, words), _last(CHANGE, words)
        if content is not None and change is not None:
            return f"{EDITED} {rewritten(content, change)}"
        raise InputError(
            "writer 'rules'", expected=f"'{CAPTION}' and '{KIND}', or '{CONTENT}' and '{CHANGE}'", got="neither",
            remedy="ask a language model instead",
        )  # fmt: skip


def edited(caption: str, kind: str) -> Edit | None:
    """An edit of a kind, the same one each time; None where the caption gives no hold."""
    if kind not in RULES:
        return None
    edit = RULES[kind](caption, random.Random(fingerprint(caption, kind)))
    return None if edit is None or edit[1] == caption else edit


def _last(name: str, words: str) -> str | None:
    """What stands behind the last line that begins so; the lines before are examples."""
    lines = [line.removeprefix(name).strip() for line in words.splitlines() if line.startswith(name)]
    return lines[-1] if lines else None


def _colour(caption: str, rng: random.Random) -> Edit | None:
    named = [(place, f"{place[0].lower()} {_what(caption, place)}") for place in found(lexicon().colours, caption)]
    alone = [(place, name) for place, name in named if [other for _, other in named].count(name) == 1]
    if not alone:
        return None
    place, name = rng.choice(alone)
    colour = rng.choice([other for other in lexicon().colours if other != place[0].lower()])
    return f"make the {name} {colour}", swapped(caption, place, colour)


def _compare_change(caption: str, rng: random.Random) -> Edit | None:
    if (swap := _other_thing(caption, rng)) is None:
        return None
    old, new, after = swap
    return f"has {_one(new)} instead of the {old}", after


def _direct_addressing(caption: str, rng: random.Random) -> Edit | None:
    # of two things, nobody could tell which one is meant
    if len(found(lexicon().things, caption)) > 1 or (swap := _other_thing(caption, rng)) is None:
        return None
    _, new, after = swap
    return f"shows {_one(new)}", after


def _addition(caption: str, rng: random.Random) -> Edit | None:
    there = {match[0].lower() for match in found(lexicon().things, caption)}
    new = rng.choice([noun for group in lexicon().objects[:2] for noun in group if noun not in there])
    return f"add {_one(new)}", f"{caption.rstrip('. ')} and {_one(new)}"


def _negation(caption: str, rng: random.Random) -> Edit | None:
    places = [place for place in found(lexicon().connectors, caption) if caption[: place.start()].strip()]
    gone = [thing[0] for thing in _alone(caption) if places and thing.start() >= places[-1].end()]
    return (f"there is no {gone[0]}", caption[: places[-1].start()].rstrip(" ,")) if gone else None


def _cardinality(caption: str, rng: random.Random) -> Edit | None:
    words = lexicon()
    for place in _alone(caption):
        # a verb behind one thing would have to change with it
        joint = rf"\W*$|,? (?:{'|'.join(words.connectors)})\b"
        if not re.match(joint, caption[place.end() :]):
            continue
        before = re.search(rf"\b(an?|{'|'.join(words.numbers[1:])}) ((?:\w+ ){{0,2}})$", caption[: place.start()])
        if before is None:
            continue
        number = rng.choice([word for word in words.numbers[1:] if word != before[1]])
        several = words.plural(place[0]) if before[1] in ("a", "an") else place[0]
        after = f"{caption[: before.start()]}{number} {before[2]}{several}{caption[place.end() :]}"
        return f"show {number} {several}", after
    return None


def _comparative(caption: str, rng: random.Random) -> Edit | None:
    word, comparative = rng.choice(list(lexicon().comparatives.items()))
    return _with_property(caption, rng, word, comparative)


def _attribute(caption: str, rng: random.Random) -> Edit | None:
    for pair in lexicon().attributes:
        if places := found(pair, caption):
            new = pair[1 - pair.index(places[0][0].lower())]
            return f"make the {_what(caption, places[0])} {new}", swapped(caption, places[0], new)
    new = rng.choice([word for pair in lexicon().attributes[:2] for word in pair])
    return _with_property(caption, rng, new, new)


def _spatial(caption: str, rng: random.Random) -> Edit | None:
    for pair in lexicon().positions:
        if places := found(pair, caption):
            new = pair[1 - pair.index(places[0][0].lower())]
            first = [thing[0] for thing in _alone(caption) if thing.end() <= places[0].start()]
            second = [thing[0] for thing in _alone(caption) if thing.start() >= places[0].end()]
            if first and second:
                return f"put the {first[-1]} {new} the {second[0]}", swapped(caption, places[0], new)
    where = rng.choice(lexicon().backgrounds)
    return f"put it in front of {where}", f"{caption.rstrip('. ')} in front of {where}"


def _viewpoint(caption: str, rng: random.Random) -> Edit | None:
    view = rng.choice(lexicon().viewpoints)
    return f"show it {view}", f"{caption.rstrip('. ')}, seen {view}"


def _style(caption: str, rng: random.Random) -> Edit | None:
    style = rng.choice(lexicon().styles)
    return f"as {style}", f"{style} of {caption[:1].lower()}{caption[1:]}"


def _conjunction(caption: str, rng: random.Random) -> Edit | None:
    first = _colour(caption, rng) or _other_thing_edit(caption, rng)
    second = _viewpoint(first[1], rng) if first else None
    return None if first is None or second is None else (f"{first[0]} and {second[0]}", second[1])


RULES: dict[str, Rule] = {
    "addition": _addition,
    "negation": _negation,
    "cardinality": _cardinality,
    "direct_addressing": _direct_addressing,
    "compare_change": _compare_change,
    "comparative_statement": _comparative,
    "statement_with_conjunction": _conjunction,
    "spatial_relations_background": _spatial,
    "viewpoint": _viewpoint,
    "attribute": _attribute,
    "colour": _colour,
    "style": _style,
}
"""How a caption is edited, by the kind of the edit."""


def _other_thing(caption: str, rng: random.Random) -> tuple[str, str, str] | None:
    """A thing of the caption, what stands for it, and the caption with it."""
    places = _alone(caption)
    if not places:
        return None
    place = rng.choice(places)
    there = {other[0].lower() for other in places}
    others = [other for other in lexicon().others(place[0].lower()) if other not in there]
    # a caption may name all of a group
    if not others:
        return None
    new = rng.choice(others)
    return place[0], new, swapped(caption, place, new)


def _other_thing_edit(caption: str, rng: random.Random) -> Edit | None:
    swap = _other_thing(caption, rng)
    return None if swap is None else (f"replace the {swap[0]} with {_one(swap[1])}", swap[2])


def _with_property(caption: str, rng: random.Random, word: str, asked: str) -> Edit | None:
    """A property before one of the things and before its colour; ``asked`` is how the instruction says it."""
    places = _alone(caption)
    if not places:
        return None
    place = rng.choice(places)
    before = caption[: place.start()].rstrip()
    colour = [match for match in found(lexicon().colours, before) if match.end() == len(before)]
    start = colour[-1].start() if colour else place.start()
    return f"make the {place[0]} {asked}", with_articles(f"{caption[:start]}{word} {caption[start:]}")


def _alone(caption: str) -> list[re.Match[str]]:
    """The things that no other one of the caption is called like."""
    places = found(lexicon().things, caption)
    names = [place[0].lower() for place in places]
    return [place for place in places if names.count(place[0].lower()) == 1]


def _what(caption: str, place: re.Match[str]) -> str:
    """The thing that a property stands before."""
    behind = found(lexicon().things, caption[place.end() :])
    return behind[0][0] if behind else "object"


def _one(thing: str) -> str:
    """A thing with its article; several go without."""
    singular = any(thing in group for group in lexicon().objects)
    return with_articles(f"a {thing}") if singular else thing
