"""The model of a command, opened as its options say, and what embeds with it out of the cache."""

import argparse
import os
import typing
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from mmembed.errors import InputError, nearest
from mmembed.items import JOINS

if TYPE_CHECKING:
    from mmembed import Embedder
    from mmembed.evaluation.benchmark import Task
    from mmembed.evaluation.crew import Crew
    from mmembed.index.embedding_cache import EmbeddingCache
    from mmembed.processes import Processes


def add_model(parser: argparse.ArgumentParser, *, required: bool = True) -> None:
    """The options that name a model and say how it embeds."""
    parser.add_argument("--model", required=required, metavar="DIR_OR_ID", help="a run's final/, or a Hub id")
    parser.add_argument("--profile", metavar="NAME", help="how a released checkpoint embeds, e.g. vlm2vec")
    parser.add_argument("--adapter", metavar="DIR_OR_ID", help="LoRA or DoRA to load onto it")
    parser.add_argument(
        "--pooler-weights", type=Path, metavar="FILE", help="a released mapping network, e.g. SEARLE_ViT-B32.pt"
    )
    model = parser.add_argument_group("how the model embeds")
    model.add_argument("--dtype", choices=("float32", "bfloat16", "float16"), help="default: as the model was saved")
    model.add_argument("--max-pixels", type=int, metavar="N", help="most pixels of a picture")
    model.add_argument("--num-crops", type=int, metavar="N", help="most crops of a picture, of Phi-3.5-V alone")
    model.add_argument("--batch-tokens", type=int, metavar="N", help="of a batch (default: 16384, on a CPU 2048)")
    model.add_argument(
        "--workers", type=int, metavar="N",
        help="processes that decode and tokenize while the model computes; the vectors are the same for any number "
        "(default: on a GPU one for each core, up to 8; on a CPU, whose cores the model needs, 0)",
    )  # fmt: skip
    add_speed(model)


def add_speed(parser: "argparse.ArgumentParser | argparse._ArgumentGroup") -> None:
    """The option that says what is computed faster."""
    parser.add_argument(
        "--speed", action="append", default=[], metavar="NAME=VALUE",
        help="compute something faster, or not: last_layer=all, autocast=bfloat16, compile=true, packing=off, "
        "sort=false, deduplicate=false, ...; may be repeated (docs/speed.md says what each does to the vectors)",
    )  # fmt: skip


def speed_of(given: Sequence[str]) -> dict[str, Any]:
    """What ``--speed`` says, by name: :class:`mmembed.models.settings.Speed`.

    Raises:
        InputError: a word without ``=``, a setting that there is not, or a value that it does not take.
    """
    from mmembed.models.settings import Speed
    from mmembed.settings import check_types, parse_yaml

    known = typing.get_type_hints(Speed)
    made: dict[str, Any] = {}
    for word in given:
        name, sign, text = word.partition("=")
        if name not in known:
            raise InputError(
                "--speed", expected="NAME=VALUE of a known NAME", got=f"'{word}'", remedy=nearest(name, known)
            )
        if not sign:
            raise InputError("--speed", expected="NAME=VALUE", got=f"'{word}'", remedy=f"write {name}=VALUE")
        value = parse_yaml(text, f"--speed {name}")
        # on and off are words of packing, and true and false in YAML
        made[name] = text if isinstance(value, bool) and known[name] is not bool else value
    try:
        check_types(Speed(**made))
    except InputError as error:
        raise error.within("--speed") from None
    return made


def add_cache(parser: argparse.ArgumentParser) -> "argparse._ArgumentGroup":
    """The options of the cache."""
    cache = parser.add_argument_group("what is embedded already")
    default = Path(os.environ.get("MMEMBED_CACHE") or "~/.cache/mmembed").expanduser()
    cache.add_argument(
        "--cache", type=Path, default=default, metavar="DIR", help="default: $MMEMBED_CACHE, else ~/.cache/mmembed"
    )
    cache.add_argument("--cache-gb", type=float, default=20.0, metavar="N", help="its bound (20); 0 keeps nothing")
    return cache


def cache_of(options: argparse.Namespace) -> "EmbeddingCache | None":
    """The cache that the options name; None where it is to keep nothing."""
    from mmembed.index.embedding_cache import EmbeddingCache

    return EmbeddingCache(options.cache, max_bytes=round(options.cache_gb * 1e9)) if options.cache_gb else None


class Opened(NamedTuple):
    """An open model.

    Attributes:
        model: it.
        parts: its identity.
        crew: embeds with it.
        processes: of the run.
    """

    model: "Embedder"
    parts: Mapping[str, str]
    crew: "Crew"
    processes: "Processes"


@contextmanager
def opened(options: argparse.Namespace, rows: "Iterable[Task]") -> Iterator[Opened]:
    """The model that the options name, on every process, as some rows want its vectors.

    Where one of them averages vectors before they are scaled (the join of E5-V), the model gives all as they are, and
    the evaluation scales them.
    """
    from mmembed.evaluation.crew import Crew, check_one_model
    from mmembed.models.ahead import usual_workers
    from mmembed.models.identity import identity
    from mmembed.processes import joined

    cache = cache_of(options)
    with joined("auto") as processes:
        model = processes.together(lambda: open_model(options))
        scale = model.settings.normalize and any(row.join and not JOINS[row.join].scaled for row in rows)
        if scale:
            model.settings = replace(model.settings, normalize=False)
        parts = identity(model)
        check_one_model(parts, processes)
        workers = usual_workers(model.device, processes.per_node) if options.workers is None else options.workers
        encode = partial(model.encode, batch_tokens=options.batch_tokens, workers=workers)
        space = cache.space(parts) if cache else None
        with Crew(encode, space=space, processes=processes, scale=scale) as crew:
            yield Opened(model, parts, crew, processes)


def open_model(options: argparse.Namespace) -> "Embedder":
    """The model that the options name, embedding as they say."""
    from mmembed import Embedder

    chosen = {"dtype": options.dtype, "max_pixels": options.max_pixels, "num_crops": options.num_crops}
    overrides = {name: value for name, value in chosen.items() if value is not None}
    return Embedder.from_pretrained(
        options.model, adapter=options.adapter, profile=options.profile, pooler_weights=options.pooler_weights,
        speed=speed_of(options.speed), **overrides,
    )  # fmt: skip
