"""What all backbones with a language model share: features into their slots, the model run under a policy, saving."""

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from mmembed.counters import count
from mmembed.errors import InputError
from mmembed.files import fingerprint
from mmembed.models.attention import ROWS, no_mask, why_no_kernel
from mmembed.models.backbone import Backbone
from mmembed.models.checkpoint import Checkpoint, save_checkpoint
from mmembed.models.families import Family
from mmembed.models.last_layer import last_layer_at
from mmembed.models.opening import open_family
from mmembed.models.policies import attention_mask, check_window, kernel_switch, why_unpackable
from mmembed.models.preprocess import LanguagePreprocessor
from mmembed.models.prompts import Kind
from mmembed.models.region_encoders.preparer import RegionPreparer
from mmembed.models.sequence import Batch, Features, Hidden, Sequence, rejoin
from mmembed.models.settings import LanguageSettings, PromptStyle
from mmembed.models.special_tokens import special_ids
from mmembed.models.taps import chosen_states
from mmembed.models.token_layout import Packing, Padding, TokenLayout

# where a config was read from, by which version, and the type its weights were saved in
_NOT_CONFIG = ("_name_or_path", "transformers_version", "dtype", "architectures")


class LanguageBackbone(Backbone):
    """See :class:`mmembed.models.backbone.Backbone`.

    A family gives ``family``, ``make_preprocessor``, ``vision`` and ``tower``, and what it does otherwise.

    Args:
        checkpoint: model, tokenizer and preprocessing facts.
        settings: of the family.
        prompt: how items are written.
        regions: how regions of pictures are told; None refuses them.
    """

    family: ClassVar[Family]
    keeps_tokens = True
    preprocessor: LanguagePreprocessor
    settings: LanguageSettings

    def __init__(
        self,
        checkpoint: Checkpoint,
        settings: LanguageSettings,
        prompt: PromptStyle,
        regions: RegionPreparer | None = None,
    ) -> None:
        super().__init__()
        self.model = checkpoint.model
        self.checkpoint = checkpoint
        self.settings = settings
        self.settle()
        if self.settings.attention == "sdpa" and self.unpackable() is None:
            self.language_config._attn_implementation = ROWS
        self.preprocessor = self.make_preprocessor(prompt, regions)
        self.width = self.language_config.hidden_size
        if settings.gradient_checkpointing:
            _recompute_activations(self.model)

    @classmethod
    def open(
        cls,
        settings: LanguageSettings,
        *,
        prompt: PromptStyle,
        texts: Iterable[str] | None = None,
        regions: RegionPreparer | None = None,
        weights: bool = True,
    ) -> Self:
        """See :meth:`Backbone.open`; without ``weights`` the model has shapes alone, for its preprocessor's sake."""
        checkpoint = open_family(cls.family_of(settings), settings, texts, weights=weights)
        return cls(checkpoint, settings, prompt, regions)

    @classmethod
    def family_of(cls, settings: LanguageSettings) -> Family:
        """What is said of the checkpoints; one family a class unless its settings decide."""
        return cls.family

    def settle(self) -> None:
        """What a family does with a model just opened, before its preprocessor is made.

        Raises:
            InputError: a checkpoint or settings that the family cannot run.
        """

    def make_preprocessor(self, prompt: PromptStyle, regions: RegionPreparer | None) -> LanguagePreprocessor:
        """The family's own, of ``self.checkpoint`` and ``self.settings``."""
        raise NotImplementedError

    @property
    def language_model(self) -> Any:
        """The decoder or encoder, a part or all of the model: takes ``inputs_embeds``, gives ``last_hidden_state``."""
        return getattr(self.model, "language_model", self.model)

    @property
    def language_config(self) -> Any:
        """Its config."""
        return getattr(self.model.config, "text_config", self.model.config)

    def embed(self, batch: Batch, features: Features) -> Sequence:
        """Look up the tokens and put each medium's features into its slots."""
        # a token kept free for a region is looked up as any, and filled later
        embeds = self.language_model.get_input_embeddings()(batch.ids.clamp(min=0))
        visual = (batch.kinds == Kind.IMAGE) | (batch.kinds == Kind.VIDEO)
        deepstack = []
        if len(batch.slots):
            slots = batch.slots.tolist()
            places = visual.nonzero()[:, 0]
            embeds = embeds.index_copy(0, places, _join(features.maps, slots).to(embeds.dtype))
            deepstack = [_join(layer, slots) for layer in features.layers]
        return Sequence(
            embeds, batch.ids, batch.lengths, batch.positions, batch.kinds, visual, batch.is_query, deepstack
        )

    def run(self, sequence: Sequence, layers: tuple[int, ...] = (), places: Tensor | None = None) -> Hidden:
        """The language model under the settings' attention policy."""
        groups = self.groups(sequence.lengths)
        if len(groups) == 1:
            return self._run(sequence, layers, places)
        parts = [self._run(sequence.select(rows), layers, None if places is None else places[rows]) for rows in groups]
        return rejoin(groups, parts, sequence)

    def groups(self, lengths: Tensor) -> list[Tensor]:
        """Which rows ``[B]`` pass through the model together: all, but for those that rotate by other frequencies."""
        limit = self.runs_twice_beyond
        if limit is None:
            return [torch.ones_like(lengths, dtype=torch.bool)]
        return [rows for rows in (lengths <= limit, lengths > limit) if rows.any()]

    @property
    def runs_twice_beyond(self) -> int | None:
        """Tokens beyond which a row rotates by the long list of LongRoPE and runs apart from shorter ones, or None."""
        rope = getattr(self.language_config, "rope_parameters", None) or {}
        if rope.get("rope_type") != "longrope" or self.settings.longrope_by == "batch":
            return None
        limit = getattr(self.language_config, "original_max_position_embeddings", None)
        return rope.get("original_max_position_embeddings", limit)

    def unpackable(self, longest: int = 0) -> str | None:
        """See :meth:`Backbone.unpackable`."""
        return why_unpackable(self.language_config, self.settings, longest)

    @property
    def pads_because(self) -> str | None:
        """See :attr:`Backbone.pads_because`; ``auto`` packs where there is a kernel for it."""
        why = super().pads_because
        return why_no_kernel(self.language_model) if why is None and self.speed.packing == "auto" else why

    def layout(self, sequence: Sequence) -> TokenLayout:
        """How the rows pass the language model: packed or padded; rows of one length need neither.

        Raises:
            InputError: a row that cannot be packed under ``packing: on``.
        """
        shortest, longest = torch.stack(sequence.lengths.aminmax()).tolist()
        self.check_packing(longest)
        if shortest < longest and self.packs(longest):
            return Packing(sequence.lengths, kernel=why_no_kernel(self.language_model) is None)
        return Padding(sequence.lengths, self.settings.padding_side)

    def position_ids(self, positions: Tensor) -> Tensor:
        """Padded positions ``[B, L, 3]`` as the language model takes them; one counter unless a family has three."""
        return positions[..., 0]

    def mask(self, sequence: Sequence, padding: TokenLayout) -> Any:
        """Which tokens see which, as the language model takes it; see :func:`attention_mask`.

        Raises:
            InputError: a row longer than a window that the mask would undo.
        """
        check_window(self.language_config, self.settings, padding.longest)
        mask = attention_mask(self.settings, sequence, padding, sequence.embeds.dtype)
        if mask is None and self.settings.attention == "sdpa" and self.unpackable(padding.longest) is None:
            return no_mask(sequence.embeds)
        return mask

    def extras(self, sequence: Sequence, padding: TokenLayout) -> dict[str, Any]:
        """What else the language model is handed."""
        return {}

    def _run(self, sequence: Sequence, layers: tuple[int, ...], places: Tensor | None) -> Hidden:
        padding = self.layout(sequence)
        lines, longest = padding.shape
        count("language_rows", len(sequence.lengths))
        count("language_tokens", len(sequence.embeds))
        count("padded_tokens", lines * longest)
        with last_layer_at(self, padding, places):
            output = self.language_model(
                inputs_embeds=padding.pad(sequence.embeds),
                attention_mask=self.mask(sequence, padding),
                position_ids=self.position_ids(padding.pad(sequence.positions.T)),
                use_cache=False,
                **({"output_hidden_states": True} if layers else {}),
                **kernel_switch(self.settings, padding),
                **self.extras(sequence, padding),
            )
        return Hidden(
            padding.unpad(output.last_hidden_state) if places is None else output.last_hidden_state[:, 0],
            sequence.ids,
            sequence.lengths,
            sequence.kinds,
            sequence.is_query,
            [padding.unpad(state) for state in chosen_states(output.hidden_states, layers)],
            places,
        )

    @property
    def trained_tokens(self) -> list[int]:
        """See :attr:`Backbone.trained_tokens`."""
        special = self.settings.special_tokens
        return special_ids(self.checkpoint.tokenizer, special) if special is not None and special.train else []

    def token_id(self, word: str) -> int:
        """See :meth:`Backbone.token_id`."""
        ids: list[int] = self.checkpoint.tokenizer.encode(word, add_special_tokens=False)
        if len(ids) != 1:
            raise InputError(
                "pooler.token", expected="one token of the tokenizer", got=f"'{word}', which it reads as {len(ids)}",
                remedy="add it: special_tokens of the backbone",
            )  # fmt: skip
        return ids[0]

    def facts(self) -> dict[str, str]:
        """Config, tokenizer and preprocessing of the checkpoint."""
        config = _without(self.model.config.to_dict(), _NOT_CONFIG)
        tokenizer = self.checkpoint.tokenizer
        words = (tokenizer.backend_tokenizer.to_str(), str(tokenizer.chat_template), str(tokenizer.model_max_length))
        return {
            "config": fingerprint(json.dumps(config, sort_keys=True, default=str)),
            "tokenizer": fingerprint(*words),
            "preprocessing": fingerprint(json.dumps(self.checkpoint.stated_preprocessing, sort_keys=True)),
        }

    def save(self, directory: Path) -> None:
        """Write a checkpoint that transformers' AutoModel opens."""
        save_checkpoint(self.checkpoint, directory)


