"""The adapter for Phi-3-vision and Phi-3.5-vision."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from mmembed.counters import count
from mmembed.errors import InputError
from mmembed.models.backbone import PatchEmbedding
from mmembed.models.backbones.phi3_v.config import read_phi3_v_config
from mmembed.models.backbones.phi3_v.model import TOWER
from mmembed.models.backbones.phi3_v.pixels import frame, whole_view
from mmembed.models.backbones.phi3_v.preprocess import Phi3VPreprocessor
from mmembed.models.backbones.phi3_v.scratch import SCRATCH
from mmembed.models.families import Family
from mmembed.models.hub import Where, find_file
from mmembed.models.language import VisionLanguageBackbone
from mmembed.models.region_encoders.preparer import RegionPreparer
from mmembed.models.sequence import Batch, Features, PatchMap
from mmembed.models.settings import Phi3V, PromptStyle
from mmembed.models.taps import check_taps, tapped


@dataclass(frozen=True)
class Phi3VFamily(Family):
    """Released checkpoints bring remote code for config, model and processor; none of it is run."""

    def read_config(self, path: str, where: Where) -> Any:
        """See :meth:`Family.read_config`."""
        return read_phi3_v_config(path, where)

    def read_tokenizer(self, path: str, where: Where) -> Any:
        """See :meth:`Family.read_tokenizer`; without a file of its own, transformers would ask for remote code.

        Raises:
            InputError: no ``tokenizer.json``.
        """
        if find_file(path, "tokenizer.json", where) is None:
            raise InputError(
                path, expected="tokenizer.json", got="none", remedy="download the checkpoint again, with its tokenizer"
            )
        return super().read_tokenizer(path, where)


PHI3_V = Phi3VFamily(
    name="Phi-3.5-vision",
    architectures=("phi3_v",),
    tower=(TOWER,),
    # the released adapters were saved on a model with a head, when CLIP's modules lay one level deeper
    renames=((r"^model\.", ""), (r"\.img_processor\.vision_model\.", ".img_processor.")),
    scratch=SCRATCH,
)


class Phi3VBackbone(VisionLanguageBackbone):
    """See :class:`mmembed.models.language.VisionLanguageBackbone`."""

    family = PHI3_V
    settings: Phi3V
    preprocessor: Phi3VPreprocessor

    def settle(self) -> None:
        """See :meth:`LanguageBackbone.settle`."""
        super().settle()
        vision = self.model.config.vision_config
        _check_tiles(vision)
        last = f"encoder.layers.{vision.num_hidden_layers - 1}."
        self.unused = tuple(f"{TOWER}.img_processor.{name}" for name in (last, "post_layernorm."))

    def make_preprocessor(self, prompt: PromptStyle, regions: RegionPreparer | None) -> Phi3VPreprocessor:
        """See :meth:`LanguageBackbone.make_preprocessor`."""
        vision, tokenizer = self.model.config.vision_config, self.checkpoint.tokenizer
        return Phi3VPreprocessor(tokenizer, vision.image_size, vision.patch_size, self.settings, prompt, regions)

    @property
    def tower(self) -> Any:
        """CLIP with the projection and the separators."""
        return self.model.vision_embed_tokens

    def normalise(self, pixels: Tensor) -> Tensor:
        """See :meth:`VisionLanguageBackbone.normalise`; divided, as the published code does, to the same bits."""
        return (pixels.to(torch.float32) / 255 - self.mean) / self.std

    def vision(self, batch: Batch) -> Features:
        """One tower forward over the tiles and whole views of the distinct pictures: maps ``[v, D]`` each."""
        if batch.pixels is None:
            return Features([])
        count("tower_forwards", len(batch.grids))
        tiles = self.normalise(batch.pixels)[:, :, 0]
        grids = [(rows, columns) for _, rows, columns in batch.grids.tolist()]
        pictures = torch.split(tiles, batch.blocks.tolist())
        views = torch.stack([whole_view(picture, *grid) for picture, grid in zip(pictures, grids, strict=True)])
        layers = self.tower.img_processor.encoder.layers
        with tapped(layers, self.taps) as states:
            maps = self.tower(tiles, views, grids, to_the_last=len(layers) in self.taps)
        return Features(maps, taps=[self._by_token(states[layer][:, 1:], grids) for layer in self.taps])

    def patch_maps(self, batch: Batch, features: list[Tensor]) -> list[PatchMap | None]:
        """See :meth:`Backbone.patch_maps`; of the tiles, which are finer than the whole view behind them."""
        side, cells = self.preprocessor.side, self.preprocessor.tokens_to_a_side
        found: list[PatchMap | None] = []
        for flat, (_, rows, columns), (width, height) in zip(
            features, batch.grids.tolist(), batch.sizes.tolist(), strict=True
        ):
            high, wide = rows * cells, columns * cells
            lines = flat[: high * (wide + 1)].view(high, wide + 1, -1)
            x0, y0, x1, y1 = (edge * cells / side for edge in frame((width, height), rows, columns, side))
            found.append(PatchMap(lines[:, :wide], (x0, y0, x1, y1)))
        return found

    def tap(self, layers: tuple[int, ...]) -> list[int]:
        """See :meth:`Backbone.tap`; a token's state is the mean of the patches merged, a separator's is zeros."""
        vision = self.model.config.vision_config
        self.taps = check_taps(layers, vision.num_hidden_layers)
        if vision.num_hidden_layers in self.taps:
            self.unused = tuple(name for name in self.unused if ".encoder." not in name)
        return [vision.hidden_size] * len(layers)

    def _by_token(self, states: Tensor, grids: list[tuple[int, int]]) -> list[Tensor]:
        """States of patches ``[P + M, L, C]`` in the order that each picture's tokens have ``[v, C]``."""
        nothing = states.new_zeros(1, 4 * states.shape[-1])
        joined = self.tower.join(states, grids, nothing[None], nothing)
        return [tokens.view(len(tokens), 4, -1).mean(1) for tokens in joined]

    def patch_embedding(self) -> PatchEmbedding:
        """See :meth:`Backbone.patch_embedding`; the module takes the batch's tiles, then the whole views."""
        embed = self.tower.img_processor.embeddings.patch_embedding
        return PatchEmbedding(embed, embed.out_channels, (1, *embed.kernel_size), _with_views)


def _with_views(batch: Batch, values: Tensor) -> Tensor:
    """Numbers for the pixels of tiles ``[P, 1, S, S]``, and behind them those of the whole views ``[M, 1, S, S]``."""
    pictures = torch.split(values.expand(-1, 3, -1, -1), batch.blocks.tolist())
    grids = batch.grids[:, 1:].tolist()
    views = [whole_view(picture, *grid)[:1] for picture, grid in zip(pictures, grids, strict=True)]
    return torch.cat([values, torch.stack(views)])


def _check_tiles(vision: Any) -> None:
    if vision.image_size % (2 * vision.patch_size):
        raise InputError(
            "vision_config.image_size", expected=f"tiles of two by two patches of {vision.patch_size} pixels",
            got=vision.image_size, remedy=f"a multiple of {2 * vision.patch_size}",
        )  # fmt: skip
