"""Training rows about clips, as VLM2Vec-V2 writes them (arXiv:2507.04590).

LLaVA-Hound, and the retrieval and classification sets that the published code has parsers for. The prompts are options
of the sources.
"""

from collections.abc import Iterator
from itertools import islice
from pathlib import Path, PurePosixPath

from data_prep.converters import Converter, Media, Record
from data_prep.converters.published import pairs_of, string_of, verbatim
from data_prep.extract_frames import extract_frames
from data_prep.source import SourceSet
from mmembed.errors import InputError
from mmembed.items import Item, Pair, Video, frame_files

TOKEN = "<video>"
"""Where the video of a LLaVA-Hound row goes."""
CLIP_SUFFIXES = (
    ".mp4",
    ".webm",
    ".avi",
    ".mov",
    ".mkv",
    ".flv",
    ".wmv",
    ".mpg",
    ".mpeg",
    ".3gp",
    ".m4v",
    ".3g2",
    ".mts",
)
"""Suffixes that a clip is looked for under, after its own."""


def llava_hound_answers(rows: Iterator[Record], row_set: SourceSet, media: Media) -> Iterator[Pair | InputError]:
    """A video and what is asked of it find the answer: a caption, or the answer to a question.

    Option ``query_prompt`` goes before the query, and ``first`` takes so many rows only.
    """

    def make(row: Record, where: str) -> Pair:
        asked, answer = _turns(row, where)
        query = verbatim(row_set.options["query_prompt"] + asked, TOKEN, [_stored(row, row_set, media, where)], where)
        return Pair(query, (Item((answer,)),))

    return pairs_of(islice(rows, row_set.options.get("first")), make)


def llava_hound_videos(rows: Iterator[Record], row_set: SourceSet, media: Media) -> Iterator[Pair | InputError]:
    """A caption finds its video; options ``query_prompt`` and ``target_prompt`` go before the two."""
    asked, shown = row_set.options["query_prompt"], row_set.options["target_prompt"]

    def make(row: Record, where: str) -> Pair:
        _, caption = _turns(row, where)
        return Pair(Item((asked + caption,)), (Item((shown, _stored(row, row_set, media, where))),))

    return pairs_of(rows, make)


def clip_captions(rows: Iterator[Record], row_set: SourceSet, media: Media) -> Iterator[Pair | InputError]:
    """The caption of a clip, the first of several, finds it; options give the instructions of both sides.

    A clip is named by ``video_id``, or by its file where the rows have no such column.
    """
    asked, shown = row_set.options["query_instruction"], row_set.options["target_instruction"]

    def make(row: Record, where: str) -> Pair:
        file, captions = string_of(row, "video", where), row["caption"]
        caption = captions[0] if isinstance(captions, list) and captions else captions
        query = Item.of({"text": string_of({"caption": caption}, "caption", where)}, asked)
        clip = _clip(str(row.get("video_id") or PurePosixPath(file).stem), file, row_set, media, f"{where}: video")
        return Pair(query, (Item.of(clip, shown),))

    return pairs_of(rows, make)


def clip_labels(rows: Iterator[Record], row_set: SourceSet, media: Media) -> Iterator[Pair | InputError]:
    """A clip finds its label; option ``query_instruction`` is its instruction. Wrong labels are not used."""

    def make(row: Record, where: str) -> Pair:
        clip = _clip(str(row["video_id"]), string_of(row, "video_path", where), row_set, media, f"{where}: video_path")
        query = Item.of(clip, row_set.options["query_instruction"])
        return Pair(query, (Item((string_of(row, "pos_text", where),)),))

    return pairs_of(rows, make)


def _turns(row: Record, where: str) -> tuple[str, str]:
    """What is asked and what is answered."""
    turns = row["conversations"]
    if not isinstance(turns, list) or len(turns) < 2:
        got = f"{turns!r:.80}"
        raise InputError(f"{where}: conversations", expected="two turns", got=got, remedy="leave the row out")
    asked, answered = (string_of(turn, "value", f"{where}: conversations[{i}]") for i, turn in enumerate(turns[:2]))
    return asked, answered


def _stored(row: Record, row_set: SourceSet, media: Media, where: str) -> Video:
    """The stored frames of a LLaVA-Hound row."""
    where = f"{where}: video"
    folder = media.find(string_of(row, "video", where), where)
    if not (folder.is_dir() and frame_files(folder)):
        remedy = "unpack the archive of its frames again"
        raise InputError(where, expected="a folder of frames", got=f"no frames in '{folder}'", remedy=remedy)
    return Video(folder, num_frames=row_set.options["num_frames"])


def _clip(name: str, file: str, row_set: SourceSet, media: Media, where: str) -> Video:
    """A clip: its folder of frames where there is one, else frames that are extracted from its file now."""
    num_frames = row_set.options["num_frames"]
    for path in (name, file):
        if ".." in PurePosixPath(path).parts or PurePosixPath(path).is_absolute():
            raise InputError(where, expected="a path below the media", got=f"'{path}'", remedy="mend the row")
    folder = _found(media, [name], where)
    if folder is not None and folder.is_dir() and frame_files(folder):
        return Video(folder, num_frames=num_frames)
    base = PurePosixPath(file).name
    files = [file, base, *(str(PurePosixPath(base).with_suffix(suffix)) for suffix in CLIP_SUFFIXES)]
    clip = _found(media, files, where)
    if clip is None:
        expected, remedy = (
            f"frames of '{name}', or the clip '{file}'",
            "download the media again, or put the clip there",
        )
        raise InputError(where, expected=expected, got=f"neither in {media.folder}", remedy=remedy)
    made = media.made / name
    if not made.is_dir():
        extract_frames(clip, made, row_set.options["max_frames_saved"])
    return Video(made, num_frames=num_frames)


def _found(media: Media, names: list[str], where: str) -> Path | None:
    """The first of several media that is there."""
    for name in names:
        try:
            return media.find(name, where)
        except InputError:
            continue
    return None


CONVERTERS: dict[str, Converter] = {
    "llava_hound_answers": Converter(pairs=llava_hound_answers, columns={"rows": ("conversations", "video")}),
    "llava_hound_videos": Converter(pairs=llava_hound_videos, columns={"rows": ("conversations", "video")}),
    "clip_captions": Converter(pairs=clip_captions, columns={"rows": ("video", "caption")}),
    "clip_labels": Converter(pairs=clip_labels, columns={"rows": ("video_id", "video_path", "pos_text")}),
}
"""Every converter by its name, as sources name it."""
