"""Draw the gallery that make app searches: the demo's pictures, each with the boxes of its objects, clips and pages.

Beside the item table stands instructions.yaml, the words that the demo's model was trained to be asked with.
"""

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from data_prep.demo_items import (
    FIND,
    FIND_CHANGED,
    NAME,
    REPRESENT,
    REPRESENT_CLIP,
    REPRESENT_PAGE,
    clip_target,
    image_target,
    page_target,
)
from data_prep.demo_scenes import Studio, draw_clip, draw_pair
from mmembed.commands import add_data_root
from mmembed.data.tables import write_items
from mmembed.files import write_json, write_text
from mmembed.items import Image, Item, Region

VERSION = 1
"""Counts up when the same seed gives another gallery."""
INSTRUCTIONS = {
    "words": FIND,
    "picture": REPRESENT,
    "change": FIND_CHANGED,
    "region": NAME,
    "clip": REPRESENT_CLIP,
    "page": REPRESENT_PAGE,
}


def gallery(studio: Studio, pictures: int, clips: int, pages: int) -> Iterator[tuple[str, Item]]:
    """Pictures of two objects with a box around each, clips, and pages, with their names."""
    for scene, path in studio.scenes("pictures", [draw_pair] * pictures):
        regions = tuple(Region(box=box) for box in scene.boxes)
        yield f"picture-{path.stem}", replace(image_target(path), content=(Image(path, regions),))
    for _, path in studio.scenes("clips", [draw_clip] * clips):
        yield f"clip-{path.stem}", clip_target(path)
    for sheet, path, number in studio.sheets("pages", pages):
        yield f"page-{path.stem}-{number}", page_target((sheet, path, number))


def make_gallery(root: Path, seed: int, *, pictures: int, clips: int, pages: int) -> bool:
    """Draw everything under ``root``; False if the same gallery stands there already."""
    root = root.absolute()
    made = {"seed": seed, "version": VERSION, "pictures": pictures, "clips": clips, "pages": pages}
    marker = root / "gallery.json"
    if marker.is_file() and json.loads(marker.read_text()) == made:
        return False
    marker.unlink(missing_ok=True)
    write_items(root / "items.jsonl", gallery(Studio(root, seed), pictures, clips, pages))
    write_text(
        root / "instructions.yaml", "".join(f"{kind}: {json.dumps(words)}\n" for kind, words in INSTRUCTIONS.items())
    )
    write_json(marker, made)
    return True


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=1, help="another seed draws other scenes (default: 1)")
    add_data_root(parser)
    parser.add_argument("--name", default="demo-gallery", help="folder under the data root (default: demo-gallery)")
    for kind, count in (("pictures", 240), ("clips", 60), ("pages", 60)):
        parser.add_argument(f"--{kind}", type=int, default=count, metavar="N", help=f"default: {count}")
    options = parser.parse_args(argv)
    root = options.data_root / options.name
    drawn = make_gallery(root, options.seed, pictures=options.pictures, clips=options.clips, pages=options.pages)
    print(f"{'drawn' if drawn else 'there already'}: {root}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
