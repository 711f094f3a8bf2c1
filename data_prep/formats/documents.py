"""Rows that name their documents by ids: read with a corpus, and written beside one."""

import json
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count

from data_prep.formats import Record
from data_prep.formats.corpora import Corpus
from data_prep.formats.ids import Names
from data_prep.formats.inputs import Reading, names_of
from data_prep.formats.outputs import JsonLines, Writing, whole_files
from mmembed.data.tables import write_items
from mmembed.errors import InputError
from mmembed.files import fingerprint
from mmembed.items import Item, Negative, Pair


@dataclass(frozen=True)
class Ids:
    """How a format names queries and documents.

    Args:
        query: field of a query's id.
        document: field of a document's id.
        positives: field of the ids of a query's positives.
        negatives: field of the ids of its negatives.
        check: refuses an id of another form than the format has: id, and where it stands.
    """

    query: str
    document: str
    positives: str
    negatives: str
    check: Callable[[str, str], None] = lambda name, where: None


def read_with_corpus(
    reading: Reading,
    ids: Ids,
    columns: tuple[str, ...],
    document: Callable[[Record], Item],
    query: Callable[[Record, tuple[Item, ...]], Item],
) -> Iterator[Pair]:
    """The pairs of rows whose documents are looked up in ``--corpus``; ``--items`` takes all of these as a table.

    Args:
        reading: the input.
        ids: how it names queries and documents.
        columns: the other fields of a row that are read.
        document: a document's row to its item.
        query: a row to its query, given its positives.
    """
    with Corpus(reading.options["corpus"], ids.document, document) as corpus:

        def make(row: Record) -> Pair:
            names, wrong = names_of(row, ids.positives), names_of(row, ids.negatives, none=True)
            name = names_of({ids.query: [row[ids.query]]}, ids.query)[0]
            positives = tuple(corpus.find(one, f"{ids.positives}[{i}]") for i, one in enumerate(names))
            found = [(corpus.find(one, f"{ids.negatives}[{i}]"), one) for i, one in enumerate(wrong)]
            negatives = tuple(Negative(item, target_id=one) for item, one in found)
            return Pair(query(row, positives), positives, negatives, query_id=name, target_ids=names)

        known = (ids.query, ids.positives, ids.negatives, *columns)
        some = False
        for pair in reading.pairs(make, known, (ids.query, ids.positives)):
            some = True
            yield pair
        # a table without a row is refused: no items either
        if some and (path := reading.options["items"]) is not None:
            write_items(path, corpus.items(), media_root=reading.media.within.folder)


def write_with_corpus(
    writing: Writing,
    ids: Ids,
    document: Callable[[Item, str], Record],
    make: Callable[[Pair], Record],
    made_names: tuple[Callable[[int], str], Callable[[str, int], str]],
) -> None:
    """Write rows, and the documents that they name to ``--corpus``: those of ``--items`` first, each id once.

    Args:
        writing: the output.
        ids: how the format names queries and documents.
        document: an item to a document's row without its id.
        make: a pair to a row without its ids.
        made_names: ids for a query by its number, and for a document by its fingerprint and number, with --make-ids.
    """
    of_query, of_document = made_names if writing.options["make_ids"] else (None, None)
    with (
        whole_files(writing.path, writing.options["corpus"]) as (part, corpus_part),
        Names() as known,
        JsonLines(corpus_part) as documents,
        JsonLines(part) as lines,
    ):
        corpus = CorpusLines(documents, known, ids, of_document, writing.counts)
        for where, name, item in writing.items():
            try:
                corpus.name(name, document(item, "item"), "id")
            except InputError as error:
                raise error.within(where) from None
        numbers = count()

        def named(pair: Pair) -> Record:
            number, names = next(numbers), pair.target_ids or ("",) * len(pair.positives)
            placed = [(f"positives[{i}]", names[i], item) for i, item in enumerate(pair.positives)]
            wrong = [(f"negatives[{i}].item", n.target_id, n.item) for i, n in enumerate(pair.negatives)]
            row = {ids.query: _query_name(writing, ids, pair, of_query, number)} | dict(make(pair))
            for field, items in ((ids.positives, placed), (ids.negatives, wrong)):
                row[field] = [corpus.name(name, document(item, where), where) for where, name, item in items]
            return row

        for row in writing.rows(named):
            lines.write(row)


def _query_name(writing: Writing, ids: Ids, pair: Pair, make: Callable[[int], str] | None, number: int) -> str:
    if not pair.query_id and make is None:
        remedy = "name it in the table, or say --make-ids"
        raise InputError("query_id", expected="an id, which the format needs", got="none", remedy=remedy)
    if pair.query_id or make is None:
        ids.check(pair.query_id, "query_id")
        return pair.query_id
    writing.counts["queries given an id"] += 1
    return make(number)


class CorpusLines:
    """Documents written as JSON lines, each id once; see :func:`write_with_corpus`.

    Args:
        lines: where they go.
        names: ids that are written, with what they are of.
        ids: how the format names documents.
        make_name: an id for a document without one, from what names its content and its number; None refuses it.
        counts: takes in words the ids that were made.
    """

    def __init__(
        self,
        lines: JsonLines,
        names: Names,
        ids: Ids,
        make_name: Callable[[str, int], str] | None,
        counts: Counter[str],
    ) -> None:
        self._lines, self._names, self._ids = lines, names, ids
        self._make_name, self._counts, self._made = make_name, counts, 0

    def name(self, name: str, row: Record, where: str) -> str:
        """The id of a document, which is written unless it is there already.

        Raises:
            InputError: it has no id, or that of another document.
        """
        content = fingerprint(json.dumps(row, ensure_ascii=False, sort_keys=True))
        if not name:
            name = self._new_name(content, where)
        self._ids.check(name, where)
        value = int(content[:15], 16)
        known = self._names.add(name, value)
        if known is None:
            self._lines.write({self._ids.document: name} | dict(row))
        elif known[0] != value:
            got = f"'{name}' for another document"
            remedy = "give one another id, or say --drop target_ids,negative_ids --make-ids"
            raise InputError(where, expected="each id for one document", got=got, remedy=remedy)
        return name

    def _new_name(self, content: str, where: str) -> str:
        if self._make_name is None:
            remedy = "name it in the table, or say --make-ids"
            raise InputError(where, expected="an id, which the format needs", got="none", remedy=remedy)
        # the number of a document that came before stands under its content, which no id looks like
        known = self._names.add(f"content\0{content}", self._made)
        if known is None:
            self._made += 1
            self._counts["documents given an id"] += 1
        return self._make_name(content, self._made - 1 if known is None else known[0])
