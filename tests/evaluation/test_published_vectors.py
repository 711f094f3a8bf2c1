"""The evaluation path gives the vectors of the published code: set, row, prompt, model, embeddings file."""

import json
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import numpy as np
import PIL
import pytest
from packaging.version import Version
from safetensors.numpy import load_file

from mmembed.data.tables import write_items
from mmembed.evaluation.benchmark import Benchmark, Task, read_benchmark
from mmembed.evaluation.crew import Crew
from mmembed.evaluation.runner import Evaluation, evaluate_benchmark
from mmembed.items import Image, Item, Video

ROOT = Path(__file__).parents[2]
GOLDEN = ROOT / "tests/golden/vlm2vec"
PUBLISHED = GOLDEN / "golden"
MARKS = {"<|image_pad|>": Image, "{IMG}": Image, "<|video_pad|>": Video, "{VID}": Video}
LAYOUT = "{media}{text}"


def raw_item(text, paths):
    """The picture or clip and the words of a published string that begins with a medium, or of one without."""
    mark = next((mark for mark in MARKS if text.startswith(mark)), None)
    if mark is None:
        return Item((text,), verbatim=False)
    files = tuple(GOLDEN / "inputs" / path for path in paths)
    medium = Image(files[0]) if MARKS[mark] is Image else Video(files, num_frames=len(files))
    return Item(tuple(part for part in (medium, text.removeprefix(mark)) if part), verbatim=False)


def cases(family):
    """Settings, and items with the vectors published under them: cases whose strings begin with their only medium."""
    records = json.loads((PUBLISHED / family / "golden.json").read_text())
    found = defaultdict(list)
    with np.load(PUBLISHED / family / "golden.npz") as arrays:
        for name, record in records.items():
            case = record["case"]
            rows = list(zip(case["texts"], case["images"], strict=True))
            if "error" in record or "max_len" in case or not all(begins_with_its_medium(*row) for row in rows):
                continue
            settings = tuple((key, case[key]) for key in ("min_pixels", "max_pixels", "padding_side") if key in case)
            # a string of blanks alone is no item here
            numbered = [(i, row) for i, row in enumerate(rows) if row[0].strip()]
            found[settings] += [(f"{name}-{i}", raw_item(*row), arrays[f"{name}/emb"][i]) for i, row in numbered]
    return found


def begins_with_its_medium(text, paths):
    """Whether a medium stands first and alone, or there is none."""
    marks = sum(text.count(mark) for mark in MARKS)
    return marks == 0 if not paths else marks == 1 and text.startswith(tuple(MARKS))


CASES = [(family, settings, rows) for family in ("qwen2_vl", "qwen2_5_vl") for settings, rows in cases(family).items()]


@pytest.mark.parametrize(("family", "settings", "published"), CASES)
def test_vectors_of_an_evaluation_equal_the_published_ones(family, settings, published, open_golden, tmp_path):
    if any(name.startswith("video_mixed") for name, _, _ in published) and Version(PIL.__version__) < Version("13"):
        pytest.skip("Pillow before 13 rounds otherwise where a picture grows one way and shrinks the other")
    task = Task("published", "published", "hit@1", query_layout=LAYOUT, target_layout=LAYOUT)

    items = {name: item for name, item, _ in published}
    vectors = vectors_of(task, items, open_golden(family, **dict(settings)), tmp_path)

    expected = np.stack([vector for _, _, vector in published])
    assert np.abs(vectors["queries"] - expected).max() <= 2e-6
    assert np.abs(vectors["targets"] - expected).max() <= 2e-6


ROWS = {
    "MSCOCO_t2i": (("text_batch", 1), {
        "instruction": "Find an image that matches the caption:",
        "text": "two people riding bicycles near the river at sunset.",
    }),
    "MSCOCO_i2t": (("text_batch", 0), {"text": "A cat and a dog"}),
    "MomentSeeker": (("img_224", 0), {"image": "images/a224.png", "instruction": "Represent the given image."}),
    "MVBench": (("video_text_batch", 2), {"video": [f"frames/vid7/0{i}.png" for i in range(7)], "text": "describe"}),
}  # fmt: skip
"""Tasks of MMEB-V2 whose rows write a string of which the published code gave the vector, and what its set holds."""
TARGETS = ("MSCOCO_i2t",)
OWN = {"MVBench": {"query_instruction": ""}}
"""Rows whose own instruction no such string has."""


@pytest.mark.parametrize("name", ROWS)
def test_a_row_of_the_benchmark_gives_the_published_vector(name, open_golden, tmp_path):
    (case, number), value = ROWS[name]
    row = replace(read_benchmark(ROOT / "eval/benchmarks/mmeb_v2.yaml").tasks[name], **OWN.get(name, {}))
    files = {kind: GOLDEN / "inputs" / path for kind, path in value.items() if kind == "image"}
    files |= {kind: [GOLDEN / "inputs" / path for path in paths] for kind, paths in value.items() if kind == "video"}

    vectors = vectors_of(
        replace(row, candidates="shared"), {"q": Item.of(value | files)}, open_golden("qwen2_vl"), tmp_path
    )  # fmt: skip

    with np.load(PUBLISHED / "qwen2_vl/golden.npz") as arrays:
        expected = arrays[f"{case}/emb"][number]
    assert np.abs(vectors["targets" if name in TARGETS else "queries"] - expected).max() <= 2e-6


def vectors_of(task, items, model, root):
    """The embeddings that an evaluation of items as queries and as targets writes."""
    folder = root / "data" / task.data
    folder.mkdir(parents=True)
    (folder / "inputs").symlink_to(GOLDEN / "inputs")
    for table in ("queries", "corpus"):
        write_items(folder / f"{table}.jsonl", ((name, below(folder, item)) for name, item in items.items()))
    (folder / "relevance.jsonl").write_text(
        "".join(json.dumps({"query_id": name, "targets": {name: 1}}) + "\n" for name in items)
    )
    evaluation = Evaluation(Benchmark("b", {task.name: task}), root / "data", root / "out", "golden")

    scores = evaluate_benchmark(evaluation, Crew(model.encode))

    assert scores["failed"] == {}
    return load_file(root / f"out/embeddings/{task.name}.safetensors")


def below(folder, item):
    """The item with its media under the folder's link."""

    def moved(part):
        if isinstance(part, str):
            return part
        if isinstance(part, Image):
            return Image(folder / "inputs" / part.source.relative_to(GOLDEN / "inputs"))
        frames = tuple(folder / "inputs" / frame.relative_to(GOLDEN / "inputs") for frame in part.source)
        return replace(part, source=frames)

    return replace(item, content=tuple(map(moved, item.content)))


def test_enough_published_strings_are_compared():
    assert sum(len(rows) for family, _, rows in CASES if family == "qwen2_vl") >= 15
