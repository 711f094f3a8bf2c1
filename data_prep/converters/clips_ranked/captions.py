"""Captions that clips are found by: every query ranks the clips of all rows."""

from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path

from data_prep.converters import Converter, Media, Ranked, Record
from data_prep.converters.clips_ranked.stored import StoredClips
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
    ranked, clips = Ranked(whole=True), StoredClips.of(row, media)
    for number, record in enumerate(parts["rows"]):
        caption = record[row.options["caption"]]
        name, file = _name_and_file(record, row.options.get("name"), row.options.get("clip"))
        ranked.target(name, partial(clips.item, name, file, where=clips.row(number)))
        query = Item((caption if isinstance(caption, str) else caption[0],), verbatim=False)
        ranked.query(f"q{number}", query, {name: 1})
    return ranked


def _name_and_file(record: Record, name: str | None, clip: str | None) -> tuple[str, str]:
    if clip is None:
        return str(record[name]), f"{record[name]}.mp4"
    file = Path(record[clip]).name
    return (Path(file).stem if name is None else str(record[name])), file


CONVERTERS = {"video_captions": Converter(ranked=video_captions)}
