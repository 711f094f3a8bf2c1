"""What is embedded: Item, its media and regions, and the Pair that training learns from.

Nothing here opens a file or imports torch. An Item says *what*; `mmembed.media` decodes it and
`mmembed.models.prompts` decides how it is written for a backbone.
"""

import functools
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, Union, cast

from mmembed.errors import InputError, nearest
from mmembed.files import bytes_fingerprint, file_fingerprint, fingerprint

if TYPE_CHECKING:
    import numpy as np
    from PIL.Image import Image as Picture

Box: TypeAlias = tuple[float, float, float, float]
Point: TypeAlias = tuple[float, float, int]
# typing.Union because Pillow's class is named, not imported, and a name cannot stand beside |
ImageSource: TypeAlias = Union[str, Path, bytes, "Picture"]
VideoSource: TypeAlias = Union[str, Path, bytes, tuple[ImageSource, ...]]  # noqa: UP007

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff"})


@dataclass(frozen=True)
class Region:
    """A place in an image, in pixels of the original picture: exactly one of box, points or mask.

    Args:
        box: ``(x0, y0, x1, y1)``, the right and bottom edges excluded.
        points: ``(x, y, label)`` with label 1 for inside and 0 for outside.
        mask: boolean array ``[H, W]`` of the picture's own size.
    """

    box: Box | None = None
    points: tuple[Point, ...] = ()
    mask: "np.ndarray | None" = None

    def __post_init__(self) -> None:
        given = [name for name in ("box", "points", "mask") if self._has(name)]
        if len(given) != 1:
            raise InputError(
                "region",
                expected="exactly one of box, points, mask",
                got=given or "none",
                remedy="give one kind a region",
            )
        if self.box is not None:
            if len(self.box) != 4:
                raise InputError(
                    "region.box",
                    expected="4 numbers x0 y0 x1 y1",
                    got=self.box,
                    remedy="give the two corners",
                )
            x0, y0, x1, y1 = self.box
            if not (x0 < x1 and y0 < y1):
                raise InputError("region.box", expected="x0 < x1 and y0 < y1", got=self.box, remedy="order the corners")
        for point in self.points:
            if len(point) != 3 or point[2] not in (0, 1):
                raise InputError(
                    "region.points",
                    expected="(x, y, label) with label 0 or 1",
                    got=point,
                    remedy="1 is inside, 0 outside",
                )

    def _has(self, name: str) -> bool:
        value = getattr(self, name)
        return value is not None and not (name == "points" and len(value) == 0)

    @classmethod
    def of(cls, value: "Region | Mapping[str, Any]") -> "Region":
        """A Region from its dict form: ``{"box": [...]}``, ``{"points": [...]}`` or ``{"mask": array}``."""
        if isinstance(value, Region):
            return value
        _refuse_unknown(value, {"box", "points", "mask"}, "region")
        box, points, mask = value.get("box"), value.get("points"), value.get("mask")
        return cls(
            box=cast(Box, tuple(float(v) for v in box)) if box is not None else None,
            points=tuple((float(p[0]), float(p[1]), int(p[2])) if len(p) == 3 else tuple(p) for p in points or ()),
            mask=mask,
        )

    def fingerprint(self) -> str:
        """Names the region's content."""
        mask = b"" if self.mask is None else repr(self.mask.shape).encode() + self.mask.astype(bool).tobytes()
        return fingerprint(repr(self.box), repr(self.points), mask)


@dataclass(frozen=True)
class Image:
    """A still picture and the regions prompted in it."""

    source: ImageSource
    regions: tuple[Region, ...] = ()

    def fingerprint(self) -> str:
        """Names the bytes (a file's, or the pixels of an open picture) and the regions."""
        return fingerprint("image", source_fingerprint(self.source), *(r.fingerprint() for r in self.regions))


