"""What an adapter trains. No torch here."""

from dataclasses import dataclass

from mmembed.errors import InputError


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

    def __post_init__(self) -> None:
        if self.r < 1:
            raise InputError("lora.r", expected="at least 1", got=self.r, remedy="16 is usual")
