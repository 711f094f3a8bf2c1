"""Small random Qwen-VL checkpoints: special tokens, chat template and config."""

from typing import Any

from transformers import AutoConfig

from mmembed.models.families import ScratchFamily
from mmembed.models.scratch import TEXT
from mmembed.models.settings import Scratch

SPECIAL_TOKENS = (
    "<|endoftext|>", "<|im_start|>", "<|im_end|>",
    "<|vision_start|>", "<|vision_end|>", "<|vision_pad|>", "<|image_pad|>", "<|video_pad|>",
)  # fmt: skip

_VISION: dict[str, dict[str, Any]] = {
    "qwen2_vl": {"depth": 2, "embed_dim": 32, "num_heads": 2, "mlp_ratio": 2, "patch_size": 14},
    "qwen2_5_vl": {
        "depth": 2, "hidden_size": 32, "intermediate_size": 64, "num_heads": 2, "patch_size": 14, "window_size": 112,
        "fullatt_block_indexes": [1],
    },
    "qwen3_vl": {
        "depth": 2, "hidden_size": 32, "intermediate_size": 64, "num_heads": 2, "patch_size": 16,
        "num_position_embeddings": 64,
        # of two language layers only the first can hand on what it is fed
        "deepstack_visual_indexes": [0],
    },
}  # fmt: skip
# the name each family gives to the width that the tower hands to the language model
_OUT = {"qwen2_vl": "hidden_size", "qwen2_5_vl": "out_hidden_size", "qwen3_vl": "out_hidden_size"}

_SYSTEM = (
    "{% if loop.first and message['role'] != 'system' %}"
    "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n{% endif %}"
)
CHAT_TEMPLATE = (
    "{% for message in messages %}" + _SYSTEM + "<|im_start|>{{ message['role'] }}\n"
    "{% for part in message['content'] %}{% if part['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% elif part['type'] == 'video' %}<|vision_start|><|video_pad|><|vision_end|>"
    "{% else %}{{ part['text'] }}{% endif %}{% endfor %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
# Qwen3-VL says nothing where no system message is given
QWEN3_TEMPLATE = CHAT_TEMPLATE.replace(_SYSTEM, "")


def make_config(scratch: Scratch, tokenizer: Any) -> Any:
    """The architecture's transformers config with small defaults and the tokenizer's ids."""
    architecture = scratch.architecture or "qwen2_vl"
    special = dict(zip(SPECIAL_TOKENS, tokenizer.convert_tokens_to_ids(list(SPECIAL_TOKENS)), strict=True))
    text = TEXT | scratch.text
    head = text.setdefault("head_dim", text["hidden_size"] // text["num_attention_heads"])
    if architecture != "qwen3_vl":
        text.pop("head_dim")
    third = head // 2 * 3 // 8
    rope = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [head // 2 - 2 * third, third, third]}
    if architecture == "qwen3_vl":
        rope["mrope_interleaved"] = True
    text = {"rope_parameters": rope} | text | {"vocab_size": len(tokenizer), "bos_token_id": None}
    text |= {"eos_token_id": special["<|im_end|>"], "pad_token_id": special["<|endoftext|>"]}
    vision = _VISION[architecture] | scratch.vision | {_OUT[architecture]: text["hidden_size"]}
    return AutoConfig.for_model(
        architecture,
        text_config=text,
        vision_config=vision,
        image_token_id=special["<|image_pad|>"],
        video_token_id=special["<|video_pad|>"],
        vision_start_token_id=special["<|vision_start|>"],
        vision_end_token_id=special["<|vision_end|>"],
    )


def preprocessing(config: Any) -> dict[str, Any]:
    """What ``preprocessor_config.json`` of such a checkpoint says."""
    vision = config.vision_config
    halves = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3} if config.model_type == "qwen3_vl" else {}
    return {
        "image_processor_type": "Qwen2VLImageProcessor",
        "patch_size": vision.patch_size,
        "merge_size": vision.spatial_merge_size,
        "temporal_patch_size": vision.temporal_patch_size,
        **halves,
    }


SCRATCH = ScratchFamily(
    special_tokens=SPECIAL_TOKENS,
    eos_token="<|im_end|>",
    pad_token="<|endoftext|>",
    chat_template=CHAT_TEMPLATE,
    other_templates={"qwen3_vl": QWEN3_TEMPLATE},
    config=make_config,
    preprocessing=preprocessing,
)
