"""Miniatures of the benchmarks of composed retrieval, in the layouts that people keep, with their odd cases.

Empty captions, a reference that is the target of another query, several right targets, a template that names its target
twice, boxes that leave their picture, pictures of another suffix.
"""

import csv
import io
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

from data_prep.miniatures.studio import Studio
from data_prep.source import SourceSet

QUERIES, TARGETS = 6, 24
CHANGES = ("is longer", "has no sleeves.", "are two dogs", "is at night", "has buttons, and a logo?", "Is more blue")
EMPTY = {2: ("is striped", ""), 4: (" ", "has a V-neck")}
"""Captions of the queries of which one is empty."""
ASPECTS = ("addition", "negation", "viewpoint", "cardinality")
BOXES = ([4, 6, 20, 10], [0, 0, 30, 30], [40, 30, 30, 30], [10, 2, 12, 40], [50, 1, 5, 44], [3, 20, 60, 8])
"""x, y, width and height in pictures of 64 x 48, some of which they leave."""
SHOWN = (64, 48)


def fashioniq(row: SourceSet, studio: Studio) -> None:
    """A category: captions, the list of its split and the pictures, of which one is a PNG file."""
    folder, category = studio.repo(row.origin), row.name.partition("_")[0]
    names = [f"B{category[:2].upper()}{number:07d}" for number in range(TARGETS)]
    # the reference of the last query is the target of the first
    references = [*names[1 : 2 * QUERIES - 1 : 2], names[0]]
    records = [
        {
            "target": names[2 * number],
            "candidate": references[number],
            "captions": list(EMPTY.get(number, (CHANGES[number], CHANGES[number - 1]))),
        }
        for number in range(QUERIES)
    ]
    _write(studio, folder / row.parts["rows"][0], records)
    _write(studio, folder / row.parts["gallery"][0], names)
    for name in names:
        studio.picture(folder / "images" / f"{name}{'.png' if name == names[3] else '.jpg'}", seed=name)


def cirr(row: SourceSet, studio: Studio) -> None:
    """A split: captions with their groups of six, the path of each picture and the pictures."""
    folder, place = studio.repo(row.origin), row.media[0].root
    names = [f"{place}-{number}-0-img{number % 2}" for number in range(TARGETS)]
    records = [_cirr_record(number, names, judged=row.name == "val") for number in range(QUERIES)]
    _write(studio, folder / row.parts["rows"][0], records)
    _write(studio, folder / row.parts["gallery"][0], {name: f"./{place}/{name}.png" for name in names})
    for name in names:
        studio.picture(folder / place / f"{name}.png", seed=name)


def _cirr_record(number: int, names: list[str], *, judged: bool) -> dict[str, Any]:
    # two queries show the same picture, the target of a third
    first = 3 * (number // 2)
    members = names[first : first + 6]
    reference, target = members[0], members[3 if number % 2 else 1]
    group: dict[str, Any] = {"id": number // 2, "members": members, "reference_rank": 0}
    record: dict[str, Any] = {"pairid": 12000 + 7 * number, "reference": reference, "caption": CHANGES[number]}
    if judged:
        group["target_rank"] = members.index(target)
        record |= {"target_hard": target, "target_soft": {target: 1.0}}
    return record | {"img_set": group}


def circo(row: SourceSet, studio: Studio) -> None:
    """A split: annotations, COCO's list of pictures and the pictures."""
    folder = studio.repo(row.origin)
    numbers = [1000 + 37 * number for number in range(TARGETS)]
    images = [{"file_name": f"{number:012d}.jpg", "id": number, "height": 56, "width": 56} for number in numbers]
    records = [_circo_record(number, numbers, judged=row.name == "val") for number in range(QUERIES)]
    _write(studio, folder / row.parts["rows"][0], records)
    _write(studio, folder / row.parts["gallery"][0], {"info": {}, "images": images, "licenses": []})
    for image in images:
        studio.picture(folder / row.media[0].root / str(image["file_name"]))


def _circo_record(number: int, numbers: list[int], *, judged: bool) -> dict[str, Any]:
    said = {"relative_caption": CHANGES[number], "shared_concept": "a thing", "id": number}
    record: dict[str, Any] = {"reference_img_id": numbers[number], **said}
    if judged:
        # one to six right targets, the references of other queries among them
        right = [numbers[(number + 1 + step) % TARGETS] for step in range(number + 1)]
        aspects = [aspect for place, aspect in enumerate(ASPECTS) if place <= number]
        record |= {"target_img_id": right[0], "gt_img_ids": right, "semantic_aspects": aspects}
    return record


def genecis(row: SourceSet, studio: Studio) -> None:
    """A task: templates, of which one names its target again and one a wrong picture twice, and the pictures."""
    folder, place = studio.repo(row.origin), row.media[0].root
    cut = row.converter == "genecis_attributes"
    count = 9 if row.name == "focus_attribute" else 14
    parts = [_genecis_part(number, cut=cut) for number in range(TARGETS)]
    records = []
    for number in range(QUERIES):
        reference, target, *gallery = random.Random(f"{row.name} {number}").sample(parts, count + 2)
        gallery = [*gallery[:-1], {1: target, 3: gallery[0]}.get(number, gallery[-1])]
        records.append({"condition": CHANGES[number], "reference": reference, "target": target, "gallery": gallery})
    _write(studio, folder / row.files[0], records)
    for number in range(TARGETS):
        name = f"{2300000 + number // 3}.jpg" if cut else f"{139 + 11 * number:012d}.jpg"
        studio.picture(folder / place / name, size=SHOWN)


def _genecis_part(number: int, *, cut: bool) -> dict[str, Any]:
    if cut:
        return {"image_id": 2300000 + number // 3, "instance_bbox": BOXES[number % len(BOXES)]}
    return {"val_image_id": 139 + 11 * number}


def covr(row: SourceSet, studio: Studio) -> None:
    """A split: triplets with columns that are not read, and the clips; some references are targets of others."""
    folder = studio.repo(row.origin)
    clips = [f"{number % 2:03d}/{90 + number}" for number in range(QUERIES + 2)]
    table = io.StringIO(newline="")
    rows = csv.DictWriter(table, ("pth1", "pth2", "edit", "txt2", "scores"), lineterminator="\n")
    rows.writeheader()
    for number in range(QUERIES):
        changed = {"edit": f"Make it {CHANGES[number]}", "txt2": "a clip", "scores": "[0.2, 0.3]"}
        rows.writerow({"pth1": clips[number + 2], "pth2": clips[number], **changed})
    studio.write(folder / row.parts["rows"][0], table.getvalue().encode())
    for clip in clips:
        studio.clip(folder / row.media[0].root / f"{clip}.mp4")


def _write(studio: Studio, path: Path, content: Any) -> None:
    studio.write(path, json.dumps(content).encode())


MINIATURES: dict[str, Callable[[SourceSet, Studio], None]] = {
    "fashioniq": fashioniq,
    **dict.fromkeys(("cirr", "cirr_unjudged"), cirr),
    **dict.fromkeys(("circo", "circo_unjudged"), circo),
    **dict.fromkeys(("genecis_objects", "genecis_attributes"), genecis),
    "covr": covr,
}
"""What draws the folder of a set, by the name of its converter."""
