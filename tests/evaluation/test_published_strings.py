"""The rows of MMEB and MMEB-V2 write the strings of the published evaluation, character for character."""

from pathlib import Path

import pytest

from mmembed.evaluation.benchmark import read_benchmark
from mmembed.evaluation.vectors import asked
from mmembed.items import Item, Video
from mmembed.models.prompts import render
from mmembed.models.settings import RawPrompt
from mmembed.settings import load_yaml

ROOT = Path(__file__).parents[2]
STRINGS = load_yaml(ROOT / "tests/golden/mmeb/strings.yaml")["tasks"]
BENCHMARKS = {name: read_benchmark(ROOT / f"eval/benchmarks/{name}.yaml") for name in ("mmeb_v2", "mmeb_v2_extra")}
TASKS = {name: task for benchmark in BENCHMARKS.values() for name, task in benchmark.tasks.items()}
CASES = [
    (name, number, side, version)
    for name, entry in STRINGS.items()
    for number, sample in enumerate(entry["samples"])
    for side in ("query", "target")
    for version in (None, *sample.get("worded", {}))
]
IMAGE, VIDEO = "<|image_pad|>", "<|video_pad|>"


def stored_item(fields):
    """An item as a retrieval set holds it."""
    media = {"image": "a.png"} if fields.get("image") else {"video": "clip"} if fields.get("video") else {}
    return Item.of({**media, **{name: fields[name] for name in ("text", "instruction") if name in fields}})


def written(item):
    words = [VIDEO if isinstance(medium, Video) else IMAGE for medium in item.media]
    return "".join(segment.text for segment in render(item, RawPrompt(), words, image_word=IMAGE))


def test_every_task_of_the_benchmarks_has_its_strings():
    assert set(STRINGS) == set(TASKS)
    assert len(STRINGS) == 84
    assert sum(version is not None for *_, version in CASES) == 2 * (24 - 6 + 5)


@pytest.mark.parametrize(("name", "number", "side", "version"), CASES)
def test_a_row_writes_the_published_string(name, number, side, version):
    sample = STRINGS[name]["samples"][number]
    task = TASKS[name] if version is None else TASKS[name].worded(version)
    expected = (sample if version is None else sample["worded"][version])[side]

    items = asked(task, side, {"first": stored_item(sample[f"{side}_item"])})

    assert written(items["first"]) == expected
