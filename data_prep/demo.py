"""Draw the demo's data: training tables, and eight retrieval sets of pictures, clips and pages.

Everything follows from the seed, byte for byte. No picture, clip or page of a test is in the training data.
"""

import argparse
import json
import random
import sys
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeAlias

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from data_prep.demo_items import (
    Shot,
    change,
    changed_query,
    clip_query,
    clip_target,
    clip_words,
    composed_query,
    image_query,
    image_target,
    image_words,
    page_query,
    page_questions,
    page_target,
    page_words,
    question_query,
    questions,
    region_query,
    regions,
    told,
)
from data_prep.demo_scenes import Scene, Studio, Thing, draw_clip, draw_pair, draw_single
from data_prep.demo_sets import SETS, write_set
from data_prep.masking import Masking
from mmembed.commands import add_data_root
from mmembed.data.tables import write_pairs
from mmembed.files import write_json
from mmembed.items import Item, Negative, Pair

VERSION = 4
"""Counts up when the same seed gives other data."""

Change: TypeAlias = tuple[Shot, str, tuple[Thing, ...]]
"""A picture, a change in words, and the objects after it."""


@dataclass(frozen=True)
class Sizes:
    """How much is drawn."""

    singles: int = 3000
    """Training pictures of one object."""
    pairs: int = 8000
    """Training pictures of two objects."""
    clips: int = 4000
    """Training clips."""
    pages: int = 3000
    """Training pages."""
    tests: int = 240
    """Queries of each test."""


def make_training(studio: Studio, sizes: Sizes) -> None:
    """Tables of single objects, of pairs of objects, of their captions alone, of clips and of pages."""
    singles = list(studio.scenes("train/single", [draw_single] * sizes.singles))
    pairs = list(studio.scenes("train/pair", [draw_pair] * sizes.pairs))
    clips = list(studio.scenes("train/clip", [draw_clip] * sizes.clips))
    pages = list(studio.sheets("train/page", sizes.pages))
    for name, shots in (("single", singles), ("pair", pairs)):
        make_picture_tables(studio, name, shots)
    rng = studio.rng("train/told")
    captioned = [(path, scene.caption) for scene, path in (*singles, *pairs)]
    described = [(path, told(rng, scene)) for scene, path in pairs]
    for name, shown in (("captioned", captioned), ("told", described)):
        write_table(studio, name, [Pair(Item.of({"image": path}), (Item.of(words),)) for path, words in shown])
    write_table(studio, "caption_masked", masked_captions(words for _, words in (*captioned, *described)))
    write_table(studio, "pair_region", region_pairs(pairs, studio.rng("train/pair/region")))
    write_table(studio, "motion", [Pair(clip_query(shot), (Item.of(shot[0].caption),)) for shot in clips])
    write_table(studio, "motion_video", [Pair(clip_words(scene), (clip_target(path),)) for scene, path in clips])
    write_table(studio, "page", [Pair(page_words(leaf[0]), (page_target(leaf),)) for leaf in pages])
    asked = [(leaf, question, word) for leaf in pages for question, word in page_questions(leaf[0])]
    write_table(studio, "page_question", [Pair(page_query(leaf, q), (Item.of(word),)) for leaf, q, word in asked])


def make_picture_tables(studio: Studio, name: str, shots: Sequence[Shot]) -> None:
    """What is asked of single objects and of pairs alike: captions, pictures, questions and changes."""
    write_table(studio, f"{name}_caption", [Pair(image_query(shot), (Item.of(shot[0].caption),)) for shot in shots])
    write_table(studio, f"{name}_image", [Pair(image_words(scene), (image_target(path),)) for scene, path in shots])
    answers = [(shot, question, word) for shot in shots for question, word in questions(shot[0])]
    write_table(studio, f"{name}_question", [Pair(question_query(s, q), (Item.of(word),)) for s, q, word in answers])
    rng = studio.rng(f"train/{name}/change")
    changes = [(shot, *change(rng, shot[0].objects)) for shot in shots]
    after = [Pair(changed_query(s, words), (Item.of(Scene(wanted).caption),)) for s, words, wanted in changes]
    write_table(studio, f"{name}_change", after)
    write_table(studio, f"{name}_composed", composed_pairs(changes, rng))


def region_pairs(shots: Iterable[Shot], rng: random.Random) -> list[Pair]:
    """Each object of the pictures that show two different ones."""
    several = [shot for shot in shots if len(set(shot[0].objects)) == 2]
    return [
        Pair(region_query(shot, region), (Item.of(label),))
        for shot in several
        for region, label in regions(rng, shot[0])
    ]


def composed_pairs(changes: Sequence[Change], rng: random.Random) -> list[Pair]:
    """A picture and a change: a picture of the changed scene is right, another one of the same scene is wrong.

    The changed scene is the class, for every picture of it would be right. Where none was drawn, there is no pair.
    """
    files: dict[tuple[Thing, ...], list[Path]] = defaultdict(list)
    for (scene, path), _, _ in changes:
        files[scene.objects].append(path)
    pairs = []
    for shot, words, wanted in changes:
        same = [path for path in files[shot[0].objects] if path != shot[1]]
        if wanted in files:
            target = image_target(rng.choice(files[wanted]))
            negatives = (Negative(image_target(rng.choice(same))),) if same else ()
            pairs.append(Pair(composed_query(shot, words), (target,), negatives, class_id=Scene(wanted).caption))
    return pairs


def masked_captions(captions: Iterable[str]) -> list[Pair]:
    """Each caption once, and before it the same with its objects masked: LinCIR's training, which sees no picture."""
    masking = Masking()
    return [masking.pair(caption) for caption in sorted(set(captions))]


def write_table(studio: Studio, name: str, pairs: Sequence[Pair]) -> None:
    """A training table, its pairs numbered; none without pairs, as when too few pictures were drawn to be composed."""
    if pairs:
        numbered = (replace(pair, query_id=f"{i:05d}") for i, pair in enumerate(pairs))
        write_pairs(studio.root / f"{name}.jsonl", numbered)


def make_demo(root: Path, seed: int, sizes: Sizes) -> bool:
    """Draw everything under ``root``; False if the same data stand there already."""
    # a relative media path would be read as one below the table's folder
    root = root.absolute()
    made = {"seed": seed, "version": VERSION, **vars(sizes)}
    marker = root / "demo.json"
    if marker.is_file() and json.loads(marker.read_text()) == made:
        return False
    studio = Studio(root, seed)
    for name, make in SETS.items():
        write_set(root / "test" / name, *make(studio, f"test/{name}/media", sizes.tests))
    make_training(studio, sizes)
    write_json(marker, made)
    return True


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0, help="another seed draws other scenes (default: 0)")
    add_data_root(parser)
    parser.add_argument("--name", default="demo", help="folder under the data root (default: demo)")
    for field, count in vars(Sizes()).items():
        parser.add_argument(f"--{field}", type=int, default=count, metavar="N", help=f"default: {count}")
    options = vars(parser.parse_args(argv))
    root = options.pop("data_root") / options.pop("name")
    drawn = make_demo(root, options.pop("seed"), Sizes(**options))
    print(f"{'drawn' if drawn else 'there already'}: {root}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
