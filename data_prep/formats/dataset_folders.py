"""Folders that ``datasets.Dataset.save_to_disk`` writes: rows as plain values, pictures undecoded."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import datasets
from datasets.arrow_writer import ArrowWriter

from data_prep.formats import Record
from mmembed.errors import InputError
from mmembed.files import whole_directory, whole_file

_BATCH_ROWS = 32


def open_folder(path: Path) -> datasets.Dataset:
    """The dataset of a folder; its rows stay on the disk.

    Raises:
        InputError: it is none, or one of several splits.
    """
    remedy = "name the folder that save_to_disk wrote"
    try:
        found = datasets.load_from_disk(str(path))
    except (OSError, ValueError) as error:
        got = " ".join(str(error).split())[:160]
        raise InputError(path, expected="a folder of datasets.Dataset.save_to_disk", got=got, remedy=remedy) from error
    if not isinstance(found, datasets.Dataset):
        got, remedy = f"the splits {', '.join(found)}", f"name one of them: {path / next(iter(found), '')}"
        raise InputError(path, expected="one dataset", got=got, remedy=remedy)
    return found


def rows_of_folder(path: Path) -> Iterator[tuple[str, Record]]:
    """The rows of a dataset with their places; pictures as ``{"bytes", "path"}``."""
    number = 0
    for batch in open_folder(path).with_format("arrow").iter(_BATCH_ROWS):
        for row in batch.to_pylist():
            yield f"{path}: row {number}", row
            number += 1


def rows_in_folder(path: Path) -> int:
    """How many rows a dataset has."""
    return len(open_folder(path))


def write_dataset(path: Path, rows: Iterator[Record], features: dict[str, Any]) -> None:
    """Write rows as a folder of a dataset, or as Parquet by the suffix; whole or not at all.

    Args:
        path: of the folder or file.
        rows: streamed to the disk, and copied there once.
        features: of ``datasets``, by column.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as folder, _no_bars():
        raw = Path(folder) / "rows.arrow"
        with ArrowWriter(path=str(raw), features=datasets.Features(features)) as writer:
            for row in rows:
                writer.write(dict(row))
            writer.finalize()
        found = datasets.Dataset.from_file(str(raw))
        if path.suffix == ".parquet":
            with whole_file(path) as part:
                found.to_parquet(part)
        else:
            with whole_directory(path) as part:
                found.save_to_disk(str(part))


@contextmanager
def _no_bars() -> Iterator[None]:
    """No progress bars of the library: the command has its own."""
    shown = datasets.utils.logging.is_progress_bar_enabled()
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        if shown:
            datasets.enable_progress_bars()
