"""The Qwen-VL adapter: three verbs around transformers' Qwen2VLModel, Qwen2_5_VLModel and Qwen3VLModel.

The head is never built and no library file is copied. The adapter scatters features itself, because the stock forward
counts every image token in the batch and so raises for a literal one in a text row.
"""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mmembed.counters import count
from mmembed.errors import InputError, nearest
from mmembed.files import fingerprint
from mmembed.models.adapters import load_adapter
from mmembed.models.attention import SEGMENTS
from mmembed.models.backbone import Backbone
from mmembed.models.backbones.qwen_vl.preprocess import Geometry, QwenVLPreprocessor
from mmembed.models.checkpoint import Checkpoint, open_checkpoint, save_checkpoint
from mmembed.models.prompts import Kind
from mmembed.models.region_encoders import RegionEncoder
from mmembed.models.scratch import make_scratch
from mmembed.models.sequence import Batch, Features, Hidden, Padding, Sequence
from mmembed.models.settings import PromptStyle, QwenVL

# where a config was read from, by which version, and the type its weights were saved in
_NOT_CONFIG = ("_name_or_path", "transformers_version", "dtype", "architectures")
FAMILIES = ("qwen2_vl", "qwen2_5_vl", "qwen3_vl")
# the released adapters were saved against older module names
ADAPTER_RENAMES = ((r"^model\.layers\.", "language_model.layers."), (r"^model\.(language_model|visual)\.", r"\1."))