class VisionLanguageBackbone(LanguageBackbone):
    """A backbone that is shown pictures, whose pixels travel as uint8 and are normalised where the tower runs."""

    mean: Tensor
    std: Tensor

    def settle(self) -> None:
        """See :meth:`LanguageBackbone.settle`."""
        checkpoint = self.checkpoint
        if not checkpoint.preprocessing:
            raise InputError(
                f"{self.settings.path}: preprocessor_config.json", expected="how pictures are scaled and normalised",
                got="no such file", remedy="download the checkpoint again, whole",
            )  # fmt: skip
        self.register_buffer("mean", torch.tensor(checkpoint.image_mean)[:, None, None, None], persistent=False)
        self.register_buffer("std", torch.tensor(checkpoint.image_std)[:, None, None, None], persistent=False)

    def normalise(self, pixels: Tensor) -> Tensor:
        """uint8 ``[P, 3, F, h, w]`` -> float32, as the checkpoint's own processor scales and normalises."""
        # a new tensor, changed in place from then on
        return (pixels * (1 / 255)).sub_(self.mean).div_(self.std)


def _recompute_activations(model: Any) -> None:
    # the older name warns where the newer one exists
    enable: Callable[[], None]
    enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
    enable()


def _without(config: dict[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    """A config without some fields, inside its parts' configs too."""
    return {
        name: _without(value, names) if isinstance(value, dict) else value
        for name, value in config.items()
        if name not in names
    }


def _join(maps: list[Tensor], slots: list[int]) -> Tensor:
    return torch.cat([maps[i] for i in slots])
