"""Small random Phi-3.5-vision checkpoints: special tokens, chat template and config."""

from typing import Any

from mmembed.models.backbones.phi3_v.config import LAYOUT, Phi3VConfig
from mmembed.models.checkpoint import CLIP_MEAN, CLIP_STD
from mmembed.models.families import ScratchFamily
from mmembed.models.scratch import TEXT
from mmembed.models.settings import Scratch

SPECIAL_TOKENS = ("<|endoftext|>", "<|system|>", "<|user|>", "<|assistant|>", "<|end|>")

# the layer before CLIP's last one is read, so two are the fewest that leave one to run
_VISION: dict[str, Any] = {
    "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2,
    "image_size": 56, "patch_size": 14,
}  # fmt: skip
# short enough that a few pictures in a row are on either side of it
_FIRST_TRAINED_ON = 256

CHAT_TEMPLATE = (
    "{% for message in messages %}{{ '<|' + message['role'] + '|>\n' + message['content'] + '<|end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)


def make_config(scratch: Scratch, tokenizer: Any) -> Any:
    """The architecture's config with small defaults and the tokenizer's ids."""
    text = {"original_max_position_embeddings": _FIRST_TRAINED_ON} | TEXT | scratch.text
    vision = _VISION | scratch.vision
    pairs = text["hidden_size"] // text["num_attention_heads"] // 2
    rope = {
        "rope_type": "longrope",
        "rope_theta": 10000.0,
        "original_max_position_embeddings": text["original_max_position_embeddings"],
        "short_factor": [1.0 + 0.05 * i for i in range(pairs)],
        "long_factor": [1.0 + 0.9 * i for i in range(pairs)],
    }
    end, pad = tokenizer.convert_tokens_to_ids(["<|end|>", "<|endoftext|>"])
    return Phi3VConfig(
        **({"rope_parameters": rope} | text),
        vision_config=vision,
        img_processor={"name": "clip_vision_model", "image_dim_out": vision["hidden_size"]},
        embd_layer={"embedding_cls": "image"} | LAYOUT,
        vocab_size=len(tokenizer),
        bos_token_id=None,
        eos_token_id=end,
        pad_token_id=pad,
    )


def preprocessing(config: Any) -> dict[str, Any]:
    """What ``preprocessor_config.json`` of such a checkpoint says."""
    vision = config.vision_config
    return {
        "image_processor_type": "Phi3VImageProcessor",
        "image_mean": list(CLIP_MEAN),
        "image_std": list(CLIP_STD),
        "num_img_tokens": (vision.image_size // vision.patch_size // 2) ** 2,
    }


SCRATCH = ScratchFamily(
    special_tokens=SPECIAL_TOKENS,
    eos_token="<|end|>",
    pad_token="<|endoftext|>",
    chat_template=CHAT_TEMPLATE,
    config=make_config,
    preprocessing=preprocessing,
)
