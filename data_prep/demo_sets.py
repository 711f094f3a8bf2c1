"""The demo's eight retrieval sets, each with scenes of its own."""

import json
import random
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

from data_prep.demo_items import (
    Shot,
    change,
    clip_query,
    clip_target,
    clip_words,
    composed_query,
    image_query,
    image_target,
    image_words,
    page_target,
    page_words,
    question_query,
    questions,
    region_query,
    regions,
)
from data_prep.demo_scenes import (
    COLOURS,
    REVERSE,
    SHAPES,
    Studio,
    Thing,
    draw_clip,
    draw_pair,
    draw_thing,
    in_words,
)
from mmembed.data.tables import write_items
from mmembed.files import write_text
from mmembed.items import Image, Item

Queries: TypeAlias = Sequence[tuple[Item, Sequence[str]]]
"""Queries, each with the ids of its right targets."""
Corpus: TypeAlias = Mapping[str, Item]
"""Targets by id."""


def image_to_caption(studio: Studio, media: str, count: int) -> tuple[Queries, Corpus]:
    """Pictures, and the captions of them all."""
    shots = list(studio.scenes(media, [draw_pair] * count))
    return [(image_query(shot), [shot[0].caption]) for shot in shots], _texts(scene.caption for scene, _ in shots)


def caption_to_image(studio: Studio, media: str, count: int) -> tuple[Queries, Corpus]:
    """Captions, and pictures; every picture of the caption is right."""
    shots = list(studio.scenes(media, [draw_pair] * count))
    right = _ids_by_caption(shots)
    queries = [(image_words(scene), right[scene.caption]) for scene, _ in shots]
    return queries, {path.stem: image_target(path) for _, path in shots}


