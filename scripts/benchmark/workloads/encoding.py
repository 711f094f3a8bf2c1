"""Items to embeddings."""

from collections.abc import Sequence

from mmembed import Item
from scripts.benchmark.bench import Bench
from scripts.benchmark.flops import useful_flops
from scripts.benchmark.measuring import Comparison
from scripts.benchmark.models import ALL_ON, OFF, make_embedder, options_in_words


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
