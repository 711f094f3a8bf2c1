"""The half of a region encoder that works on the CPU, beside the preprocessor; in a worker if wanted."""

from collections.abc import Callable, Iterator, Sequence
from typing import ClassVar

from PIL.Image import Image as Picture
from torch import Tensor

from mmembed.items import Image, Media
from mmembed.models.region_prompts import RegionPrompt, RegionSlot, Size, prompts_of
from mmembed.models.sequence import PreparedMedium


class RegionPreparer:
    """Says what is added to pictures for their regions' sake: nothing, unless a subclass does. Picklable.

    Pictures are prepared, kept in memory and named without their regions, so that one with another box is decoded and
    passed through the tower once; unless ``changes_pixels``.
    """

    changes_pixels: ClassVar[bool] = False
    """Whether a picture's pixels depend on its regions."""
    leads: ClassVar[bool] = False
    """Whether the tokens stand in front of their whole row, all at position 0, and not right behind their picture."""

    def words(self, image: Image, size: Size) -> str:
        """Words to put right behind a picture that has regions; ``size`` is what their coordinates are relative to.

        Raises:
            InputError: a region leaves its picture, or is of a kind that this encoder cannot tell.
        """
        return ""

    def vocabulary(self) -> Iterator[str]:
        """Texts with every word that it may say: what a scratch tokenizer learns them from."""
        yield from ()

    def tokens(self, prompt: RegionPrompt | None) -> int:
        """How many tokens tell of a region; with None, of a picture without one."""
        return 0

    def slots(self, number: int, medium: Media, size: Size) -> Sequence[RegionSlot]:
        """The tokens to keep free for a medium, the ``number``-th of its row, and what fills them.

        Raises:
            InputError: a region leaves its picture, or is of a kind that this encoder cannot tell.
        """
        prompts = prompts_of(medium, size) if isinstance(medium, Image) else []
        slots = (RegionSlot(number, self.tokens(prompt), prompt) for prompt in prompts)
        return [slot for slot in slots if slot.tokens]

    def redraw(self, image: Image, picture: Picture) -> Picture:
        """The decoded picture as the model is to see it, of those that change pixels; it is not written to.

        Raises:
            InputError: a region leaves its picture, or is of a kind that this encoder cannot tell.
        """
        return picture

    def complete(
        self, prepared: PreparedMedium, medium: Media, picture: Picture, cut: Callable[[Picture], Tensor]
    ) -> PreparedMedium:
        """A prepared medium with what else the encoder takes of it: ``marks`` or a ``guide``.

        Args:
            prepared: by the family.
            medium: with its regions, of those that change pixels.
            picture: as decoded, or its first frame.
            cut: what the family makes of another picture of the same size, ``[P, 3, F, p, p]``.
        """
        return prepared
