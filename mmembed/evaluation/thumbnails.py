"""Items as a page shows them: texts, small pictures with their regions, and strips of frames, as data URIs."""

import base64
import io
from dataclasses import dataclass

import PIL.Image
import PIL.ImageChops
import PIL.ImageDraw
import PIL.ImageFilter

from mmembed.items import Image, Item, Media, Page, Point, Region
from mmembed.media.decode import decode
from mmembed.media.settings import MediaSettings

_LINE = (230, 0, 150)
_HALO = (255, 255, 255)
_TINT = 0.4
"""How much of a masked pixel is the colour of the tint."""
_DOT_PX = 4
_LOSSLESS_PX = 96


@dataclass(frozen=True)
class Picture:
    """A small picture as a data URI, and its size in pixels, which a page keeps free until the picture is drawn."""

    uri: str
    width: int
    height: int

    def open(self) -> PIL.Image.Image:
        """Its pixels, in RGB."""
        data = base64.b64decode(self.uri.partition(",")[2])
        return PIL.Image.open(io.BytesIO(data)).convert("RGB")


@dataclass(frozen=True)
class Shown:
    """One part of an item on a page: a text, or one picture or more.

    Args:
        text: the words; of a medium what it is, e.g. ``page 3`` or ``picture, 1 box``.
        pictures: none of a text, one of a still, several of a clip.
    """

    text: str
    pictures: tuple[Picture, ...] = ()


class Thumbnails:
    """Shows items, each picture decoded once.

    Args:
        media: how media are decoded.
        side_px: longest side of a thumbnail.
        num_frames: most frames shown of a clip, evenly spread.
    """

    def __init__(self, media: MediaSettings, *, side_px: int = 192, num_frames: int = 4) -> None:
        self.media, self.side_px, self.num_frames = media, side_px, num_frames
        self._known: dict[str, Shown] = {}

    def show(self, item: Item) -> list[Shown]:
        """The parts of an item in reading order."""
        return [Shown(part) if isinstance(part, str) else self._medium(part) for part in item.content]

    def _medium(self, medium: Media) -> Shown:
        name = medium.fingerprint()
        if name not in self._known:
            regions = medium.regions if isinstance(medium, Image) else ()
            frames = decode(medium, self.media).pictures
            shown = _spread(frames, self.num_frames)
            pictures = tuple(_picture(*_shrink(frame, regions, self.side_px)) for frame in shown)
            self._known[name] = Shown(_in_words(medium, len(shown), len(frames)), pictures)
        return self._known[name]


def _in_words(medium: Media, num_shown: int, num_frames: int) -> str:
    if isinstance(medium, Page):
        return f"page {medium.page}"
    if isinstance(medium, Image):
        counts = {
            "box": sum(region.box is not None for region in medium.regions),
            "point": sum(len(region.points) for region in medium.regions),
            "mask": sum(region.mask is not None for region in medium.regions),
        }
        plural = {"box": "boxes", "point": "points", "mask": "masks"}
        return ", ".join(
            ["picture", *(f"{n} {kind if n == 1 else plural[kind]}" for kind, n in counts.items() if n > 0)]
        )
    return f"clip, {num_shown} of {num_frames} frames"


def _spread(frames: tuple[PIL.Image.Image, ...], most: int) -> list[PIL.Image.Image]:
    count = min(most, len(frames))
    return [frames[(2 * i + 1) * len(frames) // (2 * count)] for i in range(count)]


def _shrink(picture: PIL.Image.Image, regions: tuple[Region, ...], side_px: int) -> tuple[PIL.Image.Image, bool]:
    """A small copy with the prompted regions drawn in, and whether its few pixels must be kept as they are."""
    small, longest = picture.convert("RGB"), max(picture.size)
    is_tiny = longest <= _LOSSLESS_PX
    if is_tiny and regions:  # as whole pixels, so that a line is finer than they are
        factor = side_px // longest
        small = small.resize((small.width * factor, small.height * factor), PIL.Image.Resampling.NEAREST)
    small.thumbnail((side_px, side_px))
    for region in regions:
        draw_region(small, region, small.width / picture.width)
    return small, is_tiny


def draw_region(small: PIL.Image.Image, region: Region, scale: float) -> None:
    """Draw a region into an RGB picture whose sides are ``scale`` times those of the region's own."""
    if region.mask is not None:
        _tint(small, PIL.Image.fromarray(region.mask.astype(bool)).convert("L").resize(small.size))
    pen = PIL.ImageDraw.Draw(small)
    if region.box is not None:
        x0, y0, x1, y1 = (edge * scale for edge in region.box)
        right, bottom = max(x0, x1 - 1), max(y0, y1 - 1)
        pen.rectangle((x0 - 1, y0 - 1, right + 1, bottom + 1), outline=_HALO, width=4)
        pen.rectangle((x0, y0, right, bottom), outline=_LINE, width=2)
    for point in region.points:
        _draw_point(pen, point, scale)


def _draw_point(pen: PIL.ImageDraw.ImageDraw, point: Point, scale: float) -> None:
    """A plus on a full dot inside of what is meant, a minus on an empty one outside."""
    x, y, label = point[0] * scale, point[1] * scale, point[2]
    ground, sign = (_LINE, _HALO) if label else (_HALO, _LINE)
    for radius, colour in ((_DOT_PX + 2, _HALO), (_DOT_PX + 1, _LINE), (_DOT_PX, ground)):
        pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=colour)
    pen.line((x - 2, y, x + 2, y), fill=sign)
    if label:
        pen.line((x, y - 2, x, y + 2), fill=sign)


def _tint(small: PIL.Image.Image, mask: PIL.Image.Image) -> None:
    """Colour what the mask covers, and draw its edge: a line inside of it, a halo outside."""
    inside = mask.point(lambda value: 255 if value >= 128 else 0)
    core = inside.filter(PIL.ImageFilter.MinFilter(3))
    around = inside.filter(PIL.ImageFilter.MaxFilter(3))
    small.paste(_LINE, (0, 0), inside.point(lambda value: round(_TINT * value)))
    small.paste(_LINE, (0, 0), PIL.ImageChops.subtract(inside, core))
    small.paste(_HALO, (0, 0), PIL.ImageChops.subtract(around, inside))


def _picture(picture: PIL.Image.Image, is_tiny: bool) -> Picture:
    """PNG for tiny pictures, where WebP would smear the few pixels there are."""
    kind = "PNG" if is_tiny else "WEBP"
    file = io.BytesIO()
    picture.save(file, kind, **({} if is_tiny else {"quality": 80}))
    data = base64.b64encode(file.getvalue()).decode()
    return Picture(f"data:image/{kind.lower()};base64,{data}", *picture.size)
