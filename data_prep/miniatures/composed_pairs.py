"""Miniatures of the training sets of composed retrieval, in the layouts of their publishers."""

import csv
import io
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from data_prep.miniatures.studio import ROWS, Studio
from data_prep.source import SourceSet

COLOURS = ("red", "green", "blue", "yellow")
SHAPES = ("ball", "cube", "cone")
TRIPLETS = 3
"""Of each picture: together more than a block of a miniature, which must not meet a row twice."""


def cirr_pairs(row: SourceSet, studio: Studio) -> None:
    """Pictures of NLVR2 in numbered folders, and the annotations of the training split."""
    repo, names = studio.repo(row.origin), [f"train-{i}-{i % 2}-img0" for i in range(ROWS)]
    for i, name in enumerate(names):
        studio.picture(repo / f"train/{i % 4}/{name}.png")
    rows = [
        {
            "pairid": i, "reference": names[i], "target_hard": _next(names, i), "target_soft": {_next(names, i): 1.0},
            "caption": change(i), "img_set": {"id": i, "members": [_next(names, i, step) for step in range(6)]},
        }
        for i in range(ROWS)
    ]  # fmt: skip
    _json(studio, repo / row.parts["rows"][0], rows)


def fashioniq_pairs(row: SourceSet, studio: Studio) -> None:
    """Pictures by their names, some JPEG and some PNG, and the captions of a category."""
    repo, names = studio.repo(row.origin), [f"B{row.name.upper():0<6}{i:03d}" for i in range(ROWS)]
    for i, name in enumerate(names):
        studio.picture(repo / f"images/{name}{('.jpg', '.png')[i % 2]}")
    rows = [
        {"target": _next(names, i), "candidate": names[i], "captions": [change(i), f"has {i} sleeves."]}
        for i in range(ROWS)
    ]
    _json(studio, repo / row.parts["rows"][0], rows)


def lasco_pairs(row: SourceSet, studio: Studio) -> None:
    """Pictures of COCO's two splits, and the annotations."""
    repo, numbers = studio.repo(row.origin), [28714 + i for i in range(ROWS)]
    paths = [f"{s}2014/COCO_{s}2014_{n:012d}.jpg" for s, n in zip(("train", "val") * ROWS, numbers, strict=False)]
    for path in paths:
        studio.picture(repo / path)
    shown = [[number, path] for number, path in zip(numbers, paths, strict=True)]
    rows = [
        {"qid": 1000 * numbers[i], "query-image": shown[i], "query-text": change(i), "target-image": _next(shown, i)}
        for i in range(ROWS)
    ]
    _json(studio, repo / row.parts["rows"][0], rows)


def covr_pairs(row: SourceSet, studio: Studio) -> None:
    """Clips or pictures in numbered folders, and rows of CSV; some changes of pictures are lists."""
    repo, root = studio.repo(row.repo), studio.repo(row.repo) / row.media[0].root
    names, are_clips = [f"{i % 3:06d}/{4000 + i}" for i in range(ROWS)], "num_frames" in row.options
    for i, name in enumerate(names):
        if are_clips:
            studio.clip(root / f"{name}.mp4")
        else:
            studio.picture(root / f"{name}{('.jpg', '.png')[i % 2]}")
    changes = [change(i) if are_clips or i % 3 else repr([change(i), f"or {change(i)}"]) for i in range(ROWS)]
    rows = [
        {
            "pth1": names[i], "pth2": _next(names, i), "edit": changes[i], "txt1": thing(i), "txt2": thing(i + 1),
            "scores": "[0.1, 0.2]",
        }
        for i in range(ROWS)
    ]  # fmt: skip
    _csv(studio, repo / row.files[0], rows)


def megapairs_pairs(row: SourceSet, studio: Studio) -> None:
    """Rows with several changes and hard negatives, the query's picture first, and an archive of the pictures."""
    names = [f"{i:02d}/{i:09d}.jpg" for i in range(ROWS)]
    rows = [
        {
            "q_img": names[i], "q_text": [change(i), f"same, but {change(i)}"], "t_img": _next(names, i),
            "hns": [names[i], *(_next(names, i, step) for step in (3, 4, 5, 6))],
        }
        for i in range(ROWS)
    ]  # fmt: skip
    studio.jsonl(studio.repo(row.repo) / row.files[0], rows)
    _packed(studio, studio.repo(row.repo) / "images/images.tar.gz", names)


