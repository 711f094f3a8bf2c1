"""Turn a mixture of VLM2Vec into a `mixture:` of ours, or one of its evaluations into tasks of our benchmarks.

Reads the YAML of the published code (`dataset_parser`, `num_sample_per_subset`, `image_dir`, ...) and prints YAML; what
to prepare for it stands before, as comments. Folders of the published file are left out: prepared data have their own.
"""

import argparse
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path, PurePosixPath
from typing import Any, TypeAlias

import yaml

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from data_prep.commands import sets_by_source  # noqa: E402
from data_prep.source import SourceSet, resolve  # noqa: E402
from mmembed.errors import InputError, nearest  # noqa: E402
from mmembed.evaluation.benchmark import Task, read_benchmark  # noqa: E402
from mmembed.settings import load_yaml  # noqa: E402

EXAMPLE = """examples:
  python scripts/import_upstream.py train_alltasks.yaml > mixture.yaml
  python scripts/import_upstream.py video.yaml"""

Entry: TypeAlias = Mapping[str, Any]
Facts: TypeAlias = Mapping[str, Callable[[SourceSet], Any]]
"""Keys of an entry that tell which set it means, and what each must be for a set."""

COMMON = ("dataset_parser", "dataset_name", "dataset_split", "weight", "num_sample_per_subset", "num_rows",
          "global_dataset_name")  # fmt: skip
"""Keys that every parser knows; the last two decide nothing."""
NOT_HERE = ("beir", "berri", "gui", "mteb_cluster", "mteb_training", "video_classification")
"""Parsers of the published code that no source of ours corresponds to."""
EVALUATION_KEYS = (
    *("dataset_parser", "dataset_name", "dataset_split", "eval_type", "num_sample_per_subset", "num_negative_clips"),
    *("image_root", "video_root", "clip_root", "frame_root"),
    *("num_frames", "num_video_frames", "num_clip_frames"),
    *("max_frames_saved", "max_video_frames_saved", "max_clip_frames_saved"),
)
"""Keys of an evaluation's entries."""
BENCHMARKS = ("mmeb_v2", "mmeb_v2_extra")
RANKING = {"local": "local", "global": "shared"}
"""What the published evaluation and ours call the candidates of a query."""


@dataclass(frozen=True)
class Parser:
    """A parser of the published code.

    Args:
        sources: what it reads: sources, or ``source/set``.
        facts: what of an entry tells which set is meant, in this order.
        defaults: values of these keys where an entry has none.
        others: keys that decide nothing here: folders.
        has_negatives: its rows may bring hard negatives, which the published training reads and drops.
    """

    sources: tuple[str, ...]
    facts: Facts
    defaults: Mapping[str, Any]
    others: tuple[str, ...] = ()
    has_negatives: bool = False


def _file(row: SourceSet) -> str:
    # the questions are cut off the longer file when they are prepared
    name = PurePosixPath(row.files[0]).name
    return "video_qa_240k.jsonl" if "first" in row.options else name


def _mode(row: SourceSet) -> str:
    return "video_retrieval" if row.converter == "llava_hound_videos" else "caption_retrieval"


REPO: Facts = {"dataset_name": lambda row: row.repo}
SPLIT: Facts = {"dataset_split": lambda row: row.split}
FRAMES: Facts = {"num_frames": lambda row: row.options["num_frames"]}
STORED: Facts = {**FRAMES, "max_frames_saved": lambda row: row.options["max_frames_saved"]}
CLIPS = ("video_root", "frame_root")
TRAIN = {"dataset_split": "train"}
PARSERS: dict[str, Parser] = {
    "mmeb": Parser(
        ("mmeb_train", "mmeb_train_diverse"),
        {**REPO, **SPLIT, "subset_name": lambda row: row.config},
        {"dataset_split": "original"},
        ("image_dir",),
        has_negatives=True,
    ),
    "vidore": Parser(("colpali_train",), {**REPO, **SPLIT}, TRAIN),
    "visrag": Parser(("visrag_train",), {**REPO, **SPLIT}, TRAIN),
    "docmatix": Parser(("docmatix",), {**REPO, "config_name": lambda row: row.config}, {}),
    "pixmo": Parser(("pixmo_docs",), {**REPO, **SPLIT}, TRAIN, ("image_dir",)),
    "llavahound_caption": Parser(
        ("llava_hound/video_caption_300k", "llava_hound/video_caption_300k_video"),
        {"dataset_path": _file, "data_mode": _mode, **FRAMES},
        {"data_mode": "caption_retrieval"},
        ("video_frame_basedir",),
    ),
    "llavahound_qa": Parser(
        ("llava_hound/video_qa_240k",), {"dataset_path": _file, **FRAMES}, {}, ("video_frame_basedir",)
    ),
    "msrvtt": Parser(("msrvtt_train",), STORED, {}, CLIPS),
    "msvd": Parser(("msvd_train",), STORED, {}, CLIPS),
    "didemo": Parser(("didemo_train",), STORED, {}, CLIPS),
    "ssv2": Parser(("ssv2_train",), STORED, {}, ("video_dir", "frame_dir")),
}
"""Parsers of training data by name."""


