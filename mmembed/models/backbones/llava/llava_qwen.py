"""Checkpoints of the LLaVA-NeXT code (``llava_qwen``) translated to transformers' LLaVA-OneVision.

LLaVE (arXiv:2503.04812) was released so: one flat config of Qwen2 with what its code says of pictures, weights by that
code's names, no file about pictures, and a tokenizer without words for media: the code puts features in their place.
"""

import ast
import re
from typing import Any

from transformers import LlavaOnevisionConfig, Qwen2Config, SiglipVisionConfig

from mmembed.errors import InputError
from mmembed.models.hub import Where, read_json

LLAVA_QWEN = "llava_qwen"
MEDIA_WORDS = ("<image>", "<video>")
"""Tokens added to the tokenizer, which stand for media as transformers' checkpoints have them."""
WEIGHT_NAMES = {
    r"^model\.vision_tower\.vision_tower\.vision_model\.": "vision_tower.",
    r"^model\.mm_projector\.0\.": "multi_modal_projector.linear_1.",
    r"^model\.mm_projector\.2\.": "multi_modal_projector.linear_2.",
    r"^model\.image_newline": "image_newline",
    r"^model\.(?=embed_tokens|layers|norm)": "language_model.",
}
"""Patterns of names in the checkpoint, and what transformers calls them."""

_SO400M: dict[str, Any] = {
    "hidden_size": 1152, "intermediate_size": 4304, "num_hidden_layers": 27, "num_attention_heads": 16,
    "image_size": 384, "patch_size": 14,
}  # fmt: skip
_TOWERS = {"google/siglip-so400m-patch14-384": _SO400M}
# what the translation stands for, and what else the code could be told
_ONLY = {
    "mm_projector_type": ("mlp2x_gelu",), "mm_patch_merge_type": ("spatial_unpad",),
    "mm_spatial_pool_mode": ("bilinear",), "mm_spatial_pool_stride": (2,), "mm_newline_position": ("one_token",),
    "mm_use_im_start_end": (False,), "mm_use_im_patch_token": (False,), "add_faster_video": (False,),
}  # fmt: skip
_OF_QWEN2 = (
    *("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads"),
    *("num_key_value_heads", "hidden_act", "max_position_embeddings", "initializer_range", "rms_norm_eps"),
    *("attention_dropout", "use_sliding_window", "sliding_window", "max_window_layers", "bos_token_id", "eos_token_id"),
)


def translate(path: str, values: dict[str, Any], where: Where, media_ids: tuple[int, int]) -> LlavaOnevisionConfig:
    """The released ``config.json`` as a config of transformers.

    Args:
        path: of the checkpoint.
        values: of its config.
        where: which revision.
        media_ids: of the tokens that stand for a picture and for a clip.

    Raises:
        InputError: something that the LLaVA-NeXT code can do and LLaVA-OneVision does not.
    """
    said = f"{path}: config.json"
    for name, known in _ONLY.items():
        if values.get(name) is not None and values[name] not in known:
            raise InputError(f"{said}: {name}", expected=f"{known[0]}", got=values[name], remedy="no other is read")
    tower = _tower(said, values)
    ratio = str(values.get("image_aspect_ratio"))
    if not re.fullmatch(r"anyres_max_\d+", ratio):
        raise InputError(
            f"{said}: image_aspect_ratio", expected="anyres_max_ and a number", got=ratio, remedy="no other is read"
        )
    text = {name: values[name] for name in _OF_QWEN2 if values.get(name) is not None}
    rope = {"rope_type": "default", "rope_theta": values.get("rope_theta", 10000.0)}
    tied = bool(values.get("tie_word_embeddings", False))
    return LlavaOnevisionConfig(
        text_config=Qwen2Config(**text, rope_parameters=rope, tie_word_embeddings=tied),
        vision_config=tower,
        image_token_index=media_ids[0],
        video_token_index=media_ids[1],
        image_grid_pinpoints=_sizes(said, values.get("image_grid_pinpoints"), tower.image_size),
        vision_aspect_ratio=ratio,
        # the code takes the last layer off the tower, and reads the last that is left
        vision_feature_layer=-1,
        vision_feature_select_strategy="full",
        tie_word_embeddings=tied,
    )


def preprocessing(config: Any) -> dict[str, Any]:
    """What the code does to pictures, as ``preprocessor_config.json`` would say it."""
    side = config.vision_config.image_size
    return {
        "image_processor_type": "LlavaOnevisionImageProcessor", "size": {"height": side, "width": side},
        "resample": 3, "image_mean": [0.5] * 3, "image_std": [0.5] * 3,
    }  # fmt: skip


def _tower(said: str, values: dict[str, Any]) -> SiglipVisionConfig:
    """The tower that ``mm_vision_tower`` names, by Hub id or as a folder with SigLIP's config, less its last layer."""
    name = str(values.get("mm_vision_tower"))
    found: dict[str, Any] = _TOWERS.get(name) or read_json(name, "config.json", {})
    sizes: dict[str, Any] = found.get("vision_config", found)
    if found is not _SO400M and "siglip" not in str(found.get("model_type")):
        raise InputError(
            f"{said}: mm_vision_tower", expected=f"{', '.join(_TOWERS)}, or a folder with SigLIP's config.json",
            got=f"'{name}'", remedy="no other tower is read",
        )  # fmt: skip
    config = SiglipVisionConfig(**{key: sizes[key] for key in _SO400M if key in sizes}, vision_use_head=False)
    config.num_hidden_layers -= 1
    return config


def _sizes(said: str, given: Any, side: int) -> list[list[int]]:
    """Heights and widths that a picture may be cut at, of widths and heights: a list, or words for one."""
    try:
        sizes = _from_words(given, side) if isinstance(given, str) else given
        found = [[int(height), int(width)] for width, height in sizes or ()]
    except (SyntaxError, TypeError, ValueError):
        found = []
    if not found:
        raise InputError(
            f"{said}: image_grid_pinpoints", expected="widths and heights", got=given, remedy="download it again"
        )
    return found


def _from_words(given: str, side: int) -> Any:
    """Widths and heights of a list that is written out, or of ``(1x1),...,(6x6)``, its first and last grid."""
    grids = [tuple(map(int, pair)) for pair in re.findall(r"\((\d+)x(\d+)\)", given)]
    if not grids:
        return ast.literal_eval(given)
    (columns, rows), (most_columns, most_rows) = grids[0], grids[-1]
    return [
        [column * side, row * side] for column in range(columns, most_columns + 1) for row in range(rows, most_rows + 1)
    ]
