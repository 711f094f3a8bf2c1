"""What the demo draws: pictures and clips of coloured shapes, pages of two words, and the files that hold them.

Pictures are PNG (56 x 28 pixels, one or two objects), clips are MP4 (28 x 28 pixels, 4 frames, one object on the move),
pages are PDF (56 x 28 points, one word above another). Everything follows from the seed, byte for byte.
"""

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from fractions import Fraction
from pathlib import Path
from typing import TypeAlias, TypeVar

import av
from fpdf import FPDF
from PIL import Image as Picture
from PIL import ImageDraw

from mmembed.files import fingerprint
from mmembed.items import Box
from mmembed.progress import track

COLOURS = {"red": (220, 40, 40), "green": (40, 180, 60), "blue": (50, 80, 220), "yellow": (230, 210, 50)}
SHAPES = ("circle", "square", "cross")
DIRECTIONS = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1)}
REVERSE = {"left": "right", "right": "left", "up": "down", "down": "up"}
SIDES = ("left", "right")
HEIGHTS = ("upper", "lower")
WORDS = ("apple", "bread", "chair", "cloud", "horse", "lemon", "music", "night", "queen", "river", "stone", "tiger")
SIZE = (56, 28)
CLIP_SIZE = (28, 28)
NUM_FRAMES = 4
FPS = 4
DOCUMENT_PAGES = 8
FONT_SIZE = 12

T = TypeVar("T")
Thing: TypeAlias = tuple[str, str]
"""Colour and shape of an object."""


@dataclass(frozen=True)
class Scene:
    """What a picture or clip shows.

    Args:
        objects: from left to right.
        direction: of a moving object.
        boxes: where each object of a picture is, in pixels.
    """

    objects: tuple[Thing, ...]
    direction: str = ""
    boxes: tuple[Box, ...] = ()

    @property
    def caption(self) -> str:
        """The scene in words."""
        first = in_words(self.objects[0])
        if self.direction:
            return f"{first} moving {self.direction}"
        return first if len(self.objects) == 1 else f"{first} left of {in_words(self.objects[1])}"

    @property
    def reversed_caption(self) -> str:
        """The clip's words played backwards."""
        return Scene(self.objects, REVERSE[self.direction]).caption


@dataclass(frozen=True)
class Sheet:
    """What a page shows: words from top to bottom, where each begins (x, baseline), and the colours (RGB)."""

    words: tuple[str, ...]
    places: tuple[tuple[int, int], ...]
    paper: tuple[int, int, int]
    ink: tuple[int, int, int]

    @property
    def caption(self) -> str:
        """The page in words."""
        return " above ".join(self.words)


Drawn: TypeAlias = tuple[Scene, list[Picture.Image]]
"""A scene and its frames, one of a picture."""
Draw: TypeAlias = Callable[[random.Random], Drawn]


def in_words(thing: Thing) -> str:
    """An object in words."""
    return f"a {' '.join(thing)}"


def draw_thing(rng: random.Random) -> Thing:
    """Any object."""
    return rng.choice(list(COLOURS)), rng.choice(SHAPES)


def draw_single(rng: random.Random) -> Drawn:
    """One object somewhere in the picture."""
    return _picture(rng, (draw_thing(rng),), (rng.randint(11, 44),))


def draw_pair(rng: random.Random, objects: tuple[Thing, ...] = ()) -> Drawn:
    """Two objects side by side, these or any."""
    objects = objects or (draw_thing(rng), draw_thing(rng))
    return _picture(rng, objects, (14 + rng.randint(-3, 3), 42 + rng.randint(-3, 3)))


def draw_clip(rng: random.Random, thing: Thing | None = None, direction: str = "") -> Drawn:
    """One object that moves in a straight line, these or any."""
    scene = Scene((thing or draw_thing(rng),), direction or rng.choice(list(DIRECTIONS)))
    right, down = DIRECTIONS[scene.direction]
    background, radius, speed = _light(rng), rng.randint(7, 8), rng.choice((3.5, 4.0, 4.5))
    across, along = rng.randint(-3, 3), rng.randint(-3, 3)
    frames = []
    for number in range(NUM_FRAMES):
        way = (number - (NUM_FRAMES - 1) / 2) * speed
        canvas = Picture.new("RGB", CLIP_SIZE, background)
        x = 14 + right * way + (across if down else along / 2)
        y = 14 + down * way + (across if right else along / 2)
        _draw(ImageDraw.Draw(canvas), scene.objects[0], (x - radius, y - radius, x + radius, y + radius))
        frames.append(canvas)
    return scene, frames


def draw_sheet(rng: random.Random) -> Sheet:
    """Two different words, one above the other, dark on light."""
    places = tuple((rng.randint(2, 4), baseline + rng.randint(0, 1)) for baseline in (10, 24))
    return Sheet(tuple(rng.sample(WORDS, 2)), places, _light(rng), _dark(rng))


