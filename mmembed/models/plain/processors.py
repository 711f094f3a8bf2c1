"""The library's processor of a family: what turns a chat template, pictures and clips into its model's inputs."""

from collections.abc import Callable
from typing import Any

import transformers

from mmembed.models.backbones.llava.tiles import Tiles, read_tiles
from mmembed.models.language import LanguageBackbone

# more pixels than any clip: what bounds a clip is its frames
_NO_LIMIT = 10**12


def processor_of(backbone: LanguageBackbone) -> Any | None:
    """A processor that prepares pictures and clips as the backbone's settings say, or None for a model of text.

    Frames of a clip are resized by torchvision, whatever the settings say: the library has no other way.
    """
    make = _PROCESSORS.get(backbone.model.config.model_type)
    return None if make is None else make(backbone)


def opened_with(backbone: LanguageBackbone) -> dict[str, Any]:
    """What ``AutoProcessor.from_pretrained`` must be told to resize as the settings say: no file of its own says it."""
    if getattr(backbone.settings, "resize", "torchvision") == "torchvision":
        return {}
    # the newer name of the same choice reaches the processor of clips too, which has but one backend
    has_clips = hasattr(processor_of(backbone), "video_processor")
    return {"use_fast": False} if has_clips else {"backend": "pil"}


def _qwen_vl(backbone: Any) -> Any:
    checkpoint, settings, geometry = backbone.checkpoint, backbone.settings, backbone.preprocessor.geometry
    kind = backbone.model.config.model_type
    shape = {"patch_size": geometry.patch, "merge_size": geometry.merge, "temporal_patch_size": geometry.temporal}
    facts = shape | _scale(checkpoint)
    budget = {"shortest_edge": settings.min_pixels, "longest_edge": settings.max_pixels}
    images = _image_class("Qwen2VLImageProcessor", settings.resize)(**facts, size=budget)
    least, most = settings.clip_pixels
    budget = {"shortest_edge": least, "longest_edge": most}
    frames: dict[str, Any] = facts | {"do_sample_frames": False, "size": budget, "cap_pixels_per_frame": False}
    if kind == "qwen3_vl":
        # it bounds the pixels of all frames together, and by this cap those of one
        total = settings.clips.total_pixels
        budget["longest_edge"] = _NO_LIMIT if total is None else total * geometry.temporal
        cap = {"cap_pixels_per_frame": True, "max_video_tokens": most // geometry.factor**2}
        clips = transformers.Qwen3VLVideoProcessor(**(frames | cap))
        return transformers.Qwen3VLProcessor(images, checkpoint.tokenizer, clips)
    processor = transformers.Qwen2VLProcessor if kind == "qwen2_vl" else transformers.Qwen2_5_VLProcessor
    return processor(images, checkpoint.tokenizer, transformers.Qwen2VLVideoProcessor(**frames))


def _llava(backbone: Any) -> Any:
    config, checkpoint, settings = backbone.model.config, backbone.checkpoint, backbone.settings
    tiles, words = read_tiles(config), backbone.preprocessor.words
    own: dict[str, Any] = _scale(checkpoint)
    if tiles.sizes is not None:
        own["image_grid_pinpoints"] = [list(size) for size in tiles.sizes]
    kind = type(backbone.preprocessor.processor).__name__.removesuffix("Pil")
    images = _image_class(kind, settings.resize).from_dict(checkpoint.preprocessing | own)
    how: dict[str, Any] = {"vision_feature_select_strategy": config.vision_feature_select_strategy}
    how["image_token"] = words[config.image_token_id]
    if config.model_type == "llava_onevision":
        frames = {"size": {"height": tiles.side, "width": tiles.side}, "do_sample_frames": False}
        clips = transformers.LlavaOnevisionVideoProcessor(**frames, **_scale(checkpoint))
        how["vision_aspect_ratio"] = config.vision_aspect_ratio
        how |= {"num_image_tokens": tiles.patches**2, "video_token": words[config.video_token_id]}
        return transformers.LlavaOnevisionProcessor(images, checkpoint.tokenizer, clips, **how)
    how |= {"patch_size": tiles.patch, "num_additional_image_tokens": _class_tokens(tiles, config)}
    kinds = {"llava": transformers.LlavaProcessor, "llava_next": transformers.LlavaNextProcessor}
    return kinds[config.model_type](images, checkpoint.tokenizer, **how)


def _class_tokens(tiles: Tiles, config: Any) -> int:
    """Tokens of a tower beside its patches, whether they are read or not."""
    left_out = config.vision_feature_select_strategy == "default"
    return int(tiles.tokens + left_out - tiles.patches**2)


def _mllama(backbone: Any) -> Any:
    checkpoint, vision = backbone.checkpoint, backbone.model.config.vision_config
    images = _image_class("MllamaImageProcessor", backbone.settings.resize)(
        size={"height": vision.image_size, "width": vision.image_size},
        max_image_tiles=vision.max_num_tiles,
        resample=checkpoint.preprocessing.get("resample", 2),
        **_scale(checkpoint),
    )
    return transformers.MllamaProcessor(images, checkpoint.tokenizer)


_PROCESSORS: dict[str, Callable[[Any], Any]] = {
    "qwen2_vl": _qwen_vl,
    "qwen2_5_vl": _qwen_vl,
    "qwen3_vl": _qwen_vl,
    "llava": _llava,
    "llava_next": _llava,
    "llava_onevision": _llava,
    "mllama": _mllama,
}


def _scale(checkpoint: Any) -> dict[str, list[float]]:
    return {"image_mean": list(checkpoint.image_mean), "image_std": list(checkpoint.image_std)}


def _image_class(kind: str, resize: str) -> Any:
    return getattr(transformers, kind + ("Pil" if resize == "pil" else ""))
