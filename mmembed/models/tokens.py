"""Segments of a prompt to tokens that know which segment they belong to, so that none is known by its looks."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate
from typing import Any, TypeAlias

from mmembed.errors import InputError
from mmembed.models.prompts import Segment

Token: TypeAlias = tuple[int, Segment]
"""An id and the segment it came from."""


def tokenize_whole(tokenizer: Any, segments: Sequence[Segment]) -> Iterator[Token]:
    """Tokenize the joined text at once; offsets tell each token's segment."""
    encoded = tokenizer("".join(s.text for s in segments), return_offsets_mapping=True, verbose=False)
    ends = list(accumulate(len(s.text) for s in segments))
    current, last = 0, len(segments) - 1
    for token, (start, end) in zip(encoded["input_ids"], encoded["offset_mapping"], strict=True):
        # a token that begins with a separator belongs to the word after it
        while current < last and (start if end <= start else end - 1) >= ends[current]:
            current += 1
        yield token, segments[current]


def check_placeholders(tokenizer: Any, placeholders: Mapping[int, str], where: str) -> dict[int, str]:
    """The words of the tokens that stand for media.

    Args:
        tokenizer: of the checkpoint.
        placeholders: ids that the checkpoint's config gives them, and what they stand for.
        where: names the checkpoint in errors.

    Raises:
        InputError: the tokenizer has no such token, or reads its words as something else.
    """
    words = {}
    for token, name in placeholders.items():
        word = tokenizer.convert_ids_to_tokens(token) if 0 <= token < len(tokenizer) else None
        if word is None or tokenizer.encode(word, add_special_tokens=False) != [token]:
            got = f"no token {token}" if word is None else f"'{word}', which it reads as other tokens"
            raise InputError(
                where, expected=f"a tokenizer with the {name} token {token} of config.json", got=got,
                remedy="take config and tokenizer from the same checkpoint",
            )  # fmt: skip
        words[token] = word
    return words
