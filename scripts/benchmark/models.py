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

OURS: dict[str, Any] = {"last_layer": "pooled"}
"""Options of :class:`mmembed.models.settings.Speed` that are measured beside its defaults; all are exact."""
ALL_ON: dict[str, Any] = {"packing": "on", "last_layer": "pooled"}
"""All that are exact, also what wins on a GPU only; without ``compile``, which compiles for minutes."""
OFF: dict[str, Any] = {
    "packing": "off", "last_layer": "all", "patch_products": False, "sort": False, "deduplicate": False
}  # fmt: skip
"""All off."""
# a pixel budget and a resize under which both ways prepare the same pixels
_SAME_PIXELS: dict[str, Any] = {"min_side": 0, "min_pixels": 784, "max_pixels": 1003520, "resize": "torchvision"}


def options_in_words() -> str:
    """The options that are on."""
    speed = asdict(Speed(**OURS))
    return ", ".join(name if value is True else f"{name} {value}" for name, value in speed.items() if value)


def make_embedder(size: Size, device: torch.device, speed: dict[str, Any] = OURS) -> Embedder:
    """A model of random weights, the same at each call."""
    scratch = Scratch("qwen2_vl", text=dict(size.text), vision=dict(size.vision))
    backbone = QwenVL(scratch=scratch, dtype=size.dtype, **_SAME_PIXELS)
    made = Embedder(EmbedderSettings(backbone, ChatPrompt(), speed=Speed(**speed)), texts=TOKENIZER_TEXTS)
    if size.vocabulary is not None:
        made.backbone.model.resize_token_embeddings(size.vocabulary, mean_resizing=False)
    return made.to(device).eval()


def make_lora(size: Size, device: torch.device) -> Embedder:
    """The same with an adapter on the language model; the tower is frozen."""
    folder = Path(tempfile.mkdtemp())
    base = make_embedder(size, torch.device("cpu"))
    base.save(folder / "base")
    backbone = QwenVL(path=str(folder / "base"), dtype=size.dtype, **_SAME_PIXELS)
    settings = EmbedderSettings(backbone, ChatPrompt(), lora=Lora(**size.lora, dropout=0.0), speed=Speed(**OURS))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        made = Embedder(settings).to(device)
    weakref.finalize(made, shutil.rmtree, folder)
    return made
