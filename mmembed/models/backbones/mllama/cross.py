"""What the cross-attention layers of Llama-3.2-Vision attend to, and which token sees which picture.

A token sees the picture it comes after, until the next one; pictures that follow each other directly are seen together
(the rule of transformers' MllamaProcessor). A token before any picture of its row sees them all, missing tiles too:
so the library has it, whose mask opens wide where it would be shut. What is added to make rows equally long is zero,
and stays zero through layers without bias: a row without a picture, which has nothing else to attend to, gets nothing.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from mmembed.models.prompts import Kind
from mmembed.models.sequence import Sequence
from mmembed.models.token_layout import Padding, TokenLayout


@dataclass(frozen=True)
class CrossAttention:
    """Keys and masks of a batch of B rows of L tokens, whose longest context has N features.

    Args:
        states: features ``[B, N, D]``.
        visible: which feature each token sees ``[B, 1, L, N]``, bool.
        reads: whether a token comes after a picture ``[B, 1, L, 1]``, bool.
    """

    states: Tensor
    visible: Tensor
    reads: Tensor


def cross_attention(sequence: Sequence, padding: TokenLayout) -> CrossAttention:
    """From a sequence whose context holds, for every picture of a row, its tiles' features and its missing tiles'.

    Args:
        sequence: the tokens; those of kind IMAGE are the pictures' places.
        padding: how they are padded.
    """
    sizes = [[len(part) for part in row] for row in sequence.context]
    parts = torch.tensor([size for row in sizes for size in row], device=sequence.embeds.device)
    lengths = torch.tensor([sum(row) for row in sizes], device=sequence.embeds.device)
    keys = Padding(lengths)
    runs, places = _runs(sequence, padding), (sequence.kinds == Kind.IMAGE).nonzero()[:, 0]
    owners = _of_keys(runs[places], parts, keys)
    begins = _of_keys(padding.columns[places], parts, keys)
    order = torch.arange(padding.shape[1], device=runs.device)
    visible = (padding.pad(runs)[:, :, None] == owners[:, None]) & (begins[:, None] <= order[:, None])
    reads = visible.any(-1, keepdim=True)
    otherwise = keys.mask() | (lengths == 0)[:, None]
    states = keys.pad(torch.cat([part for row in sequence.context for part in row]))
    return CrossAttention(states, (visible | (~reads & otherwise[:, None]))[:, None], reads[:, None])


def _runs(sequence: Sequence, padding: TokenLayout) -> Tensor:
    """For each token the number, from 2 on, of the last row of adjoining pictures up to it ``[T]``; at least 1.

    They are counted through the batch: another row's number is none of this row's pictures.
    """
    is_image = sequence.kinds == Kind.IMAGE
    follows = is_image.roll(1) & (padding.rows == padding.rows.roll(1))
    follows[0] = False
    return 1 + (is_image & ~follows).cumsum(0)


def _of_keys(of_images: Tensor, parts: Tensor, keys: Padding) -> Tensor:
    """A number of each picture's, spread over its tiles' features ``[B, N]``; 0 for missing tiles and what is added."""
    of_parts = of_images.new_zeros(len(parts))
    of_parts[: 2 * len(of_images) : 2] = of_images
    return keys.pad(torch.repeat_interleave(of_parts, parts))
