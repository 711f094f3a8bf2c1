"""The LLaVA adapter around transformers' LlavaNextModel, LlavaOnevisionModel and LlavaModel.

The head is never built and no library file is copied. The tiles of all media pass the tower together and are packed
one medium at a time by the library's own code; its whole forward counts the image tokens of a batch, so that a literal
one in a text row would be an error there.
"""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from mmembed.counters import count
from mmembed.models.backbones.llava.preprocess import LlavaPreprocessor, OneVisionPreprocessor
from mmembed.models.backbones.llava.released import LlavaFamily
from mmembed.models.backbones.llava.scratch import SCRATCH
from mmembed.models.checkpoint import Checkpoint
from mmembed.models.language import LanguageBackbone
from mmembed.models.opening import open_family
from mmembed.models.region_encoders import RegionEncoder
from mmembed.models.sequence import Batch, Features
from mmembed.models.settings import Llava, PromptStyle

LLAVA = LlavaFamily(
    name="LLaVA",
    architectures=("llava_next", "llava_onevision", "llava"),
    tower=("vision_tower", "multi_modal_projector"),
    # the released adapters were saved against older module names
    renames=(
        (r"^model\.(language_model|vision_tower|multi_modal_projector)\.", r"\1."),
        (r"^language_model\.model\.", "language_model."),
        (r"^vision_tower\.vision_model\.", "vision_tower."),
    ),
    scratch=SCRATCH,
    # InstructCIR's has a projection that its own code does not use
    heads=("language_model.lm_head.", "ret_proj."),
)


class LlavaBackbone(LanguageBackbone):
    """See :class:`mmembed.models.language.LanguageBackbone`."""

    preprocessor: LlavaPreprocessor
    mean: Tensor
    std: Tensor

    def __init__(
        self, checkpoint: Checkpoint, settings: Llava, prompt: PromptStyle, regions: RegionEncoder | None = None
    ) -> None:
        config = checkpoint.model.config
        kind = OneVisionPreprocessor if config.model_type == "llava_onevision" else LlavaPreprocessor
        super().__init__(checkpoint, settings, kind(checkpoint, settings, prompt, regions))
        self.register_buffer("mean", torch.tensor(checkpoint.image_mean)[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor(checkpoint.image_std)[:, None, None], persistent=False)
        self.unused = _unused(config)

    @property
    def tower(self) -> nn.Module:
        """Vision transformer, projector and the line break behind each row of features."""
        parts = nn.ModuleList([self.model.vision_tower, self.model.multi_modal_projector])
        if hasattr(self.model, "image_newline"):
            parts.append(nn.ParameterList([self.model.image_newline]))
        return parts

    def vision(self, batch: Batch) -> Features:
        """One tower forward over the tiles of the distinct media: maps ``[v, D]`` each."""
        if batch.pixels is None:
            return Features([])
        count("tower_forwards", len(batch.grids))
        tiles = torch.split(self._project(batch.pixels), batch.blocks.tolist())
        media = zip(tiles, batch.grids.tolist(), batch.sizes.tolist(), strict=True)
        return Features([self._pack(features, grid[0], size) for features, grid, size in media])

    def _project(self, pixels: Tensor) -> Tensor:
        """uint8 ``[P, 3, 1, h, w]`` -> ``[P, N, D]``, the chosen layer of the tower as the language model reads it."""
        config, tower = self.model.config, self.model.vision_tower
        scaled = (pixels[:, :, 0].to(torch.float32) * (1 / 255) - self.mean) / self.std
        states = tower(scaled.to(tower.dtype), output_hidden_states=True).hidden_states
        chosen = torch.cat([states[layer] for layer in _layers(config)], dim=-1)
        if config.vision_feature_select_strategy == "default":
            chosen = chosen[:, 1:]
        features: Tensor = self.model.multi_modal_projector(chosen)
        return features

    def _pack(self, features: Tensor, steps: int, size: list[int]) -> Tensor:
        """Features of a medium's tiles ``[P, N, D]`` in the order its tokens have ``[v, D]``."""
        config = self.model.config
        if config.model_type == "llava":
            return features[0]
        newline = self.model.image_newline
        if steps:
            frames = self.model.apply_pooling(features).flatten(0, 1)
            return torch.cat([frames, newline[None].to(frames.dtype)])
        if config.model_type == "llava_onevision":
            how = {"vision_aspect_ratio": config.vision_aspect_ratio}
        else:
            how = {"vision_feature_select_strategy": config.vision_feature_select_strategy}
        packed: list[Tensor]
        packed, _ = self.model.pack_image_features([features], [size[::-1]], image_newline=newline, **how)
        return packed[0]


def open_llava(
    settings: Llava, *, prompt: PromptStyle, texts: Iterable[str] | None = None, regions: RegionEncoder | None = None
) -> LlavaBackbone:
    """Open the checkpoint the settings name, or make the scratch one, and load its adapter.

    Args:
        settings: what to open.
        prompt: how items are written.
        texts: what a scratch model's tokenizer is trained on.
        regions: how regions of pictures are told; None refuses them.
    """
    return LlavaBackbone(open_family(LLAVA, settings, texts), settings, prompt, regions)


def _layers(config: Any) -> list[int]:
    layer = config.vision_feature_layer
    return [layer] if isinstance(layer, int) else list(layer)


def _unused(config: Any) -> tuple[str, ...]:
    """Weights of the tower behind the last layer that is read."""
    depth = config.vision_config.num_hidden_layers
    last = max(layer % (depth + 1) for layer in _layers(config))
    behind = [f"vision_tower.encoder.layers.{i}." for i in range(last, depth)]
    return (*behind, "vision_tower.post_layernorm.", "vision_tower.head.")
