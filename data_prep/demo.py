"""Draw the demo's data: pictures and clips of coloured shapes, training tables and four retrieval sets.

Everything follows from the seed, byte for byte. Pictures are PNG (56 x 28 pixels, one or two objects), clips are MP4
(28 x 28 pixels, 4 frames, one object on the move). No picture or clip of a test is in the training data.
"""

import argparse
import hashlib
import json
import random
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import product
from pathlib import Path

import av
from PIL import Image as Picture
from PIL import ImageDraw

from mmembed.commands import add_data_root
from mmembed.data.tables import write_items, write_pairs
from mmembed.files import write_json, write_text
from mmembed.items import Item, Pair, Video
from mmembed.progress import track

VERSION = 1
"""Counts up when the same seed gives other data."""
COLOURS = {"red": (220, 40, 40), "green": (40, 180, 60), "blue": (50, 80, 220), "yellow": (230, 210, 50)}
SHAPES = ("circle", "square", "cross")
DIRECTIONS = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1)}
REVERSE = {"left": "right", "right": "left", "up": "down", "down": "up"}
SIDES = ("left", "right")
SIZE = (56, 28)
CLIP_SIZE = (28, 28)
NUM_FRAMES = 4
FPS = 4

DESCRIBE = "describe the image"
REPRESENT = "represent the image"
FIND = "find the image that matches :"
MOTION = "describe the motion in the video"


@dataclass(frozen=True)
class Sizes:
    """How much is drawn."""

    singles: int = 3000
    """Training pictures of one object."""
    pairs: int = 8000
    """Training pictures of two objects."""
    clips: int = 4000
    """Training clips."""
    tests: int = 240
    """Test scenes of each task."""


@dataclass(frozen=True)
class Scene:
    """What a picture or clip shows: objects from left to right, and the direction of a moving one."""

    objects: tuple[tuple[str, str], ...]
    direction: str = ""

    @property
    def caption(self) -> str:
        """The scene in words."""
        first = "a {} {}".format(*self.objects[0])
        if self.direction:
            return f"{first} moving {self.direction}"
        return first if len(self.objects) == 1 else f"{first} left of a {' '.join(self.objects[1])}"

    @property
    def reversed_caption(self) -> str:
        """The clip's words played backwards."""
        return Scene(self.objects, REVERSE[self.direction]).caption


Drawn = tuple[Scene, list[Picture.Image]]


def draw_single(rng: random.Random) -> Drawn:
    """One object somewhere in the picture."""
    scene = Scene((_thing(rng),))
    canvas, pen = _canvas(SIZE, rng)
    _draw(pen, scene.objects[0], rng.randint(11, 44), 14 + rng.randint(-3, 3), rng.randint(7, 10))
    return scene, [canvas]


def draw_pair(rng: random.Random) -> Drawn:
    """Two objects side by side."""
    scene = Scene((_thing(rng), _thing(rng)))
    canvas, pen = _canvas(SIZE, rng)
    for thing, centre in zip(scene.objects, (14, 42), strict=True):
        _draw(pen, thing, centre + rng.randint(-3, 3), 14 + rng.randint(-3, 3), rng.randint(7, 10))
    return scene, [canvas]


def draw_clip(rng: random.Random) -> Drawn:
    """One object that moves in a straight line."""
    scene = Scene((_thing(rng),), rng.choice(list(DIRECTIONS)))
    right, down = DIRECTIONS[scene.direction]
    background, radius, speed = _background(rng), rng.randint(7, 8), rng.choice((3.5, 4.0, 4.5))
    across, along = rng.randint(-3, 3), rng.randint(-3, 3)
    frames = []
    for number in range(NUM_FRAMES):
        way = (number - (NUM_FRAMES - 1) / 2) * speed
        canvas = Picture.new("RGB", CLIP_SIZE, background)
        x = 14 + right * way + (across if down else along / 2)
        y = 14 + down * way + (across if right else along / 2)
        _draw(ImageDraw.Draw(canvas), scene.objects[0], x, y, radius)
        frames.append(canvas)
    return scene, frames


