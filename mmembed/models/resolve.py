"""What ``from_pretrained`` opens: the settings of a saved run or a published checkpoint, and where its weights lie."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from mmembed.errors import InputError
from mmembed.models.contradictions import refuse_contradictions
from mmembed.models.hub import find_file, in_words, read_json
from mmembed.models.profiles import Released, load_profile, load_released, released_names, released_row
from mmembed.models.repository import pinned
from mmembed.models.saved import (
    SETTINGS_FILE,
    beside,
    folder_beside,
    override,
    refuse_run,
    saved_settings,
)
from mmembed.models.settings import EmbedderSettings
from mmembed.settings import read_settings

ADAPTER_CONFIG = "adapter_config.json"
WHOLE_WEIGHTS = (
    *("model.safetensors", "model.safetensors.index.json"),
    *("pytorch_model.bin", "pytorch_model.bin.index.json"),
)

_PLACES = {"path": "revision", "adapter": "adapter_revision", "checkpoint": "revision", "sam": "sam_revision"}
"""Fields that may name a Hub repository, of a backbone or region encoder, and those that name its commit."""


@dataclass(frozen=True)
class Asked:
    """What one asked for; see :meth:`mmembed.Embedder.from_pretrained`."""

    model: str
    adapter: str | None = None
    profile: str | None = None
    pooler_weights: str | None = None
    regions: Mapping[str, Any] | None = None
    speed: Mapping[str, Any] | None = None
    overrides: Mapping[str, Any] | None = None

    @property
    def revision(self) -> str | None:
        """Commit of the Hub repository, where one is asked for."""
        return (self.overrides or {}).get("revision")


def resolve(asked: Asked) -> EmbedderSettings:
    """The settings of what is asked for, complete: path, adapter, revisions, and the files of parts beside.

    A saved run says everything itself. A published checkpoint is known by its Hub id, or by the profile named.

    Raises:
        InputError: neither ``embedder.yaml`` nor a row nor a profile; a profile that contradicts the checkpoint; an
            unknown override.
    """
    if _brings_settings(asked):
        with _nearest_told(asked.model):
            asked = _at_one_commit(asked)
            values = saved_settings(asked.model, asked.revision)
        saved = read_settings(EmbedderSettings, values, where=f"{asked.model}: {SETTINGS_FILE}")
        settings = _saved_places(override(saved, asked.overrides or {}, asked.regions, asked.speed), saved, asked)
    else:
        row, settings = _published(asked)
        settings = _published_places(override(settings, asked.overrides or {}, asked.regions, asked.speed), row, asked)
        refuse_contradictions(settings, row, asked.model, asked.profile)
    return _with_files(settings, asked)


def at_commits(settings: EmbedderSettings) -> EmbedderSettings:
    """The settings with the commits that its Hub repositories are opened at; they are saved and recorded so.

    Raises:
        InputError: a repository that cannot be read; see :func:`mmembed.models.repository.commit_of`.
    """
    parts = {"backbone": settings.backbone, "regions": settings.regions}
    return replace(settings, **{name: _part_at_commits(part) for name, part in parts.items()})


def _part_at_commits(part: Any) -> Any:
    if getattr(part, "scratch", None) is not None:
        return part
    named = [(field, of) for field, of in _PLACES.items() if getattr(part, field, None) and hasattr(part, of)]
    commits = {of: pinned(getattr(part, field), getattr(part, of)) for field, of in named}
    return replace(part, **commits) if commits else part


@contextmanager
def _nearest_told(model: str) -> Iterator[None]:
    """A block in which a name that leads nowhere, and is nearly a published checkpoint's, is answered with that."""
    try:
        yield
    except InputError as error:
        close = get_close_matches(model, released_names(), n=1, cutoff=0.8)
        if not close or Path(model).exists():
            raise
        remedy = f"did you mean '{close[0]}'? Else {error.remedy}"
        raise InputError(error.where, expected=error.expected, got=error.got, remedy=remedy) from error


def _brings_settings(asked: Asked) -> bool:
    """Whether ``embedder.yaml`` decides: no profile is named, and no row is known by this name."""
    if asked.profile is not None:
        refuse_run(asked.model)
        return False
    is_saved = (Path(asked.model) / SETTINGS_FILE).is_file()
    return is_saved or not {asked.model, asked.adapter} & released_names().keys()


def _published(asked: Asked) -> tuple[Released | None, EmbedderSettings]:
    """The row that is meant, if there is one, and the settings of the profile; a profile named wins over the row's."""
    known = released_names()
    names = [name for name in (asked.profile, asked.adapter, asked.model) if name in known]
    row, settings = load_released(names[0]) if names else (None, None)
    if settings is None or (asked.profile is not None and asked.profile not in known):
        settings = load_profile(str(asked.profile)).embedder
    return row, settings


def _at_one_commit(asked: Asked) -> Asked:
    """The same with the commit of the Hub repository, so that settings, weights and parts beside belong together."""
    commit = pinned(asked.model, asked.revision)
    return asked if commit is None else replace(asked, overrides={**(asked.overrides or {}), "revision": commit})


