"""Small random checkpoints as the LLaVA-NeXT code writes them (``llava_qwen``), and the tower that they name."""

import json

import torch
from safetensors.torch import save_file
from transformers import AutoModel, LlavaOnevisionConfig, Qwen2Config, SiglipVisionConfig

from mmembed.models.families import ScratchFamily
from mmembed.models.scratch import TEXT, train_tokenizer
from tests.cases import LOUD, WORDS

SIDE, LAYERS = 28, 3
SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
TOWER = LOUD | {
    "hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 2, "image_size": SIDE, "patch_size": 7,
}  # fmt: skip
OLD_NAMES = {
    "vision_tower.": "model.vision_tower.vision_tower.vision_model.",
    "multi_modal_projector.linear_1.": "model.mm_projector.0.",
    "multi_modal_projector.linear_2.": "model.mm_projector.2.",
    "image_newline": "model.image_newline",
    "language_model.": "model.",
}
SAID = {
    "architectures": ["LlavaQwenForCausalLM"], "model_type": "llava_qwen", "image_aspect_ratio": "anyres_max_4",
    "mm_patch_merge_type": "spatial_unpad", "mm_projector_type": "mlp2x_gelu", "mm_spatial_pool_mode": "bilinear",
    "mm_newline_position": "one_token", "mm_vision_select_layer": -2, "mm_use_im_start_end": False,
    "mm_use_im_patch_token": False, "rope_theta": 10000.0, "tie_word_embeddings": False,
}  # fmt: skip


def write_llava_qwen(folder, *, spare_rows=64, **said):
    """A checkpoint in a new folder, and beside it the folder of its tower's config; transformers' own model of it.

    Args:
        folder: to make.
        spare_rows: rows of the table behind those of the tokenizer, which has no words for media.
        said: of ``config.json``, other than usual.
    """
    tower = folder.with_name(f"{folder.name}_tower")
    for new in (folder, tower):
        new.mkdir(parents=True)
    vision = TOWER | {"num_hidden_layers": LAYERS}
    (tower / "config.json").write_text(json.dumps({"model_type": "siglip", "vision_config": vision}))

    family = ScratchFamily(SPECIAL, "<|im_end|>", "<|endoftext|>", "", config=dict, preprocessing=dict)
    tokenizer = train_tokenizer(WORDS, 512, family)
    tokenizer.save_pretrained(folder)

    text = TEXT | LOUD | {"vocab_size": len(tokenizer) + spare_rows}
    sizes = [[columns * SIDE, rows * SIDE] for columns in (1, 2, 3) for rows in (1, 2, 3)]
    values = text | SAID | {"mm_vision_tower": str(tower), "image_grid_pinpoints": sizes} | said
    (folder / "config.json").write_text(json.dumps(values))

    model = library_model(text, len(tokenizer))
    weights = {old_name(name): value.contiguous() for name, value in model.state_dict().items()}
    weights["lm_head.weight"] = torch.zeros(text["vocab_size"], text["hidden_size"])
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    return model


def library_model(text, words):
    """transformers' LLaVA-OneVision of the same sizes, as its converter sets it up, with random weights."""
    config = LlavaOnevisionConfig(
        text_config=Qwen2Config(**text, rope_parameters={"rope_type": "default", "rope_theta": 10000.0}),
        vision_config=SiglipVisionConfig(**TOWER, num_hidden_layers=LAYERS - 1, vision_use_head=False),
        image_token_index=words, video_token_index=words + 1, vision_aspect_ratio="anyres_max_4",
        image_grid_pinpoints=[[rows * SIDE, columns * SIDE] for rows in (1, 2, 3) for columns in (1, 2, 3)],
        vision_feature_layer=-1, vision_feature_select_strategy="full",
    )  # fmt: skip
    torch.manual_seed(0)
    return AutoModel.from_config(config).eval()


def old_name(name):
    """What the LLaVA-NeXT code calls a weight."""
    return next(old + name.removeprefix(new) for new, old in OLD_NAMES.items() if name.startswith(new))
