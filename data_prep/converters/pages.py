"""Training rows about document pages, as VLM2Vec-V2 writes them (arXiv:2507.04590).

ColPali's, VisRAG's, Docmatix and PixMo-docs. The prompts are options of the sources.
"""

import random
from collections.abc import Iterator
from itertools import count

from data_prep.converters import Converter, Media, Record
from data_prep.converters.fields import first_identifier, maybe_text, picture, pictures, text, texts_within
from data_prep.converters.published import pairs_of
from data_prep.source import SourceSet
from mmembed.errors import InputError
from mmembed.items import Image, Item, Pair


def colpali_pairs(rows: Iterator[Record], row_set: SourceSet, media: Media) -> Iterator[Pair | InputError]:
    """Page and question find the answer: the published training reads ColPali's set as question answering.

    The column ``prompt`` is not used, as published.
    """

    def make(row: Record) -> Pair:
        query = Item((picture(row, "image"), f" {text(row, 'query', empty=True)}"))
        return Pair(query, (Item((text(row, "answer"),)),))

    return pairs_of(rows, make)


def visrag_pairs(rows: Iterator[Record], row_set: SourceSet, media: Media) -> Iterator[Pair | InputError]:
    """A question finds its page, each with the prompt of the row's ``source``; none where the source has none.

    Options ``query_prompts`` and ``target_prompts`` hold them. The spaces around an empty part stay, as published.
    """
    of_queries, of_targets = row_set.options["query_prompts"], row_set.options["target_prompts"]

    def make(row: Record) -> Pair:
        query, source = text(row, "query", empty=True), maybe_text(row, "source")
        asked, shown = of_queries.get(source), of_targets.get(source)
        query = f"{asked} {query} " if asked else f"{query} "
        return Pair(Item((query,)), (Item((f"{shown}  " if shown else " ", picture(row, "image"))),))

    return pairs_of(rows, make)


def docmatix_pairs(rows: Iterator[Record], row_set: SourceSet, media: Media) -> Iterator[Pair | InputError]:
    """A question about a document finds its pages.

    Of a row's questions one is drawn by the row's number; the published parser draws another each epoch.
    """
    asked, shown = row_set.options["query_prompt"], row_set.options["target_prompt"]
    numbers = count()

    def make(row: Record) -> Pair:
        draw = random.Random(f"row {next(numbers)}")
        pages, questions = pictures(row, "images"), texts_within(row, "texts", "user")
        return Pair(Item((f"{asked} Q: {draw.choice(questions)}",)), (Item((f"{shown} ", *pages)),))

    return pairs_of(rows, make)


def pixmo_pairs(rows: Iterator[Record], row_set: SourceSet, media: Media) -> Iterator[Pair | InputError]:
    """A question finds the first of its positive documents, a PNG file; the negatives are not used, as published."""
    asked, shown = row_set.options["query_prompt"], row_set.options["target_prompt"]

    def make(row: Record) -> Pair:
        query, document = text(row, "query_text", empty=True), first_identifier(row, "positive_document_ids")
        page = Image(media.find(f"{document}.png", "positive_document_ids"))
        return Pair(Item((asked + query,)), (Item((shown, page)),))

    return pairs_of(rows, make)


CONVERTERS: dict[str, Converter] = {
    "colpali_pairs": Converter(pairs=colpali_pairs, columns={"rows": ("query", "image", "answer")}),
    "visrag_pairs": Converter(pairs=visrag_pairs, columns={"rows": ("query", "image", "source")}),
    "docmatix_pairs": Converter(pairs=docmatix_pairs, columns={"rows": ("images", "texts")}),
    "pixmo_pairs": Converter(pairs=pixmo_pairs, columns={"rows": ("query_text", "positive_document_ids")}),
}
"""Every converter by its name, as sources name it."""