def _saved_places(settings: EmbedderSettings, saved: EmbedderSettings, asked: Asked) -> EmbedderSettings:
    backbone: Any = settings.backbone
    places = {"path": asked.model if backbone.path in (None, ".") else backbone.path}
    if places["path"] != asked.model and not Path(asked.model).exists():
        # the revision that was asked for is the adapter's, in its repository
        of_base: Any = saved.backbone
        places["revision"] = of_base.revision
    if asked.adapter is not None:
        places["adapter"] = asked.adapter
    elif backbone.adapter is not None and backbone.adapter.startswith("./"):
        places["adapter"] = folder_beside(asked.model, backbone.adapter.removeprefix("./"), asked.revision)
    return replace(settings, backbone=replace(backbone, **places))


def _published_places(settings: EmbedderSettings, row: Released | None, asked: Asked) -> EmbedderSettings:
    """Where the weights lie: the checkpoint itself, an adapter repository's base and adapter, or both as given."""
    backbone: Any = settings.backbone
    wanted = (asked.overrides or {}).get("adapter_revision")
    if asked.adapter is None and wanted is not None:
        raise InputError(
            "adapter_revision", expected="an adapter beside the model", got="none",
            remedy=f"name it with adapter=...; revision is that of {asked.model}",
        )  # fmt: skip
    revision = pinned(asked.model, asked.revision or _commit_of_row(asked.model))
    if asked.adapter is not None:
        places = {"adapter": asked.adapter, "adapter_revision": wanted or _commit_of_row(asked.adapter)}
        places |= {"path": asked.model, "revision": revision}
    elif _takes_adapters(settings) and (base := _base_of_adapter(asked, row, revision)) is not None:
        base_revision = None if row is None or Path(base).exists() else row.base_revision
        places = {"path": base, "revision": base_revision, "adapter": asked.model, "adapter_revision": revision}
    else:
        places = {"path": asked.model, "revision": revision}
    return replace(settings, backbone=replace(backbone, **places))


def _commit_of_row(name: str) -> str | None:
    """The commit that the row of a repository was written for; a copy of another name has its own."""
    return released_row(name).revision if name in released_names() and not Path(name).exists() else None


def _takes_adapters(settings: EmbedderSettings) -> bool:
    """Whether the path names a repository or directory of transformers' layout."""
    return "longrope_by" in {f.name for f in fields(settings.backbone)}


def _base_of_adapter(asked: Asked, row: Released | None, revision: str | None) -> str | None:
    """What the adapter that lies at ``model`` belongs on; None where whole weights lie there."""
    where = {"revision": revision} if revision else {}
    with in_words(asked.model, "a directory or Hub id", "check the name"):
        said = read_json(asked.model, ADAPTER_CONFIG, where)
        # of weights both whole and as an adapter, the row's kind is opened; without a row the whole ones
        is_adapter = bool(said) and row is not None and row.base is not None
        is_whole = not said or (not is_adapter and any(find_file(asked.model, name, where) for name in WHOLE_WEIGHTS))
    if row is not None and is_whole != (row.base is None):
        raise InputError(
            asked.model, expected="whole weights" if row.base is None else f"an adapter of {row.base}",
            got="whole weights" if is_whole else "an adapter", remedy="name the profile of what lies there",
        )  # fmt: skip
    if is_whole:
        return None
    base = str(said.get("base_model_name_or_path") or "")
    if row is not None and row.base is not None:
        _refuse_other_base(asked.model, row.base, base)
        return row.base
    if not base or (base.count("/") != 1 and not Path(base).exists()):
        raise InputError(
            f"{asked.model}: {ADAPTER_CONFIG}: base_model_name_or_path", expected="a directory or Hub id",
            got=f"'{base}'", remedy="name it: from_pretrained(BASE, adapter=..., profile=...)",
        )  # fmt: skip
    return base


def _refuse_other_base(model: str, base: str, said: str) -> None:
    """An adapter that names another model than its row does; a path of its author's machine counts by its last name."""
    if said and said.rstrip("/").rpartition("/")[2].lower() != base.rpartition("/")[2].lower():
        raise InputError(
            f"{model}: {ADAPTER_CONFIG}", expected=f"an adapter of {base}, which its profile names", got=f"of {said}",
            remedy="name both yourself: from_pretrained(BASE, adapter=..., profile=...)",
        )  # fmt: skip


def _with_files(settings: EmbedderSettings, asked: Asked) -> EmbedderSettings:
    """The files of pooler and region encoder beside the model found, or those given."""
    found: dict[str, Any] = {}
    for key in ("pooler_weights", "regions_weights"):
        file = getattr(settings, key)
        is_beside = file is not None and file.startswith("./")
        found[key] = beside(asked.model, file.removeprefix("./"), asked.revision) if is_beside else file
    if asked.pooler_weights is not None:
        found["pooler_weights"] = asked.pooler_weights
    return replace(settings, **found)
