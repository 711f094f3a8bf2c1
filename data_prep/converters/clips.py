"""Training rows about clips, as VLM2Vec-V2 writes them (arXiv:2507.04590).

LLaVA-Hound, and the retrieval and classification sets that the published code has parsers for. The prompts are options
of the sources.
"""

from collections.abc import Iterator
from itertools import islice
from pathlib import PurePosixPath

from data_prep.converters import Converter, Media, Record
from data_prep.converters.fields import file_name, first_text, identifier, text, texts_within
from data_prep.converters.frames import Clips
from data_prep.converters.published import pairs_of, verbatim
from data_prep.source import SourceSet
from mmembed.errors import InputError
from mmembed.items import Item, Pair, Video

TOKEN = "<video>"
"""Where the video of a LLaVA-Hound row goes."""


def llava_hound_answers(rows: Iterator[Record], row_set: SourceSet, media: Media) -> Iterator[Pair | InputError]:
    """A video and what is asked of it find the answer: a caption, or the answer to a question.

    Option ``query_prompt`` goes before the query, and ``first`` takes so many rows only.
    """
    clips = Clips(media, clips=None)

    def make(row: Record) -> Pair:
        asked, answer = _turns(row)
        video = _video(clips, text(row, "video"), (), "video", row_set)
        query = verbatim(row_set.options["query_prompt"] + asked, TOKEN, [video], "conversations")
        return Pair(query, (Item((answer,)),))

    return pairs_of(islice(rows, row_set.options.get("first")), make)


def llava_hound_videos(rows: Iterator[Record], row_set: SourceSet, media: Media) -> Iterator[Pair | InputError]:
    """A caption finds its video; options ``query_prompt`` and ``target_prompt`` go before the two."""
    asked, shown = row_set.options["query_prompt"], row_set.options["target_prompt"]
    clips = Clips(media, clips=None)

    def make(row: Record) -> Pair:
        _, caption = _turns(row)
        video = _video(clips, text(row, "video"), (), "video", row_set)
        return Pair(Item((asked + caption,)), (Item((shown, video)),))

    return pairs_of(rows, make)


def clip_captions(rows: Iterator[Record], row_set: SourceSet, media: Media) -> Iterator[Pair | InputError]:
    """The caption of a clip, the first of several, finds it; options give the instructions of both sides.

    A clip is named by ``video_id``, or by its file where the rows have no such column.
    """
    asked, shown = row_set.options["query_instruction"], row_set.options["target_instruction"]
    clips = Clips(media, most=row_set.options["max_frames_saved"])

    def make(row: Record) -> Pair:
        query = Item.of({"text": first_text(row, "caption")}, asked)
        files = text(row, "video"), file_name(row, "video")
        name = identifier(row, "video_id") if "video_id" in row else PurePosixPath(files[-1]).stem
        return Pair(query, (Item.of(_video(clips, name, files, "video", row_set), shown),))

    return pairs_of(rows, make)


def clip_labels(rows: Iterator[Record], row_set: SourceSet, media: Media) -> Iterator[Pair | InputError]:
    """A clip finds its label; option ``query_instruction`` is its instruction. Wrong labels are not used."""
    clips = Clips(media, most=row_set.options["max_frames_saved"])

    def make(row: Record) -> Pair:
        files = text(row, "video_path"), file_name(row, "video_path")
        video = _video(clips, identifier(row, "video_id"), files, "video_path", row_set)
        return Pair(Item.of(video, row_set.options["query_instruction"]), (Item((text(row, "pos_text"),)),))

    return pairs_of(rows, make)


def _turns(row: Record) -> tuple[str, str]:
    """What is asked and what is answered."""
    turns = texts_within(row, "conversations", "value")
    if len(turns) < 2:
        raise InputError("conversations", expected="two turns", got=len(turns), remedy="leave the row out")
    return turns[0], turns[1]


def _video(clips: Clips, name: str, files: tuple[str, ...], where: str, row_set: SourceSet) -> Video:
    return Video(clips.folder(name, files, where=where), num_frames=row_set.options["num_frames"])


CONVERTERS: dict[str, Converter] = {
    "llava_hound_answers": Converter(pairs=llava_hound_answers, columns={"rows": ("conversations", "video")}),
    "llava_hound_videos": Converter(pairs=llava_hound_videos, columns={"rows": ("conversations", "video")}),
    "clip_captions": Converter(pairs=clip_captions, columns={"rows": ("video", "caption")}),
    "clip_labels": Converter(pairs=clip_labels, columns={"rows": ("video_id", "video_path", "pos_text")}),
}
"""Every converter by its name, as sources name it."""
