"""The Llama-3.2-Vision adapter around transformers' MllamaModel.

A picture is one ordinary token where it stands; what is seen of it are the tower's features, to which some layers of
the language model attend. Which token sees which picture is worked out from the kinds of the tokens when the model
runs, so that it holds whatever was inserted.
"""

import warnings
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint as recompute

from mmembed.counters import count
from mmembed.models.backbone import PatchEmbedding
from mmembed.models.backbones.mllama.cross import cross_attention
from mmembed.models.backbones.mllama.preprocess import MllamaPreprocessor
from mmembed.models.backbones.mllama.scratch import SCRATCH
from mmembed.models.families import Family
from mmembed.models.language import VisionLanguageBackbone
from mmembed.models.policies import additive
from mmembed.models.prompts import Kind
from mmembed.models.region_encoders.preparer import RegionPreparer
from mmembed.models.sequence import Batch, Features, Hidden, Sequence
from mmembed.models.settings import Mllama, PromptStyle
from mmembed.models.token_layout import TokenLayout

MLLAMA = Family(
    name="Llama-3.2-Vision",
    architectures=("mllama",),
    tower=("vision_model", "multi_modal_projector"),
    # adapters saved before and after the library put the head's model inside
    renames=((r"^model\.", ""), (r"^language_model\.model\.", "language_model.")),
    scratch=SCRATCH,
    # where the released checkpoints keep it
    heads=("language_model.lm_head.",),
)


class MllamaBackbone(VisionLanguageBackbone):
    """See :class:`mmembed.models.language.VisionLanguageBackbone`."""

    family = MLLAMA
    settings: Mllama
    preprocessor: MllamaPreprocessor

    def settle(self) -> None:
        """See :meth:`LanguageBackbone.settle`."""
        super().settle()
        if self.settings.gradient_checkpointing:
            tower = self.model.vision_model
            for layer in (*tower.transformer.layers, *tower.global_transformer.layers):
                # the library's switch does not reach them
                layer.forward = partial(recompute, partial(_quietly, layer.forward), use_reentrant=False)

    def make_preprocessor(self, prompt: PromptStyle, regions: RegionPreparer | None) -> MllamaPreprocessor:
        """See :meth:`LanguageBackbone.make_preprocessor`."""
        checkpoint = self.checkpoint
        facts = checkpoint.preprocessing
        return MllamaPreprocessor(checkpoint.tokenizer, self.model.config, facts, self.settings, prompt, regions)

    @property
    def tower(self) -> Any:
        """The vision transformer and the projector behind it."""
        return torch.nn.ModuleList([self.model.vision_model, self.model.multi_modal_projector])

    def vision(self, batch: Batch) -> Features:
        """One tower forward over the distinct pictures: maps ``[tiles * patches, D]``, missing tiles last."""
        if batch.pixels is None:
            return Features([])
        count("tower_forwards", len(batch.grids))
        tower = self.model.vision_model
        tiles = torch.arange(tower.max_num_tiles, device=batch.blocks.device) < batch.blocks[:, None]
        arrangements = self.preprocessor.arrangements
        ids = [1 + arrangements.index((rows, columns)) for _, rows, columns in batch.grids.tolist()]
        output = _quietly(
            tower,
            pixel_values=self._canvases(batch.pixels, tiles)[:, None],
            aspect_ratio_ids=torch.tensor(ids, device=batch.grids.device)[:, None],
            aspect_ratio_mask=tiles.long()[:, None],
        )
        # [M, 1, tiles, patches, width of several layers] -> [M, tiles * patches, D]
        projected = self.model.multi_modal_projector(output.last_hidden_state)
        return Features(list(projected[:, 0].flatten(1, 2)))

    def embed(self, batch: Batch, features: Features) -> Sequence:
        """Look up the tokens, and hand each row the features of its pictures: its tiles', then the missing ones'."""
        sequence = super().embed(replace(batch, slots=batch.slots[:0]), Features([]))
        seen = (batch.blocks * self.model.vision_model.num_patches).tolist()
        maps = iter([(features.maps[i], seen[i]) for i in batch.slots.tolist()])
        rows = torch.repeat_interleave(torch.arange(len(batch), device=batch.ids.device), batch.lengths)
        pictures = torch.zeros_like(batch.lengths).index_add(0, rows, (batch.kinds == Kind.IMAGE).long())
        context = [
            [part.to(sequence.embeds.dtype) for _ in range(number) for part in _split(*next(maps))]
            for number in pictures.tolist()
        ]
        return replace(sequence, context=context)

    def run(self, sequence: Sequence, layers: tuple[int, ...] = (), places: Tensor | None = None) -> Hidden:
        """See :meth:`LanguageBackbone.run`."""
        if layers and not any(sequence.context):
            # the library leaves out layers that have nothing to attend to, and their states; zeros change no state
            blank = [sequence.embeds.new_zeros(1, self.width)]
            sequence = replace(sequence, context=[blank] * len(sequence.lengths))
        return super().run(sequence, layers, places)

    def unpackable(self, longest: int = 0) -> str | None:
        """See :meth:`Backbone.unpackable`."""
        return "its layers attend to pictures row by row"

    def extras(self, sequence: Sequence, padding: TokenLayout) -> dict[str, Any]:
        """What the cross-attention layers attend to; nothing where the batch has no picture."""
        if not any(sequence.context):
            return {}
        cross, dtype = cross_attention(sequence, padding), sequence.embeds.dtype
        is_eager = self.settings.attention == "eager"
        return {
            "cross_attention_states": cross.states,
            "cross_attention_mask": additive(cross.visible, dtype) if is_eager else cross.visible,
            "full_text_row_masked_out_mask": cross.reads.to(dtype),
        }

    def patch_embedding(self) -> PatchEmbedding:
        """See :meth:`Backbone.patch_embedding`; the module takes tiles, the missing ones too."""
        embed = self.model.vision_model.patch_embedding
        return PatchEmbedding(embed, embed.out_channels, (1, *embed.kernel_size), self._with_missing)

    def _with_missing(self, batch: Batch, values: Tensor) -> Tensor:
        """Numbers for the pixels of tiles ``[P, 1, h, w]``, zero for the tiles that are missing ``[Q, 1, h, w]``."""
        tiles = torch.arange(self.model.vision_model.max_num_tiles, device=batch.blocks.device) < batch.blocks[:, None]
        return _laid_out(values, tiles).flatten(0, 1)

    def _canvases(self, pixels: Tensor, tiles: Tensor) -> Tensor:
        """uint8 ``[P, 3, 1, h, w]`` -> ``[M, tiles, 3, h, w]``, zero where a tile is missing."""
        scaled = self.normalise(pixels).to(self.model.vision_model.dtype)
        return _laid_out(scaled, tiles)[:, :, :, 0]


def _laid_out(values: Tensor, tiles: Tensor) -> Tensor:
    """What there is of each tile ``[P, ...]`` -> ``[M, tiles, ...]``, zero where ``tiles`` says that it is missing."""
    block = values.new_zeros(*tiles.shape, *values.shape[1:])
    return block.masked_scatter(tiles.reshape(*tiles.shape, *[1] * (values.dim() - 1)), values)


def _quietly(run: Callable[..., Any], *args: Any, **more: Any) -> Any:
    with warnings.catch_warnings():
        # transformers before 5.20 warns of how it calls itself
        warnings.filterwarnings("ignore", message="`hidden_state` is deprecated", category=FutureWarning)
        return run(*args, **more)


def _split(features: Tensor, at: int) -> tuple[Tensor, Tensor]:
    return features[:at], features[at:]
