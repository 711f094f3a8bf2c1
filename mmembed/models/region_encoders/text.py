"""Coordinates in words, for any model that reads text."""

from collections.abc import Iterator

from mmembed.errors import InputError
from mmembed.items import Image
from mmembed.media.sources import source_name
from mmembed.models.region_encoders.preparer import RegionPreparer
from mmembed.models.region_prompts import RegionPrompt, Size, prompts_of


class TextRegionPreparer(RegionPreparer):
    """Coordinates in words, counted in steps of the picture's sides: ``(box 2 1 6 7)``, ``(point 5 3)``, ``(not 0 0)``.

    Args:
        scale: how many steps a side is counted in.
    """

    def __init__(self, scale: int) -> None:
        self.scale = scale

    def words(self, image: Image, size: Size) -> str:
        """See :meth:`RegionPreparer.words`. A point outside of what is meant begins with ``not``."""
        prompts = prompts_of(image, size)
        for number, prompt in enumerate(prompts):
            if prompt.mask is not None:
                raise InputError(
                    f"{source_name(image.source)}: regions[{number}]", expected="a box or points, which words can tell",
                    got="a mask", remedy="give the box around it",
                )  # fmt: skip
        return " ".join(words for prompt in prompts for words in self._words_of(prompt))

    def vocabulary(self) -> Iterator[str]:
        """See :meth:`RegionPreparer.vocabulary`."""
        for step in range(self.scale + 1):
            yield f"(box {step} {step} {step} {step}) (point {step} {step}) (not {step} {step})"

    def _words_of(self, prompt: RegionPrompt) -> Iterator[str]:
        if prompt.box is not None:
            yield f"(box {self._steps(*prompt.box)})"
        for x, y, inside in prompt.points:
            yield f"({'point' if inside else 'not'} {self._steps(x, y)})"

    def _steps(self, *shares: float) -> str:
        return " ".join(str(round(share * self.scale)) for share in shares)
