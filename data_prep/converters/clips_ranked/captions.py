"""Captions that clips are found by: every query ranks the clips of all rows."""

from collections.abc import Iterator, Mapping
from pathlib import PurePosixPath
from typing import Any

from data_prep.converters import Converter, Media, Ranked, Record
from data_prep.converters.clips_ranked.stored import clip_item, clips_of, text_item
from data_prep.converters.fields import file_name, first_text, identifier, in_row
from data_prep.converters.frames import Clips
from data_prep.source import SourceSet
from mmembed.items import Item


def video_captions(parts: Mapping[str, Iterator[Record]], row: SourceSet, media: Media) -> Ranked:
    """A row is a caption and its clip; of several captions the first is the query.

    Options:
        caption: column of the caption, or of several.
        name: column of the clip's name, which its frames are stored under; null takes the clip's file name without its
            suffix.
        clip: column of the clip's path, of which only the file name counts; null takes the name and ``.mp4``.
    """
    ranked, clips = Ranked(whole=True), clips_of(row, media)
    for number, record in enumerate(parts["rows"]):
        with in_row(number):
            name, item = _clip(record, row.options, clips)
            ranked.target(name, item)
            query = text_item(first_text(record, row.options["caption"]))
            ranked.query(f"q{number}", query, {name: 1})
    return ranked


def _clip(record: Record, options: Mapping[str, Any], clips: Clips) -> tuple[str, Item]:
    """A row's clip by its name; made of every row, for a second clip by the name of a first is refused."""
    name_column, clip_column = options.get("name"), options.get("clip")
    files = () if clip_column is None else (file_name(record, clip_column),)
    name = PurePosixPath(files[0]).stem if name_column is None else identifier(record, name_column)
    return name, clip_item(clips, name, *files, where=name_column or clip_column)


CONVERTERS = {"video_captions": Converter(ranked=video_captions)}
