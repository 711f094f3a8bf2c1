"""Phi-3.5-vision as a transformers model: the library's Phi-3 decoder and CLIP tower, and what joins them.

transformers has no such class, and the published one is remote code. Module names are the published ones (``glb_GN``
and ``sub_GN`` are the separators behind the tiles and behind a row of patches), so that checkpoints load by name.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoModel, CLIPVisionModel, Phi3Model
from transformers import initialization as init
from transformers.conversion_mapping import register_checkpoint_conversion_mapping
from transformers.core_model_loading import WeightRenaming

from mmembed.models.backbones.phi3_v.config import Phi3VConfig

TOWER = "vision_embed_tokens"
_CLIP = f"{TOWER}.img_processor."


class PictureEmbedding(nn.Module):
    """Tiles of pictures to token embeddings, with the weights of the published ``vision_embed_tokens``."""

    def __init__(self, config: Phi3VConfig) -> None:
        super().__init__()
        merged, width = 4 * config.vision_config.hidden_size, config.hidden_size
        self.img_processor = CLIPVisionModel(config.vision_config)
        self.img_projection = nn.Sequential(nn.Linear(merged, width), nn.GELU(), nn.Linear(width, width))
        self.glb_GN = nn.Parameter(torch.empty(1, 1, merged))
        self.sub_GN = nn.Parameter(torch.empty(1, 1, 1, merged))

    def forward(
        self, tiles: Tensor, views: Tensor, grids: Sequence[tuple[int, int]], *, to_the_last: bool = False
    ) -> list[Tensor]:
        """Each picture's tokens: its tiles row by row, a separator, its whole view.

        Args:
            tiles: normalised ``[P, 3, S, S]``, those of all pictures one after another, row by row.
            views: each picture as a whole, normalised ``[M, 3, S, S]``.
            grids: tiles of each picture in height and width.
            to_the_last: whether CLIP's last layer is run, too, for somebody who listens.

        Returns:
            For each picture ``[v, D]``.
        """
        states = self.patches(torch.cat([tiles, views]), to_the_last=to_the_last)
        joined = self.join(states, grids, self.sub_GN[0], self.glb_GN[0])
        return list(torch.split(self.img_projection(torch.cat(joined)), [len(tokens) for tokens in joined]))

    def patches(self, pictures: Tensor, *, to_the_last: bool = False) -> Tensor:
        """CLIP's states of the patches before its last layer, which is not run unless asked for ``[P, L, C]``."""
        clip = self.img_processor
        states: Tensor = clip.pre_layrnorm(clip.embeddings(pictures))
        *layers, last = clip.encoder.layers
        for layer in layers:
            states = layer(states, None)
        if to_the_last:
            last(states, None)
        return states[:, 1:]

    def join(self, states: Tensor, grids: Sequence[tuple[int, int]], line: Tensor, between: Tensor) -> list[Tensor]:
        """States of patches as each picture's tokens before the projection.

        Args:
            states: ``[P + M, L, C]`` of the tiles and then of the whole views.
            grids: tiles of each picture in height and width.
            line: ``[1, 1, 4C]``, what stands behind each line of tokens.
            between: ``[1, 4C]``, what stands before the whole view.

        Returns:
            For each picture ``[v, 4C]``, patches 2 x 2 merged.
        """
        *tiles, views = torch.split(states, [*(rows * columns for rows, columns in grids), len(grids)])
        return [
            torch.cat([_lines(piece, *grid, line), between, _lines(view[None], 1, 1, line)])
            for piece, view, grid in zip(tiles, views, grids, strict=True)
        ]


class Phi3VModel(Phi3Model):  # type: ignore[misc]
    """Phi-3 with pictures, without its head; ``vision_embed_tokens`` is run by the backbone."""

    config: Phi3VConfig
    # class attributes of transformers' own, read by its placement and loading code
    _no_split_modules = ("Phi3DecoderLayer", "CLIPEncoderLayer", "CLIPVisionEmbeddings")

    def __init__(self, config: Phi3VConfig) -> None:
        super().__init__(config)
        self.vision_embed_tokens = PictureEmbedding(config)
        self.post_init()

    def save_pretrained(self, save_directory: str | Path, **kwargs: Any) -> None:
        """Write the weights under the published names, those of a model with a head."""
        named = {published_name(key): value for key, value in self.state_dict().items()}
        super().save_pretrained(save_directory, **({"state_dict": named, "save_original_format": False} | kwargs))

    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, PictureEmbedding):
            for separator in (module.glb_GN, module.sub_GN):
                init.normal_(separator, std=self.config.initializer_range)


def merge(tiles: Tensor, rows: int, columns: int) -> Tensor:
    """Join a grid of tiles into one picture and merge its patches 2 x 2.

    Args:
        tiles: ``[rows * columns, L, C]``, L a square number.
        rows: tiles in height.
        columns: tiles in width.

    Returns:
        ``[rows * m, columns * m, 4C]``, m half the patches to a tile's side.
    """
    half = int(tiles.shape[1] ** 0.5) // 2
    blocks = tiles.reshape(rows, columns, half, 2, half, 2, -1)
    return blocks.permute(0, 2, 1, 4, 3, 5, 6).reshape(rows * half, columns * half, -1)


def _lines(tiles: Tensor, rows: int, columns: int, behind: Tensor) -> Tensor:
    """Patches ``[rows * columns, L, C]`` of a grid of tiles, 2 x 2 merged, line by line with ``behind`` after each."""
    merged = merge(tiles, rows, columns)
    return torch.cat([merged, behind.expand(len(merged), -1, -1)], dim=1).flatten(0, 1)


def published_name(key: str) -> str:
    """A weight's name in the published files, by its name in :class:`Phi3VModel`."""
    if key.startswith(_CLIP):
        key = f"{_CLIP}vision_model.{key.removeprefix(_CLIP)}"
    return f"model.{key}"


AutoModel.register(Phi3VConfig, Phi3VModel, exist_ok=True)
# some published files hold the token embeddings under the name that their picture embedding knows them by, or both
register_checkpoint_conversion_mapping(
    Phi3VModel.__name__,
    [WeightRenaming(rf"{TOWER}\.wte\.weight", "embed_tokens.weight")],
    overwrite=True,
)
