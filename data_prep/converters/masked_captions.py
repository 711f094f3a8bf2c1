"""Captions alone: each with its keywords masked, beside itself, as LinCIR is trained (arXiv:2312.01998).

Options: ``column`` of the captions; ``tagger``, ``rules`` or ``spacy``; ``masking``, ``words`` or ``str_replace``; and
``placeholder``.
"""

from collections.abc import Iterator

from data_prep.converters import Converter, Media, Record
from data_prep.converters.fields import text
from data_prep.converters.published import pairs_of
from data_prep.keywords import tagger_of
from data_prep.masking import Masking
from data_prep.source import SourceSet
from mmembed.errors import InputError
from mmembed.items import Pair


def masked_captions(rows: Iterator[Record], row_set: SourceSet, media: Media) -> Iterator[Pair | InputError]:
    """Pairs of a masked caption and the caption; an empty caption is put aside."""
    options = row_set.options
    column = options.get("column", "text")
    masking = Masking(
        tagger_of(options.get("tagger", "rules"), f"{row_set.name}.options.tagger"),
        options.get("masking", "words"),
        options.get("placeholder", "$"),
    )
    return pairs_of(rows, lambda row: masking.pair(text(row, column)))


CONVERTERS: dict[str, Converter] = {"masked_captions": Converter(pairs=masked_captions)}
"""Every converter by its name, as sources name it."""
