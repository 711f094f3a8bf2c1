"""Small random checkpoints of the real architectures, for learning from nothing and for tests.

The architecture and its code path are the library's own; the tokenizer is a byte-level BPE trained on the given texts,
with the family's special tokens and chat template.
"""

from collections.abc import Iterable
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoConfig, AutoModel, PreTrainedTokenizerFast

from mmembed.models.checkpoint import Checkpoint
from mmembed.models.settings import DType, Scratch

SPECIAL_TOKENS = (
    "<|endoftext|>", "<|im_start|>", "<|im_end|>",
    "<|vision_start|>", "<|vision_end|>", "<|vision_pad|>", "<|image_pad|>", "<|video_pad|>",
)  # fmt: skip

_TEXT: dict[str, Any] = {
    "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 4096,
}  # fmt: skip
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

CHAT_TEMPLATE = (
    "{% for message in messages %}{% if loop.first and message['role'] != 'system' %}"
    "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n{% endif %}<|im_start|>{{ message['role'] }}\n"
    "{% for part in message['content'] %}{% if part['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% elif part['type'] == 'video' %}<|vision_start|><|video_pad|><|vision_end|>"
    "{% else %}{{ part['text'] }}{% endif %}{% endfor %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def make_scratch(
    scratch: Scratch, texts: Iterable[str], *, dtype: DType = "float32", attention: str = "sdpa"
) -> Checkpoint:
    """A random model and a trained tokenizer; the same settings and texts give the same bits."""
    tokenizer = train_tokenizer(texts, scratch.vocab_size)
    config = make_config(scratch, tokenizer)
    with torch.random.fork_rng():
        torch.manual_seed(scratch.seed)
        model = AutoModel.from_config(config, attn_implementation=attention)
    mean = (0.5, 0.5, 0.5)
    checkpoint = Checkpoint(model.to(getattr(torch, dtype)), tokenizer)
    if scratch.architecture == "qwen3_vl":
        checkpoint.image_mean = checkpoint.image_std = mean
    return checkpoint


def train_tokenizer(texts: Iterable[str], vocab_size: int) -> PreTrainedTokenizerFast:
    """Byte-level BPE on ``texts``, special tokens first."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size + len(SPECIAL_TOKENS),
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<|im_end|>", pad_token="<|endoftext|>", model_max_length=4096
    )
    wrapped.chat_template = CHAT_TEMPLATE
    return wrapped


def make_config(scratch: Scratch, tokenizer: Any) -> Any:
    """The architecture's transformers config with small defaults and the tokenizer's ids."""
    special = dict(zip(SPECIAL_TOKENS, tokenizer.convert_tokens_to_ids(list(SPECIAL_TOKENS)), strict=True))
    text = _TEXT | scratch.text
    head = text.setdefault("head_dim", text["hidden_size"] // text["num_attention_heads"])
    if scratch.architecture != "qwen3_vl":
        text.pop("head_dim")
    third = head // 2 * 3 // 8
    rope = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [head // 2 - 2 * third, third, third]}
    if scratch.architecture == "qwen3_vl":
        rope["mrope_interleaved"] = True
    text = {"rope_parameters": rope} | text | {"vocab_size": len(tokenizer), "bos_token_id": None}
    text |= {"eos_token_id": special["<|im_end|>"], "pad_token_id": special["<|endoftext|>"]}
    vision = _VISION[scratch.architecture] | scratch.vision | {_OUT[scratch.architecture]: text["hidden_size"]}
    return AutoConfig.for_model(
        scratch.architecture,
        text_config=text,
        vision_config=vision,
        image_token_id=special["<|image_pad|>"],
        video_token_id=special["<|video_pad|>"],
        vision_start_token_id=special["<|vision_start|>"],
        vision_end_token_id=special["<|vision_end|>"],
    )
