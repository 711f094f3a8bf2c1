"""Every converter by its name, as sources name it."""

from data_prep.converters import (
    Converter,
    clips,
    clips_ranked,
    composed_pairs,
    composed_pairs_captions,
    composed_ranked,
    image_pairs,
    image_ranked,
    masked_captions,
    pages,
    pages_ranked,
    scar,
)
from data_prep.source import SourceSet
from mmembed.errors import InputError, nearest

CONVERTERS: dict[str, Converter] = {
    **image_pairs.CONVERTERS,
    **image_ranked.CONVERTERS,
    **pages.CONVERTERS,
    **pages_ranked.CONVERTERS,
    **clips.CONVERTERS,
    **clips_ranked.CONVERTERS,
    **scar.CONVERTERS,
    **composed_ranked.CONVERTERS,
    **masked_captions.CONVERTERS,
    **composed_pairs.CONVERTERS,
    **composed_pairs_captions.CONVERTERS,
}


def converter_of(row: SourceSet) -> Converter:
    """The converter of a set.

    Raises:
        InputError: the set names none that there is.
    """
    if row.converter not in CONVERTERS:
        remedy = nearest(row.converter, CONVERTERS)
        raise InputError(f"{row.name}.converter", expected="a converter", got=f"'{row.converter}'", remedy=remedy)
    return CONVERTERS[row.converter]
