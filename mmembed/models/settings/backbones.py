"""What every family of backbones is told. No torch here."""

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

from mmembed.errors import InputError
from mmembed.media.settings import MediaSettings
from mmembed.models.settings.special_tokens import SpecialTokens
from mmembed.settings import Part

if TYPE_CHECKING:
    from mmembed.models.backbone import Backbone

DType = Literal["float32", "bfloat16", "float16"]


@dataclass(frozen=True)
class Scratch:
    """A small randomly initialised checkpoint of the real architecture, its tokenizer trained on the spot."""

    architecture: str | None = None
    """Model type as transformers names it, e.g. ``qwen2_5_vl``; None is the family's first."""
    text: dict[str, Any] = field(default_factory=dict)
    """Fields of the language model's config that differ from the small default."""
    vision: dict[str, Any] = field(default_factory=dict)
    """Fields of the vision tower's config that differ from the small default."""
    vocab_size: int = 512
    """Size the byte-pair vocabulary is trained to, special tokens not counted."""
    seed: int = 0
    """Seed of the random weights."""


@dataclass(frozen=True)
class BackboneSettings(Part):
    """What turns items into hidden states; one subclass a family."""

    abstract: ClassVar[bool] = True

    def saved(self) -> Self:
        """The settings under which what this made is opened from its own directory."""
        settings: Any = self
        return replace(settings, path=".", revision=None, scratch=None, adapter=None, adapter_revision=None)  # type: ignore[no-any-return]

    def build(self, **live: Any) -> "Backbone":
        """Load or make the backbone; ``live`` holds ``prompt``, and may hold ``texts`` and ``regions``.

        Args:
            live: ``prompt``, how items are written; ``texts``, what a scratch model's tokenizer is trained on;
                ``regions``, the region encoder, None to refuse regions; of a model with a language model ``weights``,
                False where only the preprocessor is wanted.
        """
        raise NotImplementedError


@dataclass(frozen=True)
class LanguageSettings(BackboneSettings):
    """What every backbone with a language model is told."""

    abstract: ClassVar[bool] = True

    path: str | None = None
    """Directory or Hub id of the checkpoint; exactly one of path and scratch."""
    revision: str | None = None
    """Commit of the Hub repository; None is its main branch."""
    scratch: Scratch | None = None
    """Make a small random checkpoint instead of loading one."""
    adapter: str | None = None
    """Directory or Hub id of a LoRA or DoRA adapter to load onto the checkpoint."""
    special_tokens: SpecialTokens | None = None
    """Tokens added to the checkpoint's own."""
    adapter_revision: str | None = None
    """Commit of the adapter's Hub repository; None is its main branch."""
    dtype: DType = "float32"
    """Type of the weights."""
    quantize: Literal["nf4", "int8"] | None = None
    """Hold the language model's linear layers in 4 bits (QLoRA, arXiv:2305.14314) or 8 (LLM.int8(), arXiv:2208.07339);
    only an adapter on them trains. Tower, embeddings, norms and biases keep ``dtype``, and nf4 computes in it. int8
    rounds activations too, chunk by chunk, so that a vector depends a little on the rows beside it."""
    attention: Literal["sdpa", "eager", "flash_attention_2"] = "sdpa"
    """Attention kernel of the language model and the tower."""
    attention_policy: Literal["causal", "bidirectional", "prefix"] = "causal"
    """Which tokens see which: those before them; all; or all among instruction and media and else those before them."""
    unpadded_causal: bool = False
    """Reproduce a fault of released code (U-MARVEL under sdpa): bidirectional attention stays causal in a batch without
    padding, so that a vector depends on the rows beside it."""
    longrope_by: Literal["row", "batch"] = "row"
    """Of two lists of rotary frequencies (LongRoPE, arXiv:2402.13753), the long one serves rows longer than the model
    first was trained on, or whole batches that hold such a row, as released code has it. Matters to Phi-3.5
    and to what was made of it (InstructCIR)."""
    max_length: int | None = None
    """Most tokens a row may have; text is cut at the end, media never. None is the tokenizer's own limit."""
    padding_side: Literal["right", "left"] = "right"
    """Where short rows are padded; the embedding does not depend on it, right is faster."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass to save memory."""

    def __post_init__(self) -> None:
        if self.quantize is not None and self.scratch is not None:
            raise InputError(
                "quantize", expected="a checkpoint", got="a scratch model", remedy="give path, or leave it out"
            )
        if self.max_length is not None and self.max_length < 1:
            raise InputError(
                "max_length",
                expected="at least 1",
                got=self.max_length,
                remedy="leave it out for the tokenizer's limit",
            )
        if self.attention == "flash_attention_2" and self.attention_policy == "prefix":
            raise InputError(
                "attention", expected="a kernel that takes a mask, for attention_policy: prefix",
                got="flash_attention_2", remedy="use sdpa",
            )  # fmt: skip
        if self.unpadded_causal and (self.attention_policy, self.attention) != ("bidirectional", "sdpa"):
            raise InputError(
                "unpadded_causal", expected="attention_policy: bidirectional and attention: sdpa",
                got=f"{self.attention_policy} and {self.attention}", remedy="leave it out",
            )  # fmt: skip


@dataclass(frozen=True)
class VisionLanguageSettings(LanguageSettings):
    """What every vision-language backbone is told."""

    abstract: ClassVar[bool] = True

    resize: Literal["pil", "torchvision"] = "pil"
    """Resize of Pillow (bit-equal to the published code) or of torchvision (transformers' default)."""
    media: MediaSettings = field(default_factory=MediaSettings)
    """How files become pictures and frames."""
