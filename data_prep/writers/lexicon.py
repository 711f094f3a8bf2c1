"""The words of ``lexicon.yaml``: what may stand for what."""

import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from mmembed.settings import load_yaml, read_settings

FILE = Path(__file__).with_name("lexicon.yaml")


@dataclass(frozen=True)
class Lexicon:
    """Words by what they are."""

    colours: list[str]
    """Each may stand for another."""
    objects: list[list[str]]
    """Groups of things, of which each may stand for another of its group."""
    irregular_plurals: dict[str, str]
    """Plurals that do not end in s alone."""
    numbers: list[str]
    """From one upwards."""
    attributes: list[list[str]]
    """Pairs of opposites."""
    comparatives: dict[str, str]
    """Properties and their comparatives."""
    backgrounds: list[str]
    """With their articles."""
    positions: list[list[str]]
    """Pairs of opposites."""
    connectors: list[str]
    """Words between one thing and the next."""
    viewpoints: list[str]
    """Behind "seen"."""
    styles: list[str]
    """With their articles."""

    def plural(self, noun: str) -> str:
        """Several of a thing."""
        return self.irregular_plurals.get(noun, f"{noun}s")

    @property
    def things(self) -> list[str]:
        """All objects, one and several."""
        nouns = [noun for group in self.objects for noun in group]
        return [*nouns, *(self.plural(noun) for noun in nouns)]

    def others(self, thing: str) -> list[str]:
        """What may stand for a thing, in the same number."""
        for group in self.objects:
            plurals = [self.plural(noun) for noun in group]
            for forms in (group, plurals):
                if thing in forms:
                    return [noun for noun in forms if noun != thing]
        return []


@cache
def lexicon() -> Lexicon:
    """The file, read once."""
    return read_settings(Lexicon, load_yaml(FILE), where=FILE)


def found(words: list[str], text: str) -> list[re.Match[str]]:
    """Where any of some words stand in a text as whole words, in order; of two that begin alike the longer one."""
    options = "|".join(re.escape(word) for word in sorted(words, key=len, reverse=True))
    return list(re.finditer(rf"\b({options})\b", text, re.IGNORECASE))


def swapped(text: str, match: re.Match[str], word: str) -> str:
    """The text with another word where the match stands, the article before it made to fit."""
    return with_articles(text[: match.start()] + word + text[match.end() :])


def with_articles(text: str) -> str:
    """``a`` before a vowel becomes ``an``, and the reverse."""

    def fitting(match: re.Match[str]) -> str:
        article = "an" if match[2][0].lower() in "aeiou" else "a"
        return f"{article.capitalize() if match[1][0] == 'A' else article} {match[2]}"

    return re.sub(r"\b(an?) (\w+)", fitting, text, flags=re.IGNORECASE)
