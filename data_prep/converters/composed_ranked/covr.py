"""WebVid-CoVR (arXiv:2308.14746): a clip and a change find the clip that shows it.

The corpus is the clips that are a target. A clip that is the reference of one query and the target of another is in it,
and the published evaluation removes it for the first. Clips are ``FOLDER/NUMBER.mp4`` of WebVid, a query is named by
the number of its row.
"""

from collections.abc import Iterator, Mapping

from data_prep.converters import Converter, Media, Ranked, Record
from data_prep.converters.composed_ranked.making import Making, Query
from data_prep.converters.fields import in_row, text
from data_prep.source import SourceSet
from mmembed.items import Item, Video

SUFFIX = ".mp4"


def covr(parts: Mapping[str, Iterator[Record]], row_set: SourceSet, media: Media) -> Ranked:
    """The retrieval set of a split.

    Raises:
        InputError: a row that lacks a field: its number and the column.
    """
    making = Making(media, Ranked(whole=True), kind=Video)
    references: dict[str, str] = {}
    for number, record in enumerate(parts["rows"]):
        with in_row(number):
            name, reference, target = str(number), text(record, "pth1"), text(record, "pth2")
            making.target(target, [target + SUFFIX], "pth2")
            query = Query(name, reference, [text(record, "edit")], {target: 1.0})
            path = making.look([reference + SUFFIX], "pth1")
            making.show(query, reference + SUFFIX, None if path is None else Item((Video(str(path)),)))
            references[name] = reference
    made = making.made
    # a reference that no query is to find is in no ranking
    made.references = {name: [shown] if (shown := references[name]) in made.corpus else [] for name in made.queries}
    return made


CONVERTERS = {"covr": Converter(ranked=covr, columns={"rows": ("pth1", "pth2", "edit")})}
"""Every converter by its name, as sources name it."""
