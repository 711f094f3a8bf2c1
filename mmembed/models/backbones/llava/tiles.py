"""How a picture is cut into tiles, and how many tokens its tiles become.

A picture is seen whole, as one tile, and again as a grid of tiles at the best of a list of sizes ("any resolution",
https://llava-vl.github.io/blog/2024-01-30-llava-next/); what was added to fit the grid is cut off the features again.
Resizing and cutting are the library's, as is the function that says which features are cut off.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import PIL.Image
import torch
import transformers
from torch import Tensor
from transformers.image_processing_utils import select_best_resolution
from transformers.models.llava_next.modeling_llava_next import unpad_image

from mmembed.errors import InputError

# what a picture may become by most, in tiles' worth of tokens, before its features are shrunk by more than this
_SHRINK_BEYOND = 1.1
_PREFIX = "anyres_max_"
# what leaves patches alone: CLIP's class token is left out, SigLIP has none
_STRATEGY = {"clip_vision_model": "default", "siglip_vision_model": "full"}


@dataclass(frozen=True)
class Tiles:
    """What the checkpoint's config says of tiles.

    Args:
        side: of a tile in pixels.
        patch: side of a patch in pixels.
        patches: to a side of a tile.
        tokens: that a tile becomes.
        sizes: height and width that a picture may be cut at, each a multiple of ``side``; None where it is one tile.
        most: tiles' worth of tokens that a picture may have (LLaVA-OneVision); None is no limit.
    """

    side: int
    patch: int
    patches: int
    tokens: int
    sizes: tuple[tuple[int, int], ...] | None = None
    most: int | None = None

    def grid(self, width: int, height: int) -> tuple[int, int]:
        """Rows and columns of tiles that a picture is cut into besides the whole; none where it is one tile."""
        if self.sizes is None:
            return 0, 0
        rows, columns = select_best_resolution((height, width), self.sizes)
        return rows // self.side, columns // self.side

    def count(self, width: int, height: int) -> int:
        """Tokens of a picture: of the whole, and of the grid with a line break behind each row."""
        if self.sizes is None:
            return self.tokens
        rows, columns = self.shrunk(*self.unpadded(width, height))
        return self.tokens + rows * (columns + 1)

    def unpadded(self, width: int, height: int) -> tuple[int, int]:
        """Rows and columns of features of a picture's grid, once what was added to fit the grid is cut off."""
        rows, columns = (tiles * self.patches for tiles in self.grid(width, height))
        left: Tensor = unpad_image(torch.empty(0, rows, columns), (height, width))
        return left.shape[1], left.shape[2]

    def shrunk(self, rows: int, columns: int) -> tuple[int, int]:
        """Rows and columns of features once there are no more than allowed."""
        shrink = 0.0 if self.most is None else math.sqrt(rows * columns / (self.most * self.patches**2))
        if shrink > _SHRINK_BEYOND:
            return int(rows // shrink), int(columns // shrink)
        return rows, columns

    @property
    def frame_tokens(self) -> int:
        """Tokens of a frame of a clip: a quarter of a tile's."""
        return math.ceil(self.patches / 2) ** 2


def read_tiles(config: Any) -> Tiles:
    """Tiles as a config of transformers says them.

    Raises:
        InputError: a vision tower that is neither CLIP nor SigLIP.
    """
    vision = config.vision_config
    class_tokens = {"clip_vision_model": 1, "siglip_vision_model": 0}
    if vision.model_type not in class_tokens:
        raise InputError(
            "config.json: vision_config.model_type", expected=f"one of {', '.join(class_tokens)}",
            got=f"'{vision.model_type}'", remedy="no other tower is read here",
        )  # fmt: skip
    sizes = getattr(config, "image_grid_pinpoints", None)
    if sizes is not None and config.vision_feature_select_strategy != _STRATEGY[vision.model_type]:
        raise InputError(
            "config.json: vision_feature_select_strategy",
            expected=f"{_STRATEGY[vision.model_type]}: a grid of tiles has no place for a class token",
            got=config.vision_feature_select_strategy, remedy="take config.json from the checkpoint",
        )  # fmt: skip
    most = getattr(config, "vision_aspect_ratio", None)
    if most is not None and not re.fullmatch(rf"{_PREFIX}\d+", most):
        raise InputError(
            "config.json: vision_aspect_ratio", expected=f"{_PREFIX} and a number, e.g. {_PREFIX}9", got=f"'{most}'",
            remedy="take config.json from the checkpoint",
        )  # fmt: skip
    patches = vision.image_size // vision.patch_size
    # the default strategy leaves the first token out, as CLIP's class token
    tokens = patches**2 + class_tokens[vision.model_type] - (config.vision_feature_select_strategy == "default")
    return Tiles(
        side=vision.image_size,
        patch=vision.patch_size,
        patches=patches,
        tokens=tokens,
        sizes=None if sizes is None else tuple((height, width) for height, width in sizes),
        most=None if most is None else int(most.removeprefix(_PREFIX)),
    )


def make_processor(kind: str, facts: dict[str, Any], tiles: Tiles, resize: str) -> Any:
    """A processor of transformers that resizes and cuts pictures, and leaves their pixels uint8.

    Args:
        kind: its class, without the ending that names how it resizes.
        facts: what ``preprocessor_config.json`` says.
        tiles: what the tower takes.
        resize: pil or torchvision.

    Raises:
        InputError: its tiles are not what the tower takes.
    """
    own: dict[str, Any] = {"do_rescale": False, "do_normalize": False}
    if tiles.sizes is not None:
        own |= {"image_grid_pinpoints": [list(size) for size in tiles.sizes]}
    processor = getattr(transformers, kind + ("Pil" if resize == "pil" else "")).from_dict(facts | own)
    height, width = cut(processor, [PIL.Image.new("RGB", (2 * tiles.side, tiles.side))]).shape[-2:]
    if (height, width) != (tiles.side, tiles.side):
        raise InputError(
            "preprocessor_config.json", expected=f"tiles of {tiles.side} x {tiles.side}, as config.json has them",
            got=f"{height} x {width}", remedy="take both files from the same checkpoint",
        )  # fmt: skip
    return processor


def cut(processor: Any, pictures: Sequence[Any]) -> Tensor:
    """Pictures as uint8 tiles ``[P, 3, 1, h, w]``."""
    pixels: Tensor = processor(pictures, return_tensors="pt")["pixel_values"]
    return pixels.reshape(-1, *pixels.shape[-3:])[:, :, None]
