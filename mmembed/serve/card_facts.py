"""What a model card says of a model itself: how it embeds, and the very strings that it reads."""

import json
from collections.abc import Collection, Iterator
from itertools import groupby
from typing import Any

import numpy as np
import PIL.Image

from mmembed.items import Image, Item, Video
from mmembed.models.embedder import Embedder
from mmembed.models.prompts import Kind, render
from mmembed.models.settings import DualEncoder, LanguageSettings, Side, VisionLanguageSettings
from mmembed.settings import dump_settings

INSTRUCTION, TEXT = "INSTRUCTION", "TEXT"
_SIDE = 84


def reads(model: Embedder, left: Collection[str] = ()) -> tuple[str, ...]:
    """What a model takes, text, image, video, but for what its export ``left`` behind."""
    if not isinstance(model.settings.backbone, VisionLanguageSettings | DualEncoder):
        return ("text",)
    preprocessor: Any = model.backbone.preprocessor
    video = preprocessor.takes_video and "video" not in left
    return ("text", "image", "video") if video else ("text", "image")


def facts(model: Embedder, left: Collection[str] = ()) -> dict[str, str]:
    """How it embeds, by name, in words, without the parts that its export left behind."""
    settings: Any = model.settings.backbone
    said = {
        "reads": ", ".join(reads(model, left)),
        "backbone": _architecture(model),
        "width": f"{model.width} numbers, {'unit length' if model.settings.normalize else 'not normalised'}",
        "pooling": _part(model.settings.pooler),
        "prompt": type(model.settings.prompt).__name__,
    }
    if isinstance(settings, LanguageSettings):
        said["attention"] = settings.attention_policy
        said["positions"] = getattr(settings, "positions", "one counter")
        said["longest row"] = "the backbone's own" if settings.max_length is None else f"{settings.max_length} tokens"
    if "image" in reads(model, left):
        said["pixels"] = _pixels(settings)
    if "video" in reads(model, left):
        said["clips"] = _part(settings.media.sampling)
    if model.has_adapter:
        said["base"] = f"{settings.path}{f' at commit {settings.revision}' if settings.revision else ''}"
    said["regions"] = "none" if model.settings.regions is None or "regions" in left else _part(model.settings.regions)
    said["weights"] = str(next(model.parameters()).dtype).removeprefix("torch.")
    return said


def prompts(model: Embedder, left: Collection[str] = ()) -> list[tuple[str, str]]:
    """What is embedded, and what the tokenizer reads of it, a string as JSON writes it, a medium as one placeholder."""
    found: dict[str, dict[str, str]] = {}
    for name, item in _items(model, left):
        sides: tuple[Side, ...] = ("query", "target")
        found[name] = {side: json.dumps(_written(model, item, side), ensure_ascii=False) for side in sides}
    rows = []
    for name, by_side in found.items():
        same = by_side["query"] == by_side["target"]
        rows += [(name, by_side["query"])] if same else [(f"{name}, {side}", text) for side, text in by_side.items()]
    return rows


def _items(model: Embedder, left: Collection[str]) -> Iterator[tuple[str, Item]]:
    picture = PIL.Image.fromarray(np.zeros((_SIDE, _SIDE, 3), dtype=np.uint8))
    contents: dict[str, tuple[Any, ...]] = {"text": (TEXT,)}
    if "image" in reads(model, left):
        contents |= {"image": (Image(picture),), "image and text": (Image(picture), TEXT)}
    if "video" in reads(model, left):
        contents["video"] = (Video((picture, picture)),)
    for name, content in contents.items():
        yield name, Item(content, verbatim=False)
        yield f"{name}, with an instruction", Item(content, INSTRUCTION, verbatim=False)


def _written(model: Embedder, item: Item, side: Side) -> str:
    preprocessor: Any = model.backbone.preprocessor
    if not isinstance(model.settings.backbone, LanguageSettings):
        return "".join(segment.text for segment in render(item, model.settings.prompt, [""] * len(item.media)))
    row = preprocessor(item, side)
    media = (int(Kind.IMAGE), int(Kind.VIDEO))
    placeholders = {preprocessor.tokenizer.convert_tokens_to_ids(word) for word in preprocessor.words.values()}
    ids: list[int] = []
    numbered = zip(row.ids.tolist(), row.kinds.tolist(), strict=True)
    for (token, kind), run in groupby(numbered):
        number = len(list(run))
        ids += [token] * (1 if kind in media and token in placeholders else number)
    return str(preprocessor.tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False))


def _architecture(model: Embedder) -> str:
    config = getattr(getattr(model.backbone, "model", None), "config", None)
    named = getattr(config, "model_type", None)
    return f"{type(model.settings.backbone).__name__}{f' ({named})' if named else ''}"


def _pixels(settings: Any) -> str:
    names = ("min_pixels", "max_pixels", "first_resize", "num_crops", "resize", "transform")
    said = [f"{name} {getattr(settings, name)}" for name in names if getattr(settings, name, None) is not None]
    said += [f"{name} {getattr(settings.media, name)}" for name in ("alpha", "square") if getattr(settings.media, name)]
    return ", ".join(said)


def _part(part: Any) -> str:
    """The class of a part and what it is told."""
    values = dump_settings(part)
    given = ", ".join(f"{name} {value}" for name, value in values.get("init_args", values).items() if value is not None)
    return f"{type(part).__name__}{f' ({given})' if given else ''}"
