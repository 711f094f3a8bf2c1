"""Settings of everything between an Item and its embedding: backbone, prompt, pooler, regions, adapter.

No torch here.
"""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from mmembed.errors import InputError
from mmembed.media.settings import MediaSettings
from mmembed.settings import Part

if TYPE_CHECKING:
    from mmembed.models.backbone import Backbone
    from mmembed.models.poolers import Pooler
    from mmembed.models.region_encoders import RegionEncoder

Side = Literal["query", "target"]
DType = Literal["float32", "bfloat16", "float16"]


@dataclass(frozen=True)
class PromptStyle(Part):
    """How an Item is written as one string; the concrete styles are RawPrompt and ChatPrompt."""

    abstract: ClassVar[bool] = True


@dataclass(frozen=True)
class RawPrompt(PromptStyle):
    """Media, instruction and text joined by a separator, and nothing else (VLM2Vec; specs of arXiv:2410.05160)."""

    separator: str = " "
    """Stands between media, instruction and text of a dict-form item; verbatim content is joined without it."""
    suffix: str = ""
    """Added at the end, e.g. an end token that the embedding is read from."""


@dataclass(frozen=True)
class ChatPrompt(PromptStyle):
    """The checkpoint's own chat template, as transformers renders it."""

    instruction_role: Literal["system", "user"] = "system"
    """Whether the instruction is the system message or the first words of the user's turn."""
    generation_prompt: bool = True
    """Open the assistant's turn, so that the embedding is read where the answer would begin."""
    suffix: str = ""
    """Added at the end, e.g. ``<|endoftext|>``."""


@dataclass(frozen=True)
class PoolerSettings(Part):
    """How hidden states become one vector; the concrete poolers are LastToken and MeanToken."""

    abstract: ClassVar[bool] = True

    def build(self) -> "Pooler":
        """Make the pooler."""
        raise NotImplementedError


@dataclass(frozen=True)
class LastToken(PoolerSettings):
    """The hidden state of the last real token, on either padding side."""

    def build(self) -> "Pooler":
        """Make the pooler."""
        from mmembed.models.poolers import LastTokenPooler

        return LastTokenPooler()


@dataclass(frozen=True)
class MeanToken(PoolerSettings):
    """The mean hidden state over the tokens of a row."""

    drop_instruction: Literal["none", "query", "target", "both"] = "query"
    """The side whose instruction tokens are left out of the mean."""

    def build(self) -> "Pooler":
        """Make the pooler."""
        from mmembed.models.poolers import MeanTokenPooler

        return MeanTokenPooler(self.drop_instruction)


@dataclass(frozen=True)
class RegionEncoderSettings(Part):
    """How a model is told which places of a picture are meant; the concrete encoder is TextRegions."""

    abstract: ClassVar[bool] = True

    def build(self) -> "RegionEncoder":
        """Make the encoder."""
        raise NotImplementedError


@dataclass(frozen=True)
class TextRegions(RegionEncoderSettings):
    """Boxes and points in words right behind their picture, e.g. ``(box 120 40 610 380)``; a mask is refused."""

    scale: int = 1000
    """How many steps each side of the picture is counted in: a coordinate is a whole number from 0 to this."""

    def __post_init__(self) -> None:
        if self.scale < 1:
            raise InputError("regions.scale", expected="at least 1", got=self.scale, remedy="1000 is usual")

    def build(self) -> "RegionEncoder":
        """Make the encoder."""
        from mmembed.models.region_encoders import TextRegionEncoder

        return TextRegionEncoder(self.scale)


@dataclass(frozen=True)
class Lora:
    """Low-rank adapter (arXiv:2106.09685), or its weight-decomposed form (DoRA, arXiv:2402.09353)."""

    r: int = 16
    """Rank."""
    alpha: int = 64
    """Scale of the update is alpha / r."""
    dropout: float = 0.1
    """Dropout on the adapter's input."""
    dora: bool = False
    """Weight-decomposed adapter; the published VLM2Vec training always uses it."""
    targets: tuple[str, ...] = (
        "qkv_proj", "o_proj", "gate_up_proj", "down_proj", "k_proj",
        "q_proj", "out_proj", "v_proj", "gate_proj", "up_proj",
    )  # fmt: skip
    """Suffixes of the linear layers that get an adapter (the published list)."""


