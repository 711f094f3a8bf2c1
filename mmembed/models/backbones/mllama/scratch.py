"""Small random Llama-3.2-Vision checkpoints: special tokens, chat template, config, and gates that are open."""

from typing import Any

from torch import nn
from transformers import AutoConfig

from mmembed.models.checkpoint import CLIP_MEAN, CLIP_STD
from mmembed.models.families import ScratchFamily
from mmembed.models.scratch import TEXT
from mmembed.models.settings import Scratch

SPECIAL_TOKENS = (
    "<|begin_of_text|>", "<|end_of_text|>", "<|finetune_right_pad_id|>", "<|start_header_id|>", "<|end_header_id|>",
    "<|eot_id|>", "<|image|>",
)  # fmt: skip

_VISION: dict[str, Any] = {
    "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_global_layers": 1, "attention_heads": 2,
    "patch_size": 14, "image_size": 28, "intermediate_layers_indices": [0],
}  # fmt: skip

CHAT_TEMPLATE = (
    "<|begin_of_text|>{% for message in messages %}<|start_header_id|>{{ message['role'] }}<|end_header_id|>\n\n"
    "{% for part in message['content'] %}{% if part['type'] == 'image' %}<|image|>"
    "{% else %}{{ part['text'] }}{% endif %}{% endfor %}<|eot_id|>{% endfor %}"
    "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
)


def make_config(scratch: Scratch, tokenizer: Any) -> Any:
    """The transformers config with small defaults and the tokenizer's ids."""
    special = dict(zip(SPECIAL_TOKENS, tokenizer.convert_tokens_to_ids(list(SPECIAL_TOKENS)), strict=True))
    small = {"num_hidden_layers": 3, "cross_attention_layers": [1]}
    text = TEXT | small | scratch.text | {"vocab_size": len(tokenizer)}
    text |= {"bos_token_id": special["<|begin_of_text|>"], "eos_token_id": special["<|eot_id|>"]}
    text |= {"pad_token_id": special["<|finetune_right_pad_id|>"]}
    vision = _VISION | scratch.vision
    # the last layer's states beside those of the layers named
    vision["vision_output_dim"] = vision["hidden_size"] * (1 + len(vision["intermediate_layers_indices"]))
    return AutoConfig.for_model(
        "mllama", text_config=text, vision_config=vision, image_token_index=special["<|image|>"]
    )


def open_gates(model: Any) -> None:
    """Let gates pass what they guard: the library's start at zero, and nothing behind a shut gate ever learns."""
    for parameter in model.parameters():
        if parameter.numel() == 1:
            nn.init.constant_(parameter, 0.5)


def preprocessing(config: Any) -> dict[str, Any]:
    """What ``preprocessor_config.json`` of such a checkpoint says."""
    vision = config.vision_config
    return {
        "image_processor_type": "MllamaImageProcessor",
        "size": {"height": vision.image_size, "width": vision.image_size},
        "max_image_tiles": vision.max_num_tiles,
        "resample": 2,
        "image_mean": list(CLIP_MEAN),
        "image_std": list(CLIP_STD),
    }


SCRATCH = ScratchFamily(
    special_tokens=SPECIAL_TOKENS,
    eos_token="<|eot_id|>",
    pad_token="<|finetune_right_pad_id|>",
    chat_template=CHAT_TEMPLATE,
    config=make_config,
    preprocessing=preprocessing,
    bos_token="<|begin_of_text|>",
    # as in the released checkpoints, whose prompts are written with it
    adds_bos=False,
    settle=open_gates,
)