def question(studio: Studio, media: str, count: int) -> tuple[Queries, Corpus]:
    """Four questions a picture, and all words that may answer one."""
    shots = studio.scenes(media, [draw_pair] * (count // 4))
    queries = [(question_query(shot, words), [answer]) for shot in shots for words, answer in questions(shot[0])]
    return queries, _texts((*COLOURS, *SHAPES))


def video_to_caption(studio: Studio, media: str, count: int) -> tuple[Queries, Corpus]:
    """Clips, and the captions of them all played forwards and backwards."""
    shots = list(studio.scenes(media, [draw_clip] * count))
    captions = _texts(words for scene, _ in shots for words in (scene.caption, scene.reversed_caption))
    return [(clip_query(shot), [shot[0].caption]) for shot in shots], captions


def caption_to_video(studio: Studio, media: str, count: int) -> tuple[Queries, Corpus]:
    """Captions, and clips, beside each one of the same object moving the other way."""
    rng = studio.rng(f"{media}/plan")
    asked = [(draw_thing(rng), rng.choice(list(REVERSE))) for _ in range(count)]
    both = [(thing, way) for thing, direction in asked for way in (direction, REVERSE[direction])]
    shots = list(studio.scenes(media, [partial(draw_clip, thing=thing, direction=way) for thing, way in both]))
    right = _ids_by_caption(shots)
    queries = [(clip_words(scene), right[scene.caption]) for scene, _ in shots[::2]]
    return queries, {path.stem: clip_target(path) for _, path in shots}


def region_to_label(studio: Studio, media: str, count: int) -> tuple[Queries, Corpus]:
    """Both objects of each picture, pointed at, and the names of all objects."""
    rng = studio.rng(f"{media}/plan")
    plan = [_others(rng, ()) for _ in range(count // 2)]
    shots = studio.scenes(media, [partial(draw_pair, objects=objects) for objects in plan])
    queries = [(region_query(shot, region), [label]) for shot in shots for region, label in regions(rng, shot[0])]
    return queries, _texts(in_words((colour, shape)) for colour in COLOURS for shape in SHAPES)


def words_to_page(studio: Studio, media: str, count: int) -> tuple[Queries, Corpus]:
    """Words, and pages; every page with these words in this order is right."""
    leaves = list(studio.sheets(media, count))
    targets = {f"{path.stem}-{number}": (sheet, path, number) for sheet, path, number in leaves}
    right: dict[str, list[str]] = defaultdict(list)
    for target_id, (sheet, _, _) in targets.items():
        right[sheet.caption].append(target_id)
    queries = [(page_words(sheet), right[sheet.caption]) for sheet, _, _ in leaves]
    return queries, {target_id: page_target(leaf) for target_id, leaf in targets.items()}


def composed(studio: Studio, media: str, count: int) -> tuple[Queries, Corpus]:
    """Pictures and changes, and pictures: for each query one that answers it, and two that answer half of it.

    One of the two shows the very scene of the query, unchanged; of the other the words are true, but nothing else is.
    """
    rng = studio.rng(f"{media}/plan")
    asked, plan = [], []
    for _ in range(count):
        objects = _others(rng, ())
        words, wanted = change(rng, objects)
        asked.append((words, wanted))
        plan += [objects, wanted, objects, _true_words_other_objects(rng, objects, wanted)]
    shots = list(studio.scenes(media, [partial(draw_pair, objects=objects) for objects in plan]))
    gallery = [shot for i, shot in enumerate(shots) if i % 4]
    right: dict[tuple[Thing, ...], list[str]] = defaultdict(list)
    for scene, path in gallery:
        right[scene.objects].append(path.stem)
    queries = [
        (composed_query(shot, words), right[wanted]) for shot, (words, wanted) in zip(shots[::4], asked, strict=True)
    ]
    return queries, {path.stem: image_target(path) for _, path in gallery}


SETS: dict[str, Callable[[Studio, str, int], tuple[Queries, Corpus]]] = {
    make.__name__: make
    for make in (
        *(image_to_caption, caption_to_image, question, video_to_caption),
        *(caption_to_video, region_to_label, words_to_page, composed),
    )
}


def write_set(folder: Path, queries: Queries, corpus: Corpus) -> None:
    """A retrieval set as a folder: queries, corpus, relevance, and groups where queries point in different ways."""
    write_items(folder / "queries.jsonl", ((f"q{i}", query) for i, (query, _) in enumerate(queries)))
    write_items(folder / "corpus.jsonl", corpus.items())
    relevance = ({"query_id": f"q{i}", "targets": dict.fromkeys(right, 1)} for i, (_, right) in enumerate(queries))
    _write_rows(folder / "relevance.jsonl", relevance)
    kinds = [_region_kinds(query) for query, _ in queries]
    if any(kinds):
        groups = ({"query_id": f"q{i}", "groups": {"region": own}} for i, own in enumerate(kinds))
        _write_rows(folder / "groups.jsonl", groups)


def _write_rows(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    write_text(path, "".join(json.dumps(row) + "\n" for row in rows))


def _region_kinds(item: Item) -> list[str]:
    """In which ways an item points into its pictures."""
    found = [region for medium in item.media if isinstance(medium, Image) for region in medium.regions]
    return sorted({"point" if region.box is None else "box" for region in found})


def _texts(words: Iterable[str]) -> Corpus:
    return {text: Item.of(text) for text in sorted(set(words))}


def _ids_by_caption(shots: Iterable[Shot]) -> dict[str, list[str]]:
    ids: dict[str, list[str]] = defaultdict(list)
    for scene, path in shots:
        ids[scene.caption].append(path.stem)
    return ids


def _others(rng: random.Random, objects: tuple[Thing, ...]) -> tuple[Thing, Thing]:
    """Two objects that differ from each other and from these."""
    first, second = draw_thing(rng), draw_thing(rng)
    while first == second or {first, second} & set(objects):
        first, second = draw_thing(rng), draw_thing(rng)
    return first, second


def _true_words_other_objects(
    rng: random.Random, objects: tuple[Thing, ...], wanted: tuple[Thing, ...]
) -> tuple[Thing, ...]:
    """Objects of which the change that led from ``objects`` to ``wanted`` is true, and no shape or object is kept."""
    place = next(i for i, (old, new) in enumerate(zip(objects, wanted, strict=True)) if old != new)
    colour, shape = wanted[place]
    drawn = list(_others(rng, wanted))
    drawn[place] = (colour, rng.choice([other for other in SHAPES if other != shape]))
    return tuple(drawn)
