"""Small random checkpoints of the real architectures, for learning from nothing and for tests.

The architecture and its code path are the library's own; the tokenizer is a byte-level BPE trained on the given texts,
with the family's special tokens and chat template.
"""

from collections.abc import Iterable
from dataclasses import fields, replace
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import AutoModel, PreTrainedTokenizerFast

from mmembed.errors import InputError, nearest
from mmembed.models.checkpoint import Checkpoint
from mmembed.models.families import ScratchFamily
from mmembed.models.hub import in_words
from mmembed.models.settings import DType, Scratch

TEXT: dict[str, Any] = {
    "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 4096,
}  # fmt: skip
"""Fields of a small language model's config, as transformers names them in nearly every decoder."""

# what transformers' shared code reads of every config, also of those that do not list it
_READ_BESIDE = {"head_dim", "initializer_range"}
# what configs and models raise for sizes that do not go together
_ODD = (StrictDataclassError, TypeError, AssertionError, RuntimeError, ArithmeticError, LookupError)


def make_scratch(
    scratch: Scratch, family: ScratchFamily, texts: Iterable[str], *, dtype: DType = "float32", attention: str = "sdpa"
) -> Checkpoint:
    """A random model and a trained tokenizer; the same settings and texts give the same bits.

    Raises:
        InputError: a field that the architecture's config does not have, with the nearest; or sizes it does not take.
    """
    tokenizer = train_tokenizer(texts, scratch.vocab_size, family)
    tokenizer.chat_template = family.other_templates.get(scratch.architecture or "", tokenizer.chat_template)
    remedy = "leave text and vision out for the small default"
    with torch.random.fork_rng(), in_words("backbone.scratch", "sizes that the architecture takes", remedy, _ODD):
        config = family.config(scratch, tokenizer)
        _check_fields(scratch, config, family.config(replace(scratch, text={}, vision={}), tokenizer))
        torch.manual_seed(scratch.seed)
        model = AutoModel.from_config(config, attn_implementation=attention)
        if family.settle is not None:
            family.settle(model)
    return Checkpoint(model.to(getattr(torch, dtype)), tokenizer, family.preprocessing(config))


def _check_fields(scratch: Scratch, config: Any, usual: Any) -> None:
    """Refuse fields that ``config`` holds without reading them: transformers keeps any name it is given.

    Args:
        scratch: the fields.
        config: made with them.
        usual: made without; a family's own fields are beside those of transformers' class.
    """
    _check_part("text", scratch.text, config.get_text_config(), usual.get_text_config())
    if hasattr(config, "vision_config"):
        _check_part("vision", scratch.vision, config.vision_config, usual.vision_config)


def _check_part(part: str, given: dict[str, Any], config: Any, usual: Any) -> None:
    known = {f.name for f in fields(config)} | {*config.attribute_map}
    if type(usual) is type(config):
        known |= vars(usual).keys()
    known |= _READ_BESIDE & vars(config).keys()
    if given.get("model_type") == type(config).model_type:
        known.add("model_type")
    for name in given:
        if name not in known:
            raise InputError(
                f"backbone.scratch.{part}", expected=f"a field of {type(config).__name__}", got=f"'{name}'",
                remedy=nearest(name, (name for name in known if not name.startswith("_"))),
            )  # fmt: skip


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
