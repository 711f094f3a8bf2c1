"""Seeded inputs of the workloads: words, pictures, clips and pages."""

import io
import random
from collections.abc import Sequence

import numpy as np
import PIL.Image
import PIL.ImageDraw

from mmembed import Item, Video
from mmembed.items import Image
from scripts.benchmark.sizes import Mixed

# fmt: off
WORDS = (
    "a", "the", "red", "green", "blue", "small", "large", "circle", "square", "cross", "left", "right", "of", "near",
)
# fmt: on
TOKENIZER_TEXTS = (*(f"{word} {word}" for word in WORDS), "system\nYou are a helpful assistant.\nuser\nassistant")
"""What the tokenizer learns: each word becomes one token, at the beginning and after a space, and those of the chat
template too."""
DUPLICATES = 0.3
KINDS = ("text", "text", "text", "text", "picture", "picture", "picture", "question", "clip", "page")
"""Of ten mixed inputs."""


def words(rng: random.Random, number: int) -> str:
    """So many words."""
    return " ".join(rng.choices(WORDS, k=number))


def noise(pixels: int, seed: int) -> PIL.Image.Image:
    """A square picture of random pixels."""
    return PIL.Image.fromarray(np.random.default_rng(seed).integers(0, 256, (pixels, pixels, 3), dtype=np.uint8))


def soft(width: int, height: int, seed: int) -> PIL.Image.Image:
    """A picture of soft spots, which a JPEG file keeps as small as a photograph."""
    return noise(16, seed).resize((width, height), PIL.Image.Resampling.BICUBIC)


def jpeg(picture: PIL.Image.Image) -> bytes:
    """The picture as a file."""
    held = io.BytesIO()
    picture.save(held, "JPEG", quality=90)
    return held.getvalue()


def page(size: tuple[int, int], rng: random.Random) -> bytes:
    """A page of a document, rendered and kept as a file."""
    width, height = size
    sheet = PIL.Image.new("RGB", size, "white")
    pen = PIL.ImageDraw.Draw(sheet)
    for top in range(8, height - 16, 24):
        pen.text((8, top), words(rng, max(1, width // 60)), fill="black")
    return jpeg(sheet)


def mixed_items(bounds: Mixed, rows: int, seed: int) -> list[Item]:
    """Texts, pictures, pictures with a text, clips and pages, some of them twice, in a random order."""
    rng = random.Random(seed)
    distinct = rows - round(DUPLICATES * rows)
    made = [_mixed_item(KINDS[i % len(KINDS)], bounds, rng) for i in range(distinct)]
    made += rng.choices(made, k=rows - distinct)
    rng.shuffle(made)
    return made


def mixed_texts(bounds: Mixed, rows: int, seed: int) -> list[Item]:
    """Texts of the lengths of the mixed inputs, some of them twice."""
    rng = random.Random(seed)
    distinct = rows - round(DUPLICATES * rows)
    made = [_mixed_item("text", bounds, rng) for _ in range(distinct)]
    return made + rng.choices(made, k=rows - distinct)


def texts_of_one_length(rows: int, number: int, seed: int) -> list[Item]:
    """Texts of so many words, each a token."""
    rng = random.Random(seed)
    return [Item.of(words(rng, number)) for _ in range(rows)]


def clip(frames: int, side: int, seed: int) -> list[PIL.Image.Image]:
    """Frames of spots that move."""
    canvas = soft(side + 8 * frames, side, seed)
    return [canvas.crop((8 * i, 0, 8 * i + side, side)) for i in range(frames)]


def opened(source: object) -> PIL.Image.Image:
    """A picture as the plain way opens it."""
    return PIL.Image.open(io.BytesIO(source)).convert("RGB") if isinstance(source, bytes) else source  # type: ignore[return-value]


def fingerprints(items: Sequence[Item]) -> set[str]:
    """The names of the distinct items."""
    return {item.fingerprint() for item in items}


def _mixed_item(kind: str, bounds: Mixed, rng: random.Random) -> Item:
    text = words(rng, rng.randint(*bounds.tokens))
    if kind == "text":
        return Item.of(text)
    if kind == "clip":
        frames, side = bounds.clip
        return Item.of(Video(tuple(clip(frames, side, rng.getrandbits(32)))))
    if kind == "page":
        return Item.of(Image(page(bounds.page, rng)))
    picture = jpeg(soft(rng.randint(*bounds.sides), rng.randint(*bounds.sides), rng.getrandbits(32)))
    return Item.of({"image": picture, "text": text} if kind == "question" else Image(picture))
