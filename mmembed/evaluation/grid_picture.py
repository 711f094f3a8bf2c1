"""A grid as one picture: rows of small pictures in coloured frames, with what is asked beside them."""

from collections.abc import Mapping, Sequence

import PIL.Image
import PIL.ImageDraw
import PIL.ImageFont

from mmembed.evaluation.grid import Grid, Row, Tile
from mmembed.evaluation.thumbnails import Shown

PAPER, SHEET, INK, SOFT, WELL = (246, 245, 242), (255, 255, 255), (29, 33, 38), (89, 97, 108), (240, 238, 234)
FRAMES = {
    "query": (42, 111, 151),
    "right": (31, 122, 74),
    "reference": (107, 127, 153),
    "other": (227, 224, 217),
}
"""Colours of frames: the reference, right targets, the reference among the targets, all others."""
SIDE, SMALL, FRAME, GAP, LABEL, WORDS, MARGIN = 148, 96, 4, 10, 20, 250, 24
"""Pixels: sides of tiles, their frames, what is between them, below them, the column of words, and around all."""
TEXT_PX, SMALL_PX, TITLE_PX = 14, 12, 22
KEYS = 360
"""Pixels that the keys of the legend need."""

Font = PIL.ImageFont.FreeTypeFont | PIL.ImageFont.ImageFont


def grid_picture(grid: Grid, title: str, legend: str) -> PIL.Image.Image:
    """Draw a grid.

    Args:
        grid: what to draw.
        title: above it.
        legend: below the title, in words.
    """
    columns = max(len(row.tiles) + (row.missing is not None) for row in grid.rows)
    spare = GAP if any(row.missing for row in grid.rows) else 0
    width = 2 * MARGIN + 2 * GAP + SIDE + GAP + WORDS + (SIDE + GAP) * max(columns, 3) + spare
    width = max(width, 2 * MARGIN + KEYS + round(_font(SMALL_PX).getlength(legend)))
    heights = [_height(row) for row in grid.rows]
    top = MARGIN + TITLE_PX + 44
    sheet = PIL.Image.new("RGB", (width, top + sum(heights) + GAP * len(heights) + MARGIN), PAPER)
    pen = PIL.ImageDraw.Draw(sheet)
    pen.text((MARGIN, MARGIN), title, INK, _font(TITLE_PX, bold=True))
    keys = {"query": "reference", "right": "right", "reference": "the reference among the targets"}
    if all(row.value is None for row in grid.rows):
        del keys["right"]
    _draw_legend(pen, MARGIN, MARGIN + TITLE_PX + 12, keys, legend)
    for row, height in zip(grid.rows, heights, strict=True):
        pen.rounded_rectangle((MARGIN, top, width - MARGIN, top + height), 6, SHEET)
        _draw_row(sheet, pen, row, MARGIN + GAP, top + GAP)
        top += height + GAP
    return sheet


def _height(row: Row) -> int:
    below = SMALL + LABEL + GAP if row.own else 0
    return 2 * GAP + max(SIDE + LABEL + below, _words_height(row))


def _words_height(row: Row) -> int:
    return sum(_line_height(size) for _, size, _, _ in _lines_of(row))


def _draw_legend(pen: PIL.ImageDraw.ImageDraw, x: int, y: int, keys: Mapping[str, str], words: str) -> None:
    for kind, called in keys.items():
        pen.rectangle((x, y + 2, x + 11, y + 13), outline=FRAMES[kind], width=3)
        pen.text((x + 17, y), called, SOFT, _font(SMALL_PX))
        x += 17 + round(pen.textlength(called, _font(SMALL_PX))) + 18
    pen.text((x, y), words, SOFT, _font(SMALL_PX))


def _draw_row(sheet: PIL.Image.Image, pen: PIL.ImageDraw.ImageDraw, row: Row, x: int, y: int) -> None:
    if row.parts:
        _draw_tile(sheet, pen, row.parts, (x, y), SIDE, "query")
    pen.text((x, y + SIDE + 3), _cut(pen, row.query_id, SIDE, _font(SMALL_PX)), SOFT, _font(SMALL_PX))
    x += SIDE + GAP
    _draw_words(pen, row, x, y)
    x += WORDS + GAP
    for place, tile in enumerate(row.tiles):
        _draw_target(sheet, pen, tile, (x + place * (SIDE + GAP), y), SIDE)
    if row.missing is not None:
        place = x + len(row.tiles) * (SIDE + GAP)
        pen.line((place, y, place, y + SIDE + LABEL), FRAMES["other"], 2)
        _draw_target(sheet, pen, row.missing, (place + GAP, y), SIDE)
    second = y + SIDE + LABEL + GAP
    if row.own and _words_height(row) <= SIDE + LABEL:
        pen.text((x - GAP, second), "its own candidates", SOFT, _font(SMALL_PX), anchor="ra")
    for place, tile in enumerate(row.own):
        _draw_target(sheet, pen, tile, (x + place * (SMALL + GAP), second), SMALL)


