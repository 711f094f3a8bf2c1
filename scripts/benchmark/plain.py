"""The loop that people write: transformers' processor and forward, batches in input order, padded, stock kernels."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import (
    AutoModel,
    AutoModelForImageTextToText,
    Qwen2VLImageProcessor,
    Qwen2VLProcessor,
    Qwen2VLVideoProcessor,
)

from mmembed import Embedder, Item, Video
from mmembed.models.adapters import add_lora
from scripts.benchmark.inputs import opened


class PlainTwin:
    """A Qwen2-VL embedder without a line of ours between transformers and the loss.

    Args:
        embedder: whose weights, tokenizer and pixel budget it copies.
        head: compute logits at all positions too, as code does that opens ``AutoModelForImageTextToText`` and takes
            the last of its hidden states.
        batch_rows: rows of a batch when encoding.
        ending: what ends the prompt of a model that is asked raw; None renders the chat template.
    """

    def __init__(
        self, embedder: Embedder, *, head: bool = False, batch_rows: int = 16, ending: str | None = None
    ) -> None:
        checkpoint = embedder.backbone.checkpoint
        self.whole = _copied(AutoModelForImageTextToText, embedder) if head else None
        self.model: Any = _copied(AutoModel, embedder) if self.whole is None else self.whole.model
        self.batch_rows, self.ending = batch_rows, ending
        vision, settings = self.model.config.vision_config, embedder.settings.backbone
        facts = {"patch_size": vision.patch_size, "merge_size": vision.spatial_merge_size}
        facts |= {"temporal_patch_size": vision.temporal_patch_size}
        facts |= {"image_mean": checkpoint.image_mean, "image_std": checkpoint.image_std}
        budget = {"shortest_edge": settings.min_pixels, "longest_edge": settings.max_pixels}
        # of all frames together; those of the workloads need no resize
        clips = Qwen2VLVideoProcessor(
            **facts,
            size={"shortest_edge": 1024, "longest_edge": 10**8},
            do_sample_frames=False,
            cap_pixels_per_frame=False,
        )
        template = checkpoint.tokenizer.chat_template
        self.processor = Qwen2VLProcessor(
            Qwen2VLImageProcessor(**facts, size=budget), checkpoint.tokenizer, clips, chat_template=template
        )

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.model.parameters()).device

    @torch.no_grad()
    def encode(self, items: Sequence[Item]) -> Tensor:
        """Embeddings ``[N, D]`` on the CPU, batch by batch in input order."""
        starts = range(0, len(items), self.batch_rows)
        return torch.cat([self.embed(self.prepare(items[i : i + self.batch_rows])).cpu() for i in starts])

    def prepare(self, items: Sequence[Item]) -> dict[str, Any]:
        """What the model takes of a batch."""
        images = [opened(part.source) for item in items for part in item.media if not isinstance(part, Video)]
        clips = [list(part.source) for item in items for part in item.media if isinstance(part, Video)]
        media: dict[str, Any] = {"images": images or None}
        if clips:
            media |= {"videos": clips, "video_metadata": [_facts_of(len(clip)) for clip in clips]}
        padding = {"padding": True, "padding_side": "right", "return_tensors": "pt"}
        inputs = dict(self.processor(text=[self._prompt(item) for item in items], **media, **padding))
        inputs.pop("video_metadata", None)
        return {name: tensor.to(self.device) for name, tensor in inputs.items()}

    def embed(self, inputs: dict[str, Any]) -> Tensor:
        """Unit vectors ``[B, D]`` of a prepared batch, from the last token of each row."""
        if self.whole is None:
            states = self.model(**inputs, use_cache=False).last_hidden_state
        else:
            states = self.whole(**inputs, use_cache=False, output_hidden_states=True).hidden_states[-1]
        last = inputs["attention_mask"].sum(1) - 1
        return F.normalize(states[torch.arange(len(last), device=last.device), last].float(), dim=-1)

    def whole_gradient(self, queries: Sequence[Item], targets: Sequence[Item], loss: "InfoNCE") -> None:
        """Backpropagate the loss through the whole batch at once."""
        embedded = [self.embed(self.prepare(side)) for side in (queries, targets)]
        loss(*embedded).backward()

    def cached_gradient(
        self, queries: Sequence[Item], targets: Sequence[Item], loss: "InfoNCE", chunk_rows: int
    ) -> None:
        """The same by two passes over every chunk (arXiv:2101.06983), as its published implementations do it."""
        chunks = [
            [self.prepare(side[i : i + chunk_rows]) for i in range(0, len(side), chunk_rows)]
            for side in (queries, targets)
        ]
        with torch.no_grad():
            cached = [torch.cat([self.embed(chunk) for chunk in side]) for side in chunks]
        leaves = [vectors.requires_grad_() for vectors in cached]
        loss(*leaves).backward()
        for side, leaf in zip(chunks, leaves, strict=True):
            assert leaf.grad is not None
            for chunk, grad in zip(side, leaf.grad.split(chunk_rows), strict=True):
                (self.embed(chunk) * grad).sum().backward()

    def _prompt(self, item: Item) -> str:
        if self.ending is None:
            return self.processor.apply_chat_template(messages_of(item), tokenize=False, add_generation_prompt=True)
        return "<|image_pad|>" * len(item.media) + item.text + self.ending


class InfoNCE:
    """Each query over all targets, its own in the same place; and each target over all queries.

    Args:
        temperature: divides the similarities.
        directions: weights of the two terms.
    """

    def __init__(self, temperature: float, directions: tuple[float, float] = (1.0, 0.0)) -> None:
        self.temperature, self.directions = temperature, directions

    def __call__(self, queries: Tensor, targets: Tensor) -> Tensor:
        """The loss of a batch ``[B, D]`` each."""
        scores = queries @ targets.T / self.temperature
        labels = torch.arange(len(queries), device=queries.device)
        terms = zip(self.directions, (scores, scores.T), strict=True)
        return sum(weight * F.cross_entropy(given, labels) for weight, given in terms if weight)  # type: ignore[return-value]


def messages_of(item: Item) -> list[dict[str, Any]]:
    """An item as the chat template wants it."""
    content = [
        {"type": "text", "text": part}
        if isinstance(part, str)
        else {"type": "video" if isinstance(part, Video) else "image"}
        for part in item.content
    ]
    return [{"role": "user", "content": content}]


def _copied(kind: Any, embedder: Embedder) -> Any:
    """A model that transformers builds of the same config, with the same weights and adapter, and its own kernels."""
    ours: Any = embedder.backbone.model
    # through its dict, which leaves out kernels that were put in
    config = type(ours.config).from_dict(ours.config.to_dict())
    with torch.random.fork_rng(), embedder.device:
        made: Any = kind.from_config(config, attn_implementation="sdpa").to(ours.dtype)
    inner = made if kind is AutoModel else made.model
    if embedder.settings.lora is not None:
        add_lora(inner, embedder.settings.lora)
    inner.load_state_dict(ours.state_dict())
    return made.eval()


def _facts_of(frames: int) -> dict[str, Any]:
    return {"fps": 1.0, "total_num_frames": frames, "frames_indices": list(range(frames)), "duration": float(frames)}
