"""What the workloads share: one size, one device, and inputs and models made when they are asked for."""

import random
from functools import cached_property

import torch

from mmembed import Embedder, Item
from mmembed.items import Image
from scripts.benchmark.inputs import mixed_items, noise, words
from scripts.benchmark.models import make_embedder, make_lora
from scripts.benchmark.plain import PlainTwin
from scripts.benchmark.sizes import Size


class Bench:
    """The inputs and models of one size on one device; each workload has its own.

    Args:
        size: of models and inputs.
        device: where models run.
    """

    def __init__(self, size: Size, device: torch.device) -> None:
        self.size = size
        self.device = device

    @cached_property
    def ours(self) -> Embedder:
        """Our embedder."""
        return make_embedder(self.size, self.device)

    @cached_property
    def lora(self) -> Embedder:
        """Our embedder with an adapter."""
        return make_lora(self.size, self.device)

    def twin(self, embedder: Embedder, *, head: bool = False) -> PlainTwin:
        """The plain way with the same weights."""
        return PlainTwin(embedder, head=head)

    @cached_property
    def pictures(self) -> list[Item]:
        """Distinct pictures of one size."""
        return [Item.of(Image(noise(self.size.pixels, seed))) for seed in range(self.size.rows)]

    @cached_property
    def texts(self) -> list[Item]:
        """Distinct texts of 4 to 64 words."""
        rng = random.Random(0)
        return [Item.of(words(rng, rng.randint(4, 64))) for _ in range(self.size.rows)]

    @cached_property
    def questions(self) -> list[Item]:
        """Four questions to each picture."""
        sources = [item.media[0].source for item in self.pictures]
        return [Item.of({"image": sources[i // 4], "text": text.text}) for i, text in enumerate(self.texts)]

    @cached_property
    def mixed(self) -> list[Item]:
        """The mixed inputs."""
        return mixed_items(self.size.mixed, self.size.rows, seed=0)
