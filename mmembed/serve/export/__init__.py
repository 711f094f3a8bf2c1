"""A model in its users' other tools: a folder that sentence-transformers, transformers or vLLM open by themselves.

What is written is opened there and compared with the model before it takes its name; a part that the target would run
otherwise is refused in words.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from mmembed.errors import InputError
from mmembed.files import whole_directory, write_json
from mmembed.models.embedder import Embedder
from mmembed.models.plain.writing import write_plain
from mmembed.models.settings import ChatPrompt
from mmembed.serve.export.check import compare
from mmembed.serve.export.layout import is_bare_text, words_of, write_modules, write_readme
from mmembed.serve.export.refusals import Target, check_target, left_unsaid, takes_video
from mmembed.serve.export.source import OF, source_of
from mmembed.serve.export.template import chat_template
from mmembed.serve.export.vllm import check_pooling

RECORD = "mmembed_export.json"
"""What an export says of itself, and is known by."""


@dataclass(frozen=True)
class Exported:
    """What was written.

    Args:
        directory: where it stands.
        compared: the largest difference of each input that was tried, of unit vectors in float32.
        notes: what stays different, or is yours to do.
    """

    directory: Path
    compared: Mapping[str, float]
    notes: tuple[str, ...]


def export_model(
    model: Embedder,
    to: Target,
    directory: str | Path,
    *,
    without_regions: bool = False,
    without_video: bool = False,
    overwrite: bool = False,
) -> Exported:
    """Write a model for another program, open it there, and compare; the folder appears whole or not at all.

    Args:
        model: what to export; it stays as it is, an adapter unmerged.
        to: ``st`` for sentence-transformers 6, ``hf`` for transformers (the base, an adapter merged), ``vllm``.
        directory: a new or empty folder.
        without_regions: leave the region encoder behind.
        without_video: leave the reading of clips behind.
        overwrite: replace a folder that an export wrote.

    Raises:
        InputError: a part that the target cannot hold, an input whose vector differs there, or a folder that is taken.
    """
    target = Path(directory)
    refuse_taken(target, overwrite=overwrite)
    check_target(model, to, without_regions=without_regions, without_video=without_video)
    video = takes_video(model) and not without_video
    notes = left_unsaid(model, to, video=video)
    left = []
    if model.settings.regions is not None:
        left.append("regions")
        notes.insert(0, "the region encoder stayed behind: what is exported embeds whole pictures only")
    if takes_video(model) and not video:
        left.append("video")
        notes.insert(0, "the reading of clips stayed behind")
    with whole_directory(target) as part:
        _write(model, to, part, video=video)
        with _at_rest(model):
            compared = compare(model, to, part, video=video)
        notes += compared.notes
        about = {"to": to, "mmembed": version("mmembed"), "compared": dict(compared.differences), "notes": notes}
        write_json(part / RECORD, about | {"left": left, OF: source_of(model)})
    return Exported(target, compared.differences, tuple(notes))


@contextmanager
def _at_rest(model: Embedder) -> Iterator[None]:
    """A block in which a model that trains drops nothing out."""
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)


def refuse_taken(target: Path, *, overwrite: bool) -> None:
    """Refuse a folder that holds something, but an export that may be replaced.

    Raises:
        InputError: what it holds is named.
    """
    if not target.exists() or (target.is_dir() and not any(target.iterdir())):
        return
    holds = sorted(path.name for path in target.iterdir()) if target.is_dir() else ["a file"]
    is_export = RECORD in holds
    if not (is_export and overwrite):
        raise InputError(
            target, expected="a new or an empty folder", got=f"a folder of {', '.join(holds[:5])}",
            remedy="--overwrite replaces this export" if is_export else "name another folder: no export wrote this one",
        )  # fmt: skip


def _write(model: Embedder, to: Target, directory: Path, *, video: bool) -> None:
    backbone: Any = model.backbone
    if to == "hf":
        write_plain(backbone, directory)
        return
    template = None
    if not is_bare_text(model):
        style = model.settings.prompt
        own = backbone.checkpoint.tokenizer.chat_template if isinstance(style, ChatPrompt) else ""
        template = chat_template(style, words_of(model, video=video), own or "")
    write_plain(backbone, directory, template=template, full=to == "vllm")
    write_modules(model, directory, video=video)
    if to == "vllm":
        check_pooling(model, directory)
        write_readme(model, directory)