@dataclass(frozen=True)
class Video:
    """A clip: a file, a folder of frames, or the frames themselves.

    Args:
        source: path of a video file or of a folder of frames (natural order), bytes of a file, or a tuple of frames.
        num_frames: how many frames to take; None leaves it to the sampler of the model's settings.
        fps: frames a second to take instead of a fixed count.
        start_s: first moment used, in seconds.
        end_s: last moment used, in seconds; None is the end.
    """

    source: VideoSource
    num_frames: int | None = None
    fps: float | None = None
    start_s: float = 0.0
    end_s: float | None = None

    def __post_init__(self) -> None:
        if self.num_frames is not None and self.num_frames < 1:
            raise InputError(
                "video.num_frames",
                expected="at least 1",
                got=self.num_frames,
                remedy="leave it out for the default",
            )
        if self.num_frames is not None and self.fps is not None:
            raise InputError(
                "video",
                expected="num_frames or fps",
                got=f"num_frames {self.num_frames} and fps {self.fps}",
                remedy="drop one",
            )
        if self.end_s is not None and self.end_s <= self.start_s:
            raise InputError(
                "video.end_s",
                expected=f"more than start_s {self.start_s}",
                got=self.end_s,
                remedy="order the two",
            )

    def fingerprint(self) -> str:
        """Names the bytes and which of the frames are asked for."""
        asked = repr((self.num_frames, self.fps, self.start_s, self.end_s))
        return fingerprint("video", source_fingerprint(self.source), asked)


@dataclass(frozen=True)
class Page:
    """One page of a PDF, pages counted from 1.

    Args:
        source: path or bytes of the PDF.
        page: number of the page, the first is 1.
        dpi: resolution it is drawn at.
    """

    source: str | Path | bytes
    page: int = 1
    dpi: int = 144

    def __post_init__(self) -> None:
        if self.page < 1:
            raise InputError("page.page", expected="1 or more", got=self.page, remedy="pages are counted from 1")

    def fingerprint(self) -> str:
        """Names the document's bytes, the page and its resolution."""
        return fingerprint("page", source_fingerprint(self.source), repr((self.page, self.dpi)))


Media: TypeAlias = Image | Video | Page
Part: TypeAlias = str | Image | Video | Page

