"""The description of a changed picture by rules: the changes that words can be found for, else both side by side."""

import re

from data_prep.writers.lexicon import found, lexicon, swapped, with_articles

_COLOUR = re.compile(r"(?:make|turn|paint|colour|color) (?:it|(?:the )?(?P<which>.+?)) (?:to )?(?P<colour>\w+)$")
_SWAP = re.compile(r"(?:replace|change) (?:the |an? )?(?P<old>.+?) (?:with|to|into|by) (?P<new>.+)$")
_INSTEAD = re.compile(r"(?:has|shows?|is|with)? ?(?P<new>.+?) instead of (?:the |an? )?(?P<old>.+)$")
_REMOVE = re.compile(r"(?:remove|without|there is no|has no) (?:the |an? )?(?P<old>.+)$")
_ADD = re.compile(r"(?:add|has|with) (?P<new>.+)$")
_SIDES = {"left": ("left of", 0), "right": ("left of", -1), "upper": ("above", 0), "lower": ("above", -1)}
"""Which of two things a side is, and the words between them."""


def rewritten(caption: str, change: str) -> str:
    """The caption after the change."""
    caption, change = caption.strip().rstrip("."), change.strip().rstrip(".")
    words = change.lower()
    for pattern, rule in ((_COLOUR, _coloured), (_SWAP, _replaced), (_INSTEAD, _replaced), (_REMOVE, _removed)):
        if (match := pattern.match(words)) and (after := rule(caption, match)):
            return after
    if match := _ADD.match(words):
        return f"{caption} and {match['new']}"
    return f"{caption}, {change}"


def _coloured(caption: str, match: re.Match[str]) -> str | None:
    """Another colour for the thing that is named, or that is on the side that is named."""
    which, colour = match["which"] or "", match["colour"]
    places = found(lexicon().colours, caption)
    if colour not in lexicon().colours or not places:
        return None
    side, _, _ = which.partition(" ")
    if side in _SIDES and _SIDES[side][0] in caption:
        return swapped(caption, places[_SIDES[side][1]], colour)
    for place in places:
        behind = found(lexicon().things, caption[place.end() :])
        if behind and behind[0][0].lower() == which.split(" ")[-1]:
            return swapped(caption, place, colour)
    return swapped(caption, places[0], colour) if len(places) == 1 else None


def _replaced(caption: str, match: re.Match[str]) -> str | None:
    places = found([match["old"]], caption)
    new = re.sub(r"^(the|an?) ", "", match["new"])
    return swapped(caption, places[0], new) if places else None


def _removed(caption: str, match: re.Match[str]) -> str | None:
    """What stands before the words that join the thing to it."""
    joints = "|".join(re.escape(word) for word in sorted(lexicon().connectors, key=len, reverse=True))
    gone = rf",? ?\b(?:{joints}) (?:the |an? )?(?:\w+ ){{0,2}}{re.escape(match['old'])}\b"
    after, count = re.subn(gone, "", caption, count=1, flags=re.IGNORECASE)
    return with_articles(after.strip()) if count and after.strip() else None
