"""Small random checkpoints of the real architectures, for learning from nothing and for tests.

The architecture and its code path are the library's own; the tokenizer is a byte-level BPE trained on the given texts,
with the family's special tokens and chat template.
"""

from collections.abc import Iterable
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import AutoModel, PreTrainedTokenizerFast

from mmembed.models.checkpoint import Checkpoint
from mmembed.models.families import ScratchFamily
from mmembed.models.hub import in_words
from mmembed.models.settings import DType, Scratch

TEXT: dict[str, Any] = {
    "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 4096,
}  # fmt: skip
"""Fields of a small language model's config, as transformers names them in nearly every decoder."""


def make_scratch(
    scratch: Scratch, family: ScratchFamily, texts: Iterable[str], *, dtype: DType = "float32", attention: str = "sdpa"
) -> Checkpoint:
    """A random model and a trained tokenizer; the same settings and texts give the same bits."""
    tokenizer = train_tokenizer(texts, scratch.vocab_size, family)
    config = family.config(scratch, tokenizer)
    with torch.random.fork_rng():
        torch.manual_seed(scratch.seed)
        with in_words("scratch"):
            model = AutoModel.from_config(config, attn_implementation=attention)
        if family.settle is not None:
            family.settle(model)
    return Checkpoint(model.to(getattr(torch, dtype)), tokenizer, family.preprocessing(config))


def train_tokenizer(texts: Iterable[str], vocab_size: int, family: ScratchFamily) -> PreTrainedTokenizerFast:
    """Byte-level BPE on ``texts``, special tokens first."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size + len(family.special_tokens),
        special_tokens=list(family.special_tokens),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    before = [family.bos_token] if family.bos_token and family.adds_bos else []
    after = [family.closing_token] if family.closing_token else []
    if before or after:
        around = [(token, tokenizer.token_to_id(token)) for token in before + after]
        tokenizer.post_processor = processors.TemplateProcessing([*before, "$A", *after], special_tokens=around)
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=family.bos_token,
        eos_token=family.eos_token,
        pad_token=family.pad_token,
        model_max_length=4096,
    )
    wrapped.chat_template = family.chat_template or None
    return wrapped
