"""Items as formats write them: named fields of text, picture and clip, or a text with tags for its media."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from data_prep.formats.inputs import MediaIn
from data_prep.formats.outputs import MediaOut
from mmembed.data.values import kind_of
from mmembed.errors import InputError
from mmembed.items import Image, Item, Media, Part, Video


@dataclass(frozen=True)
class Fields:
    """An item as named fields; media by the names that rows give them.

    Args:
        text: its words, or None.
        images: its pictures.
        video: its clip, or None.
    """

    text: str | None = None
    images: tuple[str, ...] = ()
    video: str | None = None

    @property
    def image(self) -> str | None:
        """The picture of an item that has at most one."""
        return self.images[0] if self.images else None


def item_of_fields(fields: Fields, media: MediaIn, names: Fields) -> Item:
    """The item of named fields.

    Args:
        fields: text and names of media.
        media: where these lie.
        names: what the row calls its fields, for errors; of several pictures the first is named for all.

    Raises:
        InputError: nothing is there, or a medium is not.
    """
    parts: list[Part] = []
    if fields.video is not None:
        parts.append(Video(media.find(fields.video, str(names.video))))
    parts += [Image(media.find(name, str(names.image))) for name in fields.images]
    if fields.text:
        parts.append(fields.text)
    if not parts:
        called = [name for name in (names.text, names.image, names.video) if name]
        where, expected = called[0], f"something in {', '.join(called)}"
        raise InputError(where, expected=expected, got="nothing", remedy="leave the row out")
    return Item(tuple(parts), verbatim=False)


def fields_of_item(item: Item, media: MediaOut, where: str) -> Fields:
    """The named fields of an item that has each at most once, pictures aside."""
    texts = [part for part in item.content if isinstance(part, str)]
    named = {kind: [m for m in item.media if kind_of(m) == kind] for kind in ("image", "video")}
    images = tuple(media.name(medium.source, f"{where}.image") for medium in named["image"])
    video = next((media.name(medium.source, f"{where}.video") for medium in named["video"]), None)
    return Fields(texts[0] if texts else None, images, video)


def parts_of_tagged(text: str, media: Mapping[str, Sequence[Media]], where: Mapping[str, str]) -> tuple[Part, ...]:
    """A text with tags as parts in reading order.

    Args:
        text: with a tag for each medium.
        media: of each tag, in order.
        where: the field that each tag's media stand in, for errors.

    Raises:
        InputError: a tag has another number of media.
    """
    for tag, given in media.items():
        count = text.count(tag)
        if count != len(given):
            expected = f"{count}, one for each {tag} of the text"
            remedy = f"write {tag} once for each of them where it is read"
            raise InputError(where[tag], expected=expected, got=f"{len(given)}", remedy=remedy)
    left = {tag: iter(given) for tag, given in media.items()}
    pieces = re.split(f"({'|'.join(map(re.escape, media))})", text)
    return tuple(next(left[piece]) if piece in left else piece for piece in pieces if piece)


def tagged_of_item(item: Item, tags: Mapping[str, str], where: str) -> str:
    """The text of an item with a tag for each medium.

    Args:
        item: what to write.
        tags: of each kind of medium.
        where: names it in errors.

    Raises:
        InputError: a text of it holds a tag itself.
    """
    for part in item.content:
        for tag in tags.values():
            if isinstance(part, str) and tag in part:
                expected, remedy = f"no '{tag}' among the words, which stands for a medium", "mend or leave out the row"
                raise InputError(f"{where}.text", expected=expected, got=f"{part!r:.80}", remedy=remedy)
    return "".join(part if isinstance(part, str) else tags[kind_of(part)] for part in item.content)