class QwenVLBackbone(Backbone):
    """See :class:`mmembed.models.backbone.Backbone`."""

    preprocessor: QwenVLPreprocessor
    mean: Tensor
    std: Tensor

    def __init__(
        self, checkpoint: Checkpoint, settings: QwenVL, prompt: PromptStyle, regions: RegionEncoder | None = None
    ) -> None:
        super().__init__()
        config = checkpoint.model.config
        if config.model_type not in FAMILIES:
            raise InputError(
                f"{settings.path}: model_type", expected="a Qwen-VL checkpoint", got=f"'{config.model_type}'",
                remedy=nearest(config.model_type, FAMILIES),
            )  # fmt: skip
        self.model = checkpoint.model
        self.checkpoint = checkpoint
        self.settings = settings
        self.width = config.text_config.hidden_size
        self.preprocessor = QwenVLPreprocessor(checkpoint.tokenizer, _geometry(config), settings, prompt, regions)
        self.register_buffer("mean", torch.tensor(checkpoint.image_mean)[:, None, None, None], persistent=False)
        self.register_buffer("std", torch.tensor(checkpoint.image_std)[:, None, None, None], persistent=False)
        if settings.attention == "sdpa":
            self.model.visual.config._attn_implementation = SEGMENTS
        if settings.gradient_checkpointing:
            _recompute_activations(self.model)

    @property
    def tower(self) -> Any:
        """The vision transformer with its merger."""
        return self.model.visual

    def vision(self, batch: Batch) -> Features:
        """One tower forward over the distinct media: maps ``[v, D]`` each, and the deep-stack layers of Qwen3-VL."""
        if batch.pixels is None:
            return Features([])
        count("tower_forwards", len(batch.grids))
        patches = self._normalise(batch.pixels)
        output = self.model.visual(patches, grid_thw=batch.grids)
        sizes = (batch.grids.prod(-1) // self.tower.spatial_merge_size**2).tolist()
        layers = getattr(output, "deepstack_features", None) or []
        return Features(
            maps=list(output.pooler_output.split(sizes)), layers=[list(layer.split(sizes)) for layer in layers]
        )

    def embed(self, batch: Batch, features: Features) -> Sequence:
        """Look up the tokens and put each medium's features into its slots."""
        embeds = self.model.language_model.embed_tokens(batch.ids)
        visual = (batch.kinds == Kind.IMAGE) | (batch.kinds == Kind.VIDEO)
        deepstack = []
        if len(batch.slots):
            slots = batch.slots.tolist()
            places = visual.nonzero()[:, 0]
            embeds = embeds.index_copy(0, places, _join(features.maps, slots).to(embeds.dtype))
            deepstack = [_join(layer, slots) for layer in features.layers]
        return Sequence(embeds, batch.lengths, batch.positions, batch.kinds, visual, batch.is_query, deepstack)

    def run(self, sequence: Sequence) -> Hidden:
        """The language model, causal. Right padding needs no mask: no token sees one that comes after it."""
        padding = Padding(sequence.lengths, self.settings.padding_side)
        rows, longest = padding.shape
        count("language_rows", rows)
        count("language_tokens", len(sequence.embeds))
        count("padded_tokens", rows * longest)
        masked = self.settings.padding_side == "left" and not padding.is_dense
        extra: dict[str, Any] = {}
        if sequence.deepstack:
            extra = {"visual_pos_masks": padding.pad(sequence.visual), "deepstack_visual_embeds": sequence.deepstack}
        output = self.model.language_model(
            inputs_embeds=padding.pad(sequence.embeds),
            attention_mask=padding.mask().long() if masked else None,
            position_ids=padding.pad(sequence.positions.T).permute(2, 0, 1),
            use_cache=False,
            **extra,
        )
        states = padding.unpad(output.last_hidden_state)
        return Hidden(states, sequence.lengths, sequence.kinds, sequence.is_query)

    def facts(self) -> dict[str, str]:
        """Config, tokenizer and normalisation of the checkpoint."""
        config = {name: value for name, value in self.model.config.to_dict().items() if name not in _NOT_CONFIG}
        tokenizer = self.checkpoint.tokenizer
        words = (tokenizer.backend_tokenizer.to_str(), str(tokenizer.chat_template), str(tokenizer.model_max_length))
        return {
            "config": fingerprint(json.dumps(config, sort_keys=True, default=str)),
            "tokenizer": fingerprint(*words),
            "normalisation": fingerprint(repr((self.checkpoint.image_mean, self.checkpoint.image_std))),
        }

    def save(self, directory: Path) -> None:
        """Write a checkpoint that transformers' AutoModel opens."""
        save_checkpoint(self.checkpoint, directory)

    def _normalise(self, pixels: Tensor) -> Tensor:
        """uint8 ``[P, 3, F, p, p]`` -> the tower's flat patches, a still picture repeated in time."""
        scaled = (pixels.to(torch.float32) * (1 / 255) - self.mean) / self.std
        temporal = self.preprocessor.geometry.temporal
        scaled = scaled.expand(-1, -1, temporal, -1, -1) if scaled.shape[2] == 1 else scaled
        return scaled.flatten(1).to(self.model.visual.dtype)


def open_qwen_vl(
    settings: QwenVL, *, prompt: PromptStyle, texts: Iterable[str] | None = None, regions: RegionEncoder | None = None
) -> QwenVLBackbone:
    """Open the checkpoint the settings name, or make the scratch one, and load its adapter.

    Args:
        settings: what to open.
        prompt: how items are written.
        texts: what a scratch model's tokenizer is trained on.
        regions: how regions of pictures are told; None refuses them.
    """
    if (settings.path is None) == (settings.scratch is None):
        raise InputError("backbone", expected="path or scratch", got="both or neither", remedy="give exactly one")
    if settings.scratch is not None:
        if texts is None:
            raise InputError(
                "backbone.scratch", expected="texts to train a tokenizer on", got="none", remedy="give path"
            )
        checkpoint = make_scratch(settings.scratch, texts, dtype=settings.dtype, attention=settings.attention)
    else:
        checkpoint = open_checkpoint(
            str(settings.path),
            revision=settings.revision,
            dtype=settings.dtype,
            attention=settings.attention,
            quantize=settings.quantize,
        )
    if settings.adapter is not None:
        load_adapter(checkpoint.model, settings.adapter, ADAPTER_RENAMES)
    return QwenVLBackbone(checkpoint, settings, prompt, regions)


def _recompute_activations(model: Any) -> None:
    # the older name warns where the newer one exists
    enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
    enable()


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


def _join(maps: list[Tensor], slots: list[int]) -> Tensor:
    return torch.cat([maps[i] for i in slots])
