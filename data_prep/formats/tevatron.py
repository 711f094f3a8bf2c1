"""Tevatron's JSON lines: queries with the ids of their documents, and a corpus of these (arXiv:2203.05765).

The README of Tevatron calls the fields of a document ``document_text`` and ``document_image``; its code (commit
dd06310) reads ``text``, ``image`` and ``video``. Both are read; the names that the code reads are written, unless told
otherwise.
"""

from collections.abc import Iterator, Mapping

from data_prep.formats import Format, Holds, Record, Shape
from data_prep.formats.documents import Ids, read_with_corpus, write_with_corpus
from data_prep.formats.inputs import Reading, maybe_name
from data_prep.formats.items import Fields, fields_of_item, item_of_fields
from data_prep.formats.outputs import Writing
from mmembed.errors import InputError
from mmembed.items import Item, Pair

KINDS = ("text", "image", "video")
FIELD_NAMES = {"code": {kind: kind for kind in KINDS}, "readme": {kind: f"document_{kind}" for kind in KINDS}}
"""What a document's fields are called, in the code and in the README."""
_QUERY = {kind: f"query_{kind}" for kind in KINDS}
_IDS = Ids("query_id", "docid", "positive_document_ids", "negative_document_ids")
_SHAPE = Shape(kinds=KINDS, images=1)


def read(reading: Reading) -> Iterator[Pair]:
    """The pairs of Tevatron's rows."""

    def item(row: Record, called: Mapping[str, str]) -> Item:
        words, image, video = (maybe_name(row, called[kind]) for kind in KINDS)
        names = Fields(called["text"], (called["image"],), called["video"])
        return item_of_fields(Fields(words, (image,) if image else (), video), reading.media, names)

    def document(row: Record) -> Item:
        row = reading.less(row, " of documents")
        reading.refuse_unknown(row, ("docid", *(name for names in FIELD_NAMES.values() for name in names.values())))
        called = {kind: _called(row, kind) for kind in KINDS}
        return item(row, called)

    return read_with_corpus(reading, _IDS, tuple(_QUERY.values()), document, lambda row, positives: item(row, _QUERY))


def write(writing: Writing) -> None:
    """Write Tevatron's rows and their corpus."""

    def named(item: Item, called: Mapping[str, str], where: str) -> Record:
        fields = fields_of_item(item, writing.media, where)
        values = {"text": fields.text or "", "image": fields.image, "video": fields.video}
        return {called[kind]: value for kind, value in values.items() if value is not None}

    def document(item: Item, where: str) -> Record:
        return named(item, FIELD_NAMES[writing.options["field_names"]], where)

    def make(pair: Pair) -> Record:
        return named(pair.query, _QUERY, "query")

    write_with_corpus(writing, _IDS, document, make, (str, lambda content, number: content))


def _called(row: Record, kind: str) -> str:
    """What a document's row calls one of its fields."""
    code, readme = (FIELD_NAMES[style][kind] for style in ("code", "readme"))
    if row.get(code) is not None and row.get(readme) is not None:
        got, remedy = f"{code} and {readme}", "keep one of the two"
        raise InputError(code, expected="one of the two names of a field", got=got, remedy=remedy)
    return readme if row.get(readme) is not None else code


FORMAT = Format(
    "Tevatron JSON lines: query_id, query_text, query_image, query_video, positive_document_ids, "
    "negative_document_ids, and a corpus of docid, text, image, video",
    Holds(_SHAPE, _SHAPE, positives=None, fields=frozenset({"query_id", "target_ids", "negative_ids"})),
    read,
    write,
    reading=("corpus", "items"),
    writing=("corpus", "items", "make_ids", "field_names"),
)
"""Tevatron's rows."""
