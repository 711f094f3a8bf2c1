"""Settings of models of text alone. No torch here."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from mmembed.models.settings.backbones import LanguageSettings

if TYPE_CHECKING:
    from mmembed.models.backbone import Backbone


@dataclass(frozen=True)
class TextModel(LanguageSettings):
    """A decoder (Qwen, Llama, Mistral, Phi) or an encoder (BERT, RoBERTa, ModernBERT) that reads text only.

    An encoder has linear layers of other names than a decoder: an adapter on BERT or RoBERTa needs
    ``lora.targets: [query, key, value, dense]``, on ModernBERT ``[Wqkv, Wo, Wi]``, on DistilBERT
    ``[q_lin, k_lin, v_lin, out_lin, lin1, lin2]``.
    """

    # None is one choice more than the other families have
    attention_policy: Literal["causal", "bidirectional", "prefix"] | None = None  # type: ignore[assignment]
    """Which tokens see which. None is the model's own: causal for a decoder, bidirectional for an encoder, which has no
    other."""

    def build(self, **live: Any) -> "Backbone":
        """See :meth:`BackboneSettings.build`."""
        from mmembed.models.backbones.text.backbone import TextBackbone

        return TextBackbone.open(self, **live)
