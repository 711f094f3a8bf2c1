"""Clips whose action is named: among the labels of the whole set, or among options of the row."""

from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path

from data_prep.converters import Converter, Media, Ranked, Record
from data_prep.converters.clips_ranked.stored import answerable, clip_item, clips_of, text_item
from data_prep.converters.fields import identifier, in_row, text, texts
from data_prep.converters.frames import Clips
from data_prep.source import SourceSet
from mmembed.items import Item

LABELS = Path(__file__).parent.parent / "labels"


def read_labels(name: str) -> list[str]:
    """The labels of a set, in the order of its file."""
    return (LABELS / f"{name}.txt").read_text(encoding="utf-8").splitlines()


def video_labels(parts: Mapping[str, Iterator[Record]], row: SourceSet, media: Media) -> Ranked:
    """Every query is a clip and ranks all labels: those that are right for some query first, then the list.

    Options:
        labels: name of the list.
    """
    ranked, clips = Ranked(whole=True), clips_of(row, media)
    for number, record in enumerate(parts["rows"]):
        with in_row(number):
            label = text(record, "pos_text")
            ranked.target(label, text_item(label))
            ranked.query(f"q{number}", _clip(record, clips), {label: 1})
    for label in read_labels(row.options["labels"]):
        ranked.target(label, text_item(label))
    return ranked


def video_options(parts: Mapping[str, Iterator[Record]], row: SourceSet, media: Media) -> Ranked:
    """Every query is a clip and ranks the texts of its ``neg_text``, among which the right one is.

    Options:
        first: rows used, from the first one.
    """
    ranked, clips = Ranked(), clips_of(row, media)
    for number, record in enumerate(islice(parts["rows"], row.options.get("first"))):
        with in_row(number):
            label, options = text(record, "pos_text"), texts(record, "neg_text")
            answerable(label, options, "pos_text")
            for option in options:
                ranked.target(option, text_item(option))
            ranked.query(f"q{number}", _clip(record, clips), {label: 1}, options)
    return ranked


def _clip(record: Record, clips: Clips) -> Item:
    return clip_item(clips, identifier(record, "video_id"), where="video_id")


CONVERTERS = {
    "video_labels": Converter(ranked=video_labels, columns={"rows": ("video_id", "pos_text")}),
    "video_options": Converter(ranked=video_options, columns={"rows": ("video_id", "pos_text", "neg_text")}),
}