@dataclass(frozen=True)
class Scratch:
    """A small randomly initialised checkpoint of the real architecture, its tokenizer trained on the spot."""

    architecture: Literal["qwen2_vl", "qwen2_5_vl", "qwen3_vl"] = "qwen2_vl"
    """Model type as transformers names it."""
    text: dict[str, Any] = field(default_factory=dict)
    """Fields of the language model's transformers config that differ from the small default."""
    vision: dict[str, Any] = field(default_factory=dict)
    """Fields of the vision tower's transformers config that differ from the small default."""
    vocab_size: int = 512
    """Size the byte-pair vocabulary is trained to, special tokens not counted."""
    seed: int = 0
    """Seed of the random weights."""


@dataclass(frozen=True)
class BackboneSettings(Part):
    """A vision-language model without its head; one subclass a family."""

    abstract: ClassVar[bool] = True

    def build(self, **live: Any) -> "Backbone":
        """Load or make the backbone."""
        raise NotImplementedError


@dataclass(frozen=True)
class QwenVL(BackboneSettings):
    """Qwen2-VL, Qwen2.5-VL or Qwen3-VL; which one is read from the checkpoint."""

    path: str | None = None
    """Directory or Hub id of the checkpoint; exactly one of path and scratch."""
    revision: str | None = None
    """Commit of the Hub repository; None is its main branch."""
    scratch: Scratch | None = None
    """Make a small random checkpoint instead of loading one."""
    adapter: str | None = None
    """Directory or Hub id of a LoRA or DoRA adapter to load onto the checkpoint."""
    dtype: DType = "float32"
    """Type of the weights."""
    quantize: Literal["nf4", "int8"] | None = None
    """Hold the language model's linear layers in 4 bits (QLoRA, arXiv:2305.14314) or 8 (LLM.int8(), arXiv:2208.07339);
    only an adapter on them trains. Tower, embeddings, norms and biases keep ``dtype``, and nf4 computes in it. int8
    rounds activations too, chunk by chunk, so that a vector depends a little on the rows beside it."""
    attention: Literal["sdpa", "eager", "flash_attention_2"] = "sdpa"
    """Attention kernel of the language model and the tower."""
    positions: Literal["sequential", "mrope"] = "mrope"
    """Token positions: one counter (VLM2Vec's released checkpoints), or the model's own three (time, height, width)."""
    min_pixels: int = 3136
    """Pictures and frames are scaled up to at least this many pixels."""
    max_pixels: int = 1003520
    """Pictures and frames are scaled down to at most this many pixels."""
    min_side: int = 28
    """A picture with a shorter side first becomes a 56 x 56 square (published rule of VLM2Vec); 0 turns it off."""
    resize: Literal["pil", "torchvision"] = "pil"
    """Bicubic resize of Pillow (bit-equal to the published code) or of torchvision (transformers' default)."""
    max_length: int | None = None
    """Most tokens a row may have; text is cut at the end, media never. None is the tokenizer's own limit."""
    padding_side: Literal["right", "left"] = "right"
    """Where short rows are padded; the embedding does not depend on it, right is faster."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass to save memory."""
    media: MediaSettings = field(default_factory=MediaSettings)
    """How files become pictures and frames."""

    def __post_init__(self) -> None:
        if self.min_pixels > self.max_pixels:
            raise InputError(
                "max_pixels", expected=f"at least min_pixels {self.min_pixels}", got=self.max_pixels, remedy="raise it"
            )
        if self.quantize is not None and self.scratch is not None:
            raise InputError(
                "quantize", expected="a checkpoint", got="a scratch model", remedy="give path, or leave it out"
            )

    def build(self, **live: Any) -> "Backbone":
        """Load the checkpoint; ``live`` holds ``prompt``, and may hold ``texts`` and ``regions``: see open_qwen_vl."""
        from mmembed.models.backbones.qwen_vl import open_qwen_vl

        return open_qwen_vl(self, **live)


@dataclass(frozen=True)
class EmbedderSettings:
    """Everything needed to embed as this model does; saved beside the weights as ``embedder.yaml``."""

    backbone: BackboneSettings
    """The vision-language model."""
    prompt: PromptStyle = field(default_factory=RawPrompt)
    """How an Item is written."""
    pooler: PoolerSettings = field(default_factory=LastToken)
    """How hidden states become one vector."""
    normalize: bool = True
    """Scale embeddings to unit length, in float32."""
    lora: Lora | None = None
    """Train an adapter instead of all weights."""
    regions: RegionEncoderSettings | None = None
    """How regions of pictures are told; None refuses items that have any."""
