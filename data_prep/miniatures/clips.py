"""Miniatures of the training sets of clips: rows in JSON, frames or clips in the archives of their publishers."""

import json
from collections.abc import Callable
from typing import Any

from data_prep.miniatures.studio import ROWS, Studio
from data_prep.source import SourceSet

WHAT = ("a red ball rolls away", "two boxes are stacked", "a door opens slowly")
FRAMES = 10
"""Frames of a video of LLaVA-Hound, of which eight are used."""


def llava_hound_answers(row: SourceSet, studio: Studio) -> None:
    """Videos with a caption, or questions about them; the word for the video stands first, last, and inside."""
    is_question = "first" in row.options
    requests = ("{}\n{}", "{}\n{}", "{1}\n{0}") if is_question else ("{}\n{}", "{1}\n{0}", "{}\n{}")
    asked = "What happens in clip {}?" if is_question else "Write an in-depth depiction of the video, part {}."
    rows = [
        _conversation(f"v_{'qa' if is_question else 'cap'}{i:03d}-Scene-001",
                      requests[i % 3].format("<video>", asked.format(i)), f"In clip {i}, {WHAT[i % 3]}.")
        for i in range(ROWS)
    ]  # fmt: skip
    _llava_hound(row, studio, rows, "chunk_1" if is_question else "chunk_0")


def _conversation(video: str, asked: str, answered: str) -> dict[str, Any]:
    turns = [{"from": "human", "value": asked}, {"from": "gpt", "value": answered}]
    return {"id": video, "video": video, "conversations": turns}


def _llava_hound(row: SourceSet, studio: Studio, rows: list[dict[str, Any]], archive: str) -> None:
    repo, packed = studio.repo(row.repo), studio.root / ".drawn" / row.repo / archive
    for record in rows:
        studio.frames(packed / record["video"], FRAMES, "c01_{:04d}.jpeg")
    studio.archive(repo / "train_300k" / f"{archive}.tar.gz", packed)
    studio.jsonl(repo / row.files[0], rows)


def clip_captions(row: SourceSet, studio: Studio) -> None:
    """Captions, one or several a clip, and an archive of the clips; the card says where the rows lie."""
    repo, packed = studio.repo(row.repo), studio.root / ".drawn" / row.repo
    (archive,) = row.media[0].files
    has_names, inside = "video_id" in row.columns, row.options["roots"][1]
    rows = []
    for i in range(ROWS):
        name, caption = f"video{i}", f"{WHAT[i % 3]}, clip {i}"
        studio.clip(packed / inside / f"{name}.mp4")
        names = {"video_id": name, "video": f"{name}.mp4"} if has_names else {"video": f"train/{name}.mp4"}
        rows.append({**names, "caption": [caption, "another"] if has_names else caption})
    name = f"{row.name}_{row.split}.json"
    studio.write(repo / name, json.dumps(rows).encode())
    lines = ["---", "configs:", f"- config_name: {row.config or 'default'}", "  data_files:", f"  - split: {row.split}"]
    studio.write(repo / "README.md", "\n".join([*lines, f"    path: {name}", "---", ""]).encode())
    if archive.endswith(".zip"):
        studio.archive(repo / archive, packed)
    else:
        studio.archive(repo / archive.removesuffix("-*"), packed, parts=2)


def clip_labels(row: SourceSet, studio: Studio) -> None:
    """Labels of clips that lie in a folder; the last comes as frames."""
    repo = studio.repo(row.repo)
    rows = []
    for i in range(ROWS):
        number = 74225 + i
        rows.append(
            {
                "video_id": number,
                "pos_text": f"pushing thing {i}",
                "video_path": f"{number}.webm",
                "neg_text": ["a", "b"],
            }
        )
        if i == ROWS - 1:
            studio.frames(repo / "frames" / str(number), FRAMES)
        else:
            studio.clip(repo / "videos" / f"{number}.mp4")
    studio.parquet(repo / "data" / f"{row.split}-00000-of-00001.parquet", rows)


MINIATURES: dict[str, Callable[[SourceSet, Studio], None]] = {
    "llava_hound_answers": llava_hound_answers,
    "llava_hound_videos": llava_hound_answers,
    "clip_captions": clip_captions,
    "clip_labels": clip_labels,
}
"""What draws the repository of a set, by the name of its converter."""
