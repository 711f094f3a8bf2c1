"""open_clip's text towers from token embeddings on: a row's tokens may be replaced, and short rows stay short.

open_clip pads every text to the tower's context. Behind a causal mask, and where the tower pools a token of the text,
what follows it changes nothing; only the towers that look at the padding get all of it.
"""

from typing import Any

import torch
from open_clip.hf_model import HFTextEncoder
from open_clip.transformer import text_global_pool
from torch import Tensor, nn

from mmembed.models.token_layout import Padding


class TextTower:
    """The text half of a model; holds no weights of its own.

    Args:
        model: open_clip's CLIP, CustomTextCLIP or CoCa.
        pad: the token that its tokenizer fills short texts with.
    """

    def __init__(self, model: Any, pad: int) -> None:
        # CLIP itself has the parts that the others keep in .text
        self.tower = getattr(model, "text", model)
        self.pad = pad
        self.is_transformers = isinstance(self.tower, HFTextEncoder)

    @property
    def table(self) -> nn.Embedding:
        """The token embeddings."""
        table: nn.Embedding
        table = self.tower.transformer.get_input_embeddings() if self.is_transformers else self.tower.token_embedding
        return table

    @property
    def context(self) -> int | None:
        """Tokens that every text is padded to; None where padding changes nothing."""
        if self.is_transformers:
            return None
        causal = self.tower.attn_mask is not None and getattr(self.tower, "cls_emb", None) is None
        return None if causal and self._pool_type in ("argmax", "eos", "first") else int(self.tower.context_length)

    def pad_to(self, padding: Padding, ids: Tensor, embeds: Tensor) -> tuple[Tensor, Tensor]:
        """Flat tokens ``[T]`` and their embeddings ``[T, W]`` as blocks ``[B, L]`` and ``[B, L, W]``."""
        rows, longest = padding.shape
        shape, places = (rows, self.context or longest), (padding.rows, padding.columns)
        filler = self.table(ids.new_tensor(self.pad)).to(embeds.dtype)
        return (
            ids.new_full(shape, self.pad).index_put(places, ids),
            filler.expand(*shape, -1).index_put(places, embeds),
        )

    def encode(self, ids: Tensor, embeds: Tensor) -> Tensor:
        """Text vectors ``[B, D]`` of padded tokens ``[B, L]`` and their embeddings ``[B, L, W]``."""
        tower = self.tower
        if self.is_transformers:
            mask = (ids != tower.config.pad_token_id).long()
            return tower.proj(tower.pooler(tower.transformer(inputs_embeds=embeds, attention_mask=mask), mask))  # type: ignore[no-any-return]
        mask = None if tower.attn_mask is None else tower.attn_mask[: ids.shape[1], : ids.shape[1]]
        appended = getattr(tower, "cls_emb", None)
        if appended is not None:
            embeds = torch.cat([embeds, appended.expand(len(embeds), 1, -1)], dim=1)
            mask = tower.attn_mask + tower._build_additive_mask(ids, embeds.shape[1], embeds.dtype)
        states = tower.transformer(embeds + tower.positional_embedding[: embeds.shape[1]], attn_mask=mask)
        if appended is not None:
            return self._project(tower.ln_final(states[:, -1]))
        return self._project(text_global_pool(tower.ln_final(states), ids, self._pool_type, eos_token_id=self._eos_id))

    @property
    def _pool_type(self) -> str:
        return str(getattr(self.tower, "text_pool_type", None) or self.tower.pool_type)

    @property
    def _eos_id(self) -> int:
        return int(getattr(self.tower, "text_eos_id", None) or self.tower.eos_id)

    def _project(self, pooled: Tensor) -> Tensor:
        projection = self.tower.text_projection
        if projection is None:
            return pooled
        return projection(pooled) if isinstance(projection, nn.Module) else pooled @ projection  # type: ignore[no-any-return]
