"""The Qwen-VL adapter around transformers' Qwen2VLModel, Qwen2_5_VLModel and Qwen3VLModel.

The head is never built and no library file is copied. Features are put into their slots here, because the stock forward
counts every image token in the batch and so raises for a literal one in a text row.
"""

from typing import Any

import torch
from torch import Tensor

from mmembed.counters import count
from mmembed.models.attention import SEGMENTS
from mmembed.models.backbone import PatchEmbedding
from mmembed.models.backbones.qwen_vl.patches import PatchProducts
from mmembed.models.backbones.qwen_vl.preprocess import Geometry, QwenVLPreprocessor
from mmembed.models.backbones.qwen_vl.scratch import SCRATCH
from mmembed.models.families import Family
from mmembed.models.language import VisionLanguageBackbone
from mmembed.models.region_encoders.preparer import RegionPreparer
from mmembed.models.sequence import Batch, Features, PatchMap, Sequence
from mmembed.models.settings import PromptStyle, QwenVL
from mmembed.models.taps import check_taps, tapped
from mmembed.models.token_layout import TokenLayout

QWEN_VL = Family(
    name="Qwen-VL",
    architectures=("qwen2_vl", "qwen2_5_vl", "qwen3_vl"),
    tower=("visual",),
    # the released adapters were saved against older module names
    renames=((r"^model\.layers\.", "language_model.layers."), (r"^model\.(language_model|visual)\.", r"\1.")),
    scratch=SCRATCH,
    # U-MARVEL saves its temperature along
    heads=("sim.",),
)


class QwenVLBackbone(VisionLanguageBackbone):
    """See :class:`mmembed.models.language.VisionLanguageBackbone`."""

    family = QWEN_VL
    settings: QwenVL
    preprocessor: QwenVLPreprocessor

    def settle(self) -> None:
        """See :meth:`LanguageBackbone.settle`."""
        super().settle()
        self.tower.patch_embed = PatchProducts(self.tower.patch_embed)
        if self.settings.attention == "sdpa":
            self.model.visual.config._attn_implementation = SEGMENTS

    def make_preprocessor(self, prompt: PromptStyle, regions: RegionPreparer | None) -> QwenVLPreprocessor:
        """See :meth:`LanguageBackbone.make_preprocessor`."""
        geometry = _geometry(self.model.config)
        return QwenVLPreprocessor(self.checkpoint.tokenizer, geometry, self.settings, prompt, regions)

    @property
    def tower(self) -> Any:
        """The vision transformer with its merger."""
        return self.model.visual

    def vision(self, batch: Batch) -> Features:
        """One tower forward over the distinct media: maps ``[v, D]`` each, and the deep-stack layers of Qwen3-VL."""
        if batch.pixels is None:
            return Features([])
        count("tower_forwards", len(batch.grids))
        patches = self._patches(batch.pixels)
        self.tower.patch_embed.products = self.speed.patch_products
        with tapped(self.tower.blocks, self.taps) as states:
            output = self.model.visual(patches, grid_thw=batch.grids)
        sizes = (batch.grids.prod(-1) // self.tower.spatial_merge_size**2).tolist()
        layers = (getattr(output, "deepstack_features", None) or []) if self.settings.deepstack else []
        return Features(
            maps=list(torch.split(output.pooler_output, sizes)),
            layers=[list(torch.split(layer, sizes)) for layer in layers],
            taps=[list(torch.split(self._by_token(states[layer], batch.grids), sizes)) for layer in self.taps],
        )

    def tap(self, layers: tuple[int, ...]) -> list[int]:
        """See :meth:`Backbone.tap`; a token's state is the mean of the patches merged into it."""
        blocks = self.tower.blocks
        self.taps = check_taps(layers, len(blocks))
        return [self.tower.patch_embed.embed_dim] * len(layers)

    def patch_maps(self, batch: Batch, features: list[Tensor]) -> list[PatchMap | None]:
        """See :meth:`Backbone.patch_maps`; a still picture has one step in time."""
        merge = self.tower.spatial_merge_size
        found: list[PatchMap | None] = []
        for (time, rows, columns), flat in zip(batch.grids.tolist(), features, strict=True):
            height, width = rows // merge, columns // merge
            still = time == 1
            found.append(PatchMap(flat.view(height, width, -1), (0, 0, width, height)) if still else None)
        return found

    def patch_embedding(self) -> PatchEmbedding:
        """See :meth:`Backbone.patch_embedding`; a block is one patch."""
        embed, geometry = self.tower.patch_embed, self.preprocessor.geometry
        return PatchEmbedding(embed, embed.embed_dim, (geometry.temporal, geometry.patch, geometry.patch))

    def position_ids(self, positions: Tensor) -> Tensor:
        """``[3, B, L]``."""
        return positions.permute(2, 0, 1)

    def extras(self, sequence: Sequence, padding: TokenLayout) -> dict[str, Any]:
        """The deep stack of Qwen3-VL and where it goes."""
        if not sequence.deepstack:
            return {}
        return {"visual_pos_masks": padding.pad(sequence.visual), "deepstack_visual_embeds": sequence.deepstack}

    def _by_token(self, states: Tensor, grids: Tensor) -> Tensor:
        """States of patches as the tower has them ``[P, C]`` -> of tokens in time, height, width order ``[v, C]``."""
        merge = self.tower.spatial_merge_size
        tokens = states.view(-1, merge**2, states.shape[-1]).mean(1)
        if not hasattr(self.tower, "window_size"):
            return tokens
        side = self.tower.window_size // merge // self.tower.patch_size
        return tokens[_window_order(grids, merge, side).argsort()]

    def _patches(self, pixels: Tensor) -> Tensor:
        """uint8 ``[P, 3, F, p, p]`` -> the tower's flat patches; a still picture's are of one frame."""
        return self.normalise(pixels).flatten(1).to(self.model.visual.dtype)


def _window_order(grids: Tensor, merge: int, side: int) -> Tensor:
    """The order of tokens in which Qwen2.5-VL's windows of ``side`` by ``side`` follow one another."""
    orders, before = [], 0
    for time, rows, columns in (grids // grids.new_tensor([1, merge, merge])).tolist():
        t, y, x = torch.meshgrid(*(torch.arange(n, device=grids.device) for n in (time, rows, columns)), indexing="ij")
        window = ((t * rows + y // side) * columns + x // side).flatten()
        orders.append(window.argsort(stable=True) + before)
        before += time * rows * columns
    return torch.cat(orders)


def _geometry(config: Any) -> Geometry:
    vision = config.vision_config
    return Geometry(
        patch=vision.patch_size,
        merge=vision.spatial_merge_size,
        temporal=vision.temporal_patch_size,
        image_id=config.image_token_id,
        video_id=config.video_token_id,
        tokens_per_second=getattr(vision, "tokens_per_second", None),
        timestamps=config.model_type == "qwen3_vl",
    )
