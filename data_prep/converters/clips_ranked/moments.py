"""Moments of long videos: every query ranks clips of its own, told apart by the folders of their frames."""

from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import PurePosixPath

from data_prep.converters import Converter, Media, Ranked, Record
from data_prep.converters.clips_ranked.stored import clip_item, clips_of
from data_prep.converters.fields import file_name, in_row, maybe_text, text, texts_within
from data_prep.converters.frames import Clips
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
    ranked, clips = Ranked(), clips_of(row, media)
    for number, record in enumerate(parts["rows"]):
        with in_row(number):
            name = PurePosixPath(file_name(record, "video_path")).stem
            siblings = _siblings(clips, name)
            candidates = [f"{name}/{sibling}" for sibling in siblings if sibling != "query"]
            positives = [f"{name}/{sibling}" for sibling in siblings if sibling.startswith("positive")]
            ranked.note(SEVERAL_POSITIVE, len(positives) > 1)
            for candidate in candidates:
                ranked.target(candidate, partial(clip_item, clips, candidate, where="video_path"))
            query = clip_item(clips, f"{name}/query", text=text(record, "query", empty=True), where="video_path")
            ranked.query(f"q{number}", query, dict.fromkeys(positives, 1.0), candidates)
    return ranked


def _siblings(clips: Clips, name: str) -> list[str]:
    """The folders of a row's folder, among them a positive."""
    folder = clips.media.find(f"{clips.frames}/{name}", "video_path")
    siblings = sorted((path.name for path in folder.glob("*") if path.is_dir()), key=natural_key)
    if not any(sibling.startswith("positive") for sibling in siblings):
        got = f"{', '.join(siblings) or 'none'} in '{folder}'"
        remedy = "unpack the archive of the frames again"
        raise InputError("video_path", expected="a folder 'positive...'", got=got, remedy=remedy)
    return siblings


def moments(parts: Mapping[str, Iterator[Record]], row: SourceSet, media: Media) -> Ranked:
    """MomentSeeker (arXiv:2502.12558): words, words and a picture, or words and a clip find one of several clips.

    All stored frames of a clip are taken, up to 8 by their publisher.
    """
    ranked, clips = Ranked(), clips_of(row, media)
    for number, record in enumerate(parts["rows"]):
        with in_row(number):
            positives = _targets(record, "positive_frames", clips, ranked)
            negatives = _targets(record, "negative_frames", clips, ranked)
            query = _query(record, clips, ranked)
            ranked.query(f"q{number}", query, dict.fromkeys(positives, 1.0), [*positives, *negatives])
    return ranked


def _targets(record: Record, column: str, clips: Clips, ranked: Ranked) -> list[str]:
    """Names of the clips of a column, which become targets; only negatives may be none."""
    paths = texts_within(record, column, "output_path", none=column == "negative_frames")
    return [ranked.target(name, partial(_whole, clips, name, where=column)) for name in map(_folder_name, paths)]


def _query(record: Record, clips: Clips, ranked: Ranked) -> Item:
    asked, given = text(record, "query", empty=True), maybe_text(record, "input_frames")
    if given.endswith(".mp4"):
        return _whole(clips, _folder_name(given), asked, instruction=OF_VIDEO, where="input_frames")
    if given.endswith(".jpg"):
        # beside the folder of the clips' frames
        path = str(PurePosixPath(clips.frames or "").parent / f"query_{given}")
        return Item((Image(clips.media.find(path, "input_frames")), asked), instruction=OF_IMAGE, verbatim=False)
    ranked.note(UNKNOWN_INPUT, bool(given))
    return Item((text(record, "query"),), instruction=OF_TEXT, verbatim=False)


def _whole(clips: Clips, name: str, *words: str, instruction: str | None = None, where: str) -> Item:
    folder = clips.folder(name, where=where)
    return Item((Video(folder, num_frames=len(frame_files(folder))), *words), instruction, verbatim=False)


def _folder_name(path: str) -> str:
    """The folder of a clip's frames: its path with ``_`` for ``/``, up to the first ``.mp4``."""
    return path.split(".mp4")[0].replace("/", "_")


CONVERTERS = {
    "sibling_clips": Converter(ranked=sibling_clips, columns={"rows": ("query", "video_path")}),
    "moments": Converter(
        ranked=moments, columns={"rows": ("query", "positive_frames", "negative_frames", "input_frames")}
    ),
}
