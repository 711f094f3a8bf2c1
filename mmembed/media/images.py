"""Still pictures to RGB: by the protocol's rule, at a bounded size, and whole or not at all.

RGB means Pillow's ``convert("RGB")``, as the processors of VLM2Vec do it: transparency is dropped, and grey values of
16-bit and float pictures are cut at 255 rather than rescaled. Scale such pictures to 8 bits beforehand.
"""

import io
import math
import struct
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import PIL.Image
import PIL.ImageOps
from PIL import ExifTags

from mmembed.errors import MediaError
from mmembed.items import Image, ImageSource
from mmembed.media.regions import check_regions
from mmembed.media.settings import Alpha, MediaSettings
from mmembed.media.sources import existing_file, source_name

# everything Pillow's decoders raise for bytes that they cannot follow
_UNREADABLE = (OSError, ValueError, SyntaxError, EOFError, IndexError, struct.error, zlib.error)

# EXIF orientations of a picture that is to be turned by a quarter
_ON_ITS_SIDE = (5, 6, 7, 8)


def open_image(image: Image, settings: MediaSettings, *, draft_pixels: int | None = None) -> PIL.Image.Image:
    """Decode a picture to RGB and check its regions; an animation gives its first frame.

    Args:
        image: the picture: a path, bytes of a file, or an open Pillow picture (which stays as it is).
        settings: EXIF, transparency and size limit. With ``exif`` on, regions are in pixels of the turned picture.
        draft_pixels: as in the settings, which this function does not look at: whoever asks must know that the picture
            may come smaller. One with regions does not.

    Raises:
        MediaError: the file is missing, no picture, cut short, or larger than the limit.
        InputError: a region leaves the picture.
    """
    name = source_name(image.source)
    with _complaints(name, settings):
        picture = _decoded(image.source, settings, name, None if image.regions else draft_pixels)
    check_regions(image, *picture.size)
    return picture


def picture_size(image: Image, settings: MediaSettings) -> tuple[int, int]:
    """Width and height of what :func:`open_image` would give, most often from the file's first bytes alone.

    Raises:
        MediaError: the file is missing, no picture, or larger than the limit.
    """
    name = source_name(image.source)
    with _complaints(name, settings):
        if isinstance(image.source, PIL.Image.Image):
            return _upright_size(image.source, settings, name)
        with PIL.Image.open(_opened(image.source)) as picture:
            return _upright_size(picture, settings, name)


def check_size(width: int, height: int, settings: MediaSettings, name: str) -> None:
    """Refuse a picture of more pixels than ``settings`` allow, before any of them is decoded.

    Raises:
        MediaError: names the picture, its size and the limit.
    """
    if width * height > settings.max_image_megapixels * 1e6:
        raise _too_large(name, settings, f"{width} x {height} pixels")


def to_rgb(picture: PIL.Image.Image, alpha: Alpha) -> PIL.Image.Image:
    """A new RGB picture from one of any mode; ``alpha`` says what becomes of transparency."""
    if alpha == "white" and picture.has_transparency_data:
        opaque = PIL.Image.new("RGBA", picture.size, "white")
        return PIL.Image.alpha_composite(opaque, picture.convert("RGBA")).convert("RGB")
    return picture.convert("RGB")


def _decoded(source: ImageSource, settings: MediaSettings, name: str, draft_pixels: int | None) -> PIL.Image.Image:
    if isinstance(source, PIL.Image.Image):
        return _upright_rgb(source, settings, name)
    with PIL.Image.open(_opened(source)) as picture:
        check_size(picture.width, picture.height, settings, name)
        if draft_pixels is not None and picture.width * picture.height > draft_pixels:
            share = math.sqrt(draft_pixels / (picture.width * picture.height))
            # only JPEG can: Pillow takes the smallest of 1/1, 1/2, 1/4 and 1/8 that is as large as that
            picture.draft(None, (math.ceil(picture.width * share), math.ceil(picture.height * share)))
        return _upright_rgb(picture, settings, name)


def _opened(source: str | Path | bytes) -> io.BytesIO | Path:
    return io.BytesIO(source) if isinstance(source, bytes) else existing_file(source)


def _upright_size(picture: PIL.Image.Image, settings: MediaSettings, name: str) -> tuple[int, int]:
    width, height = picture.size
    check_size(width, height, settings, name)
    turned = settings.exif and picture.getexif().get(ExifTags.Base.Orientation) in _ON_ITS_SIDE
    return (height, width) if turned else (width, height)


def _upright_rgb(picture: PIL.Image.Image, settings: MediaSettings, name: str) -> PIL.Image.Image:
    check_size(picture.width, picture.height, settings, name)
    upright = PIL.ImageOps.exif_transpose(picture) if settings.exif else picture
    return to_rgb(upright, settings.alpha)


@contextmanager
def _complaints(name: str, settings: MediaSettings) -> Iterator[None]:
    """Turn what Pillow raises into MediaErrors, and keep its warnings about size and palettes to itself."""
    try:
        with warnings.catch_warnings():
            # our own limit decides, not the lower one at which Pillow starts to warn
            warnings.simplefilter("ignore", PIL.Image.DecompressionBombWarning)
            warnings.filterwarnings("ignore", "Palette images with Transparency", UserWarning)
            yield
    except MediaError:
        raise
    except PIL.Image.DecompressionBombError as error:
        raise _too_large(name, settings, error) from error
    except _UNREADABLE as error:
        got, remedy = f"{type(error).__name__}: {error}", "download the file again or leave the row out"
        raise MediaError(name, expected="a whole picture", got=got, remedy=remedy) from error


def _too_large(name: str, settings: MediaSettings, got: object) -> MediaError:
    return MediaError(
        name,
        expected=f"at most {settings.max_image_megapixels:g} megapixels",
        got=got,
        remedy="shrink the picture, or raise media.max_image_megapixels if you trust it",
    )
