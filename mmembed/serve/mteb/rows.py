"""Rows as mteb hands them to a model, read as items."""

import logging
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from torch.utils.data import DataLoader, SequentialSampler

from mmembed.errors import InputError
from mmembed.items import Item, Video

logger = logging.getLogger(__name__)

NOTHING = " "
"""Stands for a row without words or media, which some data sets of mteb have: each needs a vector."""


def named_items(inputs: "DataLoader[Any]", task: str) -> Iterator[tuple[str, Item]]:
    """The rows of a loader as items, in their order, each with what errors call it; read as they are asked for.

    Pictures are those that mteb decodes. Clips are taken as they are stored, for the model samples and times their
    frames itself.

    Args:
        inputs: as mteb gives it to ``encode``; its collation is not used.
        task: name of the task.

    Raises:
        InputError: a row that cannot be read; it is named.
    """
    empty = 0
    for number, row in enumerate(_rows(inputs)):
        name = f"row {number}"
        try:
            item = item_of(row)
        except InputError as error:
            raise error.within(f"{task}: {name}") from None
        empty += item.content == (NOTHING,)
        yield name, item
    if empty:
        logger.warning("%s: %d rows have neither words nor media; they are embedded as one space", task, empty)


def item_of(row: Mapping[str, Any]) -> Item:
    """A row as an item: video, pictures, text, in our canonical order.

    A medium that is None is none, and so is an empty text beside a medium. What a row has of other names (``id``,
    ``title``, ``instruction``, ``query``) stands in ``text`` already.

    Raises:
        InputError: a sound, a text that is none, a medium of a kind that mteb does not give.
    """
    if row.get("audio") is not None:
        raise InputError(
            "audio", expected="text, image or video", got="sound, which no model of this package reads",
            remedy="leave out tasks that have it",
        )  # fmt: skip
    given: dict[str, Any] = {name: row[name] for name in ("text", "image") if row.get(name) is not None}
    if not isinstance(given.get("text", ""), str):
        raise InputError(
            "text", expected="a string", got=type(given["text"]).__name__, remedy="let the task join its parts"
        )
    if row.get("video") is not None:
        given["video"] = _clip(row["video"])
    if not given.get("text") and not given.get("image") and "video" not in given:
        return Item((NOTHING,), verbatim=False)
    return Item.of(given)


def _rows(inputs: "DataLoader[Any]") -> Iterable[Mapping[str, Any]]:
    dataset: Any = inputs.dataset
    features = getattr(dataset, "features", None) or {}
    if type(features.get("video")).__name__ == "Video":
        # decoded, a clip is an open decoder without the file behind it
        from datasets import Video as Stored

        dataset = dataset.cast_column("video", Stored(decode=False))
    if isinstance(inputs.sampler, SequentialSampler):
        return dataset  # type: ignore[no-any-return]
    return (dataset[index] for index in inputs.sampler)


def _clip(given: Any) -> Video:
    """A clip as it is stored: its bytes, or the path of its file."""
    stored = given if isinstance(given, Mapping) else getattr(given, "_hf_encoded", None)
    if isinstance(stored, Mapping) and (source := stored.get("bytes") or stored.get("path")) is not None:
        return Video(source)
    raise InputError(
        "video", expected="a clip as the package datasets stores it", got=type(given).__name__,
        remedy="give the column the feature datasets.Video()",
    )  # fmt: skip
