"""The prompt that a query's region becomes at a step of training: a pure function of seed, step and query.

Which points people click and how boxes are off differs from what annotators draw; a model that met all kinds in
training is asked for none that it does not know.
"""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from mmembed.data.permutation import key_of
from mmembed.data.prompt_shapes import Annotation, Size
from mmembed.data.settings import PROMPT_KINDS, RegionMixing
from mmembed.errors import InputError
from mmembed.items import Image, Item, Pair, Region
from mmembed.media.images import picture_size
from mmembed.media.regions import check_regions
from mmembed.media.settings import MediaSettings
from mmembed.media.sources import source_name


class RegionMixer:
    """Draws prompts; the same for any number of workers and ranks. Picklable.

    Args:
        settings: kinds and what they are made of.
        seed: of the stage.
        media: how pictures are opened, which decides which way up they are.
    """

    def __init__(self, settings: RegionMixing, *, seed: int, media: MediaSettings) -> None:
        self.settings = settings
        self.seed = seed
        self.media = media

    def query(self, pair: Pair, step: int) -> Item:
        """The query of a pair as the global batch of number ``step`` shows it.

        Raises:
            InputError: a picture that cannot be opened, a region that leaves it, or one that gives none of the kinds.
                Whether it is raised does not depend on the step.
        """
        query = pair.query
        if not any(isinstance(part, Image) and part.regions for part in query.content):
            return query
        name = pair.query_id or query.fingerprint()
        content = [
            self._image(part, (step, pair.source, name, place)) if isinstance(part, Image) and part.regions else part
            for place, part in enumerate(query.content)
        ]
        return replace(query, content=tuple(content))

    def _image(self, image: Image, key: tuple[str | int, ...]) -> Image:
        size = picture_size(image, self.media)
        check_regions(image, *size)
        regions: list[Region] = []
        for number, region in enumerate(image.regions):
            random = np.random.Generator(np.random.PCG64(key_of(self.seed, "region", *key, number)))
            kind = _choice(self._weights(image, number), random)
            regions += _prompts(kind, region, size, self.settings, random)
        return replace(image, regions=tuple(regions))

    def _weights(self, image: Image, number: int) -> dict[str, float]:
        """The weights of the kinds that a region gives."""
        given = set(_kinds(image.regions[number]))
        weights = {kind: self.settings.weights.get(kind, 0) for kind in PROMPT_KINDS if kind in given}
        if not any(weights.values()):
            asked = ", ".join(kind for kind, weight in self.settings.weights.items() if weight)
            raise InputError(
                f"{source_name(image.source)}: regions[{number}]",
                expected=f"a region that gives what region_prompts.weights asks for: {asked}",
                got=f"one that gives {', '.join(weights)}", remedy="give one of these a weight",
            )  # fmt: skip
        return weights


def example(kind: str, settings: RegionMixing, size: Size) -> Region | None:
    """A prompt of a kind in a picture of ``size``, with all that it may have; None of the kind ``none``."""
    width, height = size
    if kind == "points":
        outside = [(0.0, 0.0, 0)] if settings.outside else []
        return Region(points=((width / 2, height / 2, 1), (width / 3, height / 3, 1), *outside))
    mask = np.zeros((height, width), dtype=bool)
    mask[height // 4 : -height // 4, width // 4 : -width // 4] = True
    random = np.random.Generator(np.random.PCG64(0))
    return next(_prompts(kind, Region(mask=mask), size, settings, random), None)


def _kinds(region: Region) -> Iterator[str]:
    """What an annotation gives."""
    if not region.points:
        yield from (kind for kind in PROMPT_KINDS if kind != "mask" or region.mask is not None)
        return
    yield from ("none", "points")
    if any(label for _, _, label in region.points):
        yield "point"


def _choice(weights: dict[str, float], random: np.random.Generator) -> str:
    kinds = [kind for kind, weight in weights.items() if weight]
    ends = np.cumsum([weights[kind] for kind in kinds])
    # the last, should the product be rounded up to the sum
    return kinds[min(int(np.searchsorted(ends, random.random() * ends[-1], side="right")), len(kinds) - 1)]


def _prompts(
    kind: str, region: Region, size: Size, settings: RegionMixing, random: np.random.Generator
) -> Iterator[Region]:
    """The one prompt that a region becomes; none of the kind ``none``."""
    if kind == "none":
        return
    if region.points:
        yield region if kind == "points" else _one_of(region, random)
        return
    annotation = Annotation(region, size)
    if kind == "point":
        yield Region(points=((*annotation.inside(random), 1),))
    elif kind == "points":
        yield Region(points=annotation.points(settings.points, settings.outside, random))
    elif kind == "box":
        yield Region(box=annotation.box)
    elif kind == "jittered_box":
        yield Region(box=annotation.jittered(settings.jitter, random))
    elif kind == "scribble":
        yield Region(mask=annotation.scribble(settings.strokes, random))
    else:
        yield region


def _one_of(region: Region, random: np.random.Generator) -> Region:
    inside = [point for point in region.points if point[2]]
    return Region(points=(inside[int(random.random() * len(inside))],))
