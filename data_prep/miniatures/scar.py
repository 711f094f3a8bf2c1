"""Miniatures of SCaR: pictures of several objects, so that only the region says which one is meant.

As in the real sets a caption names an object, its relation to another and the scene, and each of nine wrong captions
changes one of the three. Another object of the picture is among the swaps.
"""

import io
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import PIL.Image
import PIL.ImageDraw
import pyarrow as pa

from data_prep.miniatures.studio import Studio
from data_prep.source import SourceSet

PICTURES, OBJECTS = 4, 3
SIZE = (112, 84)
SIDE = 24
COLOURS = {"red": (220, 40, 40), "green": (40, 180, 60), "blue": (50, 80, 220), "yellow": (230, 210, 50)}
SHAPES = ("circle", "square", "triangle")
SCENES = {"grass": (150, 190, 120), "sand": (225, 205, 160), "water": (140, 180, 215), "brick": (190, 130, 110)}
RELATIONS = ("left of", "right of", "above", "below")
QUERY = (
    "<|image_1|>\nFind the caption that best describes the segmented object, considering both local details and global "
    "context in the given image."
)
NUMBERS, TEXTS = pa.list_(pa.float64()), pa.list_(pa.string())
TRAIN = pa.schema(
    [
        *((name, pa.string()) for name in ("qry", "qry_image_path", "pos_text", "pos_image_path")),
        *(("neg_text", TEXTS), ("bbox", NUMBERS), ("segmentation", pa.list_(NUMBERS))),
        *(("category", pa.string()), ("image_id", pa.int64())),
    ]
)
EVAL = pa.schema([("qry_text", pa.string()), ("qry_image_path", pa.string()), ("bbox", NUMBERS), ("tgt_text", TEXTS)])


@dataclass(frozen=True)
class Drawn:
    """An object of a picture.

    Args:
        name: its colour and shape.
        centre: of it, in pixels.
        outline: its corners, ``x, y, x, y, ...``.
    """

    name: str
    centre: tuple[float, float]
    outline: tuple[float, ...]

    @property
    def bbox(self) -> list[float]:
        """``x, y, width, height``, as COCO stores a box."""
        xs, ys = self.outline[::2], self.outline[1::2]
        return [min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys)]


@dataclass(frozen=True)
class Shot:
    """A picture: where its file lies, its scene and its objects."""

    path: str
    scene: str
    objects: tuple[Drawn, ...]

    def captions(self, number: int) -> list[str]:
        """The right caption of an object, then three wrong objects, three wrong relations and three wrong scenes."""
        it, other = self.objects[number], self.objects[(number + 1) % len(self.objects)]
        there = [drawn.name for drawn in self.objects]
        absent = [name for name in _names() if name not in there]
        # an object that is there too, and whose caption is wrong all the same
        objects = [*(name for name in there if name not in (it.name, other.name)), *absent[:2]]
        relation = relation_of(it, other)
        relations = [word for word in RELATIONS if word != relation]
        scenes = [scene for scene in SCENES if scene != self.scene]
        ways = [(it.name, relation, self.scene), *((name, relation, self.scene) for name in objects)]
        ways += [(it.name, word, self.scene) for word in relations]
        ways += [(it.name, relation, scene) for scene in scenes]
        return [f"{name} {word} {other.name} on {scene}" for name, word, scene in ways]


def scar_pairs(row: SourceSet, studio: Studio) -> None:
    """The rows and pictures of a set of SCaR-train; those of ADE20K bring no wrong captions, as the schema allows."""
    shots = _shots(row, studio)
    rows = [_train_row(shot, number, i) for i, shot in enumerate(shots) for number in range(OBJECTS)]
    names = [name for name in TRAIN.names if name != "neg_text" or row.name != "ADE20K"]
    schema = pa.schema([TRAIN.field(name) for name in names])
    rows = [{name: record[name] for name in names} for record in rows]
    studio.parquet(studio.repo(row.repo) / f"SCAR_{row.name}.parquet", rows, schema)


def scar_ranked(row: SourceSet, studio: Studio) -> None:
    """The rows and pictures of a set of SCaR-eval."""
    rows = [
        {
            "qry_text": QUERY,
            "qry_image_path": shot.path,
            "bbox": shot.objects[number].bbox,
            "tgt_text": shot.captions(number),
        }
        for shot in _shots(row, studio)
        for number in range(OBJECTS)
    ]
    studio.parquet(studio.repo(row.repo) / f"SCaR_eval_{row.name}.parquet", rows, EVAL)


def relation_of(it: Drawn, other: Drawn) -> str:
    """Where one object is, seen from another: along the axis on which they are further apart."""
    dx, dy = it.centre[0] - other.centre[0], it.centre[1] - other.centre[1]
    if abs(dx) >= abs(dy):
        return "left of" if dx < 0 else "right of"
    return "above" if dy < 0 else "below"


def _shots(row: SourceSet, studio: Studio) -> list[Shot]:
    folder = row.options["roots"][0]
    return [_draw(f"{row.repo} {row.name} {i}", f"{folder}/{i}.jpg", row, studio) for i in range(PICTURES)]


def _draw(seed: str, path: str, row: SourceSet, studio: Studio) -> Shot:
    draws = random.Random(seed)
    scene = draws.choice(list(SCENES))
    picture = PIL.Image.new("RGB", SIZE, SCENES[scene])
    brush = PIL.ImageDraw.Draw(picture)
    # a grid of cells that objects fit into without touching
    cells = draws.sample([(x, y) for x in range(4) for y in range(3)], OBJECTS)
    objects = []
    for name, (column, line) in zip(draws.sample(_names(), OBJECTS), cells, strict=True):
        x, y = column * 28 + 2 + draws.randrange(3), line * 28 + 2 + draws.randrange(3)
        colour, shape = name.split()
        outline = _outline(shape, float(x), float(y), float(draws.randrange(16, SIDE)))
        brush.polygon(outline, fill=COLOURS[colour])
        xs, ys = outline[::2], outline[1::2]
        objects.append(Drawn(name, ((min(xs) + max(xs)) / 2, (min(ys) + max(ys)) / 2), outline))
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=95)
    studio.write(studio.repo(row.repo) / path, file.getvalue())
    return Shot(path.removeprefix("images/"), scene, tuple(objects))


def _outline(shape: str, x: float, y: float, side: float) -> tuple[float, ...]:
    if shape == "square":
        return (x, y, x + side, y, x + side, y + side, x, y + side)
    if shape == "triangle":
        return (x + side / 2, y, x + side, y + side, x, y + side)
    cut = side / 4
    return (
        *(x + cut, y, x + side - cut, y, x + side, y + cut, x + side, y + side - cut),
        *(x + side - cut, y + side, x + cut, y + side, x, y + side - cut, x, y + cut),
    )


def _train_row(shot: Shot, number: int, image_id: int) -> dict[str, Any]:
    right, *wrong = shot.captions(number)
    drawn = shot.objects[number]
    return {
        "qry": QUERY, "qry_image_path": shot.path, "pos_text": right, "pos_image_path": "", "neg_text": wrong,
        "bbox": drawn.bbox, "segmentation": [list(drawn.outline)], "category": drawn.name, "image_id": image_id,
    }  # fmt: skip


def _names() -> list[str]:
    return [f"{colour} {shape}" for colour in COLOURS for shape in SHAPES]


MINIATURES: dict[str, Callable[[SourceSet, Studio], None]] = {"scar_pairs": scar_pairs, "scar_ranked": scar_ranked}
"""What draws the repository of a set, by the name of its converter."""