class Studio:
    """Draws scenes that differ from all drawn before, and writes them as files."""

    def __init__(self, root: Path, seed: int) -> None:
        self.root = root
        self.seed = seed
        self._seen: set[bytes] = set()

    def scenes(self, name: str, draw: Callable[[random.Random], Drawn], count: int) -> Iterator[tuple[Scene, Path]]:
        """``count`` new scenes and their files, under ``name``."""
        rng = random.Random(f"{self.seed}/{name}")
        folder = self.root / name
        folder.mkdir(parents=True, exist_ok=True)
        for number in track(range(count), f"draw {name}"):
            scene, frames = draw(rng)
            while (picture := hashlib.sha256(b"".join(f.tobytes() for f in frames)).digest()) in self._seen:
                scene, frames = draw(rng)
            self._seen.add(picture)
            path = folder / f"{number:05d}.{'png' if len(frames) == 1 else 'mp4'}"
            frames[0].save(path) if len(frames) == 1 else write_clip(path, frames)
            yield scene, path


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


def make_training(studio: Studio, sizes: Sizes) -> None:
    """Seven tables: three for single objects, three for pairs of objects, one for clips."""
    root = studio.root
    singles = list(studio.scenes("train/single", draw_single, sizes.singles))
    pairs = list(studio.scenes("train/pair", draw_pair, sizes.pairs))
    clips = list(studio.scenes("train/clip", draw_clip, sizes.clips))
    for name, scenes in (("single", singles), ("pair", pairs)):
        captions = [(image_query(path), Item.of(scene.caption)) for scene, path in scenes]
        pictures = [(words_query(scene), image_target(path)) for scene, path in scenes]
        answers = [
            (ask(path, question), Item.of(word)) for scene, path in scenes for question, word in questions(scene)
        ]
        for task, rows in (("caption", captions), ("image", pictures), ("question", answers)):
            write_pairs(root / f"{name}_{task}.jsonl", _numbered(rows))
    write_pairs(root / "motion.jsonl", _numbered([(clip_query(path), Item.of(scene.caption)) for scene, path in clips]))


