"""What a region of a picture means, as the SAM 2 of a model sees it: the mask that a page shows for a click."""

from dataclasses import replace
from typing import Any

from mmembed.errors import InputError
from mmembed.items import Image, Item
from mmembed.media.images import open_image
from mmembed.models.embedder import Embedder
from mmembed.models.region_prompts import prompts_of
from mmembed.models.sam2.guides import GUIDE, squash
from mmembed.models.sam2.prompts import sam_prompt
from mmembed.models.sam2.sam import Sam, SamMask


def has_sam(model: Embedder) -> bool:
    """Whether the model's region encoder has a SAM 2."""
    return isinstance(getattr(model.regions, "sam", None), Sam)


def predict_masks(model: Embedder, image: Image) -> list[SamMask]:
    """The mask of each region of a picture, in order.

    The picture is encoded once, however often it is asked of; an embedding of it takes the same encoding, unless it is
    one of the released VIRTUE's pixels.

    Args:
        model: with a SAM 2.
        image: with regions: boxes, points inside and outside, or masks, which SAM 2 refines.

    Raises:
        InputError: a model without a SAM 2, or a region that leaves its picture.
    """
    sam = getattr(model.regions, "sam", None)
    if not isinstance(sam, Sam):
        raise InputError(
            "model", expected="a region encoder with a SAM 2", got=type(model.settings.regions).__name__,
            remedy="use Sam2Regions, or MaskPool with sam",
        )  # fmt: skip
    backbone: Any = model.settings.backbone
    picture = open_image(image, backbone.media)
    prompts = prompts_of(image, picture.size)
    prepared = model.prepare([Item((replace(image, regions=()),))], "query")[0].media[0]
    guide = squash(picture, sam.side) if prepared.guide is None else prepared.guide
    encoded = sam.encode([GUIDE + prepared.fingerprint], lambda _: sam.guide_pixels(guide), masks=True)
    asked = [sam_prompt(prompt, sam.side) for prompt in prompts]
    return sam.masks(encoded * len(asked), asked, [picture.size] * len(asked))
