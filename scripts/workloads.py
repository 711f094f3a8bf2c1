"""What ``scripts/bench.py`` times: models and inputs of two sizes, each workload ours and plain.

Import from a command that has put the repository on the path.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import PIL.Image
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmembed import Embedder, Item, Pair
from mmembed.index.topk import top_k
from mmembed.losses.settings import Contrastive
from mmembed.models.settings import ChatPrompt, EmbedderSettings, QwenVL, Scratch
from mmembed.training.batches import PairPreparer
from mmembed.training.module import EmbedderModule
from mmembed.training.optim import make_optimizer, parameter_groups
from mmembed.training.settings import Chunks, Optim, Stage
from scripts.parsing import Apart, Candidates, ours, plain
from scripts.plain_twin import PlainTwin

# fmt: off
WORDS = (
    "a", "the", "red", "green", "blue", "small", "large", "circle", "square", "cross", "left", "right", "of", "near",
)
# fmt: on
TEMPERATURE = 0.05
CHUNK_ROWS = 8
TOP = 50

Run: TypeAlias = Callable[[], Tensor]
"""Does the work once and gives what it computed, to be compared."""


@dataclass(frozen=True)
class Size:
    """A model and its inputs: random weights cost as much as trained ones."""

    rows: int
    pixels: int
    text: dict[str, int]
    vision: dict[str, int]
    gallery: tuple[int, int, int]
    """Queries, targets and width of a ranking."""
    candidates: Candidates
    """A set whose queries rank candidates of their own."""


SIZES = {
    "tiny": Size(
        rows=8,
        pixels=56,
        text={"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2},
        vision={"depth": 2, "embed_dim": 32, "num_heads": 2},
        gallery=(80, 5000, 64),
        candidates=Candidates(queries=12, each=12, distinct=18),
    ),
    "mid": Size(
        rows=64,
        pixels=224,
        text={"hidden_size": 256, "intermediate_size": 768, "num_hidden_layers": 4},
        vision={"depth": 4, "embed_dim": 128, "num_heads": 4},
        # CIRCO's test queries and gallery, under the width of CLIP ViT-L/14
        gallery=(800, 123403, 768),
        # as large as the image sets of MMEB
        candidates=Candidates(queries=1000, each=1000, distinct=1500),
    ),
}


class Bench:
    """Our embedder and its plain twin, with the inputs of one size."""

    def __init__(self, size: Size) -> None:
        self.size = size
        scratch = Scratch("qwen2_vl", text=dict(size.text), vision=dict(size.vision))
        # a pixel budget and resize under which both prepare the same pixels
        backbone = QwenVL(scratch=scratch, min_side=0, min_pixels=784, resize="torchvision")
        self.ours = Embedder(EmbedderSettings(backbone, ChatPrompt()), texts=WORDS)
        self.plain = PlainTwin(scratch, WORDS)
        rng = random.Random(0)
        pictures = [picture(size.pixels, seed) for seed in range(size.rows)]
        self.texts = [Item.of(" ".join(rng.choices(WORDS, k=rng.randint(4, 64)))) for _ in pictures]
        self.images = [Item.of({"image": p}) for p in pictures]
        both = [Item.of({"image": p, "text": t.text}) for p, t in zip(pictures, self.texts, strict=True)]
        kinds = (self.texts, self.images, both)
        self.mixed = [kinds[i % 3][i] for i in range(size.rows)]
        self.questions = [Item.of({"image": pictures[i // 4], "text": t.text}) for i, t in enumerate(self.texts)]

    def encoding(self, items: Sequence[Item]) -> tuple[Run, Run]:
        """Embed the items."""
        return lambda: self.ours.encode(items), lambda: self.plain.encode(items)

    def ranking(self) -> tuple[Run, Run]:
        """The best targets of every query; the plain way holds every score at once."""
        num_queries, num_targets, width = self.size.gallery
        generator = torch.Generator().manual_seed(0)
        queries, targets = (
            F.normalize(torch.randn(rows, width, generator=generator), dim=-1) for rows in (num_queries, num_targets)
        )
        return lambda: top_k(queries, targets, TOP)[0], lambda: (queries @ targets.T).topk(TOP, dim=1).values

    def parsing(self) -> tuple[Run, Run]:
        """Published rows to a retrieval set that an evaluation has read; the model has no part in it."""
        return Apart(ours, self.size.candidates), Apart(plain, self.size.candidates)

    def training(self, chunks: Chunks) -> tuple[Run, Run]:
        """One step over all pairs of a text and a picture; the outcome compared is the gradient."""
        objective = Contrastive(temperature=TEMPERATURE)
        module = EmbedderModule(self.ours.train(), Stage({}, 1, objective=objective, chunks=chunks), seed=0)
        prepare = PairPreparer(self.ours.backbone.preprocessor, chunks)
        sides = list(zip(self.texts, self.images, strict=True))
        pairs = [Pair(query, (target,), query_id=str(i)) for i, (query, target) in enumerate(sides)]

        def ours() -> None:
            module.gradients(prepare(0, pairs))

        def plain() -> None:
            if chunks.rows is None:
                self.plain.whole_gradient(self.texts, self.images, TEMPERATURE)
            else:
                self.plain.cached_gradient(self.texts, self.images, TEMPERATURE, chunks.rows)

        return stepping(ours, self.ours.backbone.model), stepping(plain, self.plain.model)


WORKLOADS: dict[str, Callable[[Bench], tuple[Run, Run]]] = {
    "encode_images": lambda bench: bench.encoding(bench.images),
    "encode_texts": lambda bench: bench.encoding(bench.texts),
    "encode_mixed": lambda bench: bench.encoding(bench.mixed),
    # four questions to each picture
    "encode_questions": lambda bench: bench.encoding(bench.questions),
    "rank_gallery": lambda bench: bench.ranking(),
    "parse_candidates": lambda bench: bench.parsing(),
    "train_whole": lambda bench: bench.training(Chunks(padding=0.2)),
    # as it comes: graphs are kept where memory allows, which the plain loop cannot
    "train_chunks": lambda bench: bench.training(Chunks(rows=CHUNK_ROWS)),
    "train_chunks_recomputed": lambda bench: bench.training(Chunks(rows=CHUNK_ROWS, keep_mb=0)),
}


def picture(pixels: int, seed: int) -> PIL.Image.Image:
    """A square picture of random pixels."""
    return PIL.Image.fromarray(np.random.default_rng(seed).integers(0, 256, (pixels, pixels, 3), dtype=np.uint8))


def stepping(backpropagate: Callable[[], None], model: nn.Module) -> Run:
    """An optimiser step around a gradient, which it gives as one vector."""
    settings = Optim(lr=1e-6)
    optimizer = make_optimizer(parameter_groups(model.named_parameters(), settings), settings)

    def step() -> Tensor:
        optimizer.zero_grad()
        backpropagate()
        optimizer.step()
        return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])

    return step
