"""What mteb says of a model: its ``ModelMeta``, read off an embedder, and the register that finds it by its name."""

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from mteb.models.model_implementations import MODEL_REGISTRY
from mteb.models.model_meta import ModelMeta, ScoringFunction
from mteb.types import Licenses
from PIL.Image import new as new_picture

from mmembed.errors import InputError
from mmembed.index.embedding_cache import space_name
from mmembed.items import Image, Item, Video
from mmembed.models.embedder import Embedder
from mmembed.models.identity import identity
from mmembed.models.profiles import Released, load_released, released_names
from mmembed.models.settings import DualEncoder

if TYPE_CHECKING:
    from mmembed.serve.mteb.encoder import Instruct, MtebEncoder, Prompts

NO_LIMIT = 1 << 30
"""Tokenizers without a limit of their own say a number far beyond this."""
TRIAL_SIDE, TRIAL_FRAMES = 224, 4


def meta_of(
    model: Embedder,
    name: str | None = None,
    *,
    revision: str | None = None,
    licence: str | None = None,
    languages: Iterable[str] | None = None,
    training_datasets: Iterable[str] | None = None,
    release_date: str | None = None,
    **more: Any,
) -> ModelMeta:
    """What mteb says of an embedder; its results lie in folders of this name and revision.

    Args:
        model: the embedder.
        name: ``organisation/model``; None is the Hub id it was opened from, else ``local/`` and its folder.
        revision: commit of its repository; None is a name of everything that its vectors depend on, so that results of
            different weights or settings never mix.
        licence: SPDX name; None is what the profile's row says.
        languages: as mteb writes them, e.g. ``eng-Latn``.
        training_datasets: names of mteb's tasks whose data it was trained on; None says that nobody declared them.
        release_date: ``YYYY-MM-DD``.
        more: other fields of ``ModelMeta``.

    Raises:
        InputError: a name without a slash, or what mteb refuses, in its words.
    """
    named = name or _name_of(model)
    if "/" not in named:
        raise InputError("name", expected="organisation/model", got=f"'{named}'", remedy=f"write local/{named}")
    row = _row_of(named, model)
    is_dual = isinstance(model.settings.backbone, DualEncoder)
    size = sum(p.numel() * p.element_size() for p in model.parameters())
    fields: dict[str, Any] = {
        "loader": None,
        "name": named,
        "revision": revision or space_name(identity(model)),
        "release_date": release_date,
        "languages": None if languages is None else list(languages),
        "n_parameters": sum(p.numel() for p in model.parameters()),
        "memory_usage_mb": round(size / 2**20, 3),
        "max_tokens": _max_tokens(model),
        "embed_dim": model.width,
        "license": licence or _licence_of(row),
        "open_weights": None if row is None else True,
        "public_training_code": None,
        "public_training_data": None,
        "framework": ["PyTorch"] if is_dual else ["PyTorch", "Transformers"],
        "similarity_fn_name": ScoringFunction.COSINE if model.settings.normalize else ScoringFunction.DOT_PRODUCT,
        "use_instructions": not is_dual,
        "training_datasets": None if training_datasets is None else set(training_datasets),
        "modalities": list(modalities_of(model)),
    }
    try:
        return ModelMeta(**fields | more)
    except ValueError as error:
        raise InputError("ModelMeta", expected="fields that mteb takes", got=error, remedy="correct them") from error


def modalities_of(model: Embedder) -> tuple[str, ...]:
    """What a model reads, of ``text``, ``image`` and ``video``: a small item of each is prepared, or refused."""
    picture = new_picture("RGB", (TRIAL_SIDE, TRIAL_SIDE))
    trials = {
        "text": Item(("a",)),
        "image": Item((Image(picture),)),
        "video": Item((Video((picture,) * TRIAL_FRAMES),)),
    }
    return tuple(name for name, item in trials.items() if _reads(model, item))


def register(
    meta: ModelMeta,
    model: str | Path,
    *,
    prompts: "Prompts | None" = None,
    instruct: "Instruct | None" = None,
    **options: Any,
) -> ModelMeta:
    """Let ``mteb.get_model(meta.name)`` open a model; for this process, out of mteb's tree.

    Args:
        meta: what :func:`meta_of` gave.
        model: directory or Hub id, as :meth:`Embedder.from_pretrained` takes it.
        prompts: instructions in place of the tasks' own, as :class:`MtebEncoder` takes them.
        instruct: who gets tasks' own instructions, likewise.
        options: other arguments of :meth:`Embedder.from_pretrained`.

    Returns:
        The meta with a loader.

    Raises:
        InputError: a meta of an encoder with other instructions.
    """
    from mmembed.serve.mteb.encoder import experiment

    said, own = dict(meta.experiment_kwargs or {}), experiment(prompts, instruct) or {}
    if said.get("instructions") not in (None, own.get("instructions")):
        raise InputError(
            f"register {meta.name}", expected="the instructions of the encoder whose meta this is",
            got="others" if own else "none", remedy="give prompts and instruct as MtebEncoder had them",
        )  # fmt: skip
    given = {"prompts": dict(prompts) if prompts else None, "instruct": instruct}
    options |= {name: value for name, value in given.items() if value is not None}
    loadable = meta.model_copy(update={"loader": open_registered, "loader_kwargs": {"model": str(model), **options}})
    MODEL_REGISTRY[str(meta.name)] = loadable
    return loadable


def open_registered(
    name: str,
    revision: str | None = None,
    *,
    model: str,
    device: str | None = None,
    prompts: "Prompts | None" = None,
    instruct: "Instruct | None" = None,
    instructions: str | None = None,
    **options: Any,
) -> "MtebEncoder":
    """What mteb calls to open a registered model; ``name`` and ``revision`` are those of its meta.

    ``instructions`` is the meta's name of ``prompts`` and ``instruct``, which :func:`register` compared.
    """
    from mmembed.serve.mteb.encoder import MtebEncoder

    opened = Embedder.from_pretrained(model, device=device, **options)
    return MtebEncoder(opened, meta_of(opened, name, revision=revision), prompts=prompts, instruct=instruct)


def _reads(model: Embedder, item: Item) -> bool:
    try:
        model.prepare([item], "query")
    except InputError:
        return False
    return True


def _places(model: Embedder) -> list[str]:
    """Where its weights were opened from, an adapter first."""
    backbone: Any = model.settings.backbone
    return [str(place) for name in ("adapter", "path") if (place := getattr(backbone, name, None))]


def _name_of(model: Embedder) -> str:
    places = _places(model)
    for place in places:
        if place.count("/") == 1 and (place in released_names() or not Path(place).exists()):
            return place
        if place in released_names():
            # an architecture and the tag of its weights, as open_clip lists them
            return f"open_clip/{place.replace(':', '-')}"
    folders = Path(places[0]).resolve().parts[-2:] if places else ("scratch",)
    return f"local/{'-'.join(folders)}"


def _row_of(name: str, model: Embedder) -> Released | None:
    """The row of a published checkpoint, where the model or its name is one."""
    found = next((place for place in (name, *_places(model)) if place in released_names()), None)
    return None if found is None else load_released(found)[0]


def _licence_of(row: Released | None) -> str | None:
    said = "" if row is None else (row.licence or "").lower()
    return said if said in get_args(Licenses) else None


def _max_tokens(model: Embedder) -> int | None:
    limit = getattr(model.settings.backbone, "max_length", None)
    limit = limit or getattr(getattr(model.backbone.preprocessor, "tokenizer", None), "model_max_length", None)
    return None if limit is None or limit > NO_LIMIT else int(limit)
