"""Configs of SAM 2: of the released sizes, told by their weights, and of small random ones."""

from collections.abc import Mapping
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from torch import Tensor, nn
from transformers import Sam2Config, Sam2Model

from mmembed.errors import InputError
from mmembed.models.settings.regions.sam2 import Sam2Scratch

STRIDE = 16
"""Pixels to a cell of the map that the mask decoder reads."""
TOKEN = 64
"""Pixels to a side of one of VIRTUE's tokens: four by four cells."""
_SMALL_HEADS, _LARGE_HEADS = [1, 2, 4, 8], [2, 4, 8, 16]
# SAM 2's own configs: width and blocks -> heads, blocks with global attention, windows
_RELEASED: dict[tuple[int, int], tuple[list[int], list[int], list[int], list[int]]] = {
    (96, 12): ([1, 2, 7, 2], _SMALL_HEADS, [5, 7, 9], [8, 4, 14, 7]),
    (96, 16): ([1, 2, 11, 2], _SMALL_HEADS, [7, 10, 13], [8, 4, 14, 7]),
    (112, 24): ([2, 3, 16, 3], _LARGE_HEADS, [12, 16, 20], [8, 4, 14, 7]),
    (144, 48): ([2, 6, 36, 4], _LARGE_HEADS, [23, 33, 43], [8, 4, 16, 8]),
}
_HIERA = "sam2_hiera_det_model"
_SCRATCH = {
    "model_type": _HIERA,
    "hidden_size": 16, "num_attention_heads": 1, "blocks_per_stage": [1, 1, 2, 1],
    "embed_dim_per_stage": [16, 32, 64, 128], "num_attention_heads_per_stage": [1, 2, 4, 8],
    "window_size_per_stage": [8, 4, 8, 4], "global_attention_blocks": [3],
}  # fmt: skip
_SCRATCH_WIDTH = 32


def config_of(weights: Mapping[str, Tensor], path: str) -> Sam2Config:
    """The config of a released size: tiny, small, base plus or large.

    Args:
        weights: under transformers' names.
        path: names their file in errors.

    Raises:
        InputError: weights of another size.
    """
    backbone = "vision_encoder.backbone."
    position = weights.get(f"{backbone}pos_embed")
    blocks = {name.split(".")[3] for name in weights if name.startswith(f"{backbone}blocks.")}
    width = 0 if position is None else position.shape[1]
    if position is None or (width, len(blocks)) not in _RELEASED:
        raise InputError(
            path, expected="a SAM 2 of a released size: tiny, small, base plus or large",
            got=f"an image encoder of width {width} and {len(blocks)} blocks",
            remedy="put the config.json of transformers' layout beside the file",
        )  # fmt: skip
    per_stage, heads, everywhere, windows = _RELEASED[width, len(blocks)]
    widths = [width * 2**stage for stage in range(4)]
    hiera = {
        "model_type": _HIERA, "hidden_size": width, "num_attention_heads": heads[0], "blocks_per_stage": per_stage,
        "embed_dim_per_stage": widths, "num_attention_heads_per_stage": heads, "window_size_per_stage": windows,
        "global_attention_blocks": everywhere,
        "window_positional_embedding_background_size": list(position.shape[2:]),
    }  # fmt: skip
    return Sam2Config(vision_config={"backbone_config": hiera, "backbone_channel_list": widths[::-1]})


def scratch_model(scratch: Sam2Scratch) -> Sam2Model:
    """A small random SAM 2, its weights scaled by what goes into each so that a prompt moves what comes out.

    Raises:
        InputError: fields that its config does not take.
    """
    try:
        config = _scratch_config(scratch)
    except (TypeError, ValueError, StrictDataclassError) as error:
        raise InputError(
            "regions.scratch.vision", expected="fields of transformers' Sam2HieraDetConfig",
            got=" ".join(str(error).split()), remedy="leave vision out for the small default",
        ) from error  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(scratch.seed)
        model = Sam2Model(config)
        for module in model.modules():
            if isinstance(module, nn.Linear | nn.Conv2d | nn.ConvTranspose2d):
                nn.init.normal_(module.weight, std=module.weight[0].numel() ** -0.5)
        model.shared_image_embedding.load_state_dict(model.prompt_encoder.shared_embedding.state_dict())
    return model


def _scratch_config(scratch: Sam2Scratch) -> Sam2Config:
    side = scratch.image_size
    hiera: dict[str, Any] = _SCRATCH | {"image_size": [side, side]} | scratch.vision
    vision = {
        "backbone_config": hiera,
        "backbone_channel_list": hiera["embed_dim_per_stage"][::-1],
        # the three maps that the decoder reads, at strides 4, 8 and 16
        "backbone_feature_sizes": [[side // stride, side // stride] for stride in (4, 8, STRIDE)],
        "fpn_hidden_size": _SCRATCH_WIDTH,
    }
    return Sam2Config(
        vision_config=vision,
        prompt_encoder_config={"hidden_size": _SCRATCH_WIDTH, "image_size": side},
        mask_decoder_config={"hidden_size": _SCRATCH_WIDTH, "mlp_dim": 64, "iou_head_hidden_dim": _SCRATCH_WIDTH},
    )