def mixture_of(entries: Mapping[str, Entry], where: object) -> dict[str, dict[str, Any]]:
    """The sources of a mixture by name: table, weight, and limit where there is one; no hard negatives, as published.

    Raises:
        InputError: a parser, a key or a value that is not known here: the file, the entry and the key.
    """
    made = {}
    for name, entry in entries.items():
        source, row = find_set(entry, f"{where}: {name}")
        weight = _number(entry, "weight", float, f"{where}: {name}")
        if weight is None:
            raise InputError(f"{where}: {name}.weight", expected="a number", got="nothing", remedy="give it a weight")
        limit = _number(entry, "num_sample_per_subset", int, f"{where}: {name}")
        made[name] = {"table": f"{source}/{row.name}.parquet", "weight": weight}
        made[name] |= {} if limit is None else {"limit": limit}
        made[name] |= {"max_negatives": 0} if _parser(entry, f"{where}: {name}").has_negatives else {}
    return made


def find_set(entry: Entry, where: str) -> tuple[str, SourceSet]:
    """The set that an entry means, and its source; raises as :func:`mixture_of` does."""
    parser = _parser(entry, where)
    known = (*COMMON, *parser.facts, *parser.others)
    for key in entry:
        if key not in known:
            raise InputError(f"{where}.{key}", expected=f"a key of {entry['dataset_parser']}", got=f"'{key}'",
                             remedy=nearest(str(key), known))  # fmt: skip
    left = [(source.name, row) for name in parser.sources for source in resolve(name) for row in source.sets.values()]
    for key, of_set in parser.facts.items():
        given = entry.get(key, parser.defaults.get(key))
        given = _base(given) if key == "dataset_path" else given
        there = {str(of_set(row)) for _, row in left}
        left = [(source, row) for source, row in left if of_set(row) == given]
        if not left:
            got = "nothing" if given is None else f"'{given}'"
            remedy = nearest(str(given), there) + "; other data need a source of their own"
            raise InputError(f"{where}.{key}", expected="data that a source prepares", got=got, remedy=remedy)
    return left[0]


def _parser(entry: Entry, where: str) -> Parser:
    name = str(entry.get("dataset_parser", "nothing"))
    if name in PARSERS:
        return PARSERS[name]
    expected, remedy = "a parser of training data", nearest(name, PARSERS)
    if name in NOT_HERE:
        expected, remedy = "a parser that a source corresponds to", f"write a source; there are: {', '.join(PARSERS)}"
    raise InputError(f"{where}.dataset_parser", expected=expected, got=f"'{name}'", remedy=remedy)


def _base(path: object) -> str | None:
    """The file that a path names; the download script of the published code cuts one of it under another name."""
    name = PurePosixPath(str(path)).name
    return {"video_240k_caption_15k.jsonl": "video_qa_240k.jsonl"}.get(name, name) if path else None


def _number(entry: Entry, key: str, kind: type, where: str) -> Any:
    """A number of an entry; the published files write none as null or the word None."""
    value = entry.get(key)
    if value is None or value == "None":
        return None
    try:
        if isinstance(value, bool) or kind(value) < 0 or not float(value) == kind(value) < float("inf"):
            raise ValueError("no such number")
    except (OverflowError, TypeError, ValueError) as error:
        expected = "a whole number" if kind is int else "a number from 0"
        raise InputError(f"{where}.{key}", expected=expected, got=repr(value), remedy="correct it") from error
    return int(value) if float(value) == int(float(value)) else float(value)


