"""A folder of pictures and a CSV drawn, and the tables and sets made of them: one's own data, small."""

import csv
import io
from pathlib import Path

from PIL import Image, ImageDraw

from data_prep.own.made import Choice, Made, make
from data_prep.own.rows import Columns
from mmembed.files import write_text

GROUNDS = ("white", "black", "pink", "grey")
COLOURS = ("red", "green", "blue", "yellow", "purple", "orange")
SHAPES = ("square", "circle", "bar")
SIDE = 56


def draw_own_data(root: Path) -> Made:
    """Draw a picture of each shape in each colour on each ground below ``root``, and make tables of them there."""
    folder = root / "own"
    (folder / "pictures").mkdir(parents=True, exist_ok=True)
    table = io.StringIO(newline="")
    rows = csv.writer(table)
    rows.writerow(["file", "title"])
    for ground in GROUNDS:
        for colour in COLOURS:
            for shape in SHAPES:
                name = f"{colour}-{shape}-on-{ground}.png"
                if not (folder / "pictures" / name).is_file():
                    draw(shape, colour, ground).save(folder / "pictures" / name)
                rows.writerow([name, f"a {colour} {shape} on {ground}"])
    write_text(folder / "products.csv", table.getvalue())
    return make(Choice(folder / "pictures", folder / "products.csv", Columns("file", ("title",))), root)


def draw(shape: str, colour: str, ground: str, at: tuple[int, int] = (10, 10)) -> Image.Image:
    """A picture of a shape."""
    picture = Image.new("RGB", (SIDE, SIDE), ground)
    pen, (x, y) = ImageDraw.Draw(picture), at
    if shape == "circle":
        pen.ellipse((x, y, x + 32, y + 32), fill=colour)
    else:
        pen.rectangle((x, y, x + 32, y + 32) if shape == "square" else (x, y + 12, x + 32, y + 20), fill=colour)
    return picture