class Studio:
    """Draws what differs from all drawn before, and writes it as files."""

    def __init__(self, root: Path, seed: int) -> None:
        self.root = root
        self.seed = seed
        self._seen: set[str] = set()

    def rng(self, purpose: str) -> random.Random:
        """Chance that depends on the seed and the purpose alone."""
        return random.Random(f"{self.seed}/{purpose}")

    def scenes(self, folder: str, draws: Sequence[Draw]) -> Iterator[tuple[Scene, Path]]:
        """A new scene of each drawing and its file, under ``folder``."""
        rng = self.rng(folder)
        (self.root / folder).mkdir(parents=True, exist_ok=True)
        for number, draw in enumerate(track(draws, f"draw {folder}")):
            scene, frames = self._new(lambda draw=draw: draw(rng), lambda drawn: [f.tobytes() for f in drawn[1]])
            path = self.root / folder / f"{number:05d}.{'png' if len(frames) == 1 else 'mp4'}"
            frames[0].save(path) if len(frames) == 1 else write_clip(path, frames)
            yield scene, path

    def sheets(self, folder: str, count: int) -> Iterator[tuple[Sheet, Path, int]]:
        """``count`` new pages, their documents under ``folder``, and the number of each in its document, from 1."""
        rng = self.rng(folder)
        (self.root / folder).mkdir(parents=True, exist_ok=True)
        for first in track(range(0, count, DOCUMENT_PAGES), f"draw {folder}"):
            numbers = range(min(DOCUMENT_PAGES, count - first))
            sheets = [self._new(lambda: draw_sheet(rng), lambda sheet: [repr(sheet)]) for _ in numbers]
            path = self.root / folder / f"{first:05d}.pdf"
            write_document(path, sheets)
            yield from ((sheet, path, number + 1) for number, sheet in enumerate(sheets))

    def _new(self, draw: Callable[[], T], content: Callable[[T], list[bytes] | list[str]]) -> T:
        """Draw until the content is new."""
        drawn = draw()
        while (key := fingerprint(*content(drawn))) in self._seen:
            drawn = draw()
        self._seen.add(key)
        return drawn


def write_clip(path: Path, frames: Sequence[Picture.Image]) -> None:
    """An H.264 file of full colour resolution: at this size, halved colour would blur the shapes."""
    with av.open(str(path), "w", options={"movflags": "+faststart"}) as container:
        stream = container.add_stream("libx264", rate=Fraction(FPS), options={"crf": "8", "preset": "ultrafast"})
        stream.width, stream.height = frames[0].size
        stream.pix_fmt = "yuv444p"
        stream.thread_count = 1
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_image(frame)))
        container.mux(stream.encode())


def write_document(path: Path, sheets: Sequence[Sheet]) -> None:
    """A PDF with real text, a page for each sheet; a point is a pixel at 72 dots per inch."""
    document = FPDF(unit="pt", format=SIZE)
    # the clock would change the bytes
    document.set_creation_date(datetime(2025, 1, 1, tzinfo=UTC))
    document.set_font("Helvetica", "B", FONT_SIZE)
    for sheet in sheets:
        document.add_page()
        document.set_fill_color(*sheet.paper)
        document.rect(0, 0, *SIZE, style="F")
        document.set_text_color(*sheet.ink)
        for word, (x, baseline) in zip(sheet.words, sheet.places, strict=True):
            document.text(x, baseline, word)
    document.output(str(path))


def _picture(rng: random.Random, objects: tuple[Thing, ...], centres: Sequence[int]) -> Drawn:
    canvas = Picture.new("RGB", SIZE, _light(rng))
    boxes = []
    for thing, x in zip(objects, centres, strict=True):
        y, radius = 14 + rng.randint(-3, 3), rng.randint(7, 10)
        _draw(ImageDraw.Draw(canvas), thing, (x - radius, y - radius, x + radius, y + radius))
        # Pillow draws the last pixel too, and a box ends behind it
        boxes.append((x - radius, y - radius, x + radius + 1, y + radius + 1))
    return Scene(objects, boxes=tuple(boxes)), [canvas]


def _light(rng: random.Random) -> tuple[int, int, int]:
    return rng.randint(200, 255), rng.randint(200, 255), rng.randint(200, 255)


def _dark(rng: random.Random) -> tuple[int, int, int]:
    return rng.randint(0, 60), rng.randint(0, 60), rng.randint(0, 60)


def _draw(pen: ImageDraw.ImageDraw, thing: Thing, box: Box) -> None:
    colour, shape = COLOURS[thing[0]], thing[1]
    if shape == "circle":
        pen.ellipse(box, fill=colour)
    elif shape == "square":
        pen.rectangle(box, fill=colour)
    else:
        x0, y0, x1, y1 = box
        x, y, arm = (x0 + x1) / 2, (y0 + y1) / 2, (x1 - x0) / 2 * 0.35
        pen.rectangle([x - arm, y0, x + arm, y1], fill=colour)
        pen.rectangle([x0, y - arm, x1, y + arm], fill=colour)
