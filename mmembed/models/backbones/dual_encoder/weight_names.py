"""Weights of transformers' CLIPModel and SiglipModel by the names, and in the shapes, that open_clip's modules have."""

from collections.abc import Mapping

import torch
from torch import Tensor

_BLOCK = {
    "layer_norm1": "ln_1", "layer_norm2": "ln_2", "self_attn.out_proj": "attn.out_proj", "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
}  # fmt: skip
_TIMM_BLOCK = {
    "layer_norm1": "norm1", "layer_norm2": "norm2", "self_attn.out_proj": "attn.proj", "mlp.fc1": "mlp.fc1",
    "mlp.fc2": "mlp.fc2",
}  # fmt: skip
_OF_LOSS = ("logit_scale", "logit_bias")
# positions counted up, which old checkpoints hold
_UNUSED = "position_ids"


def clip_weights(found: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """CLIPModel's weights for open_clip's CLIP; those of unknown names keep theirs."""
    rest = {name: value for name, value in found.items() if not name.endswith(_UNUSED)}
    wanted = _text_tower(rest, "")
    wanted |= _blocks(rest, "vision_model.encoder.layers.", "visual.transformer.resblocks.")
    wanted |= _moved(rest, {
        "vision_model.embeddings.class_embedding": "visual.class_embedding",
        "vision_model.embeddings.patch_embedding.weight": "visual.conv1.weight",
        "vision_model.embeddings.position_embedding.weight": "visual.positional_embedding",
        # the name is spelt so
        "vision_model.pre_layrnorm.": "visual.ln_pre.",
        "vision_model.post_layernorm.": "visual.ln_post.",
    })  # fmt: skip
    for projection, name in (("text_projection", "text_projection"), ("visual_projection", "visual.proj")):
        if f"{projection}.weight" in rest:
            wanted[name] = rest.pop(f"{projection}.weight").T.contiguous()
    return wanted | rest


def siglip_weights(found: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """SiglipModel's weights for open_clip's text tower and timm's image tower; those of unknown names keep theirs."""
    rest = {name: value for name, value in found.items() if not name.endswith(_UNUSED)}
    wanted = _text_tower(rest, "text.")
    wanted |= _moved(rest, {"text_model.head.": "text.text_projection."})
    wanted |= _blocks(rest, "vision_model.encoder.layers.", "visual.trunk.blocks.", _TIMM_BLOCK, "attn.qkv.")
    wanted |= _pool(rest)
    wanted |= _moved(rest, {
        "vision_model.embeddings.patch_embedding.": "visual.trunk.patch_embed.proj.",
        "vision_model.post_layernorm.": "visual.trunk.norm.",
    })  # fmt: skip
    positions = "vision_model.embeddings.position_embedding.weight"
    if positions in rest:
        wanted["visual.trunk.pos_embed"] = rest.pop(positions)[None]
    return wanted | {name: value.reshape(()) if name in _OF_LOSS else value for name, value in rest.items()}


def _text_tower(rest: dict[str, Tensor], tower: str) -> dict[str, Tensor]:
    wanted = _blocks(rest, "text_model.encoder.layers.", f"{tower}transformer.resblocks.")
    return wanted | _moved(rest, {
        "text_model.embeddings.token_embedding.": f"{tower}token_embedding.",
        "text_model.embeddings.position_embedding.weight": f"{tower}positional_embedding",
        "text_model.final_layer_norm.": f"{tower}ln_final.",
    })  # fmt: skip


def _pool(rest: dict[str, Tensor]) -> dict[str, Tensor]:
    """SigLIP's attention of one learned query: query and the rest of its joined projection apart."""
    head, pool = "vision_model.head.", "visual.trunk.attn_pool."
    wanted = {f"{pool}latent": rest.pop(f"{head}probe")} if f"{head}probe" in rest else {}
    for kind in ("weight", "bias"):
        name = f"{head}attention.in_proj_{kind}"
        if name in rest:
            joined = rest.pop(name)
            width = len(joined) // 3
            wanted |= {f"{pool}q.{kind}": joined[:width].clone(), f"{pool}kv.{kind}": joined[width:].clone()}
    return wanted | _moved(rest, {
        f"{head}attention.out_proj.": f"{pool}proj.", f"{head}layernorm.": f"{pool}norm.", f"{head}mlp.": f"{pool}mlp.",
    })  # fmt: skip


def _blocks(
    rest: dict[str, Tensor], old: str, new: str, parts: Mapping[str, str] = _BLOCK, joined: str = "attn.in_proj_"
) -> dict[str, Tensor]:
    """The layers of a tower, queries, keys and values in one."""
    wanted = {}
    for name in [name for name in rest if name.startswith(old)]:
        number, _, inside = name.removeprefix(old).partition(".")
        part, _, kind = inside.rpartition(".")
        if part in parts:
            wanted[f"{new}{number}.{parts[part]}.{kind}"] = rest.pop(name)
        elif part == "self_attn.q_proj":
            three = [f"{old}{number}.self_attn.{which}_proj.{kind}" for which in "qkv"]
            if all(one in rest for one in three):
                wanted[f"{new}{number}.{joined}{kind}"] = torch.cat([rest.pop(one) for one in three])
    return wanted


def _moved(rest: dict[str, Tensor], names: Mapping[str, str]) -> dict[str, Tensor]:
    """The weights whose names begin so, by the names that they have instead."""
    found = [(name, old, new) for name in rest for old, new in names.items() if name.startswith(old)]
    return {new + name.removeprefix(old): rest.pop(name) for name, old, new in found}