def make_tests(studio: Studio, sizes: Sizes) -> None:
    """Four retrieval sets with scenes of their own."""
    scenes = list(studio.scenes("test/image_to_caption/media", draw_pair, sizes.tests))
    captions = sorted({scene.caption for scene, _ in scenes})
    write_set(
        studio.root / "test/image_to_caption",
        [(image_query(path), [scene.caption]) for scene, path in scenes],
        {caption: Item.of(caption) for caption in captions},
    )
    scenes = list(studio.scenes("test/caption_to_image/media", draw_pair, sizes.tests))
    same: dict[str, list[str]] = {}
    for scene, path in scenes:
        same.setdefault(scene.caption, []).append(path.stem)
    write_set(
        studio.root / "test/caption_to_image",
        [(words_query(scene), same[scene.caption]) for scene, _ in scenes],
        {path.stem: image_target(path) for _, path in scenes},
    )
    scenes = list(studio.scenes("test/question/media", draw_pair, sizes.tests // 4))
    write_set(
        studio.root / "test/question",
        [(ask(path, question), [answer]) for scene, path in scenes for question, answer in questions(scene)],
        {word: Item.of(word) for word in (*COLOURS, *SHAPES)},
    )
    scenes = list(studio.scenes("test/video_to_caption/media", draw_clip, sizes.tests))
    captions = sorted({words for scene, _ in scenes for words in (scene.caption, scene.reversed_caption)})
    write_set(
        studio.root / "test/video_to_caption",
        [(clip_query(path), [scene.caption]) for scene, path in scenes],
        {caption: Item.of(caption) for caption in captions},
    )


def write_set(folder: Path, queries: Sequence[tuple[Item, Sequence[str]]], corpus: dict[str, Item]) -> None:
    """A retrieval set: queries with the ids of their right targets, and the corpus."""
    write_items(folder / "queries.jsonl", ((f"q{i}", query) for i, (query, _) in enumerate(queries)))
    write_items(folder / "corpus.jsonl", corpus.items())
    relevance = ({"query_id": f"q{i}", "targets": dict.fromkeys(right, 1)} for i, (_, right) in enumerate(queries))
    write_text(folder / "relevance.jsonl", "".join(json.dumps(row) + "\n" for row in relevance))


def questions(scene: Scene) -> list[tuple[str, str]]:
    """What may be asked of a picture, with the answers."""
    if len(scene.objects) == 1:
        return [(f"what {kind} is the object ?", scene.objects[0][i]) for i, kind in enumerate(("colour", "shape"))]
    return [
        (f"what {kind} is the {side} object ?", scene.objects[where][i])
        for (where, side), (i, kind) in product(enumerate(SIDES), enumerate(("colour", "shape")))
    ]


def image_query(path: Path) -> Item:
    """A picture to be described."""
    return Item.of({"image": path, "instruction": DESCRIBE})


def image_target(path: Path) -> Item:
    """A picture to be found."""
    return Item.of({"image": path, "instruction": REPRESENT})


def words_query(scene: Scene) -> Item:
    """Words that look for a picture."""
    return Item.of(scene.caption, FIND)


def ask(path: Path, question: str) -> Item:
    """A picture and a question about it."""
    return Item.of({"image": path, "instruction": question})


def clip_query(path: Path) -> Item:
    """A clip to be described."""
    return Item((Video(path, num_frames=NUM_FRAMES),), instruction=MOTION, verbatim=False)


def make_demo(root: Path, seed: int, sizes: Sizes) -> bool:
    """Draw everything under ``root``; False if the same data stand there already."""
    # a relative media path would be read as one below the table's folder
    root = root.absolute()
    made = {"seed": seed, "version": VERSION, **vars(sizes)}
    marker = root / "demo.json"
    if marker.is_file() and json.loads(marker.read_text()) == made:
        return False
    studio = Studio(root, seed)
    make_tests(studio, sizes)
    make_training(studio, sizes)
    write_json(marker, made)
    return True


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0, help="another seed draws other scenes (default: 0)")
    add_data_root(parser)
    parser.add_argument("--name", default="demo", help="folder under the data root (default: demo)")
    for field, count in vars(Sizes()).items():
        parser.add_argument(f"--{field}", type=int, default=count, metavar="N", help=f"default: {count}")
    options = vars(parser.parse_args(argv))
    root = options.pop("data_root") / options.pop("name")
    drawn = make_demo(root, options.pop("seed"), Sizes(**options))
    print(f"{'drawn' if drawn else 'there already'}: {root}")
    return 0


def _numbered(rows: Sequence[tuple[Item, Item]]) -> Iterator[Pair]:
    return (Pair(query, (target,), query_id=f"{i:05d}") for i, (query, target) in enumerate(rows))


def _thing(rng: random.Random) -> tuple[str, str]:
    return rng.choice(list(COLOURS)), rng.choice(SHAPES)


def _background(rng: random.Random) -> tuple[int, int, int]:
    return rng.randint(200, 255), rng.randint(200, 255), rng.randint(200, 255)


def _canvas(size: tuple[int, int], rng: random.Random) -> tuple[Picture.Image, ImageDraw.ImageDraw]:
    canvas = Picture.new("RGB", size, _background(rng))
    return canvas, ImageDraw.Draw(canvas)


def _draw(pen: ImageDraw.ImageDraw, thing: tuple[str, str], x: float, y: float, radius: float) -> None:
    colour, shape = COLOURS[thing[0]], thing[1]
    if shape == "circle":
        pen.ellipse([x - radius, y - radius, x + radius, y + radius], fill=colour)
    elif shape == "square":
        pen.rectangle([x - radius, y - radius, x + radius, y + radius], fill=colour)
    else:
        arm = radius * 0.35
        pen.rectangle([x - arm, y - radius, x + arm, y + radius], fill=colour)
        pen.rectangle([x - radius, y - arm, x + radius, y + arm], fill=colour)


if __name__ == "__main__":
    sys.exit(main())
