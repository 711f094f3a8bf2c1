"""A model's folder in the library's own layout: weights, config, tokenizer, processor and chat template."""

import copy
import json
from pathlib import Path
from typing import Any

from mmembed.errors import InputError
from mmembed.files import write_json
from mmembed.models.language import LanguageBackbone, VisionLanguageBackbone
from mmembed.models.plain.processors import processor_of
from mmembed.models.plain.weights import full_class, merged_weights, save_weights

IMAGES, CLIPS = "preprocessor_config.json", "video_preprocessor_config.json"


def plain_backbone(backbone: object) -> LanguageBackbone:
    """The backbone itself, refused where the library has no class for it.

    Raises:
        InputError: dual encoders of open_clip; Phi-3.5-vision, which the library opens by remote code only.
    """
    if not isinstance(backbone, LanguageBackbone):
        raise InputError(
            "export", expected="a model with a language model, which transformers opens",
            got=f"{type(backbone).__name__}: open_clip's layout, and two towers where the targets have one",
            remedy="open the checkpoint with open_clip there: its files are what `save` writes",
        )  # fmt: skip
    kind = backbone.model.config.model_type
    if full_class(backbone.model.config) is None and not _is_known(kind):
        raise InputError(
            "export", expected="a model that transformers opens without remote code", got=f"'{kind}'",
            remedy="use it here, or export a model of another family",
        )  # fmt: skip
    return backbone


def reads_pictures(backbone: object) -> bool:
    """Whether a backbone is shown pictures beside text."""
    return isinstance(backbone, VisionLanguageBackbone)


def write_plain(
    backbone: LanguageBackbone, directory: Path, *, template: str | None = None, full: bool = False
) -> None:
    """Write what ``AutoModel`` and ``AutoProcessor`` open; the backbone stays as it is.

    Args:
        backbone: an adapter in it is folded in.
        directory: where to.
        template: chat template in the place of the checkpoint's own.
        full: lay weights and config out as those of the model with its head, without the head: what servers read.
    """
    head = backbone.head if full and full_class(backbone.model.config) is not None else None
    save_weights(backbone.model, merged_weights(backbone.model), directory, head or None)
    processor = processor_of(backbone)
    tokenizer = copy.deepcopy(backbone.checkpoint.tokenizer)
    tokenizer.model_max_length = backbone.settings.max_length or tokenizer.model_max_length
    if template is not None:
        tokenizer.chat_template = template
    if processor is None:
        tokenizer.save_pretrained(directory)
        return
    processor.tokenizer, processor.chat_template = tokenizer, tokenizer.chat_template
    processor.save_pretrained(directory)
    _write_older(processor, directory)


def _write_older(processor: Any, directory: Path) -> None:
    """The files that versions of the library before 5 read in the place of ``processor_config.json``."""
    kind = type(processor).__name__
    images = json.loads(processor.image_processor.to_json_string())
    # before 5 a class without an ending is Pillow's
    images["image_processor_type"] = images["image_processor_type"].removesuffix("Pil")
    write_json(directory / IMAGES, images | {"processor_class": kind})
    clips = getattr(processor, "video_processor", None)
    if clips is not None:
        write_json(directory / CLIPS, json.loads(clips.to_json_string()) | {"processor_class": kind})


def _is_known(kind: str) -> bool:
    from transformers.models.auto.modeling_auto import MODEL_MAPPING_NAMES

    return kind in MODEL_MAPPING_NAMES
