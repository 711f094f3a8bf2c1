"""What a person has asked so far: words, a medium, marks in a picture. Every change gives a new query."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np

from mmembed.errors import InputError
from mmembed.items import Box, Image, ImageSource, Item, Media, Page, Point, Region, Video, VideoSource
from mmembed.media.images import open_image
from mmembed.media.settings import MediaSettings
from mmembed.media.sources import source_name

Tool: TypeAlias = Literal["inside", "outside", "box", "draw"]
"""What a click means: a point of the object, a point that is not of it, a corner of a box; or a brush is used."""
Kind: TypeAlias = Literal["nothing", "words", "picture", "change", "region", "clip", "page"]
KINDS: tuple[Kind, ...] = ("words", "picture", "change", "region", "clip", "page")
"""What can be asked, each with an instruction of its own."""


@dataclass(frozen=True, eq=False)
class Marks:
    """One place marked in a picture, in its own pixels: points, or a box whose corners are set one by one, or a mask.

    Args:
        points: as those of :class:`~mmembed.items.Region`.
        corner: the first corner of a box that has no second one yet.
        box: both.
        mask: bool ``[H, W]``.
    """

    points: tuple[Point, ...] = ()
    corner: tuple[float, float] | None = None
    box: Box | None = None
    mask: np.ndarray | None = None

    @property
    def region(self) -> Region | None:
        """The region that is marked; None without, or while a box has one corner only."""
        if self.points:
            return Region(points=self.points)
        if self.mask is not None:
            return Region(mask=self.mask)
        return None if self.box is None else Region(box=self.box)

    @property
    def shown(self) -> Region | None:
        """The region, or the corner that is there of it."""
        return self.region if self.corner is None else Region(points=((*self.corner, 1),))

    @property
    def in_words(self) -> str:
        """What is marked, e.g. ``2 points``; nothing of a box that has one corner only."""
        if self.points:
            return "a point" if len(self.points) == 1 else f"{len(self.points)} points"
        if self.mask is not None:
            return "a drawing"
        return "" if self.box is None else "a box"

    def clicked(self, tool: Tool, x: float, y: float) -> "Marks":
        """With a click; marks of another kind go.

        Raises:
            InputError: the second corner lies on the first one's row or column, or too many points.
        """
        if tool == "box":
            return Marks(corner=(x, y)) if self.corner is None else Marks(box=_box(self.corner, (x, y)))
        marks = Marks(points=(*self.points, (x, y, int(tool == "inside"))))
        _ = marks.region  # a region checks itself
        return marks


@dataclass(frozen=True, eq=False)
class Query:
    """What is asked, and what was marked before, which undo goes back to.

    Args:
        words: typed.
        medium: a picture without regions, a clip or a page.
        size: width and height of the picture in pixels.
        marks: in the picture.
        history: marks before each change of them, oldest first.
        instruction: written by the person; None is the usual one of its kind.
    """

    words: str = ""
    medium: Media | None = None
    size: tuple[int, int] = (0, 0)
    marks: Marks = field(default_factory=Marks)
    history: tuple[Marks, ...] = ()
    instruction: str | None = None

    @property
    def kind(self) -> Kind:
        """What kind of question it is."""
        match self.medium:
            case Video():
                return "clip"
            case Page():
                return "page"
            case Image() if self.marks.region is not None:
                return "region"
            case Image():
                return "change" if self.words.strip() else "picture"
            case _:
                return "words" if self.words.strip() else "nothing"

    def with_words(self, words: str) -> "Query":
        """With other words."""
        return replace(self, words=words)

    def with_picture(self, path: Path | str, media: MediaSettings) -> "Query":
        """With a picture in place of what was there, and no marks.

        Raises:
            InputError: it cannot be opened.
        """
        medium = Image(path)
        return self._with_medium(medium, open_image(medium, media).size)

    def with_clip(self, path: Path | str) -> "Query":
        """With a clip in place of what was there."""
        return self._with_medium(Video(path))

    def with_page(self, path: Path | str, number: int) -> "Query":
        """With a page of a PDF in place of what was there.

        Raises:
            InputError: a number below 1.
        """
        return self._with_medium(Page(path, number))

    def without_medium(self) -> "Query":
        """The words alone."""
        return self._with_medium(None)

    def clicked(self, tool: Tool, x: float, y: float) -> "Query":
        """With a click in the picture, in its own pixels.

        Raises:
            InputError: there is no picture, or as :meth:`Marks.clicked`.
        """
        self._check_picture()
        return self._with_marks(self.marks.clicked(tool, x, y))

    def boxed(self, first: tuple[float, float], second: tuple[float, float]) -> "Query":
        """With a box between two opposite corners in the picture, in its own pixels, in whatever order they come.

        Raises:
            InputError: there is no picture, or the corners lie in one row or column.
        """
        self._check_picture()
        return self._with_marks(Marks(box=_box(first, second)))

    def drawn(self, mask: np.ndarray) -> "Query":
        """With a mask drawn over the picture, bool ``[H, W]`` of its size; an empty one is none.

        Raises:
            InputError: there is no picture.
        """
        self._check_picture()
        return self._with_marks(Marks(mask=mask) if mask.any() else Marks())

    def undone(self) -> "Query":
        """As before the last change of marks; as it is, if there was none."""
        if not self.history:
            return self
        return replace(self, marks=self.history[-1], history=self.history[:-1])

    def unmarked(self) -> "Query":
        """Without marks, which undo brings back."""
        return self if self.marks.shown is None else self._with_marks(Marks())

    def cleared(self) -> "Query":
        """The next thing that Esc takes away: the marks, and without any the whole query."""
        return Query() if self.marks.shown is None else self.unmarked()

    def with_instruction(self, text: str) -> "Query":
        """With an instruction of the person's own; empty for none."""
        return replace(self, instruction=text.strip())

    @property
    def in_words(self) -> str:
        """What is asked, as it stands over its answer."""
        said = f"“{self.words.strip()}”" if self.words.strip() else ""
        match self.medium:
            case None:
                return said
            case Page(source, number):
                medium = f"page {number} of {_file_name(source)}"
            case _:
                medium = _file_name(self.medium.source)
        if self.marks.region is not None:
            medium = f"{self.marks.in_words} in {medium}"
        return f"{medium} and {said}" if said else medium

    def told(self, text: str, usual: Mapping[str, str]) -> "Query":
        """With the instruction as it stands in its field, which may still show the usual one of another kind."""
        is_usual = self.instruction is None and text.strip() in {"", *usual.values()}
        return self if is_usual else self.with_instruction(text)

    def instruction_in_force(self, usual: Mapping[str, str]) -> str:
        """The person's instruction, or else the usual one of the kind; empty for none."""
        return usual.get(self.kind, "") if self.instruction is None else self.instruction

    def item(self, usual: Mapping[str, str]) -> Item:
        """What the model is given.

        Args:
            usual: instruction of each kind; those that are missing have none.

        Raises:
            InputError: nothing is asked, or a box has one corner only.
        """
        if self.kind == "nothing":
            raise InputError(
                "query", expected="words, a picture, a clip or a page", got="nothing",
                remedy="type something or give a file",
            )  # fmt: skip
        if self.marks.corner is not None:
            raise InputError("box", expected="two corners", got="one", remedy="click on the opposite corner, or undo")
        medium, region = self.medium, self.marks.region
        if isinstance(medium, Image) and region is not None:
            medium = replace(medium, regions=(region,))
        words = (self.words.strip(),) if self.words.strip() else ()
        content = words if medium is None else (medium, *words)
        return Item(content, instruction=self.instruction_in_force(usual) or None, verbatim=False)

    def _with_medium(self, medium: Media | None, size: tuple[int, int] = (0, 0)) -> "Query":
        return replace(self, medium=medium, size=size, marks=Marks(), history=())

    def _with_marks(self, marks: Marks) -> "Query":
        return replace(self, marks=marks, history=(*self.history, self.marks))

    def _check_picture(self) -> None:
        if not isinstance(self.medium, Image):
            raise InputError("region", expected="a picture to mark it in", got="none", remedy="give a picture first")


def _file_name(source: ImageSource | VideoSource) -> str:
    return Path(source).name if isinstance(source, str | Path) else source_name(source)


def _box(first: tuple[float, float], second: tuple[float, float]) -> Box:
    """The box between two opposite corners, in whatever order they come."""
    (x0, x1), (y0, y1) = (sorted(pair) for pair in zip(first, second, strict=True))
    if x0 == x1 or y0 == y1:
        raise InputError(
            "box", expected="corners in different rows and columns", got=f"{first} and {second}",
            remedy="choose the opposite corner",
        )  # fmt: skip
    return (x0, y0, x1, y1)
