"""What a source makes of a composed query: its picture as a hard negative, or the pair of the picture alone.

A composed query is media and a change in words. Both views are of the pair as the table has it, cut to the first of its
positives and negatives.
"""

from dataclasses import replace

from mmembed.errors import InputError
from mmembed.items import Image, Item, Media, Negative, Pair

QUERY_MEDIA = "query"
"""Miner of the negative that is the query's own media."""


def with_query_media(pair: Pair) -> Pair:
    """The pair whose first hard negative is what the query shows, without its words.

    Such a negative keeps a model from answering with the picture that it was given: MegaPairs (arXiv:2412.14475)
    reports CIRR's recall@1 without and with it as 0.2 and 32.1. It has the instruction that a positive with media has,
    so that nothing but its content sets it apart. A pair that has it already stays as it is.

    Raises:
        InputError: the query has no media, or a teacher scored the targets, for it did not score this one.
    """
    shown = _media_of(pair)
    if any(negative.item.content == shown for negative in pair.negatives):
        return pair
    if pair.teacher_scores:
        raise InputError(
            "pair.teacher_scores", expected="none beside query_image_negative",
            got=f"{len(pair.teacher_scores)} scores, none of the query's own media",
            remedy="write the negative and its score into the table",
        )  # fmt: skip
    like = next((target for target in pair.positives if target.media), None)
    own = Item(shown) if like is None else Item(shown, like.instruction, like.verbatim)
    return replace(pair, negatives=(Negative(own, miner=QUERY_MEDIA), *pair.negatives))


def mirrored(pair: Pair) -> Pair:
    """The pair of the media alone: the hard negatives answer it, and the positives are its hard negatives.

    The term that InstructCIR's published code (arXiv:2412.05756) has in a comment: where the positive is the caption
    after the change and the hard negative the caption before it, the picture alone has these the other way round. The
    query has no instruction, its answers have no names and the pair has no class: these belong to the change.

    Raises:
        InputError: the query has no media, there is no hard negative to answer it, or a teacher scored the targets, for
            it scored them for another query.
    """
    shown = _media_of(pair)
    if not pair.negatives:
        raise InputError(
            "pair.negatives", expected="a hard negative, which answers the mirrored query", got="none",
            remedy="leave the row out, or mirrored",
        )  # fmt: skip
    if pair.teacher_scores:
        raise InputError(
            "pair.teacher_scores", expected="none beside mirrored",
            got=f"{len(pair.teacher_scores)} scores, for the query with its change",
            remedy="leave them out, or mirrored",
        )  # fmt: skip
    return replace(
        pair,
        query=Item(shown, verbatim=pair.query.verbatim),
        positives=tuple(negative.item for negative in pair.negatives),
        negatives=tuple(Negative(positive) for positive in pair.positives),
        target_ids=(),
        class_id="",
    )


def _media_of(pair: Pair) -> tuple[Media, ...]:
    """The media of the query; what a region points at is part of the change, and falls away with it."""
    media = tuple(replace(one, regions=()) if isinstance(one, Image) else one for one in pair.query.media)
    if not media:
        raise InputError(
            "pair.query", expected="a picture, a clip or a page beside its words", got="words alone",
            remedy="leave the row out, or query_image_negative and mirrored",
        )  # fmt: skip
    return media
