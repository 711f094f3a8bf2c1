"""Joins: how the several texts of one query become the text, or the texts, that are embedded.

FashionIQ describes a change twice, and CIRCO says a concept that reference and target share besides the change. Every
published system writes these otherwise, which moves its scores by points: a benchmark's row names one way, and the
protocol's name depends on it. An empty text is left out with the word that would join it, but where the name says
``published``.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from mmembed.errors import InputError, nearest

Texts: TypeAlias = Sequence[str]
MAX_WORDS = 30
"""Words that CoVR keeps of a query."""
_EDGES = ".?, "
_REMOVED_BY_COVR = re.compile(r"[.!\"()*#:;~]")


@dataclass(frozen=True)
class Join:
    """A way to write the texts of a query.

    Args:
        write: texts -> the ways they are written, one or several, whose vectors are averaged.
        scaled: each vector is scaled to unit length before they are averaged; else they are averaged as they are.
    """

    write: Callable[[Texts], tuple[str, ...]]
    scaled: bool = True


def joined(name: str, texts: Texts) -> tuple[str, ...]:
    """The texts of a query as the join of this name writes them, each way once.

    Raises:
        InputError: no join of that name, or texts that it cannot write.
    """
    if name not in JOINS:
        raise InputError("join", expected="a known join", got=f"'{name}'", remedy=nearest(name, JOINS))
    written = JOINS[name].write(texts) if any(text.strip() for text in texts) else ()
    if not written or not all(text.strip() for text in written):
        raise InputError("join", expected="a text that is not empty", got=list(texts), remedy="leave the query out")
    return tuple(dict.fromkeys(written))


def _stripped(texts: Texts) -> list[str]:
    return [kept for text in texts if (kept := text.strip(_EDGES))]


def _both_orders(texts: Texts) -> tuple[str, ...]:
    """Both orders (SEARLE, arXiv:2303.15247; LinCIR, arXiv:2312.01998)."""
    kept = _stripped(texts)
    return " and ".join(kept), " and ".join(reversed(kept))


def _both_orders_published(texts: Texts) -> tuple[str, ...]:
    """As SEARLE's and LinCIR's code writes them: an empty text leaves its "and" behind."""
    stripped = [text.strip(_EDGES) for text in texts]
    return " and ".join(stripped), " and ".join(reversed(stripped))


def _capitalised(texts: Texts) -> tuple[str, ...]:
    """The first text with its first letter upper and all others lower (CLIP4Cir, arXiv:2308.11485; TransAgg)."""
    first, *rest = _stripped(texts) or [""]
    return (" and ".join([first.capitalize(), *rest]),)


def _second_first(texts: Texts) -> tuple[str, ...]:
    """The second text first, neither stripped (Pic2Word, arXiv:2302.03084)."""
    return (" and ".join(text for text in reversed(texts) if text.strip()),)


def _in_order(texts: Texts) -> tuple[str, ...]:
    """In order, stripped (CIReVL, arXiv:2310.09291)."""
    return (" and ".join(_stripped(texts)),)


def _untouched(texts: Texts) -> tuple[str, ...]:
    """In order, untouched (MagicLens, arXiv:2403.19651)."""
    return (" and ".join(text for text in texts if text.strip()),)


def _after_comma(texts: Texts) -> tuple[str, ...]:
    """In order, with a comma before the "and" (MegaPairs, arXiv:2412.14475)."""
    return (", and ".join(text for text in texts if text.strip()),)


def _bare_words(texts: Texts) -> tuple[str, ...]:
    """Lower case, most punctuation made spaces, at most 30 words (CoVR, arXiv:2308.14746)."""
    words = _REMOVED_BY_COVR.sub(" ", " and ".join(text for text in texts if text.strip()).lower()).split()
    return (" ".join(words[:MAX_WORDS]),)


def _sentence_parts(texts: Texts) -> tuple[str, ...]:
    """Each with its first letter lower and without its last dot, as a sentence (UniIR, arXiv:2311.17136).

    That is how UniIR's code makes the texts of M-BEIR: the first letter of all is upper again, and a dot ends them.
    """
    parts = [text[0].lower() + text[1:].removesuffix(".") for text in map(str.strip, texts) if text.strip(".")]
    sentence = " and ".join(parts).strip('"')
    end = "" if sentence.endswith((".", "?", "!")) else "."
    return (f"{sentence[0].upper()}{sentence[1:]}{end}" if sentence else "",)


def _commas(texts: Texts) -> tuple[str, ...]:
    """Both orders behind commas, stripped (E5-V, arXiv:2407.12580)."""
    kept = _stripped(texts)
    return ", ".join(kept), ", ".join(reversed(kept))


def _change(texts: Texts) -> tuple[str, ...]:
    """The change alone, of a change and a shared concept."""
    return (texts[0],)


def _magiclens_concept(texts: Texts) -> tuple[str, ...]:
    """The change and the shared concept as MagicLens asks for them."""
    change, concept = _change_and_concept(texts)
    return (f"find {concept} but {change}",)


def _megapairs_concept(texts: Texts) -> tuple[str, ...]:
    """The change and the shared concept as MegaPairs asks for them."""
    change, concept = _change_and_concept(texts)
    return (f"Find a picture that also {concept}, but {change}.",)


def _change_and_concept(texts: Texts) -> tuple[str, str]:
    if len(texts) != 2:
        raise InputError(
            "join", expected="two texts, a change and a shared concept", got=list(texts), remedy="use another join"
        )
    return texts[0], texts[1]


JOINS: dict[str, Join] = {
    "searle": Join(_both_orders),
    "searle_published": Join(_both_orders_published),
    "clip4cir": Join(_capitalised),
    "pic2word": Join(_second_first),
    "cirevl": Join(_in_order),
    "magiclens": Join(_untouched),
    "megapairs": Join(_after_comma),
    "covr": Join(_bare_words),
    "uniir": Join(_sentence_parts),
    "e5_v": Join(_commas, scaled=False),
    "change": Join(_change),
    "magiclens_concept": Join(_magiclens_concept),
    "megapairs_concept": Join(_megapairs_concept),
}
"""Every join by its name."""
