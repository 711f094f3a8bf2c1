"""M-BEIR's JSON lines (UniIR, arXiv:2311.17136): queries with the ids of their candidates, and pools of these.

Texts are kept as they stand in the files; UniIR edits them when it reads them. Instructions stand in a file of their
own, several for each dataset and pair of modalities, and one of them, by its number, becomes that of the query.
``query_modality``, ``modality`` and ``task_id`` follow from the items: rows that say otherwise are refused. Absent
texts and pictures are written as null.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from data_prep.formats import Format, Holds, Record, Shape
from data_prep.formats.documents import Ids, read_with_corpus, write_with_corpus
from data_prep.formats.inputs import Reading, maybe_name
from data_prep.formats.items import Fields, fields_of_item, item_of_fields
from data_prep.formats.outputs import Writing
from mmembed.errors import InputError
from mmembed.items import Image, Item, Pair

TASKS = {
    ("text", "image"): 0,
    ("text", "text"): 1,
    ("text", "image,text"): 2,
    ("image", "text"): 3,
    ("image", "image"): 4,
    ("image", "image,text"): 5,
    ("image,text", "text"): 6,
    ("image,text", "image"): 7,
    ("image,text", "image,text"): 8,
}
"""Numbers of M-BEIR's tasks by the modalities of query and candidate."""
_ID = re.compile(r"\d+:\d+\Z")
_COLUMNS = ("query_txt", "query_img_path", "query_modality", "task_id")
_DOCUMENT_COLUMNS = ("did", "txt", "img_path", "modality")
Prompts = dict[tuple[str, str, str], list[str]]
"""Instructions by dataset id and modalities of query and candidate."""


def _check_id(name: str, where: str) -> None:
    if not _ID.match(name):
        remedy = "say --drop query_id,target_ids,negative_ids --make-ids for ids of that form"
        expected = "an id of M-BEIR, two numbers as in 9:12"
        raise InputError(where, expected=expected, got=f"{name!r:.60}", remedy=remedy)


_IDS = Ids("qid", "did", "pos_cand_list", "neg_cand_list", _check_id)


def modality(item: Item) -> str:
    """What M-BEIR calls the modality of an item of a text, a picture, or both."""
    has_image = any(isinstance(part, Image) for part in item.content)
    has_text = any(isinstance(part, str) for part in item.content)
    return ",".join(kind for kind, there in (("image", has_image), ("text", has_text)) if there)


def read(reading: Reading) -> Iterator[Pair]:
    """The pairs of M-BEIR's queries."""
    prompts = _read_prompts(reading.options["instructions"])

    def item(row: Record, words: str, path: str, kind: str) -> Item:
        image = maybe_name(row, path)
        fields = Fields(maybe_name(row, words), (image,) if image else ())
        made = item_of_fields(fields, reading.media, Fields(words, (path,)))
        _expect(row, kind, [modality(made), "text,image"] if modality(made) == "image,text" else [modality(made)])
        return made

    def document(row: Record) -> Item:
        row = reading.less(row, " of candidates")
        reading.refuse_unknown(row, _DOCUMENT_COLUMNS)
        return item(row, "txt", "img_path", "modality")

    def query(row: Record, positives: tuple[Item, ...]) -> Item:
        asked = item(row, "query_txt", "query_img_path", "query_modality")
        _expect(row, "task_id", [TASKS[modality(asked), modality(positives[0])]])
        if prompts is None:
            return asked
        name = row["qid"]
        _check_id(name, "qid")
        told = _prompt(prompts, name, asked, positives[0], reading.options["prompt"])
        return Item(asked.content, instruction=told, verbatim=False)

    return read_with_corpus(reading, _IDS, _COLUMNS, document, query)


