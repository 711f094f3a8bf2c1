"""VIRTUE's region encoder (arXiv:2510.00523): what SAM 2's mask decoder makes of a picture under a prompt, as tokens.

Not a mask but the decoder's own map of the whole picture, which its two-way transformer has mixed with the prompt.
"""

from torch import Tensor, nn

from mmembed.models.backbone import Backbone
from mmembed.models.precision import whole_convolutions
from mmembed.models.region_encoders.encoder import TokenRegionEncoder
from mmembed.models.region_encoders.sam2_legacy import Published, processed_picture, published_backbone
from mmembed.models.region_prompts import RegionPrompt
from mmembed.models.sam2.guides import encode_guides
from mmembed.models.sam2.opening import open_sam, scratch_sam
from mmembed.models.sam2.prompts import SamPrompt, box_prompt, sam_prompt
from mmembed.models.sam2.sizes import STRIDE, TOKEN
from mmembed.models.sequence import Batch, Features, Sequence
from mmembed.models.settings.regions.sam2 import Sam2Regions

CELLS = TOKEN // STRIDE
"""Cells of SAM 2's map to a side of a token."""
PROCESSED = "processed "
"""Begins the name under which a picture's encoding is kept, where SAM 2 sees what the backbone's processor made."""


class Sam2Encoder(TokenRegionEncoder):
    """A frozen SAM 2 and the connector that trains, its weights named as VIRTUE released them.

    Args:
        settings: what SAM 2 to open, and which faults of the released code to repeat.
        backbone: whose width the tokens have.

    Raises:
        InputError: no such checkpoint, or a fault that only the released code's backbone can repeat.
    """

    def __init__(self, settings: Sam2Regions, backbone: Backbone) -> None:
        super().__init__()
        self.settings = settings
        if settings.scratch is not None:
            self.sam = scratch_sam(settings.scratch, settings.dtype, cache_mb=settings.cache_mb)
        else:
            self.unsaved = ("sam.",)
            self.sam = open_sam(str(settings.checkpoint), settings.revision, settings.dtype, cache_mb=settings.cache_mb)
        if settings.legacy_pixels or settings.legacy_positions is not None:
            published_backbone(backbone)
        width = self.sam.width
        self.sam2_reducer = nn.Conv2d(width, width, CELLS, CELLS)
        self.sam2vlm_layer = nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.Linear(width, backbone.width))

    def forward(self, sequence: Sequence, batch: Batch, features: Features, backbone: Backbone) -> Sequence:
        """See :meth:`RegionEncoder.forward`."""
        filled = super().forward(sequence, batch, features, backbone)
        call = self.settings.legacy_positions
        if call is None or call == "single" or not batch.regions:
            return filled
        count = (self.sam.side // TOKEN) ** 2
        return Published(published_backbone(backbone), count, call).rows(filled, batch)

    def tokens(self, batch: Batch, features: Features, backbone: Backbone) -> Tensor:
        """See :meth:`TokenRegionEncoder.tokens`."""
        media = [slot.medium for slot in batch.regions]
        if self.settings.legacy_pixels:
            names = [PROCESSED + batch.media[medium] for medium in media]
            encoded = self.sam.encode(names, lambda i: self._pixels(batch, media[i], backbone))
        else:
            encoded = encode_guides(self.sam, batch, media)
        keys = self.sam.keys(encoded, [self.prompt(slot.prompt) for slot in batch.regions])
        return self.connect(keys).flatten(0, 1)

    def connect(self, keys: Tensor) -> Tensor:
        """``[R, C, side / 16, side / 16]`` -> ``[R, (side / 64) ** 2, D]``."""
        with whole_convolutions():
            reduced = self.sam2_reducer(keys.to(self.sam2_reducer.weight.dtype))
        connected: Tensor = self.sam2vlm_layer(reduced.flatten(2).transpose(1, 2))
        return connected

    def prompt(self, prompt: RegionPrompt | None) -> SamPrompt:
        """A region, or a picture without one, as SAM 2 is prompted with it."""
        if self.settings.legacy_boxes and prompt is not None and prompt.box is not None:
            (x0, y0, x1, y1), (width, height) = prompt.box, prompt.size
            return box_prompt(x0 * width, y0 * height, x1 * width, y1 * height)
        return sam_prompt(prompt, self.sam.side, self.settings.grid)

    def _pixels(self, batch: Batch, medium: int, backbone: Backbone) -> Tensor:
        return self.sam.normalise(processed_picture(batch, medium, published_backbone(backbone), self.sam.side))
