"""Small random LLaVA checkpoints: special tokens, chat template and config."""

from typing import Any

from transformers import AutoConfig

from mmembed.models.checkpoint import CLIP_MEAN, CLIP_STD
from mmembed.models.families import ScratchFamily
from mmembed.models.scratch import TEXT
from mmembed.models.settings import Scratch

SPECIAL_TOKENS = ("<unk>", "<s>", "</s>", "<pad>", "<image>", "<video>")

_TEXT_MODEL = {"llava_next": "mistral", "llava_onevision": "qwen2", "llava": "llama"}
_VISION: dict[str, Any] = {
    "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 3, "num_attention_heads": 2, "image_size": 28,
    "patch_size": 7,
}  # fmt: skip
# tiles to the height and width of a grid
_GRIDS = {
    "llava_next": ((1, 2), (2, 1), (2, 2), (3, 1), (1, 3)),
    "llava_onevision": tuple((rows, columns) for rows in (1, 2, 3) for columns in (1, 2, 3)),
}
_PROCESSOR = {
    "llava_next": "LlavaNextImageProcessor",
    "llava_onevision": "LlavaOnevisionImageProcessor",
    "llava": "CLIPImageProcessor",
}

CHAT_TEMPLATE = (
    "<s>{% for message in messages %}"
    "{{ {'system': '', 'user': 'USER: ', 'assistant': 'ASSISTANT: '}[message['role']] }}"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for part in message['content'] %}{% if part['type'] == 'image' %}<image>\n"
    "{% elif part['type'] == 'video' %}<video>\n{% else %}{{ part['text'] }}{% endif %}{% endfor %}{% endif %}"
    "{{ '</s>' if message['role'] == 'assistant' else ' ' }}{% endfor %}"
    "{% if add_generation_prompt %}ASSISTANT:{% endif %}"
)


def make_config(scratch: Scratch, tokenizer: Any) -> Any:
    """The architecture's transformers config with small defaults and the tokenizer's ids.

    ``model_type`` among the fields of the language model names another one, e.g. ``llama``.
    """
    architecture = scratch.architecture or "llava_next"
    special = dict(zip(SPECIAL_TOKENS, tokenizer.convert_tokens_to_ids(list(SPECIAL_TOKENS)), strict=True))
    text: dict[str, Any] = {"model_type": _TEXT_MODEL[architecture]} | TEXT | scratch.text
    if text["model_type"] == "mistral":
        text.setdefault("sliding_window", None)
    ids = {"bos_token_id": special["<s>"], "eos_token_id": special["</s>"], "pad_token_id": special["<pad>"]}
    vision = _VISION | scratch.vision
    own: dict[str, Any] = {}
    if architecture in _GRIDS:
        side = vision["image_size"]
        own["image_grid_pinpoints"] = [[rows * side, columns * side] for rows, columns in _GRIDS[architecture]]
    if architecture == "llava_onevision":
        vision = {"model_type": "siglip_vision_model", "vision_use_head": False} | vision
        own |= {"video_token_index": special["<video>"], "vision_aspect_ratio": "anyres_max_4"}
    else:
        vision = {"model_type": "clip_vision_model"} | vision
    return AutoConfig.for_model(
        architecture,
        text_config=text | {"vocab_size": len(tokenizer)} | ids,
        vision_config=vision,
        image_token_index=special["<image>"],
        **own,
    )


def preprocessing(config: Any) -> dict[str, Any]:
    """What ``preprocessor_config.json`` of such a checkpoint says."""
    side = config.vision_config.image_size
    square = {"height": side, "width": side}
    facts: dict[str, Any] = {"image_processor_type": _PROCESSOR[config.model_type]}
    if config.model_type == "llava_onevision":
        facts |= {"size": square, "image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    else:
        facts |= {"size": {"shortest_edge": side}, "crop_size": square}
        facts |= {"image_mean": list(CLIP_MEAN), "image_std": list(CLIP_STD)}
    return facts


SCRATCH = ScratchFamily(
    special_tokens=SPECIAL_TOKENS,
    eos_token="</s>",
    pad_token="<pad>",
    chat_template=CHAT_TEMPLATE,
    config=make_config,
    preprocessing=preprocessing,
    bos_token="<s>",
)
