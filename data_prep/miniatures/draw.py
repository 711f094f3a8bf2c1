"""Draw the miniature of a source, or prepare the sources that a name stands for from theirs."""

from pathlib import Path

from data_prep.miniatures import clips, clips_ranked, image_pairs, image_ranked, pages, pages_ranked
from data_prep.miniatures.studio import Studio
from data_prep.source import Source

MINIATURES = {
    **image_pairs.MINIATURES,
    **image_ranked.MINIATURES,
    **pages.MINIATURES,
    **pages_ranked.MINIATURES,
    **clips.MINIATURES,
    **clips_ranked.MINIATURES,
}
"""What draws the repository of a set, by the name of its converter."""


def draw_source(source: Source, root: Path) -> None:
    """Draw the repositories of a source below ``root``: ``root/owner/name`` looks like a clone of ``owner/name``."""
    for row in source.sets.values():
        MINIATURES[row.converter](row, Studio(root))
