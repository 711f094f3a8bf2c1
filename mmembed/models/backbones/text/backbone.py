"""Models of text alone, around transformers' decoders and encoders: guides, teachers, and embedders of text.

Heads are dropped where a checkpoint has them, an encoder's pooler among them: no embedding depends on it. An encoder
gets a mask of its padding and nothing else, and so keeps whatever windows its layers have.
"""

from dataclasses import replace
from typing import Any, Literal

from torch import Tensor, nn

from mmembed.errors import InputError
from mmembed.models.backbones.text.preprocess import TextPreprocessor
from mmembed.models.backbones.text.scratch import DECODER, DECODERS, ENCODER, ENCODERS
from mmembed.models.families import Family
from mmembed.models.language import LanguageBackbone
from mmembed.models.region_encoders.preparer import RegionPreparer
from mmembed.models.sequence import Batch, Features, Sequence
from mmembed.models.settings import LanguageSettings, LastToken, MeanToken, PromptStyle, TextModel
from mmembed.models.token_layout import TokenLayout


class TextFamily(Family):
    """Decoders and encoders, without an encoder's pooler."""

    def trim(self, model: Any) -> None:
        """See :meth:`Family.trim`."""
        if getattr(model, "pooler", None) is not None:
            model.pooler = None


TEXT_MODELS = TextFamily(
    name="text model",
    architectures=DECODERS + ENCODERS,
    tower=(),
    renames=((r"^model\.", ""), (r"^(bert|roberta|distilbert)\.", "")),
    scratch=DECODER,
    heads=("pooler.", "cls.", "head.", "decoder.", "vocab_transform.", "vocab_layer_norm.", "vocab_projector."),
)

# encoders that look positions up in a table
_TABLE = ("bert", "roberta", "xlm-roberta", "distilbert")
# whose positions begin behind the padding token's id
_SHIFTED = ("roberta", "xlm-roberta")


class TextBackbone(LanguageBackbone):
    """See :class:`mmembed.models.language.LanguageBackbone`."""

    family = TEXT_MODELS
    settings: TextModel
    preprocessor: TextPreprocessor

    def settle(self) -> None:
        """See :meth:`LanguageBackbone.settle`."""
        super().settle()
        config = self.model.config
        self.settings = _settled(self.settings, config, self.checkpoint.tokenizer)
        self.is_encoder = _is_encoder(config)
        self.head = "" if self.is_encoder else "model."
        self.first_position = _first_position(config)
        self.usual_pooler = MeanToken(drop_on_query=()) if self.is_encoder else LastToken()

    @classmethod
    def family_of(cls, settings: LanguageSettings) -> Family:
        """See :meth:`LanguageBackbone.family_of`; a scratch encoder has another tokenizer than a decoder.

        Raises:
            InputError: fields of a vision tower.
        """
        scratch = settings.scratch
        if scratch is not None and scratch.vision:
            raise InputError(
                "backbone.scratch.vision", expected="nothing: this model reads text only", got=scratch.vision,
                remedy="leave it out",
            )  # fmt: skip
        is_encoder = scratch is not None and scratch.architecture in ENCODERS
        return replace(cls.family, scratch=ENCODER if is_encoder else DECODER)

    def make_preprocessor(self, prompt: PromptStyle, regions: RegionPreparer | None) -> TextPreprocessor:
        """See :meth:`LanguageBackbone.make_preprocessor`."""
        return TextPreprocessor(self.checkpoint.tokenizer, self.settings, prompt, regions)

    @property
    def tower(self) -> nn.Module:
        """Nothing."""
        return nn.ModuleList()

    def vision(self, batch: Batch) -> Features:
        """Nothing to encode."""
        return Features([])

    def unpackable(self, longest: int = 0) -> str | None:
        """See :meth:`Backbone.unpackable`."""
        return "an encoder tells rows apart by their padding" if self.is_encoder else super().unpackable(longest)

    def position_ids(self, positions: Tensor) -> Tensor:
        """``[B, L]``, counted from where the model's table begins."""
        return positions[..., 0] + self.first_position

    def mask(self, sequence: Sequence, padding: TokenLayout) -> Any:
        """An encoder's is of the padding alone."""
        if not self.is_encoder:
            return super().mask(sequence, padding)
        return None if padding.is_dense else padding.mask().long()


def _is_encoder(config: Any) -> bool:
    """Whether the model's own attention is bidirectional (EmbeddingGemma's is, by its config)."""
    return config.model_type in ENCODERS or bool(getattr(config, "use_bidirectional_attention", False))


def _first_position(config: Any) -> int:
    return config.pad_token_id + 1 if config.model_type in _SHIFTED else 0


def _settled(settings: TextModel, config: Any, tokenizer: Any) -> TextModel:
    """The settings with what they leave to the model.

    Raises:
        InputError: a policy that an encoder does not have, or more tokens than it has positions.
    """
    own: Literal["bidirectional", "causal"] = "bidirectional" if _is_encoder(config) else "causal"
    policy = settings.attention_policy or own
    if own == "bidirectional" and (policy != own or settings.unpadded_causal):
        raise InputError(
            "backbone.attention_policy", expected="bidirectional, which is all that an encoder is",
            got="unpadded_causal" if policy == own else policy, remedy="leave it out",
        )  # fmt: skip
    settings = replace(settings, attention_policy=policy)
    if config.model_type not in _TABLE:
        return settings
    positions = config.max_position_embeddings - _first_position(config)
    if settings.max_length is not None and settings.max_length > positions:
        raise InputError(
            "backbone.max_length", expected=f"at most the {positions} positions of the model", got=settings.max_length,
            remedy="lower it",
        )  # fmt: skip
    return replace(settings, max_length=settings.max_length or min(tokenizer.model_max_length, positions))