def _draw_words(pen: PIL.ImageDraw.ImageDraw, row: Row, x: int, y: int) -> None:
    for line, size, colour, bold in _lines_of(row):
        pen.text((x, y), line, colour, _font(size, bold=bold))
        y += _line_height(size)


def _lines_of(row: Row) -> list[tuple[str, int, tuple[int, int, int], bool]]:
    """Lines of the column of words: text, size, colour, bold."""
    found = []
    for place, (called, text) in enumerate(row.texts):
        size, colour = (TEXT_PX, INK) if place == 0 or not called else (SMALL_PX, SOFT)
        words = f"{called}: {text}" if called else text
        found += [(line, size, colour, False) for line in _wrapped(words, WORDS - GAP, _font(size))]
    if row.result:
        found.append((row.result, SMALL_PX, FRAMES["query"], True))
    groups = ", ".join(value for values in row.groups.values() for value in values)
    found += [(line, SMALL_PX, SOFT, False) for line in _wrapped(groups, WORDS - GAP, _font(SMALL_PX))]
    return found


def _line_height(size: int) -> int:
    return round(1.35 * size)


def _draw_target(
    sheet: PIL.Image.Image, pen: PIL.ImageDraw.ImageDraw, tile: Tile, at: tuple[int, int], side: int
) -> None:
    _draw_tile(sheet, pen, tile.parts, at, side, tile.kind)
    font, y = _font(SMALL_PX), at[1] + side + 3
    colour = FRAMES["right"] if tile.kind == "right" else SOFT
    pen.text((at[0], y), tile.place, colour, _font(SMALL_PX, bold=tile.kind == "right"))
    if tile.score is not None:
        score = f"{tile.score:.3f}"
        pen.text((at[0] + side - pen.textlength(score, font), y), score, SOFT, font)


def _draw_tile(
    sheet: PIL.Image.Image,
    pen: PIL.ImageDraw.ImageDraw,
    parts: Sequence[Shown],
    at: tuple[int, int],
    side: int,
    kind: str,
) -> None:
    """A picture in its frame, or the words of what has none."""
    x, y = at
    pen.rectangle((x, y, x + side - 1, y + side - 1), WELL, FRAMES[kind], 1 if kind == "other" else FRAME)
    inner = side - 2 * (FRAME + 2)
    picture = next((picture for part in parts for picture in part.pictures), None)
    if picture is not None:
        small = picture.open()
        scale = min(inner / small.width, inner / small.height)
        size = max(1, round(small.width * scale)), max(1, round(small.height * scale))
        resample = PIL.Image.Resampling.NEAREST if scale > 2 else PIL.Image.Resampling.LANCZOS
        small = small.resize(size, resample)
        sheet.paste(small, (x + (side - size[0]) // 2, y + (side - size[1]) // 2))
        return
    words = " ".join(part.text for part in parts)
    lines = _wrapped(words, inner - 8, _font(SMALL_PX))[: (inner - 8) // _line_height(SMALL_PX)]
    for place, line in enumerate(lines):
        pen.text((x + FRAME + 4, y + FRAME + 4 + place * _line_height(SMALL_PX)), line, INK, _font(SMALL_PX))


def _wrapped(text: str, width: int, font: Font) -> list[str]:
    """The text in lines of at most ``width`` pixels; a word that is longer is cut."""
    lines: list[str] = []
    for word in text.split():
        joined = f"{lines[-1]} {word}" if lines else word
        if lines and font.getlength(joined) <= width:
            lines[-1] = joined
            continue
        while font.getlength(word) > width and len(word) > 1:
            fits = next(n for n in range(len(word) - 1, 0, -1) if font.getlength(word[:n]) <= width or n == 1)
            lines.append(word[:fits])
            word = word[fits:]
        lines.append(word)
    return lines


def _cut(pen: PIL.ImageDraw.ImageDraw, text: str, width: int, font: Font) -> str:
    if pen.textlength(text, font) <= width:
        return text
    while text and pen.textlength(f"{text}…", font) > width:
        text = text[:-1]
    return f"{text}…"


_fonts: dict[tuple[int, bool], Font] = {}


def _font(size: int, *, bold: bool = False) -> Font:
    """DejaVu, which has most scripts, else the one that Pillow brings."""
    if (size, bold) not in _fonts:
        try:
            _fonts[size, bold] = PIL.ImageFont.truetype(f"DejaVuSans{'-Bold' if bold else ''}.ttf", size)
        except OSError:
            _fonts[size, bold] = PIL.ImageFont.load_default(size)
    return _fonts[size, bold]
