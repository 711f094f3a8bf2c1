"""The dual-encoder adapter around open_clip's models: hidden states are one vector for the media, one for the text.

Where the two become one is the pooler's business: see :mod:`mmembed.models.composers`.
"""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Self

import torch
from open_clip.utils import to_2tuple
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from mmembed.counters import count
from mmembed.errors import InputError
from mmembed.files import fingerprint
from mmembed.models.adapters import load_adapter
from mmembed.models.backbone import Backbone, PatchEmbedding
from mmembed.models.backbones.dual_encoder.checkpoint import DualCheckpoint, open_checkpoint, save_checkpoint
from mmembed.models.backbones.dual_encoder.fused import refuse_fused, refuse_wrapped
from mmembed.models.backbones.dual_encoder.means import mean_vectors
from mmembed.models.backbones.dual_encoder.preprocess import DualEncoderPreprocessor
from mmembed.models.backbones.dual_encoder.recompute import recompute_activations
from mmembed.models.backbones.dual_encoder.scratch import make_scratch
from mmembed.models.backbones.dual_encoder.text import TextTower
from mmembed.models.backbones.dual_encoder.tokens import single_token, vocabulary
from mmembed.models.opening import exactly_one
from mmembed.models.prompts import Kind
from mmembed.models.region_encoders.preparer import RegionPreparer
from mmembed.models.sequence import Batch, Features, Hidden, Sequence, collate
from mmembed.models.settings import ComposerSettings, DualEncoder, Lora, PoolerSettings, PromptStyle, Sum
from mmembed.models.token_layout import Padding

# pixels of a convolutional tower's picture to a side of what counts as a patch
_STRIDE = 32


