"""What the released VIRTUE code does to pixels and to padded rows, repeated (arXiv:2510.00523; sony/virtue).

The released code puts SAM's 256 tokens in front of a padded row. A row of text in a batch with pictures instead gets as
many beginning-of-text tokens behind it, while the mask grows in front all the same: it hides the text behind the 256th
place, and shows the padding before it. Padding on the right makes it pool 256 tokens too early. A flat sequence holds
exactly the tokens that are seen, in order and up to the one that is pooled, so that causal attention gives the same
vector.
"""

from dataclasses import dataclass, replace
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from mmembed.errors import InputError
from mmembed.models.backbone import Backbone
from mmembed.models.language import VisionLanguageBackbone
from mmembed.models.prompts import Kind
from mmembed.models.sequence import Batch, Sequence

MODEL_TYPE = "qwen2_vl"


def published_backbone(backbone: Backbone) -> VisionLanguageBackbone:
    """The backbone, if it is the one that the released code knows.

    Raises:
        InputError: another one.
    """
    kind = backbone.model.config.model_type if isinstance(backbone, VisionLanguageBackbone) else "none of its family"
    if not isinstance(backbone, VisionLanguageBackbone) or kind != MODEL_TYPE:
        raise InputError(
            "regions", expected=f"a backbone of model type {MODEL_TYPE}, for legacy_pixels and legacy_positions",
            got=kind, remedy="leave both out: they only serve the released VIRTUE checkpoints",
        )  # fmt: skip
    return backbone


