"""Names of weights: from the released ``.pt`` files of SAM 2 to transformers' ``Sam2Model``."""

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from mmembed.errors import InputError

_FRAMES = (
    "memory_attention.", "memory_encoder.", "maskmem_tpos_enc", "obj_ptr_", "no_obj_", "no_mem_pos_enc",
    "mask_downsample.",
)  # fmt: skip
"""What only serves frames of a clip that others came before."""
_POINTS = tuple(f"sam_prompt_encoder.point_embeddings.{i}.weight" for i in range(4))
_GAUSSIAN = "sam_prompt_encoder.pe_layer.positional_encoding_gaussian_matrix"

_WHOLE = (
    (r"image_encoder\.trunk\.(pos_embed|pos_embed_window)", r"vision_encoder.backbone.\1"),
    (r"image_encoder\.trunk\.patch_embed\.proj\.(\w+)", r"vision_encoder.backbone.patch_embed.projection.\1"),
    (r"image_encoder\.trunk\.(blocks\.\d+\.(?:attn\.qkv|attn\.proj|proj)\.\w+)", r"vision_encoder.backbone.\1"),
    (r"image_encoder\.trunk\.(blocks\.\d+)\.norm([12])\.(\w+)", r"vision_encoder.backbone.\1.layer_norm\2.\3"),
    (r"image_encoder\.trunk\.(blocks\.\d+\.mlp)\.layers\.0\.(\w+)", r"vision_encoder.backbone.\1.proj_in.\2"),
    (r"image_encoder\.trunk\.(blocks\.\d+\.mlp)\.layers\.1\.(\w+)", r"vision_encoder.backbone.\1.proj_out.\2"),
    (r"image_encoder\.neck\.convs\.(\d+)\.conv\.(\w+)", r"vision_encoder.neck.convs.\1.\2"),
    (r"sam_prompt_encoder\.((?:not_a_point|no_mask)_embed\.weight)", r"prompt_encoder.\1"),
    (r"sam_prompt_encoder\.mask_downscaling\.0\.(\w+)", r"prompt_encoder.mask_embed.conv1.\1"),
    (r"sam_prompt_encoder\.mask_downscaling\.1\.(\w+)", r"prompt_encoder.mask_embed.layer_norm1.\1"),
    (r"sam_prompt_encoder\.mask_downscaling\.3\.(\w+)", r"prompt_encoder.mask_embed.conv2.\1"),
    (r"sam_prompt_encoder\.mask_downscaling\.4\.(\w+)", r"prompt_encoder.mask_embed.layer_norm2.\1"),
    (r"sam_prompt_encoder\.mask_downscaling\.6\.(\w+)", r"prompt_encoder.mask_embed.conv3.\1"),
    (r"sam_mask_decoder\.(transformer\..*(?:q|k|v)_proj\.\w+)", r"mask_decoder.\1"),
    (r"sam_mask_decoder\.(transformer\..*)\.out_proj\.(\w+)", r"mask_decoder.\1.o_proj.\2"),
    (r"sam_mask_decoder\.(transformer\.layers\.\d+)\.norm([1-4])\.(\w+)", r"mask_decoder.\1.layer_norm\2.\3"),
    (r"sam_mask_decoder\.transformer\.norm_final_attn\.(\w+)", r"mask_decoder.transformer.layer_norm_final_attn.\1"),
    (r"sam_mask_decoder\.(transformer\.layers\.\d+\.mlp)\.layers\.0\.(\w+)", r"mask_decoder.\1.proj_in.\2"),
    (r"sam_mask_decoder\.(transformer\.layers\.\d+\.mlp)\.layers\.1\.(\w+)", r"mask_decoder.\1.proj_out.\2"),
    (r"sam_mask_decoder\.output_upscaling\.0\.(\w+)", r"mask_decoder.upscale_conv1.\1"),
    (r"sam_mask_decoder\.output_upscaling\.1\.(\w+)", r"mask_decoder.upscale_layer_norm.\1"),
    (r"sam_mask_decoder\.output_upscaling\.3\.(\w+)", r"mask_decoder.upscale_conv2.\1"),
    (r"sam_mask_decoder\.((?:iou_token|mask_tokens|obj_score_token|conv_s0|conv_s1)\.\w+)", r"mask_decoder.\1"),
)
_HEADS = r"output_hypernetworks_mlps\.\d+|iou_prediction_head|pred_obj_score_head"
_MLP = rf"sam_mask_decoder\.({_HEADS})\.layers\.(\d)\.(\w+)"
_MLP_LAYERS = {"0": "proj_in", "1": "layers.0", "2": "proj_out"}


def native_weights(original: Mapping[str, Tensor], path: str) -> dict[str, Tensor]:
    """The weights under transformers' names; those that only serve clips are left out.

    Args:
        original: as facebookresearch/sam2 names them.
        path: names their file in errors.

    Raises:
        InputError: a name that is none of SAM 2's.
    """
    found: dict[str, Tensor] = {}
    unknown = []
    for name, value in original.items():
        if name.startswith(_FRAMES) or name in _POINTS:
            continue
        if name == _GAUSSIAN:
            found["prompt_encoder.shared_embedding.positional_embedding"] = value
            found["shared_image_embedding.positional_embedding"] = value.clone()
        elif name == "no_mem_embed":
            found["no_memory_embedding"] = value
        elif (native := _native(name)) is not None:
            found[native] = value
        else:
            unknown.append(name)
    if unknown:
        raise InputError(
            path, expected="the weights of a SAM 2 under their released names",
            got=f"{len(unknown)} unexpected: {', '.join(sorted(unknown)[:8])}",
            remedy="use a checkpoint of facebookresearch/sam2, or one in transformers' layout",
        )  # fmt: skip
    if all(name in original for name in _POINTS):
        found["prompt_encoder.point_embed.weight"] = torch.cat([original[name] for name in _POINTS])
    return found


def _native(name: str) -> str | None:
    for pattern, native in _WHOLE:
        if match := re.fullmatch(pattern, name):
            return match.expand(native)
    if (match := re.fullmatch(_MLP, name)) and match[2] in _MLP_LAYERS:
        return f"mask_decoder.{match[1]}.{_MLP_LAYERS[match[2]]}.{match[3]}"
    return None