def mtcir_pairs(row: SourceSet, studio: Studio) -> None:
    """Rows with several changes, and the archive of another repository's pictures."""
    names = _of_llava()
    rows = [
        {
            "id": f"pair{i}", "image": names[i], "target_image": _next(names, i),
            "modifications": [change(i), f"now {change(i)}"],
        }
        for i in range(ROWS)
    ]  # fmt: skip
    studio.jsonl(studio.repo(row.repo) / row.files[0], rows)
    _packed(studio, studio.repo(str(row.media[0].repo)) / row.media[0].files[0], names)


def image_captions(row: SourceSet, studio: Studio) -> None:
    """Conversations of a request and a caption; the picture stands before the request or behind it."""
    names, requests = _of_llava(), ("<image>\nDescribe it.", "Describe it.\n<image>")
    rows = [
        {
            "id": Path(name).stem, "image": name,
            "conversations": [
                {"from": "human", "value": requests[i % 2]}, {"from": "gpt", "value": f"a {thing(i)} on a table"},
            ],
        }
        for i, name in enumerate(names)
    ]  # fmt: skip
    _json(studio, studio.repo(row.repo) / row.files[0], rows)
    _packed(studio, studio.repo(row.repo) / row.media[0].files[0], names)


def cir_triplets(row: SourceSet, studio: Studio) -> None:
    """Triplets as they are generated, some of each picture, and the pictures beside them."""
    repo, names = studio.repo(row.origin), [f"media/images/{i:05d}.jpg" for i in range(ROWS)]
    for name in names:
        studio.picture(repo / name)
    rows = [
        {
            "id": f"{i}-{k}", "image": name, "caption": f"a {thing(i)} on a table, number {i}",
            "instruction": change(i + k), "modified_caption": f"a {thing(i + k + 1)} on a table, number {i + k + 1}",
            "edit_type": "object", "model": "rules", "prompt_version": "1",
        }
        for i, name in enumerate(names) for k in range(TRIPLETS)
    ]  # fmt: skip
    studio.jsonl(repo / row.parts["rows"][0], rows)


def thing(number: int) -> str:
    """What a picture is said to show."""
    return f"{COLOURS[number % len(COLOURS)]} {SHAPES[number % len(SHAPES)]}"


def change(number: int) -> str:
    """What makes it the next one."""
    return f"make it a {thing(number + 1)}, number {number + 1}"


def _next(things: Sequence[Any], number: int, step: int = 1) -> Any:
    return things[(number + step) % len(things)]


def _of_llava() -> list[str]:
    return [f"{i % 3:05d}/{i:05d}0{i % 7}.jpg" for i in range(ROWS)]


def _packed(studio: Studio, archive: Path, names: Sequence[str]) -> None:
    packed = studio.root / ".drawn" / archive.relative_to(studio.root)
    for name in names:
        studio.picture(packed / name)
    studio.archive(archive, packed)


def _json(studio: Studio, path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    studio.write(path, json.dumps(rows).encode())


def _csv(studio: Studio, path: Path, rows: Sequence[Mapping[str, str]]) -> None:
    text = io.StringIO(newline="")
    table = csv.DictWriter(text, list(rows[0]))
    table.writeheader()
    table.writerows(rows)
    studio.write(path, text.getvalue().encode())


MINIATURES: dict[str, Callable[[SourceSet, Studio], None]] = {
    "cirr_pairs": cirr_pairs,
    "fashioniq_pairs": fashioniq_pairs,
    "lasco_pairs": lasco_pairs,
    "covr_pairs": covr_pairs,
    "megapairs_pairs": megapairs_pairs,
    "mtcir_pairs": mtcir_pairs,
    "image_captions": image_captions,
    "cir_triplets": cir_triplets,
}
"""What draws the repository of a set, by the name of its converter."""
