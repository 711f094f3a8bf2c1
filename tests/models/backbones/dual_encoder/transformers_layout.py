"""Small random CLIP and SigLIP as transformers writes them, and its own vectors of texts and pictures."""

import json

import timm
import torch
import torch.nn.functional as F
from timm.models import register_model
from timm.models.vision_transformer import VisionTransformer
from transformers import AutoImageProcessor, AutoModel, CLIPConfig, CLIPModel, SiglipConfig, SiglipModel

from mmembed.models.checkpoint import quiet
from mmembed.models.families import ScratchFamily
from mmembed.models.hub import read_tokenizer
from mmembed.models.scratch import train_tokenizer
from tests.cases import WORDS

SIDE = 56
SIZES = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}
TINY = "vit_tiny_patch14_siglip_56"


def vit_tiny_patch14_siglip_56(pretrained=False, **given):
    """timm's SigLIP at a size that it does not have."""
    sizes = {"img_size": SIDE, "patch_size": 14, "embed_dim": 64, "depth": 2, "num_heads": 4, "mlp_ratio": 2}
    given = {name: value for name, value in given.items() if not name.startswith(("pretrained", "cache_dir"))}
    return VisionTransformer(**sizes | {"class_token": False, "global_pool": "map"} | given)


if not timm.is_model(TINY):
    register_model(vit_tiny_patch14_siglip_56)


def write_clip(folder, *, eos=None, torch_files=False, **both):
    """A CLIP in a new folder.

    Args:
        folder: to make.
        eos: the end token that the config names, if not the tokenizer's.
        torch_files: whether its weights are a file of torch's.
        both: fields of both towers' configs.
    """
    family = ScratchFamily(
        ("<|startoftext|>", "<|endoftext|>"), "<|endoftext|>", "<|endoftext|>", "", config=dict, preprocessing=dict,
        bos_token="<|startoftext|>", closing_token="<|endoftext|>",
    )  # fmt: skip
    tokenizer = train_tokenizer(WORDS, 512, family)
    text = SIZES | both | {"vocab_size": len(tokenizer), "max_position_embeddings": 77}
    text |= {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": eos or tokenizer.eos_token_id}
    vision = SIZES | both | {"image_size": SIDE, "patch_size": 14}
    config = CLIPConfig(text_config=text, vision_config=vision, projection_dim=32)
    facts = {
        "image_processor_type": "CLIPImageProcessor", "size": {"shortest_edge": SIDE}, "resample": 3,
        "crop_size": {"height": SIDE, "width": SIDE},
    }  # fmt: skip
    _write(folder, CLIPModel, config, tokenizer, facts, torch_files)


def write_siglip(folder, **vision):
    """A SigLIP in a new folder."""
    family = ScratchFamily(("<unk>", "</s>"), "</s>", "</s>", "", config=dict, preprocessing=dict, closing_token="</s>")
    tokenizer = train_tokenizer(WORDS, 512, family)
    text = SIZES | {"vocab_size": len(tokenizer), "max_position_embeddings": 16, "projection_size": 64}
    ids = {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1}
    config = SiglipConfig(text_config=text | ids, vision_config=SIZES | {"image_size": SIDE, "patch_size": 14} | vision)
    facts = {
        "image_processor_type": "SiglipImageProcessor", "size": {"height": SIDE, "width": SIDE}, "resample": 3,
        "image_mean": [0.5] * 3, "image_std": [0.5] * 3,
    }  # fmt: skip
    _write(folder, SiglipModel, config, tokenizer, facts)


def _write(folder, kind, config, tokenizer, facts, torch_files=False):
    torch.manual_seed(0)
    model = kind(config)
    with torch.no_grad():
        for name, value in model.named_parameters():
            if value.dim() > 1:
                value.mul_(3)
            elif "norm" in name or name.endswith("bias"):
                value.add_(torch.randn_like(value) * 0.1)
    with quiet():
        model.save_pretrained(folder)
    if torch_files:
        torch.save(model.state_dict(), folder / "pytorch_model.bin")
        (folder / "model.safetensors").unlink()
    tokenizer.save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(facts))


@torch.no_grad()
def by_transformers(folder, texts=(), pictures=()):
    """transformers' own unit vectors of texts and of pictures."""
    model, tokenizer = AutoModel.from_pretrained(folder).eval(), read_tokenizer(str(folder), {})
    vectors = []
    if texts:
        whole = (
            {"padding": "max_length", "max_length": 16} if model.config.model_type == "siglip" else {"padding": True}
        )
        inputs = tokenizer(list(texts), return_tensors="pt", truncation=True, **whole)
        vectors.append(_vectors(model.get_text_features(input_ids=inputs["input_ids"])))
    if pictures:
        images = AutoImageProcessor.from_pretrained(folder, backend="pil")
        vectors.append(_vectors(model.get_image_features(**images(list(pictures), return_tensors="pt"))))
    return F.normalize(torch.cat(vectors), dim=-1)


def _vectors(found):
    return getattr(found, "pooler_output", found)