@cache
def benchmarks() -> dict[str, dict[str, Task]]:
    """The tasks of each benchmark."""
    return {name: read_benchmark(ROOT / "eval" / "benchmarks" / f"{name}.yaml").tasks for name in BENCHMARKS}


def tasks_of(entries: Mapping[str, Entry], where: object) -> dict[str, list[Task]]:
    """The tasks that an evaluation means, by the benchmark that has them.

    Only names and the way of ranking are compared: our sources say where data are from and how many frames are used.

    Raises:
        InputError: an entry that no benchmark has a task of, or one that ranks otherwise: the file and the entry.
    """
    every = {name: (benchmark, task) for benchmark, tasks in benchmarks().items() for name, task in tasks.items()}
    chosen: dict[str, list[Task]] = {}
    for name, entry in entries.items():
        if name not in every:
            expected = f"a task of {' or '.join(BENCHMARKS)}"
            raise InputError(f"{where}: {name}", expected=expected, got=f"'{name}'", remedy=nearest(name, every))
        benchmark, task = every[name]
        if unknown := [str(key) for key in entry if key not in EVALUATION_KEYS]:
            got, remedy = f"'{unknown[0]}'", nearest(unknown[0], EVALUATION_KEYS)
            raise InputError(f"{where}: {name}.{unknown[0]}", expected="a key of an evaluation", got=got, remedy=remedy)
        if RANKING.get(str(entry["eval_type"])) != task.candidates:
            ours = next(theirs for theirs, ours in RANKING.items() if ours == task.candidates)
            got, remedy = f"'{entry['eval_type']}'", "correct it, or write a benchmark of your own"
            expected = f"'{ours}', as {benchmark} ranks it"
            raise InputError(f"{where}: {name}.eval_type", expected=expected, got=got, remedy=remedy)
        chosen.setdefault(benchmark, []).append(task)
    return chosen


def mixture_lines(mixture: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """A mixture as YAML, after the commands that prepare its data."""
    tables = [str(source["table"]).removesuffix(".parquet") for source in mixture.values()]
    yield from (f"# python data_prep/prepare.py {' '.join(names)}" for names in sets_by_source(tables))
    yield "mixture:"
    for name, source in mixture.items():
        row = yaml.safe_dump({name: dict(source)}, default_flow_style=True, sort_keys=False, width=sys.maxsize)
        yield "  " + row.strip()[1:-1]


def task_lines(chosen: Mapping[str, Sequence[Task]]) -> Iterator[str]:
    """Tasks as YAML, after the commands that prepare their data and score a model on them."""
    every = [task for tasks in chosen.values() for task in tasks]
    yield from (
        f"# python data_prep/prepare.py {' '.join(names)}" for names in sets_by_source([task.data for task in every])
    )
    for benchmark, tasks in chosen.items():
        names = ",".join(task.name for task in tasks)
        yield f"# python eval/run.py --model MODEL --benchmark {benchmark} --tasks {names} --output DIR"
    for benchmark, tasks in chosen.items():
        yield f"{benchmark}:"
        yield from (f"- {task.name}" for task in tasks)


def import_file(path: Path) -> str:
    """What a published file is here, as YAML.

    Raises:
        InputError: no mapping of entries, training and evaluation in one file, or what the two raise.
    """
    entries = load_yaml(path)
    if not isinstance(entries, Mapping) or not entries or not all(isinstance(e, Mapping) for e in entries.values()):
        got, remedy = type(entries).__name__, "give a file of experiments/public of VLM2Vec"
        raise InputError(path, expected="entries by name, each a mapping", got=got, remedy=remedy)
    entries = {str(name): entry for name, entry in entries.items()}
    scored = ["eval_type" in entry for entry in entries.values()]
    if any(scored) and not all(scored):
        name = next(name for name, is_scored in zip(entries, scored, strict=True) if is_scored != scored[0])
        remedy = "split the file"
        raise InputError(f"{path}: {name}", expected="either training or evaluation", got="both", remedy=remedy)
    lines = task_lines(tasks_of(entries, path)) if scored[0] else mixture_lines(mixture_of(entries, path))
    return "".join(f"{line}\n" for line in lines)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; 0 is success, 2 something in the file."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLE, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("file", type=Path, metavar="FILE", help="a mixture or an evaluation of the published code")
    options = parser.parse_args(argv)
    try:
        print(import_file(options.file), end="")
    except InputError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
