"""Items to embeddings."""

from collections.abc import Sequence
from dataclasses import asdict, replace
from functools import partial
from statistics import median
from typing import Any

from mmembed import Item
from mmembed.models.settings import Speed
from scripts.benchmark.bench import Bench
from scripts.benchmark.flops import useful_flops
from scripts.benchmark.measuring import Comparison, timed
from scripts.benchmark.models import ALL_ON, OFF, make_embedder, options_in_words

TURNS = 3
"""Of each option that is turned off."""


def images(bench: Bench) -> Comparison:
    """Distinct pictures of one size."""
    return _encoding(bench, bench.pictures)


def texts(bench: Bench) -> Comparison:
    """Distinct texts."""
    return _encoding(bench, bench.texts)


def questions(bench: Bench) -> Comparison:
    """Four questions to each picture."""
    return _encoding(bench, bench.questions)


def mixed(bench: Bench) -> Comparison:
    """The mixed inputs, and how far options move their embeddings: those measured, and all with two workers."""
    work = _encoding(bench, bench.mixed, head=True)

    def moved() -> dict[str, float]:
        wanted = make_embedder(bench.size, bench.device, speed=OFF).encode(bench.mixed)
        all_on = make_embedder(bench.size, bench.device, speed=ALL_ON).encode(bench.mixed, workers=2)
        found = bench.ours.encode(bench.mixed)
        return {"difference_to_off": max(float((one - wanted).abs().max()) for one in (found, all_on))}

    work.facts = moved
    work.note = (
        "the difference to all options off is the larger one of the options measured, and of packing and two workers "
        "beside them; torch.compile is left out"
    )
    return work


def options(bench: Bench) -> Comparison:
    """The mixed inputs with every option off, and with each of them off by itself."""
    ours, off = bench.ours, make_embedder(bench.size, bench.device, speed=OFF)
    usual = asdict(Speed())

    def alone() -> dict[str, dict[str, float]]:
        others = {name: value for name, value in asdict(OFF).items() if value != usual[name]}
        return {"times_as_long_without": {name: _times_as_long(bench, {name: value}) for name, value in others.items()}}

    return Comparison(
        lambda: ours.encode(bench.mixed),
        lambda: off.encode(bench.mixed),
        rows=len(bench.mixed),
        facts=alone,
        timed=2,
        options=options_in_words(),
    )


def _times_as_long(bench: Bench, change: dict[str, Any]) -> float:
    changed = make_embedder(bench.size, bench.device, speed=replace(Speed(), **change))
    runs = [partial(one.encode, bench.mixed) for one in (changed, bench.ours)]
    turns = [[timed(run, bench.device)[0] for run in runs] for _ in range(TURNS)]
    return median(without / usual for without, usual in turns)


def _encoding(bench: Bench, items: Sequence[Item], *, head: bool = False) -> Comparison:
    ours, twin = bench.ours, bench.twin(bench.ours, head=head)
    return Comparison(
        ours=lambda: ours.encode(items),
        plain=lambda: twin.encode(items),
        rows=len(items),
        useful=lambda: useful_flops(ours, ours.prepare(items, "query")),
        parts=True,
        options=options_in_words(),
    )
