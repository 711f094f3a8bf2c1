"""Training rows about document pages, as VLM2Vec-V2 writes them (arXiv:2507.04590).

ColPali's, VisRAG's, Docmatix and PixMo-docs. The prompts are options of the sources.
"""

import random
from collections.abc import Iterator

from data_prep.converters import Converter, Media, Record
from data_prep.converters.published import pairs_of, picture_of, string_of
from data_prep.source import SourceSet
from mmembed.errors import InputError
from mmembed.items import Image, Item, Pair


def colpali_pairs(rows: Iterator[Record], row_set: SourceSet, media: Media) -> Iterator[Pair | InputError]:
    """Page and question find the answer: the published training reads ColPali's set as question answering.

    The column ``prompt`` is not used, as published.
    """

    def make(row: Record, where: str) -> Pair:
        page = picture_of(row["image"], f"{where}: image")
        query = string_of(row, "query", where)
        return Pair(Item((page, f" {query}")), (Item((string_of(row, "answer", where),)),))

    return pairs_of(rows, make)


def visrag_pairs(rows: Iterator[Record], row_set: SourceSet, media: Media) -> Iterator[Pair | InputError]:
    """A question finds its page, each with the prompt of the row's ``source``; none where the source has none.

    Options ``query_prompts`` and ``target_prompts`` hold them. The spaces around an empty part stay, as published.
    """
    of_queries, of_targets = row_set.options["query_prompts"], row_set.options["target_prompts"]

    def make(row: Record, where: str) -> Pair:
        page = picture_of(row["image"], f"{where}: image")
        query, source = string_of(row, "query", where), row["source"]
        asked, shown = of_queries.get(source), of_targets.get(source)
        query = f"{asked} {query} " if asked else f"{query} "
        return Pair(Item((query,)), (Item((f"{shown}  " if shown else " ", page)),))

    return pairs_of(rows, make)


def docmatix_pairs(rows: Iterator[Record], row_set: SourceSet, media: Media) -> Iterator[Pair | InputError]:
    """A question about a document finds its pages.

    Of a row's questions one is drawn by the row's number; the published parser draws another each epoch.
    """
    asked, shown = row_set.options["query_prompt"], row_set.options["target_prompt"]

    def make(row: Record, where: str) -> Pair:
        pages = [picture_of(page, f"{where}: images[{i}]") for i, page in enumerate(row["images"] or ())]
        for column, values in (("images", pages), ("texts", row["texts"])):
            if not values:
                raise InputError(f"{where}: {column}", expected="at least one", got="none", remedy="leave the row out")
        turn = random.Random(where).choice(row["texts"])
        query = string_of(turn, "user", f"{where}: texts")
        return Pair(Item((f"{asked} Q: {query}",)), (Item((f"{shown} ", *pages)),))

    return pairs_of(rows, make)


def pixmo_pairs(rows: Iterator[Record], row_set: SourceSet, media: Media) -> Iterator[Pair | InputError]:
    """A question finds the first of its positive documents, a PNG file; the negatives are not used, as published."""
    asked, shown = row_set.options["query_prompt"], row_set.options["target_prompt"]

    def make(row: Record, where: str) -> Pair:
        query, documents = string_of(row, "query_text", where), row["positive_document_ids"]
        if not documents:
            where = f"{where}: positive_document_ids"
            raise InputError(where, expected="at least one", got="none", remedy="leave the row out")
        page = Image(media.find(f"{documents[0]}.png", f"{where}: positive_document_ids"))
        return Pair(Item((asked + query,)), (Item((shown, page)),))

    return pairs_of(rows, make)


CONVERTERS: dict[str, Converter] = {
    "colpali_pairs": Converter(pairs=colpali_pairs, columns={"rows": ("query", "image", "answer")}),
    "visrag_pairs": Converter(pairs=visrag_pairs, columns={"rows": ("query", "image", "source")}),
    "docmatix_pairs": Converter(pairs=docmatix_pairs, columns={"rows": ("images", "texts")}),
    "pixmo_pairs": Converter(pairs=pixmo_pairs, columns={"rows": ("query_text", "positive_document_ids")}),
}
"""Every converter by its name, as sources name it."""