_FIELD_ORDER = ("video", "image", "pdf", "text")
_DICT_KEYS = {
    "video",
    "image",
    "pdf",
    "text",
    "content",
    "instruction",
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
    """One thing to embed: parts in reading order, and words that say the task.

    Args:
        content: texts and media in the order they are read.
        instruction: words that say the task; where they go is the prompt style's business.
        verbatim: the order and spacing of ``content`` are the caller's own: a raw prompt joins it without separators.
            The dict form (:meth:`of`) sets False: its parts are named fields, and the style puts separators between.
    """

    content: tuple[Part, ...]
    instruction: str | None = None
    verbatim: bool = True

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

        The dict form knows ``text, image, video, pdf, page, dpi, regions, num_frames, fps, start_s, end_s`` and
        ``instruction``, and reads video, image, page, text in that order; ``content`` gives an explicit order instead.
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
        return fingerprint(self.content_fingerprint(), repr(self.instruction), repr(self.verbatim))


ItemLike: TypeAlias = Union[Item, str, Image, Video, Page, Mapping[str, Any], "Picture"]


@dataclass(frozen=True)
class Negative:
    """A target known to be wrong for its query, and how it was found.

    Args:
        item: the target.
        miner: what found it, e.g. ``bm25``; empty when given with the data.
        rank: its rank in the miner's list, the first is 1.
        score: the miner's score.
    """

    item: Item
    miner: str = ""
    rank: int | None = None
    score: float | None = None


@dataclass(frozen=True)
class Pair:
    """What training learns from: a query, the targets that answer it, and targets that do not.

    Args:
        query: the query.
        positives: at least one right target.
        negatives: wrong targets with their provenance.
        teacher_scores: a teacher's score for each positive, then each negative; empty without a teacher.
        query_id: name of the query in its source.
        target_ids: names of the positives in their source.
        class_id: pairs of one class are never each other's negatives when class masks are on.
        source: name of the source the pair came from.
    """

    query: Item
    positives: tuple[Item, ...]
    negatives: tuple[Negative, ...] = ()
    teacher_scores: tuple[float, ...] = ()
    query_id: str = ""
    target_ids: tuple[str, ...] = field(default=())
    class_id: str = ""
    source: str = ""

    def __post_init__(self) -> None:
        if not self.positives:
            raise InputError(
                "pair.positives",
                expected="at least one",
                got="none",
                remedy="give the target that answers the query",
            )
        rated = len(self.positives) + len(self.negatives)
        if self.teacher_scores and len(self.teacher_scores) != rated:
            raise InputError(
                "pair.teacher_scores",
                expected=f"{rated} scores, one for each positive then negative",
                got=len(self.teacher_scores),
                remedy="score every target or none",
            )


def source_fingerprint(source: "ImageSource | VideoSource") -> str:
    """Names the bytes behind a source: of a file, of every frame of a folder, or of an open picture's pixels."""
    if isinstance(source, bytes):
        return bytes_fingerprint(source)
    if isinstance(source, tuple):
        return fingerprint(*(source_fingerprint(frame) for frame in source))
    if isinstance(source, str | Path):
        path = Path(source)
        try:
            if path.is_dir():
                return fingerprint(*(source_fingerprint(frame) for frame in frame_files(path)))
            stat = path.stat()
        except OSError as error:
            raise InputError(
                path, expected="a readable file", got=error.strerror, remedy="check the path and --data-root"
            ) from error
        return _known_file(str(path), stat.st_mtime_ns, stat.st_size)
    # the bytes of a palette picture are numbers of colours; what else is read of an open picture stands in its info
    palette = bytes(source.getpalette() or ()) if source.mode in ("P", "PA") else b""
    info = repr([source.info.get(name) for name in ("transparency", "exif")])
    return fingerprint(source.mode, repr(source.size), source.tobytes(), palette, info)


@functools.lru_cache(maxsize=1 << 20)
def _known_file(path: str, mtime_ns: int, size: int) -> str:
    return file_fingerprint(path)


def _item_of_dict(value: Mapping[str, Any]) -> Item:
    _refuse_unknown(value, _DICT_KEYS, "item")
    instruction = value.get("instruction")
    if value.get("content") is not None:
        if not isinstance(value["content"], list | tuple):
            raise InputError(
                "item.content", expected="a list of parts", got=type(value["content"]).__name__, remedy="use [...]"
            )
        parts = tuple(p if isinstance(p, str | Image | Video | Page) else _only_part(p) for p in value["content"])
        return Item(parts, instruction=instruction)
    content: list[Part] = []
    for key in _FIELD_ORDER:
        if value.get(key) is not None:
            content += _parts_of_field(key, value)
    # an empty text beside a medium is an absent one: the published prompts add no separator for it
    if any(not isinstance(part, str) for part in content):
        content = [part for part in content if part != ""]
    return Item(tuple(content), instruction=instruction, verbatim=False)


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
    regions = tuple(Region.of(region) for region in value.get("regions") or ())
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
        return given.source
    if isinstance(given, str | Path | bytes) or (hasattr(given, "tobytes") and hasattr(given, "mode")):
        return cast(ImageSource, given)
    if hasattr(given, "__array_interface__"):
        from PIL.Image import fromarray

        return fromarray(given)
    raise InputError(
        where, expected="a path, bytes, PIL picture or array", got=type(given).__name__, remedy="convert it"
    )


def _refuse_unknown(value: Mapping[str, Any], known: set[str], where: str) -> None:
    for key in value:
        if key not in known:
            raise InputError(
                f"{where}.{key}", expected="a known field", got=f"'{key}'", remedy=nearest(str(key), known)
            )


def frame_files(folder: Path) -> list[Path]:
    """The pictures of a folder of frames, in natural order."""
    return sorted(
        (f for f in folder.iterdir() if f.suffix.lower() in IMAGE_SUFFIXES), key=lambda f: natural_key(f.name)
    )


def natural_key(name: str) -> list[tuple[int, int, str]]:
    """Sort key that reads digits as numbers and ignores case: ``frame_2`` before ``frame_10``."""
    return [
        (0, int(piece), "") if piece.isdigit() else (1, 0, piece) for piece in re.split(r"(\d+)", name.lower()) if piece
    ]
