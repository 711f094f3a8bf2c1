"""Rows as published become a retrieval set; the model has no part in it.

Both ways run in a process of their own, whose most memory is theirs alone.
"""

import shutil
import tempfile
import weakref
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any

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
from scripts.benchmark.memory import Memory, peak_memory
from scripts.benchmark.sizes import Parsed

if TYPE_CHECKING:
    from scripts.benchmark.bench import Bench
    from scripts.benchmark.measuring import Comparison

FOLDER_FILES = 1000
PROMPT = "<|image_1|>\nRepresent the given image."
SET = SourceSet("parsed", "image_t2i", "made", options={"query": "Find it: {text}", "target": PROMPT})
ROWS, MEDIA = "rows.parquet", "media"
FIELDS = ("qry_inst", "qry_text", "qry_img_path", "tgt_inst", "tgt_text", "tgt_img_path")
LISTS = ("tgt_text", "tgt_img_path")


def candidates(bench: "Bench") -> "Comparison":
    """Published rows to a retrieval set that an evaluation has read."""
    # not for the processes of their own: it would be most of their memory
    from scripts.benchmark.measuring import Comparison

    return Comparison(Apart(ours, bench.size.parsed), Apart(plain, bench.size.parsed))


def draw(parsed: Parsed, folder: Path) -> None:
    """The rows in the columns of MMEB_Test_Instruct, and a file for every picture: one folder by many names."""
    first = folder / MEDIA / "pictures/0"
    first.mkdir(parents=True)
    for number in range(min(parsed.distinct, FOLDER_FILES)):
        PIL.Image.new("RGB", (1, 1)).save(first / f"{number:03d}.png")
    for number in range(1, -(-parsed.distinct // FOLDER_FILES)):
        (first.parent / str(number)).symlink_to("0")
    schema = pa.schema([(name, pa.list_(pa.string()) if name in LISTS else pa.string()) for name in FIELDS])
    with pq.ParquetWriter(folder / ROWS, schema) as writer:
        for number in range(parsed.queries):
            writer.write_table(pa.Table.from_pylist([_row(parsed, number)], schema=schema))


def _row(parsed: Parsed, number: int) -> dict[str, Any]:
    places = [(number * parsed.each + i) % parsed.distinct for i in range(parsed.each)]
    paths = [f"pictures/{place // FOLDER_FILES}/{place % FOLDER_FILES:03d}.png" for place in places]
    words = {"qry_inst": "Find it:", "qry_text": f"number {number}", "qry_img_path": "", "tgt_inst": PROMPT}
    return words | {"tgt_text": [""] * parsed.each, "tgt_img_path": paths}


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
        parsed: sizes of the set.
        memory: of the process in the first run; None before.
    """

    work: Callable[[Path], Tensor]
    parsed: Parsed
    memory: Memory | None = None
    _started: tuple[ProcessPoolExecutor, Path] | None = field(default=None, repr=False)

    def __call__(self) -> Tensor:
        """Do the work; the first time draws the set and starts the process."""
        if self._started is None:
            folder, process = Path(tempfile.mkdtemp()), ProcessPoolExecutor(1, mp_context=get_context("spawn"))
            weakref.finalize(self, _end, process, folder)
            draw(self.parsed, folder)
            self._started = process, folder
        process, folder = self._started
        places, memory = process.submit(_watched, self.work, folder).result()
        self.memory = self.memory or memory
        return places


def _end(process: ProcessPoolExecutor, folder: Path) -> None:
    process.shutdown()
    shutil.rmtree(folder)


def _watched(work: Callable[[Path], Tensor], folder: Path) -> tuple[Tensor, Memory]:
    with peak_memory() as memory:
        places = work(folder)
    return places, memory
