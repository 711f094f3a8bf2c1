"""Files in the layout of a publisher, drawn small: pictures, frames, clips, tables and archives."""

import io
import json
import random
import tarfile
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import PIL.Image
import PIL.ImageDraw
import pyarrow as pa
import pyarrow.parquet as pq

SIDE = 56
ROWS = 12
"""Rows of a miniature set, where nothing else decides."""


def draw(seed: str, size: tuple[int, int] = (SIDE, SIDE)) -> PIL.Image.Image:
    """A picture that differs from that of any other seed."""
    rng = random.Random(seed)
    picture = PIL.Image.new("RGB", size, tuple(rng.randrange(256) for _ in range(3)))
    brush = PIL.ImageDraw.Draw(picture)
    for _ in range(3):
        x, y = rng.randrange(size[0]), rng.randrange(size[1])
        color = tuple(rng.randrange(256) for _ in range(3))
        brush.rectangle((x, y, x + rng.randrange(6, SIDE), y + rng.randrange(6, SIDE)), fill=color)
    return picture


def encoded(seed: str, suffix: str = ".png", size: tuple[int, int] = (SIDE, SIDE)) -> bytes:
    """The bytes of a drawn picture as a file of that suffix."""
    buffer = io.BytesIO()
    draw(seed, size).save(buffer, {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG"}[suffix.lower()])
    return buffer.getvalue()


@dataclass(frozen=True)
class Studio:
    """Draws below a folder that stands for the Hub: ``owner/name`` is a repository's clone."""

    root: Path

    def repo(self, name: str) -> Path:
        """The clone of a repository."""
        return self.root / name

    def picture(self, path: Path, seed: str = "", size: tuple[int, int] = (SIDE, SIDE)) -> None:
        """A picture file; its path is the seed where none is given."""
        self.write(path, encoded(seed or str(path.relative_to(self.root)), path.suffix, size))

    def frames(self, folder: Path, count: int, pattern: str = "frame_{:04d}.jpg", first: int = 1) -> None:
        """A folder of frames, numbered as the publisher numbers them."""
        for number in range(first, first + count):
            self.picture(folder / pattern.format(number))

    def clip(self, path: Path, frames: int = 12, fps: int = 4) -> None:
        """An H.264 clip."""
        path.parent.mkdir(parents=True, exist_ok=True)
        with av.open(str(path), "w") as container:
            stream = container.add_stream("libx264", rate=Fraction(fps), options={"preset": "ultrafast"})
            stream.width = stream.height = SIDE
            stream.pix_fmt = "yuv420p"
            for number in range(frames):
                picture = draw(f"{path.name} {number}")
                container.mux(stream.encode(av.VideoFrame.from_image(picture)))
            container.mux(stream.encode())

    def parquet(self, path: Path, rows: Sequence[Mapping[str, Any]], schema: pa.Schema | None = None) -> None:
        """A Parquet file of rows."""
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.Table.from_pylist(list(rows), schema=schema), path)

    def jsonl(self, path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
        """A file of JSON lines."""
        self.write(path, "".join(json.dumps(row) + "\n" for row in rows).encode())

    def archive(self, path: Path, folder: Path, parts: int = 1) -> None:
        """Pack what lies in a folder, as .zip or .tar.gz by the suffix; several parts are the pieces of one archive."""
        path.parent.mkdir(parents=True, exist_ok=True)
        files = sorted(file for file in folder.rglob("*") if file.is_file())
        if path.suffix == ".zip":
            with zipfile.ZipFile(path, "w") as archive:
                for file in files:
                    archive.write(file, file.relative_to(folder))
            return
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w:gz") as packed:
            for file in files:
                packed.add(file, file.relative_to(folder))
        data = buffer.getvalue()
        if parts == 1:
            self.write(path, data)
            return
        size = -(-len(data) // parts)
        for number in range(parts):
            self.write(path.with_name(f"{path.name}-{number:02d}"), data[number * size : (number + 1) * size])

    def write(self, path: Path, data: bytes) -> None:
        """A file of these bytes."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
