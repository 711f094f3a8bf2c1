"""Small checkpoints that open_clip itself writes, and what open_clip itself makes of items."""

import json
from copy import deepcopy

import numpy as np
import open_clip
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from transformers import BertConfig

from mmembed import Embedder
from mmembed.models.backbones.dual_encoder.scratch import ARCHITECTURES
from mmembed.models.settings import DualEncoder, EmbedderSettings, Scratch
from tests.cases import GOLDEN, WORDS

CLIP = {"embed_dim": 24, **ARCHITECTURES["clip"]}
MAPPING = GOLDEN / "cir/mapping"


def scratch(architecture="clip", seed=0, **backbone):
    """A new small random embedder."""
    settings = DualEncoder(scratch=Scratch(architecture, seed=seed), **backbone)
    return Embedder(EmbedderSettings(settings), texts=WORDS).eval()


def opened(directory, *, pooler=None, lora=None, **backbone):
    """The embedder of a checkpoint."""
    settings = EmbedderSettings(DualEncoder(path=str(directory), **backbone), pooler=pooler, lora=lora)
    return Embedder(settings).eval()


def write(directory, config, preprocessing=None):
    """A checkpoint with random weights, as open_clip lays one out."""
    directory.mkdir()
    said = {"model_cfg": config, "preprocess_cfg": preprocessing or {}}
    (directory / "open_clip_config.json").write_text(json.dumps(said))
    torch.manual_seed(1)
    model = open_clip.create_model(f"local-dir:{directory}", load_weights=False, pretrained_text=False)
    save_file(model.state_dict(), directory / "open_clip_model.safetensors")
    return directory


def published(directory):
    """The small CLIP that the published codes of composed image retrieval were run with."""
    directory.mkdir()
    config = json.loads((MAPPING / "open_clip_config.json").read_text())
    said = {"model_cfg": config, "preprocess_cfg": {}}
    (directory / "open_clip_config.json").write_text(json.dumps(said))
    with np.load(MAPPING / "open_clip_state.npz") as arrays:
        save_file({name: torch.tensor(arrays[name]) for name in arrays}, directory / "open_clip_model.safetensors")
    return directory


def quick_gelu(directory):
    """CLIP with OpenAI's activation and a picture that is not square."""
    config = deepcopy(CLIP) | {"quick_gelu": True}
    config["vision_cfg"] |= {"image_size": [56, 84]}
    return write(directory, config)


def gelu(directory):
    """CLIP with the usual activation, pictures squashed."""
    return write(directory, CLIP, {"resize_mode": "squash", "mean": [0.1, 0.2, 0.3], "interpolation": "bilinear"})


def bert(directory):
    """A text tower of transformers, with the tokenizer of the small SigLIP."""
    scratch("siglip").save(directory.with_name("siglip"))
    text = BertConfig(
        vocab_size=600, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64,
        max_position_embeddings=32, pad_token_id=0,
    )  # fmt: skip
    text.save_pretrained(directory.with_name("bert"))
    config = deepcopy(CLIP)
    config["text_cfg"] = {
        "hf_model_name": str(directory.with_name("bert")), "hf_tokenizer_name": "siglip", "context_length": 32,
        "hf_proj_type": "mlp", "hf_pooler_type": "mean_pooler",
    }  # fmt: skip
    write(directory, config)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (directory / name).write_text((directory.with_name("siglip") / name).read_text())
    return directory


def resnet(directory):
    """OpenAI's convolutional tower, with batch normalisation."""
    config = deepcopy(CLIP)
    config["vision_cfg"] = {"image_size": 64, "layers": [1, 1, 1, 1], "width": 8, "head_width": 16}
    return write(directory, config)


def saved(architecture):
    """What :meth:`Embedder.save` writes of a scratch model."""

    def make(directory):
        scratch(architecture).save(directory)
        return directory

    return make


MAKERS = {
    "quick gelu": quick_gelu,
    "gelu": gelu,
    "bert": bert,
    "resnet": resnet,
    "siglip": saved("siglip"),
    "coca": saved("coca"),
    "timm": saved("timm"),
}


@torch.no_grad()
def by_open_clip(directory, texts=(), pictures=()):
    """open_clip's own unit vectors of texts and of pictures."""
    name = f"local-dir:{directory}"
    model, preprocess = open_clip.create_model_from_pretrained(name)
    model.eval()
    vectors = []
    if texts:
        vectors.append(model.encode_text(open_clip.get_tokenizer(name)(list(texts)), normalize=False))
    if pictures:
        vectors.append(model.encode_image(torch.stack([preprocess(p) for p in pictures]), normalize=False))
    return F.normalize(torch.cat(vectors), dim=-1)
