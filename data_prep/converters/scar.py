r"""SCaR (arXiv:2510.00523): a region of a picture and the caption of its object, relation and scene.

Boxes become corners in pixels of the picture. Whether their coordinates stand in the words too is the source's choice
for training (option ``words``), and the benchmark row's for evaluation (``query_regions``).
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath

import PIL.Image

from data_prep.converters import Converter, Media, Ranked, Record
from data_prep.converters.coco_masks import mask_of
from data_prep.converters.fields import REMEDY, in_row, maybe_text, text, texts
from data_prep.converters.published import pairs_of, verbatim
from data_prep.source import SourceSet
from mmembed.errors import InputError
from mmembed.items import Box, Image, Item, Negative, Pair, Region
from mmembed.media.regions import SLACK_PX, clip_box

TOKEN = "<|image_1|>"
"""Stands in the data for the picture."""
SWAP = "swap"
"""Kind of the groups of wrong captions: which of the three elements they change."""
OTHER_QUERY = "queries that the data word otherwise than the published prompt, and that are kept as they are worded"
REPEATED = "captions that their query names twice"
UNKNOWN_SWAPS = "queries without kinds of swaps, for they have another number of wrong captions"
CUT = "boxes that left their picture by more than a pixel, and were cut to it"


def scar_pairs(rows: Iterator[Record], row_set: SourceSet, media: Media) -> Iterator[Pair | InputError]:
    """Pairs of SCaR-train: a picture with its region and the instruction find the caption.

    Wrong captions, where a row has any, are kept as negatives.
    """
    words, begin = row_set.options.get("words", ""), row_set.options.get("begin", "")

    def make(row: Record) -> Pair:
        asked = text(row, "qry")
        asked = asked if TOKEN in asked else begin + asked
        image = _image(row, media, _region_of(row_set))
        told = words.format(**dict(zip(("x0", "y0", "x1", "y1"), _corners(row), strict=True)))
        query = verbatim(asked + told, TOKEN, [image], "qry")
        return Pair(query, (Item((text(row, "pos_text"),)),), _negatives(row))

    return pairs_of(rows, make)


def scar_ranked(parts: Mapping[str, Iterator[Record]], row_set: SourceSet, media: Media) -> Ranked:
    """The retrieval set of SCaR-eval; a query is named by the number of its row, a caption by itself.

    Raises:
        InputError: a row that lacks a picture, a box or a caption: its number and the field.
    """
    making = _Making(row_set, media, Ranked())
    for number, record in enumerate(parts["rows"]):
        with in_row(number):
            making.add(str(number), record)
    return making.made


@dataclass(frozen=True)
class _Making:
    row_set: SourceSet
    media: Media
    made: Ranked

    def add(self, name: str, record: Record) -> None:
        captions = [self.made.target(caption, Item.of(caption)) for caption in texts(record, "tgt_text")]
        self.made.note(REPEATED, len(captions) - len(set(captions)))
        self.made.query(name, self._query(record), {captions[0]: 1.0}, captions)
        self.made.candidate_groups[name] = self._swaps(captions)

    def _query(self, record: Record) -> Item:
        image = self._within(_image(record, self.media, _region_of(self.row_set)))
        words, said = _published(text(record, "qry_text")), _published(self.row_set.options["query"])
        self.made.note(OTHER_QUERY, words != said)
        instruction = words.strip()
        if words == f" \n{instruction}":
            return Item((image,), instruction, verbatim=False)
        # the row's layout breaks the line before the instruction
        return Item((image,), words, verbatim=False, layout="{media}{instruction}{text}")

    def _within(self, image: Image) -> Image:
        """The picture with its box cut to it: a model refuses one that leaves its picture by more than a pixel."""
        with PIL.Image.open(str(image.source)) as picture:
            width, height = picture.size
        (region,) = image.regions
        if region.box is None:
            return image
        x0, y0, x1, y1 = region.box
        if min(x0, y0, width - x1, height - y1) >= -SLACK_PX:
            return image
        self.made.note(CUT)
        return Image(image.source, (Region(box=clip_box(region.box, width, height)),))

    def _swaps(self, captions: list[str]) -> dict[str, dict[str, list[str]]]:
        """The wrong captions by what they change, in the order that the source says."""
        right, *wrong = captions
        swaps = self.row_set.options["swaps"]
        if len(wrong) != len(swaps):
            self.made.note(UNKNOWN_SWAPS)
            return {}
        found: dict[str, list[str]] = {}
        for kind, caption in zip(swaps, wrong, strict=True):
            own = found.setdefault(kind, [])
            own += [caption] if caption not in (right, *own) else []
        return {SWAP: {kind: own for kind, own in found.items() if own}}


def _published(words: str) -> str:
    """What the published parser writes between the picture and the box: two spaces first, and none before a newline."""
    return f"  {words.replace(TOKEN, '')}".replace(" \n", "\n")


def _region_of(row_set: SourceSet) -> str:
    kind = row_set.options.get("region", "box")
    if kind not in ("box", "mask"):
        raise InputError("options.region", expected="box or mask", got=f"'{kind}'", remedy="correct the source")
    return str(kind)


def _image(row: Record, media: Media, kind: str) -> Image:
    path = text(row, "qry_image_path")
    found = media.look(path, "qry_image_path") or media.find(PurePosixPath(path).name, "qry_image_path")
    if kind == "box":
        return Image(str(found), (Region(box=_corners(row)),))
    with PIL.Image.open(found) as picture:
        size = picture.size
    return Image(str(found), (Region(mask=mask_of(row.get("segmentation"), size)),))


def _corners(row: Record) -> Box:
    """The corners of a stored ``x, y, width, height``."""
    given = row.get("bbox")
    numbers = isinstance(given, list) and all(
        isinstance(value, int | float) and not isinstance(value, bool) for value in given
    )
    if given is None or not numbers or len(given) != 4:
        raise InputError("bbox", expected="4 numbers x, y, width, height", got=f"{given!r:.80}", remedy=REMEDY)
    x, y, width, height = given
    return (x, y, x + width, y + height)


def _negatives(row: Record) -> tuple[Negative, ...]:
    """The wrong captions of a row: a list of them, one, or none."""
    if isinstance(row.get("neg_text"), list):
        wrong = [caption for caption in row["neg_text"] if caption]
        found = texts({"neg_text": wrong}, "neg_text") if wrong else []
    else:
        found = [caption] if (caption := maybe_text(row, "neg_text")) else []
    return tuple(Negative(Item((caption,))) for caption in found)


CONVERTERS: dict[str, Converter] = {
    "scar_pairs": Converter(pairs=scar_pairs, columns={"rows": ("qry", "qry_image_path", "pos_text", "bbox")}),
    "scar_ranked": Converter(ranked=scar_ranked, columns={"rows": ("qry_text", "qry_image_path", "bbox", "tgt_text")}),
}
"""Every converter by its name, as sources name it."""
