"""Item: one thing to embed, and the forms in which people write it."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, Union, cast

from mmembed.errors import InputError
from mmembed.files import fingerprint
from mmembed.items.layout import check_layout
from mmembed.items.media import Image, ImageSource, Media, Page, Region, Video, VideoSource, refuse_unknown

if TYPE_CHECKING:
    from PIL.Image import Image as Picture

Part: TypeAlias = str | Image | Video | Page

_FIELD_ORDER = ("video", "image", "pdf", "text")
_DICT_KEYS = {
    "video",
    "image",
    "pdf",
    "text",
    "content",
    "instruction",
    "layout",
    "regions",
    "page",
    "dpi",
    "num_frames",
    "fps",
    "start_s",
    "end_s",
}


@dataclass(frozen=True)
class Item:
    r"""One thing to embed: parts in reading order, and words that say the task.

    Args:
        content: texts and media in the order they are read.
        instruction: words that say the task; where they go is the prompt style's business.
        verbatim: the order and spacing of ``content`` are the caller's own: a raw prompt joins it without separators.
            The dict form (:meth:`of`) sets False: its parts are named fields, and the style puts separators between.
        layout: how a raw prompt writes the item instead of either, e.g. ``"{media}\n{instruction} {text}\n"``; see
            :mod:`mmembed.items.layout`. A chat template has its own order.
    """

    content: tuple[Part, ...]
    instruction: str | None = None
    verbatim: bool = True
    layout: str | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.content, tuple):
            raise InputError(
                "item.content",
                expected="a tuple of parts",
                got=type(self.content).__name__,
                remedy="use tuple(...)",
            )
        for part in self.content:
            if not isinstance(part, str | Image | Video | Page):
                raise InputError(
                    "item.content",
                    expected="str, Image, Video or Page",
                    got=type(part).__name__,
                    remedy="wrap it, or use Item.of",
                )
        if not any(self.content) and not self.media:
            raise InputError(
                "item",
                expected="some text or media",
                got="empty text",
                remedy="leave the row out or give it words",
            )
        if self.layout is not None:
            has_text = any(part.strip() for part in self.content if isinstance(part, str))
            check_layout(
                self.layout, media=bool(self.media), instruction=self.instruction is not None, text=has_text
            )  # fmt: skip

    @property
    def media(self) -> tuple[Media, ...]:
        """The media of the content, in order."""
        return tuple(part for part in self.content if not isinstance(part, str))

    @property
    def text(self) -> str:
        """The texts of the content, joined by spaces."""
        return " ".join(part for part in self.content if isinstance(part, str))

    @classmethod
    def of(cls, value: "ItemLike", instruction: str | None = None) -> "Item":
        """An Item from what people write: a string, a picture, a medium, a dict, or an Item.

        The dict form knows ``text, image, video, pdf, page, dpi, regions, num_frames, fps, start_s, end_s``,
        ``instruction`` and ``layout``, and reads video, image, page, text in that order; ``content`` gives an explicit
        order instead.
        ``instruction`` here is used where the value brings none.

        Raises:
            InputError: an unknown key (the nearest known one is named), an empty item, or an unusable value.
        """
        if isinstance(value, Item):
            item = value
        elif isinstance(value, str | Image | Video | Page):
            item = cls((value,), verbatim=False)
        elif isinstance(value, Mapping):
            item = _item_of_dict(value)
        else:
            item = cls((Image(_image_source(value, "item")),), verbatim=False)
        return replace(item, instruction=instruction) if item.instruction is None and instruction is not None else item

    def content_fingerprint(self) -> str:
        """Names the content without the instruction: what duplicate masks compare."""
        return fingerprint(*(p if isinstance(p, str) else p.fingerprint() for p in self.content))

    def fingerprint(self) -> str:
        """Names everything the embedding depends on besides the model."""
        written = () if self.layout is None else (self.layout,)
        return fingerprint(self.content_fingerprint(), repr(self.instruction), repr(self.verbatim), *written)


ItemLike: TypeAlias = Union[Item, str, Image, Video, Page, Mapping[str, Any], "Picture"]


def _item_of_dict(value: Mapping[str, Any]) -> Item:
    refuse_unknown(value, _DICT_KEYS, "item")
    instruction, layout = value.get("instruction"), value.get("layout")
    if value.get("content") is not None:
        if not isinstance(value["content"], list | tuple):
            raise InputError(
                "item.content", expected="a list of parts", got=type(value["content"]).__name__, remedy="use [...]"
            )
        if value.get("regions"):
            raise InputError(
                "item.regions", expected="regions beside the image that they are places in",
                got="regions beside content",
                remedy="put them into the part of content that has the image",
            )  # fmt: skip
        parts = tuple(p if isinstance(p, str | Image | Video | Page) else _only_part(p) for p in value["content"])
        return Item(parts, instruction=instruction, layout=layout)
    if value.get("regions") and value.get("image") is None:
        raise InputError(
            "item.regions", expected="an image, which they are places in", got="none",
            remedy="add image, or leave regions out",
        )  # fmt: skip
    content: list[Part] = []
    for key in _FIELD_ORDER:
        if value.get(key) is not None:
            content += _parts_of_field(key, value)
    # an empty text beside a medium is an absent one: the published prompts add no separator for it
    if any(not isinstance(part, str) for part in content):
        content = [part for part in content if part != ""]
    return Item(tuple(content), instruction=instruction, verbatim=False, layout=layout)


def _only_part(value: Any) -> Part:
    item = Item.of(value)
    if len(item.content) != 1:
        raise InputError(
            "item.content",
            expected="one medium or text a part",
            got=value,
            remedy="split it into several parts",
        )
    return item.content[0]


def _parts_of_field(key: str, value: Mapping[str, Any]) -> list[Part]:
    given = value[key]
    if key == "text":
        if not isinstance(given, str):
            raise InputError("item.text", expected="a string", got=type(given).__name__, remedy="quote it")
        return [given]
    if key == "video":
        if isinstance(given, Video):
            return [given]
        names = {f.name for f in fields(Video)} - {"source"}
        options = {name: value[name] for name in names if value.get(name) is not None}
        return [Video(_video_source(given), **options)]
    if key == "pdf":
        options = {name: value[name] for name in ("page", "dpi") if value.get(name) is not None}
        return [given if isinstance(given, Page) else Page(given, **options)]
    regions = tuple(_regions_of(value.get("regions") or ()))
    pictures = list(given) if isinstance(given, list | tuple) else [given]
    if regions and len(pictures) != 1:
        raise InputError(
            "item.regions",
            expected="one image beside regions",
            got=f"{len(pictures)} images",
            remedy="use content=[...] with regions on each Image",
        )
    return [
        p if isinstance(p, Image) and not regions else Image(_image_source(p, "item.image"), regions) for p in pictures
    ]


def _regions_of(given: Any) -> Iterator[Region]:
    if not isinstance(given, list | tuple):
        raise InputError(
            "item.regions", expected="a list of regions", got=type(given).__name__,
            remedy="write [...], also around one region",
        )  # fmt: skip
    for number, region in enumerate(given):
        try:
            yield Region.of(region)
        except InputError as error:
            raise error.within(f"item.regions[{number}]") from None


def _video_source(given: Any) -> VideoSource:
    if isinstance(given, list | tuple):
        if not given:
            raise InputError(
                "item.video",
                expected="at least one frame",
                got="an empty list",
                remedy="give frames or leave it out",
            )
        return tuple(_image_source(frame, "item.video") for frame in given)
    if isinstance(given, str | Path | bytes):
        return given
    raise InputError(
        "item.video",
        expected="a path, bytes or a list of frames",
        got=type(given).__name__,
        remedy="convert it",
    )


def _image_source(given: Any, where: str) -> ImageSource:
    if isinstance(given, Image):
        if given.regions:
            raise InputError(
                where, expected="a picture without regions of its own", got=f"one with {len(given.regions)}",
                remedy="give it as an image, and its regions in one place",
            )  # fmt: skip
        return given.source
    if isinstance(given, str | Path | bytes) or (hasattr(given, "tobytes") and hasattr(given, "mode")):
        return cast(ImageSource, given)
    if hasattr(given, "__array_interface__"):
        from PIL.Image import fromarray

        return fromarray(given)
    raise InputError(
        where, expected="a path, bytes, PIL picture or array", got=type(given).__name__, remedy="convert it"
    )
