"""The workload of ``scripts/bench.py`` that needs no model: rows as published become a retrieval set.

Both ways run in a process of their own, whose most memory is theirs alone. Import from a command that has put the
repository on the path.
"""

import shutil
import tempfile
import weakref
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import PIL.Image
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

from data_prep.converters import Media
from data_prep.converters.registry import CONVERTERS
from data_prep.engine.upstream_rows import read_rows
from data_prep.engine.write_sets import write_ranked
from data_prep.source import SourceSet
from mmembed.evaluation.retrieval_set import read_retrieval_set

FOLDER_FILES = 1000
PROMPT = "<|image_1|>\nRepresent the given image."
SET = SourceSet("parsed", "image_t2i", "made", options={"query": "Find it: {text}", "target": PROMPT})
ROWS, MEDIA = "rows.parquet", "media"
FIELDS = ("qry_inst", "qry_text", "qry_img_path", "tgt_inst", "tgt_text", "tgt_img_path")
LISTS = ("tgt_text", "tgt_img_path")


@dataclass(frozen=True)
class Candidates:
    """A set in which every query ranks pictures of its own.

    Args:
        queries: rows.
        each: candidates of a query.
        distinct: pictures, by their names.
    """

    queries: int
    each: int
    distinct: int

    def draw(self, folder: Path) -> None:
        """The rows in the columns of MMEB_Test_Instruct, and a file for every picture: one folder by many names."""
        first = folder / MEDIA / "pictures/0"
        first.mkdir(parents=True)
        for number in range(min(self.distinct, FOLDER_FILES)):
            PIL.Image.new("RGB", (1, 1)).save(first / f"{number:03d}.png")
        for number in range(1, -(-self.distinct // FOLDER_FILES)):
            (first.parent / str(number)).symlink_to("0")
        schema = pa.schema([(name, pa.list_(pa.string()) if name in LISTS else pa.string()) for name in FIELDS])
        with pq.ParquetWriter(folder / ROWS, schema) as writer:
            for number in range(self.queries):
                writer.write_table(pa.Table.from_pylist([self._row(number)], schema=schema))

    def _row(self, number: int) -> dict[str, Any]:
        places = [(number * self.each + i) % self.distinct for i in range(self.each)]
        paths = [f"pictures/{place // FOLDER_FILES}/{place % FOLDER_FILES:03d}.png" for place in places]
        words = {"qry_inst": "Find it:", "qry_text": f"number {number}", "qry_img_path": "", "tgt_inst": PROMPT}
        return words | {"tgt_text": [""] * self.each, "tgt_img_path": paths}


def ours(folder: Path) -> Tensor:
    """Convert the rows, write the set, and read it as an evaluation does: places of candidates in the corpus."""
    media = Media(folder / MEDIA, folder / MEDIA / "made")
    ranked = CONVERTERS[SET.converter].ranked
    assert ranked is not None
    write_ranked(folder / SET.name, ranked({"rows": read_rows([folder / ROWS])}, SET, media))
    made = read_retrieval_set(folder / SET.name)
    places = {name: place for place, name in enumerate(made.corpus)}
    return torch.tensor([[places[name] for name in own] for own in (made.candidates or {}).values()])


def plain(folder: Path) -> Tensor:
    """The published way: texts, pictures and names of all candidates of all queries, then the first of each name."""
    records = []
    for row in pq.read_table(folder / ROWS).to_pylist():
        words = row["tgt_inst"].replace("<|image_1|>", "")
        text = f"<|image_pad|> {words}".replace(" \n", "\n") + "\n"
        files = [str(folder / MEDIA / path) for path in row["tgt_img_path"]]
        pictures = [{"bytes": [None], "paths": [file], "resolutions": [None]} for file in files]
        records.append(([text] * len(files), pictures, row["tgt_img_path"]))
    corpus: list[dict[str, Any]] = []
    places: dict[str, int] = {}
    for texts, pictures, names in records:
        for text, picture, name in zip(texts, pictures, names, strict=True):
            if name not in places:
                places[name] = len(corpus)
                corpus.append({"cand_text": [text], "cand_image": [picture], "dataset_infos": {"cand_name": name}})
    return torch.tensor([[places[name] for name in names] for _, _, names in records])


@dataclass
class Apart:
    """Work on a drawn set in a process of its own, which lives as long as this does.

    Args:
        work: what is done with the folder of the set.
        candidates: the set.
        peak_mb: the most memory of the process so far, in MiB.
    """

    work: Callable[[Path], Tensor]
    candidates: Candidates
    peak_mb: float = 0.0
    _started: tuple[ProcessPoolExecutor, Path] | None = field(default=None, repr=False)

    def __call__(self) -> Tensor:
        """Do the work; the first time draws the set and starts the process."""
        if self._started is None:
            folder, process = Path(tempfile.mkdtemp()), ProcessPoolExecutor(1, mp_context=get_context("spawn"))
            weakref.finalize(self, _end, process, folder)
            self.candidates.draw(folder)
            self._started = process, folder
        process, folder = self._started
        places, self.peak_mb = process.submit(_watched, self.work, folder).result()
        return places


def _end(process: ProcessPoolExecutor, folder: Path) -> None:
    process.shutdown()
    shutil.rmtree(folder)


def _watched(work: Callable[[Path], Tensor], folder: Path) -> tuple[Tensor, float]:
    places = work(folder)
    # not getrusage, whose peak a new process inherits from the one that started it
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return places, int(status["VmHWM"].split()[0]) / 2**10
