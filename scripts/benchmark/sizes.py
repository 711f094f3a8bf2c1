"""The sizes of models and inputs. No torch here."""

from dataclasses import dataclass, field
from typing import Any, Literal


@dataclass(frozen=True)
class Mixed:
    """Bounds of the mixed inputs, from and to."""

    tokens: tuple[int, int]
    """Words of a text, a token each."""
    sides: tuple[int, int]
    """Pixels of a picture's side."""
    page: tuple[int, int]
    """Width and height of a page."""
    clip: tuple[int, int]
    """Frames of a clip and pixels of a side."""


@dataclass(frozen=True)
class Parsed:
    """A set in which every query ranks pictures of its own."""

    queries: int
    """Rows."""
    each: int
    """Candidates of a query."""
    distinct: int
    """Pictures, by their names."""


@dataclass(frozen=True)
class Pipeline:
    """What the data pipeline prepares, alone and beside training."""

    files: int
    """Pairs of the table, each with a file of its own; read again when all were read."""
    steps: int
    """Batches prepared alone."""
    trained: int
    """Batches trained on."""
    batch: int
    """Pairs of a batch."""
    side: int
    """Pixels of a file's longer side."""


@dataclass(frozen=True)
class Size:
    """A model and its inputs: random weights cost as much as trained ones."""

    text: dict[str, int]
    """The language model's config."""
    vision: dict[str, int]
    """The tower's config."""
    rows: int
    """Items to encode, and pairs of a training step."""
    pixels: int
    """Side of a picture."""
    mixed: Mixed
    """The mixed inputs."""
    task: tuple[int, int, int]
    """Queries, targets and pixels of a picture's side of the task that is evaluated."""
    loss: tuple[int, int]
    """Rows and width."""
    gallery: tuple[int, int, int]
    """Queries, targets and width of a ranking."""
    million: tuple[int, int, int]
    """The same of the large one."""
    parsed: Parsed
    """Published rows."""
    pipeline: Pipeline
    """Files of a training run."""
    left_out: tuple[str, ...] = ()
    """Workloads that are not measured unless they are named."""
    commands: tuple[str, ...] = ()
    """Commands whose help is shown; empty is all."""
    vocabulary: int | None = None
    """Rows of the embedding table; None is what the tokenizer needs."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Of the weights."""
    tolerance: float = 1e-5
    """How far outcomes may differ, in parts of the largest number."""
    gradient_tolerance: float = 1e-5
    """The same of gradients, in parts of their length."""
    squares: tuple[int, ...] = (1024, 2048)
    """Sides of the matrices whose product is the ceiling."""
    gpu: bool = False
    """Whether it is for a GPU."""
    lora: dict[str, Any] = field(default_factory=lambda: {"r": 16, "alpha": 64})
    """The adapter; without dropout, which would differ between the ways."""

    @property
    def picture_tokens(self) -> int:
        """Tokens of a picture: its merged patches of 28 pixels a side, and a mark on either side."""
        return (self.pixels // 28) ** 2 + 2


SIZES = {
    "tiny": Size(
        text={"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2},
        vision={"depth": 2, "embed_dim": 32, "num_heads": 2},
        rows=8,
        pixels=56,
        mixed=Mixed(tokens=(5, 40), sides=(30, 120), page=(56, 84), clip=(4, 56)),
        task=(24, 24, 56),
        loss=(256, 32),
        gallery=(80, 5000, 64),
        million=(50, 6000, 64),
        parsed=Parsed(queries=12, each=12, distinct=18),
        pipeline=Pipeline(files=12, steps=5, trained=3, batch=4, side=60),
        commands=("scripts/bench.py",),
        squares=(256, 512),
        lora={"r": 4, "alpha": 8},
    ),
    "mid": Size(
        text={"hidden_size": 256, "intermediate_size": 768, "num_hidden_layers": 4},
        vision={"depth": 4, "embed_dim": 128, "num_heads": 4},
        rows=64,
        pixels=224,
        mixed=Mixed(tokens=(5, 400), sides=(100, 1300), page=(850, 1100), clip=(8, 224)),
        task=(1000, 1000, 112),
        loss=(32768, 1536),
        # CIRCO's test queries and gallery, under the width of CLIP ViT-L/14
        gallery=(800, 123403, 768),
        million=(1000, 1_000_000, 768),
        # as large as the image sets of MMEB
        parsed=Parsed(queries=1000, each=1000, distinct=1500),
        pipeline=Pipeline(files=384, steps=24, trained=8, batch=64, side=320),
        # a head of so many rows costs 18 % of the language model, as in Qwen2-VL-2B
        vocabulary=2304,
    ),
    # Qwen2-VL-2B, whole, with random weights
    "2b": Size(
        text={
            "hidden_size": 1536, "intermediate_size": 8960, "num_hidden_layers": 28, "num_attention_heads": 12,
            "num_key_value_heads": 2, "max_position_embeddings": 32768,
        },
        vision={"depth": 32, "embed_dim": 1280, "num_heads": 16, "mlp_ratio": 4},
        rows=256,
        pixels=448,
        mixed=Mixed(tokens=(5, 400), sides=(100, 1300), page=(850, 1100), clip=(8, 224)),
        task=(1000, 1000, 224),
        loss=(32768, 1536),
        gallery=(800, 123403, 768),
        million=(1000, 1_000_000, 768),
        parsed=Parsed(queries=1000, each=1000, distinct=1500),
        pipeline=Pipeline(files=384, steps=24, trained=8, batch=64, side=448),
        # its plain step holds the activations of all rows, more than a GPU has
        left_out=("train_whole",),
        vocabulary=151936,
        dtype="bfloat16",
        # of 8 bits, through 28 layers: narrow ones have moved gradients by 0.05 to 0.2. The other sizes check 1e-5
        tolerance=0.1,
        gradient_tolerance=0.5,
        squares=(4096, 8192),
        gpu=True,
    ),
}  # fmt: skip
