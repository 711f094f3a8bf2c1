"""Moments of long videos: every query ranks clips of its own, told apart by the folders of their frames."""

from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path

from data_prep.converters import Converter, Media, Ranked, Record
from data_prep.converters.clips_ranked.stored import StoredClips
from data_prep.source import SourceSet
from mmembed.errors import InputError
from mmembed.items import Image, Item, Video, frame_files, natural_key

SEVERAL_POSITIVE = "rows with several folders that begin with 'positive', all of them relevant"
UNKNOWN_INPUT = "rows whose input_frames is neither a .jpg nor a .mp4, taken for words alone as published"

OF_TEXT = "Find the clip that corresponds to the given text:"
OF_IMAGE = "Select the video clip that aligns with the given text and image:"
OF_VIDEO = "Find the clip that corresponds to the given sentence and video segment:"


def sibling_clips(parts: Mapping[str, Iterator[Record]], row: SourceSet, media: Media) -> Ranked:
    """A row's folder holds the frames of the ``query`` video, of ``positive*`` and of other clips beside each other.

    Candidates are the folders beside ``query``, in natural order. The published code takes the order of the disk, and
    where a row has no positive the one of the row before.

    Raises:
        InputError: a row without frames, or without a positive.
    """
    ranked, clips = Ranked(), StoredClips.of(row, media)
    for number, record in enumerate(parts["rows"]):
        where, name = clips.row(number), Path(record["video_path"]).stem
        folder = media.find(f"{clips.frames}/{name}", where)
        siblings = sorted((path.name for path in folder.iterdir() if path.is_dir()), key=natural_key)
        candidates = [f"{name}/{sibling}" for sibling in siblings if sibling != "query"]
        positives = [f"{name}/{sibling}" for sibling in siblings if sibling.startswith("positive")]
        if not positives:
            got = ", ".join(siblings) or "none"
            remedy = "unpack the archive of the frames again"
            raise InputError(f"{where}: {folder}", expected="a folder 'positive...'", got=got, remedy=remedy)
        ranked.note(SEVERAL_POSITIVE, len(positives) > 1)
        for candidate in candidates:
            ranked.target(candidate, partial(clips.item, candidate, where=where))
        query = clips.item(f"{name}/query", text=record["query"], where=where)
        ranked.query(f"q{number}", query, dict.fromkeys(positives, 1.0), candidates)
    return ranked


def moments(parts: Mapping[str, Iterator[Record]], row: SourceSet, media: Media) -> Ranked:
    """MomentSeeker (arXiv:2502.12558): words, words and a picture, or words and a clip find one of several clips.

    All stored frames of a clip are taken, up to 8 by their publisher.
    """
    ranked, clips = Ranked(), StoredClips.of(row, media)
    for number, record in enumerate(parts["rows"]):
        where = clips.row(number)
        positives, negatives = (
            [_folder_name(entry["output_path"]) for entry in record[column]]
            for column in ("positive_frames", "negative_frames")
        )
        for name in (*positives, *negatives):
            ranked.target(name, partial(_whole, clips, name, where=where))
        query = _query(record, clips, where, ranked)
        ranked.query(f"q{number}", query, dict.fromkeys(positives, 1.0), [*positives, *negatives])
    return ranked


def _query(record: Record, clips: StoredClips, where: str, ranked: Ranked) -> Item:
    text, given = record["query"], record["input_frames"] or ""
    if given.endswith(".mp4"):
        return _whole(clips, _folder_name(given), text, instruction=OF_VIDEO, where=where)
    if given.endswith(".jpg"):
        # beside the folder of the clips' frames
        path = (Path(clips.frames).parent / f"query_{given}").as_posix()
        return Item((Image(clips.media.find(path, where)), text), instruction=OF_IMAGE, verbatim=False)
    ranked.note(UNKNOWN_INPUT, bool(given))
    return Item((text,), instruction=OF_TEXT, verbatim=False)


def _whole(clips: StoredClips, name: str, *text: str, instruction: str | None = None, where: str) -> Item:
    folder = clips.folder(name, "", where)
    return Item((Video(folder, num_frames=len(frame_files(folder))), *text), instruction, verbatim=False)


def _folder_name(path: str) -> str:
    """The folder of a clip's frames: its path with ``_`` for ``/``, up to the first ``.mp4``."""
    return path.split(".mp4")[0].replace("/", "_")


CONVERTERS = {
    "sibling_clips": Converter(ranked=sibling_clips, columns={"rows": ("query", "video_path")}),
    "moments": Converter(
        ranked=moments, columns={"rows": ("query", "positive_frames", "negative_frames", "input_frames")}
    ),
}
