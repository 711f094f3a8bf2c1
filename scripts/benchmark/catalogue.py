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
        size: the size at which it is asked; None is every size.
    """

    of: str
    bound: float
    at_least: bool = True
    words: str = "plain / ours"
    aim: float | None = None
    size: str | None = "mid"

    def found(self, result: Mapping[str, Any]) -> float | None:
        """The number in a result; None where it was not measured."""
        value: Any = result
        for key in self.of.split("."):
            value = (value or {}).get(key)
        return value

    def met(self, result: Mapping[str, Any], size: str) -> bool | None:
        """Whether the bound is kept; None where the number was not measured, or at another size."""
        found = self.found(result)
        if found is None or self.size not in (None, size):
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
_BYTES = Required("facts.share_of_full_matrix", 1 / 8, at_least=False, words="bytes of scores / full matrix", size=None)
_WAIT = Required("facts.share_waited", 0.05, at_least=False, words="share of the time spent waiting for data")
_BLOCKS = Required(
    "counters.score_bytes_at_once", 2**26, at_least=False, words="bytes of scores held at once", size=None
)
_RISE = Required("rise_mb", 512, at_least=False, words="MiB of memory beside the vectors")
_ENCODING = Required("mfu", 0.55, words="share of the ceiling", size="2b")
_TRAINING = Required("mfu", 0.45, words="share of the ceiling", size="2b")

WORKLOADS = {
    "encode_images": Entry(
        "encoding:images", "encode distinct pictures of one size", (Required("ratio", 1.2), _ENCODING)
    ),
    "encode_texts": Entry("encoding:texts", "encode distinct texts of 4 to 64 words"),
    "encode_mixed": Entry(
        "encoding:mixed", "encode texts, pictures of many sizes, clips and pages, 30% of them duplicates; plain "
        "computes logits at all positions", (Required("ratio", 2.5), _SAME, _ENCODING),
    ),
    "encode_questions": Entry("encoding:questions", "encode pictures with a question, four questions to each picture"),
    "options": Entry(
        "encoding:options", "encode the inputs of encode_mixed; plain is ours with every option off, and what each of "
        "them is worth by itself stands beside the ratios",
    ),
    "train_demo": Entry(
        "training:demo", "training step of the demo's recipe: its small model, short texts and pictures of 28 pixels; "
        "plain is one batch",
    ),
    "train_lora": Entry(
        "training:lora", "training step of LoRA with a frozen tower, texts and pictures of equally many tokens; plain "
        "is cached gradients", (Required("ratio", 1.4, aim=2.0), _TRAINING),
    ),
    "train_lora_mixed": Entry(
        "training:lora_mixed", "training step of LoRA with a frozen tower, texts of many lengths and the inputs of "
        "encode_mixed; plain is cached gradients", (Required("ratio", 2.0, aim=3.0),),
    ),
    "train_full": Entry(
        "training:full", "training step of all weights, texts and pictures of equally many tokens; plain is cached "
        "gradients", (_TRAINING,),
    ),
    "train_whole": Entry(
        "training:whole", "training step of all weights, texts of 4 to 64 words and pictures; plain is one batch "
        "without cached gradients",
    ),
    "train_chunks": Entry(
        "training:chunks", "training step of all weights, texts of 4 to 64 words and pictures; ours in chunks of as "
        "many rows as plain's cached gradients",
    ),
    "train_chunks_recomputed": Entry(
        "training:recomputed", "training step of all weights, texts of 4 to 64 words and pictures; ours in chunks of "
        "as many rows as plain's cached gradients, each computed twice as there",
    ),
    "evaluate": Entry("evaluating:task", "evaluate a retrieval task, texts to pictures: embed, rank, score"),
    "loss": Entry("ranking:loss", "contrastive loss and its gradient; plain holds the full matrix", (_BYTES,)),
    "rank_gallery": Entry("ranking:gallery", "exact top-50 of a gallery; plain holds every score at once"),
    "rank_million": Entry(
        "ranking:million", "exact top-100 of a large gallery; plain is faiss IndexFlatIP, on a GPU torch in blocks",
        (Required("ratio", 1.0), _BLOCKS, _RISE),
    ),
    "parse_candidates": Entry(
        "parsing:candidates", "rows as published, with candidates of their own, become a retrieval set that is read"
    ),
    "pipeline_jpeg": Entry("pipeline:jpeg_files", "prepare training batches of JPEG files, without a model"),
    "pipeline_mp4": Entry("pipeline:mp4_files", "prepare training batches of MP4 files, without a model"),
    "data_wait": Entry(
        "pipeline:data_wait", "training steps of LoRA on JPEG files that 2 workers prepare, and the time waited for "
        "them", (_WAIT,),
    ),
    "help_modules": Entry("helping:modules", "show the help of each command, and count the modules it imports"),
}  # fmt: skip


def chosen(names: str | None, left_out: Collection[str] = ()) -> list[str]:
    """The workloads asked for, else all but those left out.

    Raises:
        InputError: no name, or one that is not known; the nearest one is given.
    """
    if names is None:
        return [name for name in WORKLOADS if name not in left_out]
    wanted = [name.strip() for name in names.split(",") if name.strip()]
    if not wanted:
        raise InputError("--workloads", expected="names of workloads", got="none", remedy="--list names them")
    for name in wanted:
        if name not in WORKLOADS:
            remedy = nearest(name, WORKLOADS)
            raise InputError("--workloads", expected="a known workload", got=f"'{name}'", remedy=remedy)
    return wanted
