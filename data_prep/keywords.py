"""Parts of speech of a caption's words: by rules, offline, or by spaCy where it is installed."""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from itertools import groupby
from typing import Any, TypeAlias

from mmembed.errors import InputError, nearest

KEYWORDS = ("NOUN", "PROPN", "ADJ", "DET")
"""What LinCIR takes for a keyword (arXiv:2312.01998; the published code counts articles, too)."""


@dataclass(frozen=True)
class Token:
    """A word or mark of a caption: where it begins and ends, and its part of speech as Universal Dependencies name it.

    Args:
        start: place of its first character.
        end: place behind its last.
        pos: part of speech.
    """

    start: int
    end: int
    pos: str


Tagger: TypeAlias = Callable[[str], list[Token]]
"""Caption -> its tokens in order."""


def runs(tokens: Iterable[Token]) -> Iterator[list[Token]]:
    """Every longest run of tokens that are keywords."""
    for is_keyword, group in groupby(tokens, key=lambda token: token.pos in KEYWORDS):
        if is_keyword:
            yield list(group)


def by_rules(caption: str) -> list[Token]:
    """Tokens by lists of closed classes and by endings; all that is left is a noun.

    Rough, but the same everywhere: verbs are known by a short list and by -ing and -ed, so that "a smiling man" is cut
    in two, and rarer verbs count as nouns.
    """
    found = list(_WORD.finditer(caption.lower()))
    words = [match.group() for match in found]
    tags = [_tag(word, words[i + 1] if i + 1 < len(words) else "") for i, word in enumerate(words)]
    return [Token(match.start(), match.end(), tag) for match, tag in zip(found, tags, strict=True)]


def by_spacy(caption: str) -> list[Token]:
    """Tokens as spaCy's ``en_core_web_sm`` tags them, which is what LinCIR was trained with.

    Raises:
        InputError: spaCy or its model is not installed.
    """
    return [Token(word.idx, word.idx + len(word.text), word.pos_) for word in _spacy()(caption)]


TAGGERS: Mapping[str, Tagger] = {"rules": by_rules, "spacy": by_spacy}


def tagger_of(name: str, where: str) -> Tagger:
    """The tagger of that name.

    Raises:
        InputError: there is none.
    """
    if name not in TAGGERS:
        raise InputError(where, expected="a tagger", got=f"'{name}'", remedy=nearest(name, TAGGERS))
    return TAGGERS[name]


@cache
def _spacy() -> Any:
    try:
        import spacy

        return spacy.load("en_core_web_sm", disable=["parser", "ner", "lemmatizer"])
    except (ImportError, OSError) as error:
        raise InputError(
            "tagger", expected="spaCy and its model en_core_web_sm", got=" ".join(str(error).split()),
            remedy="pip install mmembed[captions], then python -m spacy download en_core_web_sm; or the tagger rules",
        ) from error  # fmt: skip


def _tag(word: str, after: str) -> str:
    if word in _SIDES and after in ("of", "to"):
        return "ADV"
    if word in _CLOSED:
        return _CLOSED[word]
    if not word[0].isalpha():
        return "NUM" if word[0].isdigit() else "PUNCT"
    if len(word) > 4 and word.endswith("ly"):
        return "ADV"
    return "VERB" if len(word) > 4 and word.endswith(("ing", "ed")) and word not in _NO_VERBS else "NOUN"


_WORD = re.compile(r"\w+(?:['-]\w+)*|[^\w\s]")
_SIDES = ("left", "right", "front", "top", "bottom", "back")
_NO_VERBS = {
    *("building", "ceiling", "clothing", "painting", "wedding", "evening", "morning", "railing", "earring"),
    *("thing", "something", "nothing", "anything", "everything", "bedding", "icing", "pudding", "string", "spring"),
    *("speed", "breed", "weed", "hundred", "naked", "sacred", "wooded"),
}
_CLASSES = {
    "DET": "a an the this that these those some any no each every all both another either neither such what which",
    "ADP": "of in on at by for with from to into onto over under above below between beside behind through across "
    "along around against near inside outside within without about after before during off up down out as like "
    "than toward towards upon via per among beneath past",
    "CCONJ": "and or but nor plus",
    "SCONJ": "if because while when where although though since until whether",
    "PRON": "i you he she it we they me him her us them who whom whose his its their our my your someone something "
    "everyone anyone nothing himself herself itself themselves there one",
    "AUX": "is are was were be been being am has have had do does did can could will would shall should may might must",
    "PART": "not n't",
    "NUM": "two three four five six seven eight nine ten eleven twelve",
    "ADV": "very too also just only then now here away together again still almost quite really so how why more most "
    "less least never always often next",
    "VERB": "sit sits sat stand stands stood hold holds held wear wears wore ride rides rode walk walks run runs ran "
    "look looks play plays eat eats ate bark barks show shows make makes made put puts take takes took give gives "
    "get gets go goes went see sees seen lie lies lay fly flies flew swim swims drive drives jump jumps talk talks "
    "smile smiles cut cuts carry carries read reads write writes use uses cost costs contain contains feature features "
    "sleep sleeps hang hangs hung lean leans point points watch watches change add remove replace turn move "
    "fill fills cover covers worn taken shown seen",
}
_CLOSED = {word: pos for pos, words in _CLASSES.items() for word in words.split()}
