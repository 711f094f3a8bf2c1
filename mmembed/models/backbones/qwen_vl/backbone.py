"""The Qwen-VL adapter around transformers' Qwen2VLModel, Qwen2_5_VLModel and Qwen3VLModel.

The head is never built and no library file is copied. Features are put into their slots here, because the stock forward
counts every image token in the batch and so raises for a literal one in a text row.
"""

from typing import Any

from torch import Tensor

from mmembed.counters import count
from mmembed.models.attention import SEGMENTS
from mmembed.models.backbones.qwen_vl.preprocess import Geometry, QwenVLPreprocessor
from mmembed.models.backbones.qwen_vl.scratch import SCRATCH
from mmembed.models.families import Family
from mmembed.models.language import VisionLanguageBackbone
from mmembed.models.region_encoders import RegionEncoder
from mmembed.models.sequence import Batch, Features, Padding, Sequence
from mmembed.models.settings import PromptStyle, QwenVL

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
        if self.settings.attention == "sdpa":
            self.model.visual.config._attn_implementation = SEGMENTS

    def make_preprocessor(self, prompt: PromptStyle, regions: RegionEncoder | None) -> QwenVLPreprocessor:
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
        output = self.model.visual(patches, grid_thw=batch.grids)
        sizes = (batch.grids.prod(-1) // self.tower.spatial_merge_size**2).tolist()
        layers = getattr(output, "deepstack_features", None) or []
        return Features(
            maps=list(output.pooler_output.split(sizes)), layers=[list(layer.split(sizes)) for layer in layers]
        )

    def position_ids(self, positions: Tensor) -> Tensor:
        """``[3, B, L]``."""
        return positions.permute(2, 0, 1)

    def extras(self, sequence: Sequence, padding: Padding) -> dict[str, Any]:
        """The deep stack of Qwen3-VL and where it goes."""
        if not sequence.deepstack:
            return {}
        return {"visual_pos_masks": padding.pad(sequence.visual), "deepstack_visual_embeds": sequence.deepstack}

    def _patches(self, pixels: Tensor) -> Tensor:
        """uint8 ``[P, 3, F, p, p]`` -> the tower's flat patches, a still picture repeated in time."""
        scaled = self.normalise(pixels)
        temporal = self.preprocessor.geometry.temporal
        scaled = scaled.expand(-1, -1, temporal, -1, -1) if scaled.shape[2] == 1 else scaled
        return scaled.flatten(1).to(self.model.visual.dtype)


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
