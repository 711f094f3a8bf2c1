"""Miniatures of the video sets of MMEB-V2: rows in the files of their publishers, frames in the archives of MMEB-V2."""

import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from data_prep.converters.clips_ranked.labels import read_labels
from data_prep.converters.clips_ranked.questions import MVBENCH_CLIPS
from data_prep.miniatures.studio import Studio
from data_prep.source import SourceSet

VIDEOS = 3
"""Clips of a set."""
STORED = (64, 10, 5)
"""Frames stored of the clips of a set, one after another."""
CLIP_FRAMES = 70
"""Frames of a clip, which are more than are stored of one."""
PARTS = 5
"""Pieces that the archive of the question answering frames comes in."""

WHAT = ("a red ball rolls away", "two boxes are stacked", "a door opens slowly")
FILES = {
    "MSR-VTT": "msrvtt_test_1k.json",
    "MSVD": "msvd_test.json",
    "MSVD_clips": "msvd_test.json",
    "DiDeMo": "didemo_test.json",
    "YouCook2": "data/val-00000-of-00001.parquet",
    "QVHighlight": "data/test.jsonl",
    "NExTQA": "MC/test-00000-of-00001.parquet",
    "EgoSchema": "Subset/test-00000-of-00001.parquet",
    "Video-MME": "videomme/test-00000-of-00001.parquet",
    **dict.fromkeys(("K700", "HMDB51", "UCF101", "Breakfast", "SmthSmthV2"), "data/test.jsonl"),
}
"""Where a set's rows lie in their repository, where that is not the usual place of a Parquet file."""


def video_labels(row: SourceSet, studio: Studio) -> None:
    """Clips and their labels."""
    labels = read_labels(row.options["labels"])
    rows = [{"video_id": f"{row.name}_{i:03d}", "pos_text": labels[-1 - 2 * i]} for i in range(VIDEOS)]
    _publish(row, studio, rows)
    _store(row, studio, {record["video_id"]: STORED[i] for i, record in enumerate(rows)})


def video_options(row: SourceSet, studio: Studio) -> None:
    """Clips, their label and options that hold it; numbers name the clips."""
    options = ["holding pen", "dropping cup", "pushing a thing from left to right", "turning page"]
    rows = [
        {"video_id": str(74225 + i), "pos_text": options[i], "neg_text": options[: 4 - i % 2]} for i in range(VIDEOS)
    ]
    _publish(row, studio, rows)
    _store(row, studio, {record["video_id"]: 8 for record in rows})


def video_captions(row: SourceSet, studio: Studio) -> None:
    """Clips and captions, one or several a clip."""
    options, rows, stored = row.options, [], {}
    of = row.repo.rpartition("/")[2]
    several, folder = of in ("MSVD", "VATEX"), "videos/val/" if of in ("DiDeMo", "YouCook2") else ""
    for i, what in enumerate(WHAT):
        name, captions = f"{of.lower()}{7010 + i}", [f"{what} in {of}", f"{what} again"]
        record: dict[str, Any] = {options["caption"]: captions if several else captions[0], "segment": [0.0, 4.5]}
        record |= {options[key]: f"{folder}{name}.mp4" for key in ("clip",) if key in options}
        record |= {options[key]: name for key in ("name",) if key in options}
        rows.append(record)
        stored[name] = STORED[i]
    _publish(row, studio, rows)
    if "frames" in options:
        _store(row, studio, stored)
    else:
        for name in stored:
            studio.clip(studio.repo(row.repo) / row.media[0].root / f"{name}.mp4", frames=CLIP_FRAMES)


def sibling_clips(row: SourceSet, studio: Studio) -> None:
    """Videos, and clips of them beside each other in folders that are not in natural order on every disk."""
    names = [f"{row.name}_{i}_60.0_210.0" for i in range(VIDEOS)]
    rows = [{"query": f"when {WHAT[i]}", "video_path": f"videos/{names[i]}.mp4"} for i in range(VIDEOS)]
    _publish(row, studio, rows)
    folders = {"query": 64, "negative_10": 5, "negative_2": 8, "positive_1": 8}
    _store(row, studio, {f"{name}/{folder}": count for name in names for folder, count in folders.items()})


def moments(row: SourceSet, studio: Studio) -> None:
    """The three kinds of queries, one of them with two right clips; a picture beside the folders of the frames."""
    clips = [f"videos/{where}/{i}_334.00_338.00.mp4" for i, where in enumerate(("ego", "movie", "sports", "ego"))]
    rows: list[dict[str, Any]] = []
    for i, (size, given) in enumerate(((1, ""), (2, "movie_17.jpg"), (1, "movie101/77.mp4"))):
        found = [{"output_path": path, "start": 334.0} for path in clips[i:]]
        columns = {"positive_frames": found[:size], "negative_frames": found[size:], "input_frames": given}
        rows.append({"query": WHAT[i], **columns})
    _publish(row, studio, rows)
    stored = {path.removesuffix(".mp4").replace("/", "_"): 8 - i for i, path in enumerate(clips)}
    _store(row, studio, stored | {"movie101_77": 4}, ["query_movie_17.jpg"])