def write(writing: Writing) -> None:
    """Write M-BEIR's queries and their pool."""
    prompts, dataset = _read_prompts(writing.options["instructions"]), writing.options["dataset_id"]

    def document(item: Item, where: str) -> Record:
        fields = fields_of_item(item, writing.media, where)
        return {"txt": fields.text, "img_path": fields.image, "modality": modality(item), "src_content": None}

    def make(pair: Pair) -> Record:
        kind, fields = modality(pair.query), fields_of_item(pair.query, writing.media, "query")
        _expect_instruction(pair, prompts, writing.options["prompt"], dataset)
        return {
            "query_txt": fields.text,
            "query_img_path": fields.image,
            "query_modality": kind,
            "query_src_content": None,
            "task_id": TASKS[kind, modality(pair.positives[0])],
        }

    names = (lambda number: f"{dataset}:{number}", lambda content, number: f"{dataset}:{number}")
    if writing.options["make_ids"] and dataset is None:
        remedy = "say --dataset-id N"
        raise InputError("--make-ids", expected="the number of a dataset", got="none", remedy=remedy)
    write_with_corpus(writing, _IDS, document, make, names)


def _expect(row: Record, column: str, known: list[Any]) -> None:
    """Refuse what does not follow from the items, for a table could not give it back."""
    if row.get(column) is not None and (row[column] not in known or isinstance(row[column], bool)):
        remedy = "mend the row" if column != "task_id" else "mend the row, or say --drop task_id"
        expected = f"'{known[0]}', by the texts and pictures of the row"
        raise InputError(column, expected=expected, got=f"{row[column]!r:.60}", remedy=remedy)


def _read_prompts(path: Path | None) -> Prompts | None:
    """The instructions of a file of M-BEIR: a header, then modalities, dataset, its id, and prompts behind tabs."""
    if path is None:
        return None
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(path, expected="a readable text file", got=error, remedy="check --instructions") from error
    prompts: Prompts = {}
    for number, line in enumerate(lines[1:], 2):
        fields = [one.strip() for one in line.split("\t")]
        if not any(fields):
            continue
        told = [prompt for prompt in fields[4:] if prompt]
        if not told or not all(fields[:4]):
            expected = "modalities of query and candidate, a dataset, its id and prompts, between tabs"
            raise InputError(f"{path}: line {number}", expected=expected, got=f"{line!r:.60}", remedy="mend the line")
        query, target, _, dataset = fields[:4]
        prompts[dataset, query, target] = told
    return prompts


def _prompt(prompts: Prompts, name: str, query: Item, positive: Item, number: int) -> str:
    key = (name.partition(":")[0], modality(query), modality(positive))
    found = prompts.get(key, [])
    if number >= len(found):
        expected, got = f"prompt {number} of {', '.join(key)}", f"{len(found)} prompts"
        raise InputError("instruction", expected=expected, got=got, remedy="check --instructions and --prompt")
    return found[number]


def _expect_instruction(pair: Pair, prompts: Prompts | None, number: int, dataset: int | None) -> None:
    """Refuse an instruction that the file of instructions does not give back."""
    told = pair.query.instruction
    name = pair.query_id or f"{dataset}:0"
    known = None if prompts is None else _prompt(prompts, name, pair.query, pair.positives[0], number)
    if told != known:
        expected = "none" if known is None else f"'{known}'"
        remedy = "say --drop instruction or --fold-instruction, or name the file that has it with --instructions"
        raise InputError("query.instruction", expected=expected, got=repr(told), remedy=remedy)


FORMAT = Format(
    "M-BEIR JSON lines of UniIR: queries (qid, query_txt, query_img_path, query_modality, pos_cand_list, "
    "neg_cand_list, task_id), and pools of candidates (did, txt, img_path, modality)",
    Holds(
        query=Shape(instruction=True),
        target=Shape(),
        positives=None,
        fields=frozenset({"query_id", "target_ids", "negative_ids"}),
    ),
    read,
    write,
    reading=("corpus", "items", "instructions", "prompt"),
    writing=("corpus", "items", "make_ids", "dataset_id", "instructions", "prompt"),
)
"""M-BEIR's rows."""
