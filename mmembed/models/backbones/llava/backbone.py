"""The LLaVA adapter around transformers' LlavaNextModel, LlavaOnevisionModel and LlavaModel.

The head is never built and no library file is copied. The tiles of all media pass the tower together and are packed
one medium at a time by the library's own code; its whole forward counts the image tokens of a batch, so that a literal
one in a text row would be an error there.
"""

from typing import Any

import torch
from torch import Tensor, nn

from mmembed.counters import count
from mmembed.models.backbones.llava.preprocess import LlavaPreprocessor, OneVisionPreprocessor
from mmembed.models.backbones.llava.released import INSTRUCTCIR, LlavaFamily
from mmembed.models.backbones.llava.scratch import SCRATCH
from mmembed.models.language import VisionLanguageBackbone
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
    released=(INSTRUCTCIR,),
)


class LlavaBackbone(VisionLanguageBackbone):
    """See :class:`mmembed.models.language.VisionLanguageBackbone`."""

    family = LLAVA
    settings: Llava
    preprocessor: LlavaPreprocessor

    def settle(self) -> None:
        """See :meth:`LanguageBackbone.settle`."""
        super().settle()
        self.unused = _unused(self.model.config)

    def make_preprocessor(self, prompt: PromptStyle, regions: RegionEncoder | None) -> LlavaPreprocessor:
        """See :meth:`LanguageBackbone.make_preprocessor`."""
        shows_clips = self.model.config.model_type == "llava_onevision"
        kind = OneVisionPreprocessor if shows_clips else LlavaPreprocessor
        return kind(self.checkpoint, self.settings, prompt, regions)

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
        config = self.model.config
        scaled = self.normalise(pixels)[:, :, 0]
        chosen = self._tapped(scaled.to(self.model.vision_tower.dtype))
        if config.vision_feature_select_strategy == "default":
            chosen = chosen[:, 1:]
        features: Tensor = self.model.multi_modal_projector(chosen)
        return features

    def _tapped(self, pixels: Tensor) -> Tensor:
        """States of the tower's layers that are read, side by side; those behind the last of them do not run."""
        tower, wanted = self.model.vision_tower, _layers(self.model.config)
        states = tower.embeddings(pixels)
        if hasattr(tower, "pre_layrnorm"):
            states = tower.pre_layrnorm(states)
        found = [states]
        for layer in tower.encoder.layers[: max(wanted)]:
            found.append(layer(found[-1], None))
        return torch.cat([found[number] for number in wanted], dim=-1)

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


def _layers(config: Any) -> list[int]:
    """The tower's layers that are read; 0 are its embeddings."""
    chosen, depth = config.vision_feature_layer, config.vision_config.num_hidden_layers
    return [layer % (depth + 1) for layer in ([chosen] if isinstance(chosen, int) else chosen)]


def _unused(config: Any) -> tuple[str, ...]:
    """Weights of the tower behind the last layer that is read."""
    behind = range(max(_layers(config)), config.vision_config.num_hidden_layers)
    return (
        *(f"vision_tower.encoder.layers.{i}." for i in behind),
        "vision_tower.post_layernorm.",
        "vision_tower.head.",
    )
