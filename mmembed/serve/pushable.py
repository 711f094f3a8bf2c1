"""What may be given to others of a folder: the files of a model, and nothing that only this machine knows."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, cast

from mmembed.errors import InputError
from mmembed.models.embedder import Embedder
from mmembed.models.saved import SETTINGS_FILE
from mmembed.serve.export import RECORD
from mmembed.serve.export.refusals import Target
from mmembed.serve.export.source import OF, PLACES
from mmembed.settings import flat_settings, load_yaml
from mmembed.training.run_folder import DONE, RECIPE_FILE, RUN_FILE

CARD = "README.md"
MODEL_FILES = (
    *(SETTINGS_FILE, RECORD, CARD, "LICENSE*", "NOTICE*", "config.json", "generation_config.json"),
    *("model.safetensors", "model-*-of-*.safetensors", "model.safetensors.index.json"),
    *("pooler.safetensors", "regions.safetensors", "adapter/adapter_config.json", "adapter/adapter_model.safetensors"),
    *("open_clip_config.json", "open_clip_model.safetensors", "open_clip_model-*-of-*.safetensors"),
    *("tokenizer.json", "tokenizer_config.json", "tokenizer.model", "spiece.model", "sentencepiece.bpe.model"),
    *("vocab.json", "vocab.txt", "merges.txt", "special_tokens_map.json", "added_tokens.json", "chat_template.*"),
    *("preprocessor_config.json", "processor_config.json", "video_preprocessor_config.json"),
    *("modules.json", "sentence_bert_config.json", "config_sentence_transformers.json", "1_Pooling/config.json"),
)
"""What a saved or exported model consists of."""


@dataclass(frozen=True)
class Pushable:
    """A folder that may be given to others.

    Args:
        folder: of the model.
        recipe: ``recipe.yaml`` of the run that it lies in; None where it lies in none.
        exported: the library that it was written for; None is a saved embedder.
        notes: what stays different in an export.
        left: parts that it left behind.
        of: settings of the embedder that an export was made of, see :func:`mmembed.serve.export.source.source_of`.
        written: what is given to others in the place of a file of the folder.
    """

    folder: Path
    recipe: Path | None = None
    exported: Target | None = None
    notes: tuple[str, ...] = ()
    left: tuple[str, ...] = ()
    of: Mapping[str, Any] | None = None
    written: Mapping[str, bytes] = field(default_factory=dict)

    @property
    def files(self) -> dict[str, int]:
        """Bytes of each of its files, by path."""
        found = sorted(path for path in self.folder.rglob("*") if path.is_file())
        sizes = {path.relative_to(self.folder).as_posix(): path.stat().st_size for path in found}
        return sizes | {name: len(content) for name, content in self.written.items()}


def pushable(path: Path) -> Pushable:
    """What is pushed for a folder: a saved embedder, the last one of a run, or an export.

    Raises:
        InputError: no model, a run that is not done, files that are no part of a model, or one that names what lies on
            this machine only.
    """
    folder, recipe = _of_run(path)
    if (folder / RECORD).is_file():
        said = _json(folder / RECORD)
        of = said.pop(OF, None)
        record = {RECORD: f"{json.dumps(said, indent=2)}\n".encode()}
        found = Pushable(
            folder, recipe, cast(Target, said["to"]), tuple(said["notes"]), tuple(said["left"]), of, record
        )
    elif (folder / SETTINGS_FILE).is_file():
        found = Pushable(folder, recipe)
    else:
        raise InputError(
            folder, expected=f"a saved embedder with {SETTINGS_FILE}, or what scripts/export.py wrote",
            got="no such folder" if not folder.is_dir() else "neither", remedy="save or export the model first",
        )  # fmt: skip
    _refuse_others(found)
    if found.exported is None:
        _refuse_places(folder)
    return found


def recipe_of(model: Embedder) -> Path | None:
    """``recipe.yaml`` of the run that a model, or its adapter, was opened from; None where that was no run.

    Raises:
        InputError: a run that is not done.
    """
    backbone: Any = model.settings.backbone
    adapter, path = (getattr(backbone, name, None) for name in ("adapter", "path"))
    places = [Path(adapter).parent] if adapter else []
    places += [Path(path)] if path else []
    found = (_of_run(place)[1] for place in places if place.is_dir())
    return next((recipe for recipe in found if recipe is not None), None)


def is_model_file(name: str) -> bool:
    """Whether a path below a folder is that of a part of a model."""
    return any(fnmatch(name, pattern) and name.count("/") == pattern.count("/") for pattern in MODEL_FILES)


def _of_run(path: Path) -> tuple[Path, Path | None]:
    """The model of a run, or a folder as it is; and the recipe of the run."""
    run = next((folder for folder in (path, path.resolve().parent) if (folder / RUN_FILE).is_file()), None)
    if run is None or (path != run and path.name != "final"):
        return path, None
    state = _json(run / RUN_FILE).get("state")
    if state != DONE or not (run / "final" / SETTINGS_FILE).is_file():
        raise InputError(
            run, expected="a run that is done, with its model in final", got=f"one in state '{state}'",
            remedy="let the same command of training finish it",
        )  # fmt: skip
    return (run / "final" if path == run else path), run / RECIPE_FILE


def _refuse_others(found: Pushable) -> None:
    others = [name for name in found.files if not is_model_file(name)]
    if others:
        more = f" and {len(others) - 8} more" if len(others) > 8 else ""
        raise InputError(
            found.folder, expected="the files of a model alone", got=f"{', '.join(others[:8])}{more}",
            remedy="move what is no part of it elsewhere",
        )  # fmt: skip


def _refuse_places(folder: Path) -> None:
    """Refuse what others cannot open: a base or a part on this machine."""
    named = {
        name: str(value)
        for name, value in flat_settings(load_yaml(folder / SETTINGS_FILE)).items()
        if name.rpartition(".")[2] in PLACES and value is not None
    }
    adapter = folder / "adapter/adapter_config.json"
    if adapter.is_file():
        named["adapter_config.json: base_model_name_or_path"] = str(_json(adapter).get("base_model_name_or_path"))
    for name, value in named.items():
        if value != "." and not value.startswith("./") and _is_local(value):
            base = name.endswith(("backbone.init_args.path", "base_model_name_or_path"))
            raise InputError(
                f"{folder / SETTINGS_FILE}: {name}", expected="a Hub id, which others can open", got=value,
                remedy="merge_adapter() and save, or train the adapter on the base by its Hub id" if base
                else "name it by its Hub id, and save the model again",
            )  # fmt: skip


def _is_local(value: str) -> bool:
    return value.startswith(("/", "~", "..")) or Path(value).exists()


def _json(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except ValueError as error:
        raise InputError(path, expected="JSON", got=error, remedy="write it again") from error