def mvbench(row: SourceSet, studio: Studio) -> None:
    """A question of each configuration; of the one that is published as frames the clip's name has no suffix."""
    repo, stored = studio.repo(row.repo), {}
    for i, config in enumerate(MVBENCH_CLIPS):
        video = "castle_s01e02_seg02_clip_09" if config == "episodic_reasoning" else f"{config}_{i}.mp4"
        options = ["yes", "no", "not sure"][: 2 + i % 2]
        record = {"video": video, "question": f"Is it {config}?", "candidates": options, "answer": options[i % 2]}
        studio.write(repo / f"json/{config}.json", json.dumps([record]).encode())
        stored[f"{config}/{video}"] = STORED[2] if i else STORED[1]
    _describe(repo, {config: {"train": f"json/{config}.json"} for config in MVBENCH_CLIPS})
    _store(row, studio, stored)


def videomme(row: SourceSet, studio: Studio) -> None:
    """Questions with four options behind letters."""
    rows = [
        {"video_id": f"00{i}", "videoID": f"fFjv93ACGo{i}", "question_id": f"00{i}-1", "domain": "Knowledge",
         "sub_category": "Humanity & History", "question": f"What happens when {what}?",
         "options": ["A. Apples.", "B. 1.5 m.", f"C. {what}.", "D. None of the above."], "answer": "CAD"[i]}
        for i, what in enumerate(WHAT)
    ]  # fmt: skip
    _publish(row, studio, rows, {"videomme": {"test": FILES[row.name]}})
    _store(row, studio, {record["videoID"]: 6 for record in rows})


def nextqa(row: SourceSet, studio: Studio) -> None:
    """Questions with five options; numbers name the clips."""
    rows = [
        {"video": 4740931975 + i, "frame_count": 900, "question": f"why did {what}", "answer": i, "qid": i,
         "type": "CW", "a0": "to play", "a1": what, "a2": "it was hungry", "a3": "to rest ", "a4": "wind"}
        for i, what in enumerate(WHAT)
    ]  # fmt: skip
    _publish(row, studio, rows)
    _store(row, studio, {str(record["video"]): 6 for record in rows})


def egoschema(row: SourceSet, studio: Studio) -> None:
    """Questions with five options behind letters; the answer is a number in words."""
    rows = [
        {"question_idx": str(i), "question": f"Taking into account that {what}, what is c doing?",
         "video_idx": f"0074f7{i}", "answer": str(i),
         "option": [f"A. C cooks. {i}", "B. C cleans.", "C. C reads.", "D. C rests.", "E. C runs."]}
        for i, what in enumerate(WHAT)
    ]  # fmt: skip
    _publish(row, studio, rows)
    _store(row, studio, {record["video_idx"]: 6 for record in rows})


def activitynetqa(row: SourceSet, studio: Studio) -> None:
    """Questions that are answered by yes or no."""
    rows = [
        {"video_name": f"1QIUV7WYKX{i}", "question": f"is it true that {what}", "answer": ("yes", "no")[i % 2],
         "question_id": f"v_1QIUV7WYKX{i}_1", "type": 3}
        for i, what in enumerate(WHAT)
    ]  # fmt: skip
    _publish(row, studio, rows)
    _store(row, studio, {f"v_{record['video_name']}": 6 for record in rows})


def _publish(
    row: SourceSet, studio: Studio, rows: list[dict[str, Any]], configs: Mapping[str, Mapping[str, str]] | None = None
) -> None:
    """Write a set's rows where its publisher has them; a README says so where the place is not the usual one."""
    repo = studio.repo(row.repo)
    name = FILES.get(row.name, f"data/{row.split}-00000-of-00001.parquet")
    if name.endswith(".parquet"):
        studio.parquet(repo / name, rows)
    elif name.endswith(".jsonl"):
        studio.jsonl(repo / name, rows)
    else:
        studio.write(repo / name, json.dumps(rows).encode())
    if configs or not name.endswith(".parquet"):
        _describe(repo, configs or {row.config or "default": {row.split: name}})


def _describe(repo: Path, configs: Mapping[str, Mapping[str, str]]) -> None:
    lines = ["---", "configs:"]
    for config, splits in configs.items():
        lines += [f"- config_name: {config}", "  data_files:"]
        lines += [line for split, path in splits.items() for line in (f"  - split: {split}", f"    path: {path}")]
    (repo / "README.md").write_text("\n".join([*lines, "---", ""]))


def _store(row: SourceSet, studio: Studio, frames: Mapping[str, int], pictures: Iterable[str] = ()) -> None:
    """Draw folders of frames, and pack them with those of the sets drawn before into the archive they share.

    Args:
        row: the set, which says where its frames lie.
        studio: draws.
        frames: frames to draw, by the path of the folder below the set's.
        pictures: single pictures beside the folder that holds those.
    """
    (media,) = row.media
    into, _, below = row.options["frames"].partition("/")
    # video_cls and video_ret are packed without the folder of that name, the other two with it
    packed = studio.root / ".drawn" / into
    folder = packed / media.strip / below
    opencv = row.options.get("frame_rule") == "step"
    for name, count in frames.items():
        if opencv:
            studio.frames(folder / name, count, "{:04d}.jpeg", first=0)
        else:
            studio.frames(folder / name, count)
    for name in pictures:
        studio.picture(folder.parent / name)
    in_parts = media.files[0].endswith("-*")
    archive = studio.repo(media.repo or row.repo) / media.files[0].removesuffix("-*")
    studio.archive(archive, packed, parts=PARTS if in_parts else 1)


MINIATURES: dict[str, Callable[[SourceSet, Studio], None]] = {
    "video_labels": video_labels,
    "video_options": video_options,
    "video_captions": video_captions,
    "sibling_clips": sibling_clips,
    "moments": moments,
    "mvbench": mvbench,
    "videomme": videomme,
    "nextqa": nextqa,
    "egoschema": egoschema,
    "activitynetqa": activitynetqa,
}
