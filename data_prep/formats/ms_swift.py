"""ms-swift's rows for embedding models: chats of a query, one positive and negatives, media in lists beside them.

A chat is a user's turn, and before it a system's turn where the item has an instruction. ``<image>`` and ``<video>``
stand in the user's words where media are read.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from data_prep.formats import Format, Holds, Record, Shape
from data_prep.formats.inputs import Reading
from data_prep.formats.items import parts_of_tagged, tagged_of_item
from data_prep.formats.outputs import Writing
from mmembed.data.values import kind_of
from mmembed.errors import InputError
from mmembed.items import Image, Item, Media, Negative, Pair, Video

TAGS = {"image": "<image>", "video": "<video>"}
_AUDIO = "<audio>"
_SIDES = ("", "positive_", "negative_")
COLUMNS = tuple(f"{side}{name}" for side in _SIDES for name in ("messages", "images", "videos"))
_SHAPE = Shape(kinds=("text", "image", "video"), images=None, tagged=True, instruction=True)


def read(reading: Reading) -> Iterator[Pair]:
    """The pairs of ms-swift's rows."""

    def media_of(values: Any, kind: str, where: str) -> list[Media]:
        made = Image if kind == "image" else Video
        return [made(reading.media.find(name, place)) for place, name in _strings(values, where)]

    def item(messages: Any, images: Any, videos: Any, where: Mapping[str, str]) -> Item:
        instruction, words = _turns(messages, where["messages"])
        if _AUDIO in words:
            remedy = "leave the row out: pair tables hold no sound"
            raise InputError(where["messages"], expected=f"no {_AUDIO}", got=f"{words!r:.80}", remedy=remedy)
        media = {
            TAGS["image"]: media_of(images, "image", where["images"]),
            TAGS["video"]: media_of(videos, "video", where["videos"]),
        }
        places = {TAGS[kind]: where[f"{kind}s"] for kind in TAGS}
        parts = parts_of_tagged(words, media, places)
        if not parts:
            got = "an empty content"
            raise InputError(where["messages"], expected="words or media", got=got, remedy="leave the row out")
        return Item(parts, instruction=instruction, verbatim=False)

    def several(row: Record, side: str) -> Iterator[Item]:
        given = row.get(f"{side}messages")
        chats = [] if given is None else _list(given, f"{side}messages")
        beside = {}
        for name in ("images", "videos"):
            column = f"{side}{name}"
            beside[name] = [[] for _ in chats] if row.get(column) is None else _list(row[column], column)
            if len(beside[name]) != len(chats):
                expected = f"{len(chats)} lists, one for each chat of {side}messages"
                raise InputError(
                    column, expected=expected, got=len(beside[name]), remedy="write [] where there is none"
                )
        for i, chat in enumerate(chats):
            where = {name: f"{side}{name}[{i}]" for name in ("messages", "images", "videos")}
            yield item(chat, beside["images"][i], beside["videos"][i], where)

    def make(row: Record) -> Pair:
        names = ("messages", "images", "videos")
        query = item(row["messages"], row.get("images"), row.get("videos"), dict(zip(names, names, strict=True)))
        positives = tuple(several(row, "positive_"))
        if len(positives) != 1:
            expected, remedy = "exactly one positive, as ms-swift trains", "write a row for each positive"
            raise InputError("positive_messages", expected=expected, got=len(positives), remedy=remedy)
        return Pair(query, positives, tuple(map(Negative, several(row, "negative_"))))

    return reading.pairs(make, COLUMNS, ("messages", "positive_messages"))


def write(writing: Writing) -> None:
    """Write ms-swift's rows."""

    def chat(item: Item, where: str) -> dict[str, Any]:
        turn = {"role": "user", "content": tagged_of_item(item, TAGS | {"audio": _AUDIO}, where)}
        told = [] if item.instruction is None else [{"role": "system", "content": item.instruction}]
        named = [(kind_of(medium), writing.media.name(medium.source, f"{where}.media")) for medium in item.media]
        beside = {f"{kind}s": [name for of, name in named if of == kind] for kind in TAGS}
        return {"messages": [*told, turn], **beside}

    def make(pair: Pair) -> Record:
        row = {name: value for name, value in chat(pair.query, "query").items() if value}
        positives = [chat(item, f"positives[{i}]") for i, item in enumerate(pair.positives)]
        negatives = [chat(negative.item, f"negatives[{i}].item") for i, negative in enumerate(pair.negatives)]
        for side, chats in (("positive_", positives), ("negative_", negatives)):
            for name in ("messages", "images", "videos"):
                if any(one[name] for one in chats):
                    row[f"{side}{name}"] = [one[name] for one in chats]
        return row

    writing.write_lines(writing.rows(make))


def _turns(messages: Any, where: str) -> tuple[str | None, str]:
    """The instruction and the user's words of a chat."""
    turns = [_turn(turn, f"{where}[{i}]") for i, turn in enumerate(_list(messages, where))]
    roles = [role for role, _ in turns]
    if roles not in (["user"], ["system", "user"]):
        expected, remedy = "a user's turn, and a system's before it", "mend the row, or leave it out"
        raise InputError(where, expected=expected, got=", ".join(roles) or "none", remedy=remedy)
    return (turns[0][1] if len(turns) == 2 else None), turns[-1][1]


def _turn(turn: Any, where: str) -> tuple[str, str]:
    if not isinstance(turn, Mapping) or {name for name, value in turn.items() if value is not None} != {
        "role",
        "content",
    }:
        remedy = 'write {"role": "user", "content": ...}'
        raise InputError(where, expected="an object of role and content", got=f"{turn!r:.80}", remedy=remedy)
    for name in ("role", "content"):
        if not isinstance(turn[name], str):
            raise InputError(f"{where}.{name}", expected="a text", got=f"{turn[name]!r:.80}", remedy="quote it")
    return turn["role"], turn["content"]


def _strings(values: Any, where: str) -> list[tuple[str, str]]:
    found = [] if values is None else _list(values, where)
    for i, value in enumerate(found):
        if not isinstance(value, str):
            raise InputError(f"{where}[{i}]", expected="a path", got=f"{value!r:.80}", remedy="name its file")
    return [(f"{where}[{i}]", value) for i, value in enumerate(found)]


def _list(values: Any, where: str) -> list[Any]:
    if not isinstance(values, list):
        raise InputError(where, expected="a list", got=f"{values!r:.80}", remedy="write [...], also around one value")
    return values


FORMAT = Format(
    "ms-swift rows of --task_type embedding: messages, positive_messages, negative_messages and their media in lists",
    Holds(query=_SHAPE, target=_SHAPE, positives=1),
    read,
    write,
)
"""ms-swift's rows."""
