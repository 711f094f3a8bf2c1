"""Store frames of clips as pictures, by the rules of VLM2Vec-V2 (arXiv:2507.04590): at most 64 of each clip.

``evenly`` takes frames at even distances (retrieval, classification, moments); ``step`` every n-th frame from the
first (the question answering sets). Pictures are JPEG files by Pillow: FFmpeg and OpenCV write other bytes.
"""

import argparse
import json
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from mmembed.errors import InputError, nearest
from mmembed.files import whole_directory, write_json
from mmembed.items import frame_files
from mmembed.media.readers import PyAVReader
from mmembed.media.sources import existing_file
from mmembed.progress import track

MOST = 64
"""Frames that are stored of a clip; 8 of them are used."""
QUALITY = 95
CLIP_SUFFIXES = (
    *(".mp4", ".mov", ".avi", ".mkv", ".flv", ".wmv", ".webm"),
    *(".mpg", ".mpeg", ".3gp", ".m4v", ".3g2", ".mts"),
)
"""What clips end in, in the order in which the published code looks for one under another suffix."""
NOTE = ".frames.json"
"""File beside the frames that says of which clip they are, and by which rule."""
MAX_SHOWN = 20
EXAMPLE = """examples:
  python data_prep/extract_frames.py clips --output frames
  python data_prep/extract_frames.py clips --output frames --rule step"""


def evenly(total: int, most: int) -> list[int]:
    """All frames, or ``most`` of them at even distances: ``i * total / most``, cut to integers."""
    return list(range(total)) if total <= most else [i * total // most for i in range(most)]


def step(total: int, most: int) -> list[int]:
    """Every n-th frame from the first, n the whole part of ``total / most``; at most ``most``."""
    return list(range(0, total, max(1, total // most)))[:most]


RULES: dict[str, tuple[Callable[[int, int], list[int]], str, int]] = {
    "evenly": (evenly, "frame_{:04d}.jpg", 1),
    "step": (step, "{:04d}.jpeg", 0),
}
"""Rule -> which frames, how their files are called, and the number of the first."""


def extract_frames(video: Path, folder: Path, most: int = MOST, rule: str = "evenly") -> Path:
    """Store frames of a clip in a folder, all of them or none; what the folder held is replaced.

    Args:
        video: the clip.
        folder: where its frames come to lie.
        most: frames that are stored at most.
        rule: one of :data:`RULES`.

    Returns:
        The folder.

    Raises:
        InputError: the clip is missing or does not decode, no such rule, or less than one frame.
    """
    if rule not in RULES:
        raise InputError("rule", expected="a rule", got=f"'{rule}'", remedy=nearest(rule, RULES))
    if most < 1:
        raise InputError("most", expected="1 frame or more", got=most, remedy=f"{MOST} is usual")
    picked, pattern, first = RULES[rule]
    reader = PyAVReader(existing_file(video), str(video))
    if reader.num_frames < 1:
        raise InputError(video, expected="at least one frame", got="0 frames", remedy="download it again")
    pictures = reader.frames(picked(reader.num_frames, most))
    with whole_directory(folder) as part:
        for number, picture in enumerate(pictures, first):
            picture.save(part / pattern.format(number), "JPEG", quality=QUALITY)
        write_json(part / NOTE, _note(video, most, rule))
    return folder


def are_there(video: Path, folder: Path, most: int = MOST, rule: str = "evenly") -> bool:
    """Whether a folder holds the frames that :func:`extract_frames` would store in it.

    Raises:
        InputError: it holds frames of another clip, or such as were not stored here: they are not to be replaced.
    """
    if not folder.is_dir() or not any(folder.iterdir()):
        return False
    try:
        said = json.loads((folder / NOTE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        said = None
    if not isinstance(said, dict) or said.get("clip") != video.name:
        got = "other files" if not isinstance(said, dict) else f"those of {said.get('clip')}"
        remedy = "take them away, or give another --output"
        raise InputError(folder, expected=f"nothing, or frames of {video.name}", got=got, remedy=remedy)
    return bool(said == _note(video, most, rule) and frame_files(folder))


def _note(video: Path, most: int, rule: str) -> dict[str, Any]:
    return {"clip": video.name, "bytes": video.stat().st_size, "rule": rule, "most": most}


def clips_of(folder: Path) -> list[Path]:
    """The clips below a folder, by their suffixes, sorted.

    Raises:
        InputError: there is none.
    """
    clips = sorted(path for path in folder.rglob("*") if path.suffix.lower() in CLIP_SUFFIXES)
    if not clips:
        got = "no such folder" if not folder.is_dir() else "none"
        raise InputError(folder, expected="clips (.mp4, .webm, ...)", got=got, remedy="check the folder")
    return clips


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; 0 is every clip stored, 1 some that failed, 2 none there."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLE, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("clips", type=Path, metavar="CLIPS", help="folder of clips, also in folders below it")
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="a folder for each clip comes here")
    parser.add_argument("--most", type=int, default=MOST, metavar="N", help=f"frames of each clip (default: {MOST})")
    parser.add_argument("--rule", choices=sorted(RULES), default="evenly", help="which frames (default: evenly)")
    options = parser.parse_args(argv)
    if options.most < 1:
        parser.error(f"argument --most: expected 1 or more, got {options.most}")
    try:
        clips = clips_of(options.clips)
    except InputError as error:
        print(error, file=sys.stderr)
        return 2
    failed, there = list[InputError](), 0
    folders = {clip: options.output / clip.relative_to(options.clips).with_suffix("") for clip in clips}
    shared = Counter(folders.values())
    for clip, folder in track(folders.items(), "extract", len(clips)):
        try:
            if shared[folder] > 1:
                remedy = "rename one of them"
                raise InputError(clip, expected="a folder of its own", got=f"'{folder}' for two clips", remedy=remedy)
            if are_there(clip, folder, options.most, options.rule):
                there += 1
            else:
                extract_frames(clip, folder, options.most, options.rule)
        except InputError as error:
            failed.append(error)
    print(f"{len(clips)} clips: {len(clips) - there - len(failed)} stored, {there} there before, {len(failed)} failed")
    for complaint in failed[:MAX_SHOWN]:
        print(f"  {complaint}", file=sys.stderr)
    if len(failed) > MAX_SHOWN:
        print(f"  and {len(failed) - MAX_SHOWN} more", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
