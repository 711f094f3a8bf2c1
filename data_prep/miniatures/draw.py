"""Draw the miniature of a source, or prepare the sources that a name stands for from theirs."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from data_prep.engine.lock import locked
from data_prep.engine.manifest import entry_of, is_prepared, read_manifest
from data_prep.engine.preparation import Wishes, prepare
from data_prep.miniatures import (
    captions,
    clips,
    clips_ranked,
    composed_pairs,
    composed_ranked,
    image_pairs,
    image_ranked,
    pages,
    pages_ranked,
    scar,
)
from data_prep.miniatures.studio import Studio
from data_prep.source import Source, SourceSet, resolve
from mmembed.files import fingerprint, write_json

MINIATURES = {
    **image_pairs.MINIATURES,
    **image_ranked.MINIATURES,
    **pages.MINIATURES,
    **pages_ranked.MINIATURES,
    **clips.MINIATURES,
    **clips_ranked.MINIATURES,
    **scar.MINIATURES,
    **composed_ranked.MINIATURES,
    **composed_pairs.MINIATURES,
    **captions.MINIATURES,
}
"""What draws the repository of a set, by the name of its converter."""

COPIES = ".miniature"
"""Folder below the data root that miniatures are drawn in."""


def draw_source(source: Source, root: Path) -> None:
    """Draw the repositories of a source below ``root``: ``root/owner/name`` looks like a clone of ``owner/name``."""
    for row in source.sets.values():
        MINIATURES[row.converter](row, Studio(root))


def prepare_miniature(name: str, data_root: Path) -> dict[str, dict[str, Any]]:
    """Draw what a name stands for below ``data_root/.miniature``, and prepare it from there, unless it was so before.

    Args:
        name: a source, ``source/set``, or a group.
        data_root: where the prepared miniatures come to lie; not where whole sources lie.

    Returns:
        The manifest of each source.
    """
    with locked(data_root / COPIES):
        return {source.name: _prepared(source, data_root) for source in resolve(name)}


def _prepared(source: Source, data_root: Path) -> dict[str, Any]:
    """The manifest of a source's miniature, which is drawn and prepared unless the same code did so before."""
    marker, code = data_root / COPIES / f"{source.name}.json", _code()
    said = json.loads(marker.read_text(encoding="utf-8")) if marker.is_file() else None
    if said == code and all(_is_there(source, row, data_root) for row in source.sets.values()):
        return read_manifest(data_root, source.name)
    # checksums that were published are those of the whole files
    small = replace(source, sets={key: _without_checksums(row) for key, row in source.sets.items()})
    draw_source(source, data_root / COPIES)
    made = prepare(small, data_root, copies=data_root / COPIES, wishes=Wishes(compare=False))
    write_json(marker, code)
    return made


def _is_there(source: Source, row: SourceSet, data_root: Path) -> bool:
    entry = entry_of(data_root, source.name, row.name)
    return entry is not None and entry["miniature"] and is_prepared(data_root, source.name, row)


def _code() -> str:
    """Names everything that decides what miniatures look like and become."""
    files = (file for file in Path(__file__).parent.parent.rglob("*") if file.suffix in (".py", ".yaml"))
    return fingerprint(*(part for file in sorted(files) for part in (file.name, file.read_bytes())))


def _without_checksums(row: SourceSet) -> SourceSet:
    return replace(row, media=tuple(replace(media, sha256={}) for media in row.media))
