"""Small random models of text: special tokens, chat template and config of decoders and of encoders."""

from typing import Any

from transformers import AutoConfig

from mmembed.models.families import ScratchFamily
from mmembed.models.scratch import TEXT
from mmembed.models.settings import Scratch

DECODERS = ("qwen2", "qwen3", "llama", "mistral", "phi3", "gemma3_text")
ENCODERS = ("bert", "roberta", "xlm-roberta", "distilbert", "modernbert")

# takes a message as one string or as a list of parts
CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}"
    "{% else %}{% for part in message['content'] %}{{ part['text'] }}{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)

_ENCODER: dict[str, Any] = {name: value for name, value in TEXT.items() if name != "num_key_value_heads"}
_NO_DROPOUT = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
_OF_ENCODER: dict[str, dict[str, Any]] = {
    "bert": _ENCODER | _NO_DROPOUT,
    "roberta": _ENCODER | _NO_DROPOUT,
    "xlm-roberta": _ENCODER | _NO_DROPOUT,
    "distilbert": {
        "dim": 64, "hidden_dim": 128, "n_layers": 2, "n_heads": 4, "max_position_embeddings": 4096,
        "dropout": 0.0, "attention_dropout": 0.0,
    },
    # one layer that sees all tokens, one that sees those near
    "modernbert": _ENCODER | {"global_attn_every_n_layers": 2},
}  # fmt: skip


def decoder_config(scratch: Scratch, tokenizer: Any) -> Any:
    """A decoder's transformers config with small defaults and the tokenizer's ids."""
    text = TEXT | scratch.text
    text.setdefault("head_dim", text["hidden_size"] // text["num_attention_heads"])
    ids = {"vocab_size": len(tokenizer), "bos_token_id": None}
    ids |= {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
    return AutoConfig.for_model(scratch.architecture or DECODERS[0], **text | ids)


def encoder_config(scratch: Scratch, tokenizer: Any) -> Any:
    """An encoder's transformers config with small defaults and the tokenizer's ids."""
    architecture = str(scratch.architecture)
    first, last = tokenizer.bos_token_id, tokenizer.eos_token_id
    ids = {"vocab_size": len(tokenizer), "pad_token_id": tokenizer.pad_token_id}
    ids |= {"bos_token_id": first, "cls_token_id": first, "eos_token_id": last, "sep_token_id": last}
    return AutoConfig.for_model(architecture, **_OF_ENCODER[architecture] | scratch.text | ids)


def preprocessing(config: Any) -> dict[str, Any]:
    """Nothing: there are no pictures."""
    return {}


DECODER = ScratchFamily(
    special_tokens=("<|endoftext|>", "<|im_start|>", "<|im_end|>"),
    eos_token="<|im_end|>",
    pad_token="<|endoftext|>",
    chat_template=CHAT_TEMPLATE,
    config=decoder_config,
    preprocessing=preprocessing,
)
ENCODER = ScratchFamily(
    special_tokens=("[CLS]", "[PAD]", "[SEP]", "[UNK]", "[MASK]"),
    eos_token="[SEP]",
    pad_token="[PAD]",
    chat_template="",
    config=encoder_config,
    preprocessing=preprocessing,
    bos_token="[CLS]",
    closing_token="[SEP]",
)
