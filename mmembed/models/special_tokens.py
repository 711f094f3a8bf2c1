"""Tokens beyond a checkpoint's own: their ids, their rows of the embedding table, and rows that must not train."""

import math
from typing import Any

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor

from mmembed.errors import InputError
from mmembed.models.checkpoint import Checkpoint
from mmembed.models.settings import SpecialTokens


def add_special_tokens(checkpoint: Checkpoint, special: SpecialTokens) -> None:
    """Give a checkpoint the tokens that it lacks, and pin the rows of all of them where they do not train.

    The table is cut or grown to the tokenizer's length one token after another, so that a mean is over the rows before,
    new ones among them, and the same settings give the same rows at every opening.
    """
    known = checkpoint.tokenizer.get_vocab()
    generator = torch.Generator().manual_seed(special.seed)
    for token in special.tokens:
        if token not in known:
            _add(checkpoint, token, special, generator)
    _refuse_split(checkpoint.tokenizer, special)
    if not special.train:
        pin_rows(checkpoint.model.get_input_embeddings(), special_ids(checkpoint.tokenizer, special))


def special_ids(tokenizer: Any, special: SpecialTokens) -> list[int]:
    """The tokens' ids, in the order of the settings."""
    return list(tokenizer.convert_tokens_to_ids(list(special.tokens)))


def embedding_name(model: Any) -> str:
    """The name of the input embeddings among the model's modules."""
    table = model.get_input_embeddings()
    names: list[str] = [name for name, module in model.named_modules() if module is table]
    return names[0]


def pin_rows(table: Any, ids: list[int]) -> None:
    """Let a table train but for some rows, which stay as they are now whatever the optimiser does to the weights.

    No gradient passes through what is looked up of them. Weight decay does reach them; it is undone from a copy of the
    rows before every look-up, and wherever the weights are read as a whole (``state_dict``, saving).
    """
    table.register_buffer("pinned_ids", torch.tensor(ids), persistent=False)
    table.register_buffer("pinned_rows", table.weight.detach()[ids].clone(), persistent=False)
    table.register_forward_pre_hook(_restore)
    table.register_forward_hook(_stop_gradient)
    table.register_state_dict_pre_hook(_restore)


def _add(checkpoint: Checkpoint, token: str, special: SpecialTokens, generator: torch.Generator) -> None:
    model, tokenizer = checkpoint.model, checkpoint.tokenizer
    rows = model.get_input_embeddings().num_embeddings
    tokenizer.add_tokens([token], special_tokens=True)
    row = tokenizer.convert_tokens_to_ids(token)
    # ids may have holes
    number = max(tokenizer.get_vocab().values()) + 1
    # some tables have more rows than their config's vocabulary, for tokens of media (Llama 3.2 Vision)
    config = model.config.get_text_config(decoder=True)
    beyond = rows - config.vocab_size
    model.resize_token_embeddings(number, mean_resizing=False)
    config.vocab_size = number - beyond
    weight = model.get_input_embeddings().weight
    with torch.no_grad():
        if special.init == "normal":
            weight[row] = _drawn(weight[:row], generator)
        elif row >= rows:
            weight[row] = weight[:row].float().mean(0)


def _drawn(rows: Tensor, generator: torch.Generator) -> Tensor:
    mean, spread = rows.float().mean(), rows.float().std()
    return (mean + spread * torch.randn(rows.shape[1], generator=generator).to(rows.device)).to(rows.dtype)


def _refuse_split(tokenizer: Any, special: SpecialTokens) -> None:
    split = [t for t in special.tokens if len(tokenizer.encode(t, add_special_tokens=False)) != 1]
    if split:
        raise InputError(
            "special_tokens.tokens", expected="words that are one token each", got=split,
            remedy="write them without white space around",
        )  # fmt: skip


@torch.no_grad()
def _restore(table: Any, *_: Any) -> None:
    weight, ids, rows = table.weight, table.pinned_ids, table.pinned_rows
    if isinstance(weight, DTensor):
        # this process holds one slice of the rows, all slices of one size but the last
        first = weight.device_mesh.get_local_rank() * math.ceil(len(weight) / weight.device_mesh.size())
        weight = weight.to_local()
        here = (ids >= first) & (ids < first + len(weight))
        ids, rows = ids[here] - first, rows[here]
    weight.detach()[ids] = rows.to(weight.dtype)


def _stop_gradient(table: Any, args: tuple[Tensor, ...], found: Tensor) -> Tensor:
    return torch.where(torch.isin(args[0], table.pinned_ids)[..., None], found.detach(), found)
