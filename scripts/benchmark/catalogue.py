"""Which workloads there are, what each of them is, and what is required of it. No torch here."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

from mmembed.errors import InputError, nearest

if TYPE_CHECKING:
    from scripts.benchmark.bench import Bench
    from scripts.benchmark.measuring import Comparison


@dataclass(frozen=True)
class Required:
    """A bound on one number of a workload's result.

    Args:
        of: the number's key, with dots into parts.
        bound: what it is compared with.
        at_least: whether the number must reach the bound, else stay at or below it.
        words: what the number is.
        aim: a better value that is aimed at.
    """

    of: str
    bound: float
    at_least: bool = True
    words: str = "plain / ours"
    aim: float | None = None

    def found(self, result: Mapping[str, Any]) -> float | None:
        """The number in a result; None where it was not measured."""
        value: Any = result
        for key in self.of.split("."):
            value = (value or {}).get(key)
        return value

    def met(self, result: Mapping[str, Any]) -> bool | None:
        """Whether the bound is kept; None where the number was not measured."""
        found = self.found(result)
        if found is None:
            return None
        return found >= self.bound if self.at_least else found <= self.bound


@dataclass(frozen=True)
class Entry:
    """A workload.

    Args:
        place: module and function that make its Comparison.
        what: one sentence for people.
        required: what is required of its result.
    """

    place: str
    what: str
    required: tuple[Required, ...] = ()

    def make(self, bench: "Bench") -> "Comparison":
        """The work to measure."""
        module, function = self.place.split(":")
        make: Callable[[Bench], Comparison] = getattr(import_module(f"scripts.benchmark.workloads.{module}"), function)
        return make(bench)


_SAME = Required("facts.difference_to_off", 2e-6, at_least=False, words="embeddings moved by all options together")
_BYTES = Required("facts.share_of_full_matrix", 1 / 8, at_least=False, words="bytes of scores / full matrix")
_WAIT = Required("facts.share_waited", 0.05, at_least=False, words="share of the time spent waiting for data")

WORKLOADS = {
    "encode_images": Entry(
        "encoding:images", "encode distinct pictures of one size", (Required("ratio", 1.2),)
    ),
    "encode_texts": Entry("encoding:texts", "encode distinct texts of 4 to 64 words"),
    "encode_mixed": Entry(
        "encoding:mixed", "encode texts, pictures of many sizes, clips and pages, 30% of them duplicates; plain "
        "computes logits at all positions", (Required("ratio", 2.5), _SAME),
    ),
    "encode_questions": Entry("encoding:questions", "encode four questions to each picture"),
    "train_demo": Entry("training:demo", "a step of the demo's model on its pictures"),
    "train_lora": Entry(
        "training:lora", "a step of LoRA with a frozen tower, rows of equal lengths; plain is cached gradients",
        (Required("ratio", 1.4, aim=2.0),),
    ),
    "train_lora_mixed": Entry(
        "training:lora_mixed", "the same with the targets of encode_mixed", (Required("ratio", 2.0, aim=3.0),)
    ),
    "train_full": Entry("training:full", "the same of full fine-tuning"),
    "train_whole": Entry("training:whole", "a step of full fine-tuning; plain is one batch without cached gradients"),
    "train_chunks": Entry("training:chunks", "a step of full fine-tuning in chunks of so many rows as plain's"),
    "train_chunks_recomputed": Entry("training:recomputed", "the same, no graph kept between the two passes"),
    "evaluate": Entry("evaluating:task", "evaluate a retrieval task: embed, rank, score"),
    "loss": Entry("ranking:loss", "contrastive loss and its gradient; plain holds the full matrix", (_BYTES,)),
    "rank_gallery": Entry("ranking:gallery", "top-50 of a gallery; plain holds every score at once"),
    "rank_million": Entry(
        "ranking:million", "exact top-100 of a large gallery; plain is faiss IndexFlatIP", (Required("ratio", 1.0),)
    ),
    "parse_candidates": Entry("parsing:candidates", "published rows become a retrieval set that is read"),
    "pipeline_jpeg": Entry("pipeline:jpeg_files", "the data pipeline alone on JPEG files, 0, 1 and 2 workers"),
    "pipeline_mp4": Entry("pipeline:mp4_files", "the data pipeline alone on MP4 files, 0, 1 and 2 workers"),
    "data_wait": Entry("pipeline:data_wait", "a LoRA run on JPEG files with 2 workers: time waited for data", (_WAIT,)),
    "help_modules": Entry("helping:modules", "modules that --help of each command imports"),
}  # fmt: skip


def chosen(names: str | None, left_out: Collection[str] = ()) -> list[str]:
    """The workloads asked for, else all but those left out.

    Raises:
        InputError: a name that is not known; the nearest one is given.
    """
    wanted = [name for name in WORKLOADS if name not in left_out] if names is None else names.split(",")
    for name in wanted:
        if name not in WORKLOADS:
            remedy = nearest(name, WORKLOADS)
            raise InputError("--workloads", expected="a known workload", got=f"'{name}'", remedy=remedy)
    return wanted