def processed_picture(batch: Batch, medium: int, backbone: VisionLanguageBackbone, side: int) -> Tensor:
    """A picture as the backbone's processor left it, normalised, squashed to ``[3, side, side]``.

    Args:
        batch: with the picture's patches, those merged into one token next to each other.
        medium: the picture's number.
        backbone: whose statistics normalise it.
        side: of the square.
    """
    assert batch.pixels is not None, "there is a picture"
    merge: int = backbone.model.config.vision_config.spatial_merge_size
    end = int(batch.blocks[: medium + 1].sum())
    _, rows, columns = (int(n) for n in batch.grids[medium])
    patches = backbone.normalise(batch.pixels[end - rows * columns : end, :, :1])[:, :, 0]
    patch = patches.shape[-1]
    blocks = patches.view(rows // merge, columns // merge, merge, merge, 3, patch, patch)
    picture = blocks.permute(4, 0, 2, 5, 1, 3, 6).reshape(1, 3, rows * patch, columns * patch)
    return F.interpolate(picture, (side, side), mode="bilinear", align_corners=False, antialias=True)[0]


@dataclass(frozen=True)
class Published:
    """Rows of a batch as the released code attends to them and pools them.

    Args:
        backbone: whose tokens stand for padding and fill rows of text, and which says where rows are padded.
        count: tokens that lead a row with a picture.
        call: the first of a process, or a later one.
    """

    backbone: VisionLanguageBackbone
    count: int
    call: Literal["first", "later"]

    def rows(self, sequence: Sequence, batch: Batch) -> Sequence:
        """The sequence with what the released code sees of each row.

        Raises:
            InputError: several pictures in a row, where it stops.
        """
        device = sequence.embeds.device
        leading = torch.zeros_like(batch.lengths).index_add(
            0, torch.repeat_interleave(torch.arange(len(batch), device=device), batch.lengths), batch.kept_free.long()
        )
        written = (batch.lengths - leading).tolist()
        if not set(leading.tolist()) <= {0, self.count}:
            raise InputError(
                "item", expected="one picture with one region an item, for legacy_positions first and later",
                got="several", remedy="use legacy_positions: single",
            )  # fmt: skip
        starts = (batch.lengths.cumsum(0) - batch.lengths).tolist()
        longest, is_padded = max(written), len(set(written)) > 1
        table, padding, filler = self._extended(sequence, 0 in leading.tolist())
        sources, positions = [], []
        for start, leads, length in zip(starts, leading.tolist(), written, strict=True):
            source, seen = self._laid_out(start, leads, length, longest, padding, filler)
            position = self._positions(length, longest)
            if self.backbone.settings.padding_side == "right" and is_padded:
                # the index of the last token as if no token stood in front
                source, seen, position = source[:length], seen[:length], position[:length]
            sources.append(source[seen])
            positions.append(position[seen])
        return _gathered(sequence, table, sources, positions)

    def _laid_out(
        self, start: int, leads: int, length: int, longest: int, padding: int, filler: int
    ) -> tuple[Tensor, Tensor]:
        """Which token stands at each place of the padded row, and which places are seen."""
        own = torch.arange(start + leads, start + leads + length)
        pads, ones = torch.full((longest - length,), padding), torch.ones(length, dtype=torch.bool)
        hidden = torch.zeros(longest - length, dtype=torch.bool)
        is_left = self.backbone.settings.padding_side == "left"
        words = torch.cat([pads, own] if is_left else [own, pads])
        seen = torch.cat([hidden, ones] if is_left else [ones, hidden])
        first, last = (torch.arange(start, start + leads), words) if leads else (words, _repeat(filler, self.count))
        return torch.cat([first, last]), torch.cat([torch.ones(self.count, dtype=torch.bool), seen])

    def _positions(self, length: int, longest: int) -> Tensor:
        """The position of each place of the padded row."""
        if self.call == "later":
            behind = torch.arange(self.count, self.count + longest)
        else:
            words, pads = torch.arange(length), torch.ones(longest - length, dtype=torch.long)
            is_left = self.backbone.settings.padding_side == "left"
            behind = torch.cat([pads, words] if is_left else [words, pads])
        return torch.cat([torch.zeros(self.count, dtype=torch.long), behind])

    def _extended(self, sequence: Sequence, has_text_rows: bool) -> tuple[Sequence, int, int]:
        """The sequence with the token of padding and the one that fills behind all others, and where they stand."""
        ids = [self.backbone.checkpoint.tokenizer.pad_token_id, self.backbone.language_config.bos_token_id]
        if not has_text_rows:
            # neither is seen
            ids = [0, 0]
        if None in ids:
            raise InputError(
                "regions.legacy_positions", expected="a checkpoint with tokens of padding and of a text's beginning",
                got=f"ids {ids[0]} and {ids[1]}", remedy="use legacy_positions: single",
            )  # fmt: skip
        added = sequence.ids.new_tensor(ids)
        embeds = self.backbone.language_model.get_input_embeddings()(added).to(sequence.embeds.dtype)
        table = replace(
            sequence,
            embeds=torch.cat([sequence.embeds, embeds]),
            ids=torch.cat([sequence.ids, added]),
            kinds=torch.cat([sequence.kinds, sequence.kinds.new_full((2,), int(Kind.TEMPLATE))]),
            visual=torch.cat([sequence.visual, sequence.visual.new_zeros(2)]),
        )
        return table, len(sequence.ids), len(sequence.ids) + 1


def _gathered(sequence: Sequence, table: Sequence, sources: list[Tensor], positions: list[Tensor]) -> Sequence:
    """The sequence whose rows are these tokens of ``table`` at these positions."""
    device = sequence.embeds.device
    order = torch.cat(sources).to(device)
    visual = table.visual[order]
    deep = (table.visual.cumsum(0) - 1)[order[visual]]
    return replace(
        table,
        embeds=table.embeds[order],
        ids=table.ids[order],
        lengths=torch.tensor([len(source) for source in sources], device=device),
        positions=torch.cat(positions).to(sequence.positions).expand(3, -1),
        kinds=table.kinds[order],
        visual=visual,
        deepstack=[layer[deep] for layer in sequence.deepstack],
    )


def _repeat(value: int, times: int) -> Tensor:
    return torch.full((times,), value)
