"""The LLaVA adapter around transformers' LlavaNextModel, LlavaOnevisionModel and LlavaModel.

The head is never built and no library file is copied. The tiles of all media pass the tower together and are packed
one medium at a time by the library's own code; its whole forward counts the image tokens of a batch, so that a literal
one in a text row would be an error there.
"""

from typing import Any

import torch
from torch import Tensor, nn

from mmembed.counters import count
from mmembed.models.backbone import PatchEmbedding
from mmembed.models.backbones.llava.llava_qwen import LLAVA_QWEN
from mmembed.models.backbones.llava.maps import grid_map, tile_map
from mmembed.models.backbones.llava.preprocess import LlavaPreprocessor, OneVisionPreprocessor
from mmembed.models.backbones.llava.released import INSTRUCTCIR, LlavaFamily
from mmembed.models.backbones.llava.scratch import SCRATCH
from mmembed.models.language import VisionLanguageBackbone
from mmembed.models.region_encoders.preparer import RegionPreparer
from mmembed.models.sequence import Batch, Features, PatchMap
from mmembed.models.settings import Llava, PromptStyle
from mmembed.models.taps import check_taps

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
    released=(INSTRUCTCIR, LLAVA_QWEN),
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

    def make_preprocessor(self, prompt: PromptStyle, regions: RegionPreparer | None) -> LlavaPreprocessor:
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
        projected, taps = self._project(batch.pixels)
        newline = getattr(self.model, "image_newline", None)
        return Features(
            self._by_medium(projected, newline, batch),
            # a line break is no state of the tower; there are zeros
            taps=[self._by_medium(tap, tap.new_zeros(tap.shape[-1]), batch) for tap in taps],
        )

    def patch_maps(self, batch: Batch, features: list[Tensor]) -> list[PatchMap | None]:
        """See :meth:`Backbone.patch_maps`; a picture seen as a whole and as a grid of tiles is the grid."""
        tiles, processor = self.preprocessor.tiles, self.preprocessor.processor
        one_tile_is_square = self.preprocessor.squares_one_tile
        found: list[PatchMap | None] = []
        for flat, (steps, rows, _), (width, height) in zip(
            features, batch.grids.tolist(), batch.sizes.tolist(), strict=True
        ):
            if steps:
                found.append(None)
            elif rows:
                found.append(grid_map(flat, (width, height), tiles))
            else:
                found.append(tile_map(flat, (width, height), tiles, processor, squared=one_tile_is_square))
        return found

    def tap(self, layers: tuple[int, ...]) -> list[int]:
        """See :meth:`Backbone.tap`; states have zeros where the features have a line break."""
        vision = self.model.config.vision_config
        self.taps = check_taps(layers, vision.num_hidden_layers)
        self.unused = _unused(self.model.config, self.taps)
        return [vision.hidden_size] * len(layers)

    def patch_embedding(self) -> PatchEmbedding:
        """See :meth:`Backbone.patch_embedding`; a block is a tile."""
        embed = self.model.vision_tower.embeddings.patch_embedding
        return PatchEmbedding(embed, embed.out_channels, (1, *embed.kernel_size))

    def _by_medium(self, tiles: Tensor, newline: Tensor | None, batch: Batch) -> list[Tensor]:
        """Features of all tiles ``[P, N, C]`` -> of each medium ``[v, C]``."""
        media = zip(torch.split(tiles, batch.blocks.tolist()), batch.grids.tolist(), batch.sizes.tolist(), strict=True)
        return [self._pack(features, newline, grid[0], size) for features, grid, size in media]

    def _project(self, pixels: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Layers of the tower over tiles, uint8 ``[P, 3, 1, h, w]``, that are read.

        Returns:
            The chosen ones as the language model reads them, ``[P, N, D]``, and those tapped, ``[P, N, C]`` each.
        """
        config = self.model.config
        scaled = self.normalise(pixels)[:, :, 0]
        states = self._states(scaled.to(self.model.vision_tower.dtype))
        if config.vision_feature_select_strategy == "default":
            states = [state[:, 1:] for state in states]
        chosen = torch.cat([states[layer] for layer in _layers(config)], dim=-1)
        features: Tensor = self.model.multi_modal_projector(chosen)
        return features, [states[layer] for layer in self.taps]

    def _states(self, pixels: Tensor) -> list[Tensor]:
        """States of the tower's layers; those behind the last that is read do not run."""
        tower = self.model.vision_tower
        states = tower.embeddings(pixels)
        if hasattr(tower, "pre_layrnorm"):
            states = tower.pre_layrnorm(states)
        found = [states]
        for layer in tower.encoder.layers[: max(*_layers(self.model.config), 0, *self.taps)]:
            found.append(layer(found[-1], None))
        return found

    def _pack(self, features: Tensor, newline: Tensor | None, steps: int, size: list[int]) -> Tensor:
        """Features of a medium's tiles ``[P, N, C]`` in the order its tokens have ``[v, C]``."""
        config = self.model.config
        if newline is None or config.model_type == "llava":
            return features[0]
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


def _unused(config: Any, taps: tuple[int, ...] = ()) -> tuple[str, ...]:
    """Weights of the tower behind the last layer that is read."""
    behind = range(max(*_layers(config), 0, *taps), config.vision_config.num_hidden_layers)
    return (
        *(f"vision_tower.encoder.layers.{i}." for i in behind),
        "vision_tower.post_layernorm.",
        "vision_tower.head.",
    )
