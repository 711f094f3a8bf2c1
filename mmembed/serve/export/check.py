"""An export opened by its target and compared with the model that it was made of."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

import torch.nn.functional as F
from torch import Tensor

from mmembed.errors import InputError
from mmembed.items import Video
from mmembed.models.checkpoint import quiet
from mmembed.models.embedder import Embedder
from mmembed.models.plain.reading import Library, frames_of, our_states
from mmembed.models.plain.writing import plain_backbone, reads_pictures
from mmembed.models.settings import ChatPrompt, RawPrompt
from mmembed.serve.export.examples import ALL, CUT_WITHIN, Example, as_foreign, examples
from mmembed.serve.export.layout import is_bare_text
from mmembed.serve.export.refusals import NAMES, Target

TOLERANCE = 1e-5
"""Largest difference of a number of a unit vector, in float32."""

Compare: TypeAlias = Callable[[Example], float]
# whose library mixes up rows of different numbers of pictures
_EVEN = ("mllama",)


@dataclass(frozen=True)
class Compared:
    """What came of it.

    Args:
        differences: the largest difference of each example.
        notes: what differs by the target's own doing, and by how much.
    """

    differences: Mapping[str, float]
    notes: tuple[str, ...]


def compare(model: Embedder, to: Target, directory: Path, *, video: bool) -> Compared:
    """The largest difference of each example.

    Args:
        model: what was exported.
        to: where to.
        directory: what was written.
        video: whether clips are among the examples.

    Raises:
        InputError: one is over the tolerance; all that are, are named.
    """
    ours = _oracle(model, directory)
    made: Compare = _by_transformers(ours, directory) if to == "hf" else _by_sentence_transformers(ours, directory)
    backbone = plain_backbone(model.backbone)
    limit = backbone.settings.max_length or backbone.checkpoint.tokenizer.model_max_length
    pictures, uneven = reads_pictures(backbone), backbone.model.config.model_type not in _EVEN
    tried = list(examples(pictures=pictures, clips=video, limit=limit if to != "hf" else CUT_WITHIN + 1, uneven=uneven))
    found = {example.name: made(example) for example in tried}
    over = {name: value for name, value in found.items() if not value <= TOLERANCE}
    if over:
        told = ", ".join(f"{name} by {value:.2g}" for name, value in over.items())
        raise InputError(
            f"export to {NAMES[to]}", expected=f"the same vectors within {TOLERANCE:g}",
            got=f"{len(over)} of {len(found)} inputs differ: {told}",
            remedy="nothing was written; report this with the model's embedder.yaml",
        )  # fmt: skip
    drifts = (*_apart(model, ours, tried), *_drifts(ours, to, directory, made, uneven=uneven))
    return Compared(found, drifts)


def _apart(model: Embedder, ours: Embedder, tried: Sequence[Example]) -> Iterator[str]:
    """How far the model itself is from what was compared, where that is not the model."""
    if ours is model:
        return
    settings: Any = model.settings
    how = [f"in {settings.backbone.dtype}"] if settings.backbone.dtype != "float32" else []
    how += ["with its region encoder"] if settings.regions is not None else []
    drift = max(_largest(model.encode(example.items), ours.encode(example.items)) for example in tried)
    yield (
        f"the exported weights were compared in float32: the model itself, {' and '.join(how)}, gives vectors that "
        f"differ by {drift:.1g} from theirs on these inputs"
    )


def _drifts(model: Embedder, to: Target, directory: Path, made: Compare, *, uneven: bool) -> Iterator[str]:
    """What the target gives that is known to differ, measured."""
    if not uneven and to != "hf":
        (mixed,) = (e for e in examples(pictures=True, clips=False, limit=CUT_WITHIN + 1) if e.name == ALL)
        yield (
            "a batch whose rows have different numbers of pictures gives other vectors there (transformers' fault; "
            f"by {made(mixed):.1g} on these inputs): embed texts, single pictures and several apart, or one by one"
        )
    if to == "vllm" and getattr(model.settings.backbone, "resize", "torchvision") == "pil":
        other = _by_sentence_transformers(model, directory, backend="torchvision", use_fast=None)
        drift = max(other(e) for e in examples(pictures=True, clips=False, limit=CUT_WITHIN + 1, uneven=uneven))
        yield (
            "vLLM resizes pictures by torchvision, and no file can ask for Pillow's resize, by which this model was "
            f"made: its vectors differ by {drift:.1g} on these inputs"
        )


def _oracle(model: Embedder, directory: Path) -> Embedder:
    """The model itself, or, where it is not in float32 or has regions, what was written opened anew by our own code."""
    settings: Any = model.settings
    if settings.backbone.dtype == "float32" and settings.regions is None:
        return model
    backbone = replace(
        settings.backbone.saved(), path=str(directory), dtype="float32", special_tokens=None, quantize=None
    )
    prompt = settings.prompt
    if isinstance(prompt, ChatPrompt) and not prompt.template:
        prompt = replace(prompt, template=plain_backbone(model.backbone).checkpoint.tokenizer.chat_template or "")
    parts = {"regions": None, "regions_weights": None, "lora": None}
    return Embedder(replace(settings, backbone=backbone, prompt=prompt, **parts)).to(model.device).eval()


def _by_transformers(model: Embedder, directory: Path) -> Compare:
    backbone = plain_backbone(model.backbone)
    library = Library(backbone, directory)
    sequential = getattr(model.settings.backbone, "positions", "mrope") == "sequential"

    def made(example: Example) -> float:
        return max(
            _largest(our_states(backbone, item), library.states(item, sequential=sequential)) for item in example.items
        )

    return made


def _by_sentence_transformers(model: Embedder, directory: Path, **processor: Any) -> Compare:
    opened = open_sentence_transformer(directory, str(model.device), **processor)
    behind = model.settings.prompt.separator if isinstance(model.settings.prompt, RawPrompt) else ""
    bare = is_bare_text(model)

    def made(example: Example) -> float:
        prompt = example.instruction
        if prompt is not None and bare:
            prompt += behind
        given = [_with_frames(model, as_foreign(content)) for content in example.contents]
        theirs = opened.encode(given, prompt=prompt, convert_to_tensor=True, show_progress_bar=False)
        return _largest(model.encode(example.items), theirs.float().cpu())

    return made


def open_sentence_transformer(directory: Path, device: str = "cpu", **processor: Any) -> Any:
    """A folder as sentence-transformers opens it, without remote code, in float32.

    Raises:
        InputError: the library is not installed.
    """
    try:
        from sentence_transformers import SentenceTransformer
    except ImportError as error:
        raise InputError(
            "export", expected="sentence-transformers, to try what is exported", got=error,
            remedy="pip install mmembed[sentence-transformers]",
        ) from error  # fmt: skip
    how: dict[str, Any] = {"model_kwargs": {"dtype": "float32"}, "processor_kwargs": processor}
    with quiet():
        return SentenceTransformer(str(directory), device=device, local_files_only=True, **how)


def _with_frames(model: Embedder, given: dict[str, Any]) -> Any:
    """An item with the frames that are taken of its clip, and when they are."""
    if isinstance(given.get("video"), Video):
        frames, facts = frames_of(plain_backbone(model.backbone), given["video"])
        given = given | {"video": {"array": frames, "video_metadata": facts}}
    return given["text"] if given.keys() == {"text"} else given


def _largest(ours: Tensor, theirs: Tensor) -> float:
    """The largest difference of a number, of vectors scaled to unit length; infinite where the tokens are others."""
    if ours.shape != theirs.shape:
        return float("inf")
    return float((F.normalize(ours, dim=-1) - F.normalize(theirs, dim=-1)).abs().max())
