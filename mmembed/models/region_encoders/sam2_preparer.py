"""The half of VIRTUE's region encoder that works on the CPU."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import ClassVar

from PIL.Image import Image as Picture
from torch import Tensor

from mmembed.errors import InputError
from mmembed.items import Image, Media, Video
from mmembed.media.sources import source_name
from mmembed.models.region_encoders.preparer import RegionPreparer
from mmembed.models.region_prompts import RegionPrompt, RegionSlot, Size, prompts_of
from mmembed.models.sam2.guides import squash
from mmembed.models.sam2.opening import sam_side
from mmembed.models.sam2.sizes import TOKEN
from mmembed.models.sequence import PreparedMedium
from mmembed.models.settings.regions.sam2 import Sam2Regions


class Sam2Preparer(RegionPreparer):
    """Keeps tokens free for each region of a picture or page, or for one without a region; see Sam2Regions.

    Args:
        settings: of the encoder.
    """

    def __init__(self, settings: Sam2Regions) -> None:
        if settings.scratch is not None:
            self.side = settings.scratch.image_size
        else:
            self.side = sam_side(str(settings.checkpoint), settings.revision)
        self.sees_picture = not settings.legacy_pixels
        self.takes_one_prompt = settings.legacy_prompts

    def tokens(self, prompt: RegionPrompt | None) -> int:
        """See :meth:`RegionPreparer.tokens`."""
        return (self.side // TOKEN) ** 2

    def slots(self, number: int, medium: Media, size: Size) -> Sequence[RegionSlot]:
        """See :meth:`RegionPreparer.slots`."""
        if isinstance(medium, Video):
            return []
        prompts: list[RegionPrompt] = prompts_of(medium, size) if isinstance(medium, Image) else []
        if self.takes_one_prompt and isinstance(medium, Image):
            _refuse_unpublished(medium, prompts)
        told: list[RegionPrompt | None] = [*prompts] or [None]
        return [RegionSlot(number, self.tokens(prompt), prompt) for prompt in told]

    def complete(
        self, prepared: PreparedMedium, medium: Media, picture: Picture, cut: Callable[[Picture], Tensor]
    ) -> PreparedMedium:
        """See :meth:`RegionPreparer.complete`."""
        if isinstance(medium, Video) or not self.sees_picture:
            return prepared
        return replace(prepared, guide=squash(picture, self.side))


class LeadingSam2Preparer(Sam2Preparer):
    """The tokens in front of their whole row, as the released VIRTUE has them."""

    leads: ClassVar[bool] = True


def _refuse_unpublished(image: Image, prompts: Sequence[RegionPrompt]) -> None:
    """Refuse what the released VIRTUE cannot be prompted with."""
    where, remedy = f"{source_name(image.source)}: regions", "set legacy_prompts: false"
    expected = "one box or one point inside, which the released VIRTUE is prompted with"
    if len(prompts) > 1:
        raise InputError(where, expected=expected, got=f"{len(prompts)} regions", remedy=remedy)
    for prompt in prompts:
        labels = [label for _, _, label in prompt.points]
        if prompt.mask is not None:
            raise InputError(where, expected=expected, got="a mask", remedy=remedy)
        if len(labels) > 1:
            raise InputError(where, expected=expected, got=f"{len(labels)} points", remedy=remedy)
        if labels == [0]:
            raise InputError(where, expected=expected, got="a point outside", remedy=remedy)
