"""How hidden states become one vector. No torch here."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, Literal, TypeAlias

from mmembed.errors import InputError
from mmembed.settings import Part

if TYPE_CHECKING:
    from mmembed.models.backbone import Backbone
    from mmembed.models.poolers import Pooler

KindName = Literal["text", "instruction", "template", "image", "video", "region"]
"""What a token is: :class:`mmembed.models.prompts.Kind` in lower case."""
TokenId: TypeAlias = Callable[[str], int]
"""The id of a word that is one token of the backbone's tokenizer; an InputError where it is not."""


@dataclass(frozen=True)
class PoolerSettings(Part):
    """How hidden states become one vector."""

    abstract: ClassVar[bool] = True

    def build_for(self, backbone: "Backbone") -> "Pooler":
        """Make the pooler of a backbone's hidden states."""
        return self.build(backbone.width, backbone.token_id)

    def build(self, width: int, token_id: TokenId) -> "Pooler":
        """Make the pooler of hidden states of ``width`` numbers; ``token_id`` knows the backbone's tokenizer."""
        raise NotImplementedError


@dataclass(frozen=True)
class LastToken(PoolerSettings):
    """The hidden state of the last real token, on either padding side."""

    def build(self, width: int, token_id: TokenId) -> "Pooler":
        """See :meth:`PoolerSettings.build`."""
        from mmembed.models.poolers import LastTokenPooler

        return LastTokenPooler()


@dataclass(frozen=True)
class BeforeToken(PoolerSettings):
    """The hidden state just before the first place where the prompt's template writes a token (LamRA)."""

    token: str = "<emb>"
    """One token of the tokenizer; ``special_tokens`` of the backbone adds one that it lacks."""

    def build(self, width: int, token_id: TokenId) -> "Pooler":
        """See :meth:`PoolerSettings.build`."""
        from mmembed.models.poolers import BeforeTokenPooler

        return BeforeTokenPooler(self.token, token_id(self.token))


@dataclass(frozen=True)
class MeanToken(PoolerSettings):
    """The mean hidden state over the tokens of a row, without the kinds named; they are still attended to."""

    drop_on_query: tuple[KindName, ...] = ("instruction",)
    """Kinds of tokens left out of a query's mean."""
    drop_on_target: tuple[KindName, ...] = ()
    """Kinds of tokens left out of a target's mean."""

    def build(self, width: int, token_id: TokenId) -> "Pooler":
        """See :meth:`PoolerSettings.build`."""
        from mmembed.models.poolers import MeanTokenPooler

        return MeanTokenPooler(self.drop_on_query, self.drop_on_target)


@dataclass(frozen=True)
class LatentAttention(PoolerSettings):
    """Hidden states look up learned latents, then the mean as :class:`MeanToken` takes it (NV-Embed, arXiv:2405.17428).

    With the published size on 4096 numbers a state (512 latents, 8 heads of 4096) it has 740 million weights.
    """

    latents: int = 512
    """How many vectors are learned."""
    heads: int = 8
    """Heads of the attention from tokens to latents."""
    head_width: int = 128
    """Numbers of a head's queries, keys and values."""
    latent_width: int | None = None
    """Numbers of a latent; None is as many as a hidden state has."""
    drop_on_query: tuple[KindName, ...] = ("instruction",)
    """Kinds of tokens left out of a query's mean."""
    drop_on_target: tuple[KindName, ...] = ()
    """Kinds of tokens left out of a target's mean."""

    def __post_init__(self) -> None:
        for name in ("latents", "heads", "head_width", "latent_width"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise InputError(f"pooler.{name}", expected="at least 1", got=value, remedy="raise it")

    def build(self, width: int, token_id: TokenId) -> "Pooler":
        """See :meth:`PoolerSettings.build`."""
        from mmembed.models.poolers import LatentAttentionPooler, MeanTokenPooler

        mean = MeanTokenPooler(self.drop_on_query, self.drop_on_target)
        return LatentAttentionPooler(width, self.latents, self.heads, self.head_width, self.latent_width or width, mean)


@dataclass(frozen=True)
class MultiLayer(PoolerSettings):
    """A learned mixture of several layers, each normalised and pooled: ``sum_l softmax(a)_l * pool(LN_l(H_l))``."""

    layers: tuple[int, ...] = (-2, -1)
    """Which hidden states, counted as transformers does: 0 are the embeddings, 1 is behind the first layer, -1 is the
    last layer's behind the final norm."""
    pooler: PoolerSettings = field(default_factory=LastToken)
    """How each layer is pooled."""

    def __post_init__(self) -> None:
        if not self.layers or len(set(self.layers)) < len(self.layers):
            raise InputError(
                "pooler.layers", expected="at least one layer, each once", got=self.layers, remedy="e.g. [-4, -2, -1]"
            )
        if isinstance(self.pooler, MultiLayer):
            raise InputError(
                "pooler.pooler", expected="a pooler of one layer", got="MultiLayer", remedy="name all layers in one"
            )

    def build(self, width: int, token_id: TokenId) -> "Pooler":
        """See :meth:`PoolerSettings.build`."""
        from mmembed.models.poolers import MultiLayerPooler

        return MultiLayerPooler(width, self.layers, self.pooler.build(width, token_id))
