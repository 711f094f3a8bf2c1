"""The loop that people write: transformers' processor and forward, batches in input order, padded, stock kernels.

It has the weights of our scratch model, and is what ``scripts/bench.py`` compares with.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import Qwen2VLImageProcessor, Qwen2VLProcessor, Qwen2VLVideoProcessor

from mmembed.items import Image, Item
from mmembed.models.backbones.qwen_vl.scratch import SCRATCH
from mmembed.models.scratch import make_scratch
from mmembed.models.settings import Scratch


class PlainTwin:
    """A Qwen2-VL embedder without a line of ours between transformers and the loss.

    Args:
        scratch: architecture, sizes and seed of the weights.
        texts: what its tokenizer is trained on.
        batch_rows: rows of a batch when encoding.
    """

    def __init__(self, scratch: Scratch, texts: Iterable[str], *, batch_rows: int = 16) -> None:
        checkpoint = make_scratch(scratch, SCRATCH, texts)
        self.model = checkpoint.model
        self.batch_rows = batch_rows
        vision = self.model.config.vision_config
        facts = {"patch_size": vision.patch_size, "merge_size": vision.spatial_merge_size}
        facts |= {"image_mean": checkpoint.image_mean, "image_std": checkpoint.image_std}
        images = Qwen2VLImageProcessor(**facts, size={"shortest_edge": 784, "longest_edge": 1003520})
        template = checkpoint.tokenizer.chat_template
        self.processor = Qwen2VLProcessor(
            images, checkpoint.tokenizer, Qwen2VLVideoProcessor(**facts), chat_template=template
        )

    @torch.no_grad()
    def encode(self, items: Sequence[Item]) -> Tensor:
        """Embeddings ``[N, D]``, batch by batch in input order."""
        starts = range(0, len(items), self.batch_rows)
        return torch.cat([self.embed(self.prepare(items[i : i + self.batch_rows])) for i in starts])

    def prepare(self, items: Sequence[Item]) -> dict[str, Any]:
        """What the model takes of a batch."""
        prompts = [
            self.processor.apply_chat_template(messages_of(item), tokenize=False, add_generation_prompt=True)
            for item in items
        ]
        images = [part.source for item in items for part in item.media]
        padding = {"padding": True, "padding_side": "right", "return_tensors": "pt"}
        return dict(self.processor(text=prompts, images=images or None, **padding))

    def embed(self, inputs: dict[str, Any]) -> Tensor:
        """Unit vectors ``[B, D]`` of a prepared batch, from the last token of each row."""
        states = self.model(**inputs, use_cache=False).last_hidden_state
        last = inputs["attention_mask"].sum(1) - 1
        return F.normalize(states[torch.arange(len(last)), last], dim=-1)

    def whole_gradient(self, queries: Sequence[Item], targets: Sequence[Item], temperature: float) -> None:
        """Backpropagate InfoNCE through the whole batch at once."""
        embedded = [self.embed(self.prepare(side)) for side in (queries, targets)]
        infonce(*embedded, temperature).backward()

    def cached_gradient(
        self, queries: Sequence[Item], targets: Sequence[Item], temperature: float, chunk_rows: int
    ) -> None:
        """The same by two passes over every chunk (arXiv:2101.06983), as its published implementations do it."""
        chunks = [
            [self.prepare(side[i : i + chunk_rows]) for i in range(0, len(side), chunk_rows)]
            for side in (queries, targets)
        ]
        with torch.no_grad():
            cached = [torch.cat([self.embed(chunk) for chunk in side]) for side in chunks]
        leaves = [vectors.requires_grad_() for vectors in cached]
        infonce(*leaves, temperature).backward()
        for side, leaf in zip(chunks, leaves, strict=True):
            for chunk, grad in zip(side, leaf.grad.split(chunk_rows), strict=True):
                (self.embed(chunk) * grad).sum().backward()


def infonce(queries: Tensor, targets: Tensor, temperature: float) -> Tensor:
    """Each query over all targets, its own in the same place."""
    return F.cross_entropy(queries @ targets.T / temperature, torch.arange(len(queries)))


def messages_of(item: Item) -> list[dict[str, Any]]:
    """An item as the chat template wants it."""
    content = [
        {"type": "image"} if isinstance(part, Image) else {"type": "text", "text": part} for part in item.content
    ]
    return [{"role": "user", "content": content}]
