"""Items as a page shows them: texts, small pictures and strips of frames as data URIs."""

import base64
import io
from dataclasses import dataclass

import PIL.Image
import PIL.ImageDraw

from mmembed.items import Image, Item, Media, Region
from mmembed.media.decode import decode
from mmembed.media.settings import MediaSettings

_OUTLINE = (230, 57, 70)
_LOSSLESS_PX = 96


@dataclass(frozen=True)
class Shown:
    """One part of an item on a page: a text, or one picture or more.

    Args:
        text: the words; empty for media.
        pictures: data URIs: one of a still, several of a clip.
    """

    text: str = ""
    pictures: tuple[str, ...] = ()


class Thumbnails:
    """Shows items, each picture decoded once.

    Args:
        media: how media are decoded.
        side_px: longest side of a thumbnail.
        num_frames: most frames shown of a clip, evenly spread.
    """

    def __init__(self, media: MediaSettings, *, side_px: int = 192, num_frames: int = 4) -> None:
        self.media, self.side_px, self.num_frames = media, side_px, num_frames
        self._known: dict[str, tuple[str, ...]] = {}

    def show(self, item: Item) -> list[Shown]:
        """The parts of an item in reading order."""
        return [Shown(part) if isinstance(part, str) else Shown(pictures=self._pictures(part)) for part in item.content]

    def _pictures(self, medium: Media) -> tuple[str, ...]:
        name = medium.fingerprint()
        if name not in self._known:
            regions = medium.regions if isinstance(medium, Image) else ()
            frames = _spread(decode(medium, self.media).pictures, self.num_frames)
            self._known[name] = tuple(_data_uri(_shrink(frame, regions, self.side_px)) for frame in frames)
        return self._known[name]


def _spread(frames: tuple[PIL.Image.Image, ...], most: int) -> list[PIL.Image.Image]:
    count = min(most, len(frames))
    return [frames[(2 * i + 1) * len(frames) // (2 * count)] for i in range(count)]


def _shrink(picture: PIL.Image.Image, regions: tuple[Region, ...], side_px: int) -> PIL.Image.Image:
    """A small copy with the prompted boxes and points drawn in."""
    small = picture.convert("RGB")
    small.thumbnail((side_px, side_px))
    scale = small.width / picture.width
    pen = PIL.ImageDraw.Draw(small)
    for region in regions:
        if region.box is not None:
            x0, y0, x1, y1 = (edge * scale for edge in region.box)
            pen.rectangle((x0, y0, max(x0, x1 - 1), max(y0, y1 - 1)), outline=_OUTLINE, width=2)
        for x, y, label in region.points:
            dot = (x * scale - 3, y * scale - 3, x * scale + 3, y * scale + 3)
            pen.ellipse(dot, outline=_OUTLINE, fill=_OUTLINE if label else None)
    return small


def _data_uri(picture: PIL.Image.Image) -> str:
    """PNG for tiny pictures, where JPEG would smear the few pixels there are."""
    kind = "PNG" if max(picture.size) <= _LOSSLESS_PX else "JPEG"
    file = io.BytesIO()
    picture.save(file, kind, **({} if kind == "PNG" else {"quality": 78}))
    return f"data:image/{kind.lower()};base64,{base64.b64encode(file.getvalue()).decode()}"
