"""Models, items and pictures that several tests make, also those that run as programs of their own."""

import os
import re
from pathlib import Path

import numpy as np
import PIL.Image

from mmembed import Embedder, Image, Item, Video
from mmembed.media.settings import AllFrames, MediaSettings
from mmembed.models.settings import ChatPrompt, EmbedderSettings, QwenVL, Scratch

GOLDEN = Path(__file__).parent / "golden"

# large random weights: at the libraries' initial scale every input would have nearly the same embedding
LOUD = {"initializer_range": 0.3}
# two fed layers, and a third layer of the language model so that both reach the last token
DEEP = {"qwen3_vl": ({"num_hidden_layers": 3}, {"deepstack_visual_indexes": [0, 1]})}
WORDS = ["a red circle", "the same, but blue", "Represent the given image.", "describe the clip", "system user"]


def golden_item(text, paths):
    """A published case's text with {IMG} and {VID}, and its paths, as an Item."""
    content, media = [], [GOLDEN / "vlm2vec/inputs" / path for path in paths or []]
    for piece in re.split(r"(\{IMG\}|\{VID\}|<\|image_pad\|>|<\|video_pad\|>)", text):
        if piece in ("{IMG}", "<|image_pad|>"):
            content.append(Image(media.pop(0)))
        elif piece in ("{VID}", "<|video_pad|>"):
            content.append(Video(tuple(media), num_frames=len(media)))
        elif piece:
            content.append(piece)
    return Item(tuple(content))


def golden_model(family, **overrides):
    """A new model from a published checkpoint under VLM2Vec's profile."""
    return Embedder.from_pretrained(GOLDEN / "vlm2vec" / family, profile="vlm2vec", device="cpu", **overrides)


def draw(width, height, seed=0):
    """A picture of random pixels, the same for the same size and seed."""
    pixels = np.random.default_rng((seed, width, height)).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return PIL.Image.fromarray(pixels)


def is_alive(process):
    """Whether a process of this number runs."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


def small_settings(family, *, prompt=None, pooler=None, regions=None, **backbone):
    """Settings of a small random model of a family, with its own chat template and positions."""
    text, vision = DEEP.get(family, ({}, {}))
    given = {
        "scratch": Scratch(family, text=LOUD | text, vision=LOUD | vision),
        "min_side": 0,
        "resize": "torchvision",
        "media": MediaSettings(alpha="white", sampling=AllFrames()),
    }
    kinds = {} if pooler is None else {"pooler": pooler}
    return EmbedderSettings(QwenVL(**(given | backbone)), prompt=prompt or ChatPrompt(), regions=regions, **kinds)


def small_embedder(family="qwen2_vl", **choices):
    """A new small random embedder."""
    return Embedder(small_settings(family, **choices), texts=WORDS)


# a recipe of two stages, with options enough to be told apart
TINY = """
name: tiny
threads: 1
accelerator: cpu
embedder:
  backbone:
    class_path: QwenVL
    init_args:
      scratch:
        vocab_size: 300
        text:
          {hidden_size: 32, intermediate_size: 64, num_hidden_layers: 2, num_attention_heads: 2, num_key_value_heads: 1}
        vision: {depth: 1, embed_dim: 32, num_heads: 2, patch_size: 7}
      min_pixels: 196
      max_pixels: 3136
      min_side: 0
  prompt: {class_path: RawPrompt, init_args: {suffix: <|im_end|>}}
stages:
  first:
    mixture:
      caption: {table: demo/single_caption.jsonl}
      question: {table: demo/single_question.jsonl}
    steps: 3
    sampling: {batch_size: 8, block_size: 4}
    optim: {lr: 1e-3}
    log_every: 1
  second:
    mixture:
      motion: {table: demo/motion.jsonl}
      image: {table: demo/pair_image.jsonl, weight: 2}
    steps: 3
    sampling: {batch_size: 6, block_size: 2}
    chunks: {rows: 4, keep_mb: 0}
    optim: {lr: 1e-3}
    checkpoints: {every: 2}
    log_every: 1
"""