class DualEncoderBackbone(Backbone):
    """See :class:`mmembed.models.backbone.Backbone`.

    Args:
        checkpoint: model, tokenizer and config.
        settings: what it was opened with.
        prompt: how items are written.
        regions: how regions of pictures are told; None refuses them.
    """

    preprocessor: DualEncoderPreprocessor
    usual_pooler = Sum()
    head = ""
    # scale and bias of the loss, and CoCa's captioner
    unused = ("logit_scale", "logit_bias", "text_decoder.")
    mean: Tensor
    std: Tensor

    def __init__(
        self,
        checkpoint: DualCheckpoint,
        settings: DualEncoder,
        prompt: PromptStyle,
        regions: RegionPreparer | None = None,
    ) -> None:
        super().__init__()
        self.model = checkpoint.model
        self.checkpoint = checkpoint
        self.settings = settings
        facts = checkpoint.preprocessing
        self.preprocessor = DualEncoderPreprocessor(
            checkpoint.tokenizer, facts, _grid(self.tower), settings, prompt, regions
        )
        self.text = TextTower(self.model, self.preprocessor.pad)
        self.width = int(checkpoint.config["embed_dim"])
        self.register_buffer("mean", torch.tensor(facts["mean"])[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor(facts["std"])[:, None, None], persistent=False)
        if settings.gradient_checkpointing:
            recompute_activations(self.model)

    @classmethod
    def open(
        cls,
        settings: DualEncoder,
        *,
        prompt: PromptStyle,
        texts: Iterable[str] | None = None,
        regions: RegionPreparer | None = None,
    ) -> Self:
        """See :meth:`Backbone.open`; of texts only a tokenizer with a vocabulary of its own is trained."""
        exactly_one(settings)
        if settings.scratch is None:
            checkpoint = open_checkpoint(settings)
        else:
            checkpoint = make_scratch(settings.scratch, texts, settings.image_tower, settings.dtype)
        if settings.adapter is not None:
            load_adapter(checkpoint.model, settings.adapter, ((r"^model\.", ""),))
            refuse_wrapped(checkpoint.model)
        return cls(checkpoint, settings, prompt, regions)

    @property
    def tower(self) -> Any:
        """The image tower with its projection."""
        return self.model.visual

    @property
    def word_width(self) -> int:
        """W, numbers of a word where the text tower takes it."""
        return int(self.text.table.embedding_dim)

    def train(self, mode: bool = True) -> "DualEncoderBackbone":
        """Batch normalisation keeps the statistics it has, for a vector must not depend on the rows beside it."""
        super().train(mode)
        for module in self.modules():
            if isinstance(module, _BatchNorm):
                module.eval()
        return self

    def check_pooler(self, settings: PoolerSettings) -> None:
        """See :meth:`Backbone.check_pooler`."""
        if not isinstance(settings, ComposerSettings):
            raise InputError(
                "pooler", expected="a composer, for a dual encoder has no tokens to pool", got=type(settings).__name__,
                remedy="Sum is usual",
            )  # fmt: skip

    def check_lora(self, lora: Lora) -> None:
        """See :meth:`Backbone.check_lora`."""
        refuse_fused(self.model, lora.targets)

    def token_id(self, word: str) -> int:
        """See :meth:`Backbone.token_id`."""
        return single_token(self.preprocessor, word)

    def vision(self, batch: Batch) -> Features:
        """One tower forward over the distinct media: for each the vectors ``[F, D]`` of its frames, of any length."""
        if batch.pixels is None:
            return Features([])
        count("tower_forwards", len(batch.grids))
        frames = (batch.pixels[:, :, 0].to(torch.float32).div(255) - self.mean) / self.std
        vectors = self.model.encode_image(frames.to(next(self.tower.parameters()).dtype), normalize=False)
        return Features(list(vectors.split(batch.blocks.tolist())))

    def patch_embedding(self) -> PatchEmbedding:
        """See :meth:`Backbone.patch_embedding`; of transformers alone, whose patches are cut by one convolution."""
        trunk = getattr(self.tower, "trunk", None)
        cutter = self.tower if trunk is None else getattr(trunk, "patch_embed", None)
        conv = getattr(cutter, "conv1" if trunk is None else "proj", None)
        if not isinstance(conv, torch.nn.Conv2d) or conv.kernel_size != conv.stride:
            return super().patch_embedding()
        return PatchEmbedding(conv, conv.out_channels, (1, conv.kernel_size[0], conv.kernel_size[1]))

    def embed(self, batch: Batch, features: Features) -> Sequence:
        """Look up the text's tokens, and lay each row's media beside it."""
        visual = (batch.kinds == Kind.IMAGE) | (batch.kinds == Kind.VIDEO)
        words = (~visual).nonzero()[:, 0]
        found = self.text.table(batch.ids[words])
        embeds = found.new_zeros(len(batch.ids), found.shape[1]).index_copy(0, words, found)
        context: list[list[Tensor]] = [[] for _ in range(len(batch))]
        for slot, row in zip(batch.slots.tolist(), _rows_of_slots(batch, visual), strict=True):
            context[row].append(features.maps[slot])
        return Sequence(
            embeds, batch.ids, batch.lengths, batch.positions, batch.kinds, visual, batch.is_query, context=context
        )

    def texts(self, texts: Iterable[str]) -> Sequence:
        """Texts as they are, one a row: neither the prompt's phrases nor any region is told."""
        rows = [self.preprocessor.text_row(text) for text in texts]
        return self.embed(collate(rows).to(self.mean.device), Features([]))

    def run(self, sequence: Sequence, layers: tuple[int, ...] = (), places: Tensor | None = None) -> Hidden:
        """For each row the vector of its media, if it has any, and then the vector of its text, in float32."""
        media, media_rows = self.media(sequence)
        words, word_rows = self.words(sequence)
        order = torch.cat([media_rows, word_rows]).argsort(stable=True)
        first = sequence.kinds[sequence.lengths.cumsum(0) - sequence.lengths]
        kinds = torch.cat([first[media_rows], torch.full_like(first[word_rows], int(Kind.TEXT))])
        states = torch.cat([media, words])[order]
        lengths = torch.bincount(torch.cat([media_rows, word_rows]), minlength=len(sequence.lengths))
        return Hidden(states, torch.full_like(order, -1), lengths, kinds[order], sequence.is_query)

    def media(self, sequence: Sequence) -> tuple[Tensor, Tensor]:
        """One vector ``[N, D]`` for the media of each row that has any, of any length, and which rows these are."""
        frames = [medium for media in sequence.context for medium in media]
        counts = sequence.lengths.new_tensor([len(media) for media in sequence.context])
        rows = counts.nonzero()[:, 0]
        if not frames:
            return self.mean.new_zeros(0, self.width), rows
        kept = self.settings.frames == "mean"
        sizes = counts.new_tensor([len(medium) for medium in frames])
        each = mean_vectors(torch.cat(frames).float(), sizes, as_they_are=kept)
        return mean_vectors(each, counts[rows], as_they_are=kept), rows

    def words(self, sequence: Sequence) -> tuple[Tensor, Tensor]:
        """One vector ``[N, D]`` for the text of each row that has any, of any length, and which rows these are."""
        numbers = torch.arange(len(sequence.lengths), device=sequence.lengths.device)
        owner = torch.repeat_interleave(numbers, sequence.lengths)[~sequence.visual]
        lengths = torch.bincount(owner, minlength=len(numbers))
        rows = lengths.nonzero()[:, 0]
        if not len(rows):
            return self.mean.new_zeros(0, self.width), rows
        padding = Padding(lengths[rows])
        ids, embeds = self.text.pad_to(padding, sequence.ids[~sequence.visual], sequence.embeds[~sequence.visual])
        count("language_rows", len(rows))
        count("language_tokens", len(owner))
        count("padded_tokens", ids.numel())
        return self.text.encode(ids, embeds).float(), rows

    def facts(self) -> dict[str, str]:
        """Config, tokenizer and preprocessing of the checkpoint."""
        return {
            "config": fingerprint(json.dumps(self.checkpoint.config, sort_keys=True)),
            "tokenizer": fingerprint(*vocabulary(self.checkpoint.tokenizer)),
            "preprocessing": fingerprint(json.dumps(self.checkpoint.preprocessing, sort_keys=True)),
        }

    def save(self, directory: Path) -> None:
        """Write a checkpoint that open_clip opens as ``local-dir:``."""
        save_checkpoint(self.checkpoint, directory)


def _grid(visual: Any) -> tuple[int, int]:
    """Rows and columns of patches of a picture."""
    trunk = getattr(visual, "trunk", visual)
    grid = getattr(trunk, "grid_size", None) or getattr(getattr(trunk, "patch_embed", None), "grid_size", None)
    rows, columns = grid or [max(side // _STRIDE, 1) for side in to_2tuple(visual.image_size)]
    return int(rows), int(columns)


def _rows_of_slots(batch: Batch, visual: Tensor) -> list[int]:
    """Which row the medium at each place stands in, told by how many tokens it and the row have."""
    owner = torch.repeat_interleave(torch.arange(len(batch), device=visual.device), batch.lengths)[visual]
    sizes = batch.grids.prod(-1)[batch.slots]
    return list(owner[sizes.cumsum(0) - sizes].tolist())
