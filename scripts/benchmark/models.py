"""Our embedders of each size, and the options that are on for speed."""

import shutil
import tempfile
import weakref
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from mmembed import Embedder
from mmembed.models.settings import ChatPrompt, EmbedderSettings, Lora, QwenVL, Scratch, Speed
from scripts.benchmark.inputs import TOKENIZER_TEXTS
from scripts.benchmark.sizes import Size

ALL_ON = Speed(packing="on", last_layer="pooled")
"""All that is exact, also what wins on a GPU only; without ``compile``, which compiles for minutes."""
OFF = Speed(packing="off", last_layer="all", patch_products=False, sort=False, deduplicate=False)
"""All off."""
# a pixel budget and a resize under which both ways prepare the same pixels
_SAME_PIXELS: dict[str, Any] = {"min_side": 0, "min_pixels": 784, "max_pixels": 1003520, "resize": "torchvision"}


def options_in_words() -> str:
    """The options that are on, which are those by default."""
    speed = asdict(Speed())
    return ", ".join(name if value is True else f"{name} {value}" for name, value in speed.items() if value)


def make_embedder(size: Size, device: torch.device, speed: Speed | None = None) -> Embedder:
    """A model of random weights, the same at each call; with the options that are on by default unless it is told."""
    scratch = Scratch("qwen2_vl", text=dict(size.text), vision=dict(size.vision))
    backbone = QwenVL(scratch=scratch, dtype=size.dtype, **_SAME_PIXELS)
    made = Embedder(EmbedderSettings(backbone, ChatPrompt(), speed=speed or Speed()), texts=TOKENIZER_TEXTS)
    if size.vocabulary is not None:
        made.backbone.model.resize_token_embeddings(size.vocabulary, mean_resizing=False)
    return made.to(device).eval()


def make_lora(size: Size, device: torch.device) -> Embedder:
    """The same with an adapter on the language model; the tower is frozen."""
    folder = Path(tempfile.mkdtemp())
    base = make_embedder(size, torch.device("cpu"))
    base.save(folder / "base")
    backbone = QwenVL(path=str(folder / "base"), dtype=size.dtype, **_SAME_PIXELS)
    settings = EmbedderSettings(backbone, ChatPrompt(), lora=Lora(**size.lora, dropout=0.0))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        made = Embedder(settings).to(device)
    weakref.finalize(made, shutil.rmtree, folder)
    return made
