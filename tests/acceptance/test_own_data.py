"""The page on one's own data, walked: pictures and a CSV become a model that found more than before, and its export."""

import csv
import itertools
import json
import os
import random
import shlex
import subprocess
import sys

import numpy as np
import PIL.Image
import pytest
import torch
from sentence_transformers import SentenceTransformer

from data_prep.own.miniature import COLOURS, GROUNDS, SHAPES, SIDE, draw
from mmembed import Embedder
from mmembed.media.settings import MediaSettings
from mmembed.models.settings import EmbedderSettings, QwenVL, RawPrompt, Scratch
from tests.acceptance.running import ROOT

SIZES = {"large": 1.0, "small": 0.6, "tiny": 0.35}
WORDS = " ".join((*SIZES, *COLOURS, *SHAPES, *GROUNDS, "a on"))
FIND_TEXT, FIND_PICTURE = "Find the words that describe the picture:", "Find the picture that the words describe:"
TASKS = ("text_to_picture", "picture_to_text")

pytestmark = pytest.mark.acceptance


def draw_photos(folder):
    """216 pictures, each with words of its own, and a CSV as a spreadsheet writes it."""
    (folder / "photos").mkdir()
    rows = []
    for number, (ground, colour, shape, size) in enumerate(itertools.product(GROUNDS, COLOURS, SHAPES, SIZES)):
        side = round(SIDE * SIZES[size])
        picture = PIL.Image.new("RGB", (SIDE, SIDE), ground)
        picture.paste(draw(shape, colour, ground).resize((side, side)), ((SIDE - side) // 2,) * 2)
        picture.save(folder / f"photos/{number:03d}.png")
        rows.append((f"{number:03d}.png", f"a {size} {colour} {shape}", f"on {ground}"))
    random.Random(0).shuffle(rows)
    with (folder / "products.csv").open("w", newline="", encoding="utf-8-sig") as file:
        csv.writer(file, delimiter=";").writerows([("file", "title", "ground"), *rows, rows[0]])


def save_model(folder):
    """A tiny Qwen2-VL that knows these words and nothing else."""
    torch.manual_seed(0)
    text = {
        "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "rope_parameters": {"rope_type": "default", "rope_theta": 10.0, "mrope_section": [2, 3, 3]},
    }  # fmt: skip
    vision = {"depth": 2, "embed_dim": 64, "num_heads": 4, "mlp_ratio": 2, "patch_size": 7}
    backbone = QwenVL(
        scratch=Scratch("qwen2_vl", vocab_size=512, text=text, vision=vision), resize="torchvision",
        media=MediaSettings(alpha="white"), min_pixels=196, max_pixels=784, min_side=0,
    )  # fmt: skip
    Embedder(EmbedderSettings(backbone, RawPrompt()), texts=[WORDS, FIND_TEXT, FIND_PICTURE]).save(folder)


def run(folder, words):
    """What a command prints; it must end well."""
    done = subprocess.run(
        [sys.executable, str(ROOT / words[0]), *words[1:]], cwd=folder, text=True, capture_output=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)}, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


OWN_DATA = [
    *("scripts/own_data.py", "--pictures", "photos", "--csv", "products.csv", "--picture-column", "file"),
    *("--text-column", "title", "ground", "--model", "tiny", "--train", "all", "--steps", "300"),
    *("--stages.main.optim.lr", "2e-3", "--stages.main.sampling", '{"batch_size": 32, "block_size": 32}'),
    *("--threads", "1", "--stages.main.workers", "0", "--stages.main.cache_mb", "64"),
]


@pytest.fixture(scope="module")
def walked(tmp_path_factory):
    folder = tmp_path_factory.mktemp("own")
    draw_photos(folder)
    save_model(folder / "tiny")
    return folder, run(folder, OWN_DATA)


def scores(folder, name):
    return json.loads((folder / "runs/products" / name / "scores.json").read_text())["tasks"]


def test_the_trained_model_finds_more_than_before_and_than_chance_and_not_blindly(walked):
    folder, said = walked

    before, after = scores(folder, "before"), scores(folder, "after")
    for task in TASKS:
        print(task, before[task]["score"], after[task]["score"], after[task]["chance"], after[task]["blinds"])
        assert after[task]["queries"] >= 20
        assert after[task]["score"] >= before[task]["score"] + 0.2, task
        assert after[task]["score"] >= 5 * after[task]["chance"], task
        assert after[task]["score"] >= max(after[task]["blinds"].values()) + 0.2, task
        assert after[task]["protocol_id"] == before[task]["protocol_id"]
    assert "products.csv: 217 rows, utf-8, columns between semicolons\ndifferent pairs: 216;" in said
    assert said.count("chance 4.5") == len(TASKS)
    page = (folder / "runs/products/report.html").read_text()
    assert "before" in page
    assert page.count("<img") >= 12


def test_the_export_opens_in_sentence_transformers_with_the_same_vectors(walked):
    folder, said = walked

    ours = Embedder.from_pretrained(folder / "runs/products/run/final", device="cpu")
    theirs = SentenceTransformer(str(folder / "runs/products/export"), device="cpu")

    assert 'SentenceTransformer("runs/products/export")' in said
    paths = [folder / f"photos/{number:03d}.png" for number in range(0, 200, 40)]
    for prompt in (FIND_TEXT, None):
        vectors = ours.encode([{"image": path} for path in paths], instruction=prompt).numpy()
        for given in (PIL.Image.open, str):
            found = theirs.encode([{"image": given(path)} for path in paths], prompt=prompt)
            assert np.abs(found - vectors).max() <= 1e-5
    texts = ["a large red circle\non white", "a tiny blue bar\non pink"]
    vectors = ours.encode(texts, instruction=FIND_PICTURE).numpy()
    assert np.abs(theirs.encode(texts, prompt=FIND_PICTURE) - vectors).max() <= 1e-5


def test_a_second_call_does_nothing_again_and_each_command_shown_works_alone(walked):
    folder, said = walked
    output = folder / "runs/products"
    stamps = {path: path.stat().st_mtime_ns for path in (output / "run/final").iterdir()}
    stamps |= {path: path.stat().st_mtime_ns for path in (output / "after").rglob("*.jsonl")}

    again = run(folder, OWN_DATA)

    assert "already trained: " in again
    assert again.count("there already: ") >= 7
    assert {path: path.stat().st_mtime_ns for path in stamps} == stamps
    shown = [line.removeprefix("$ python ") for line in said.splitlines() if line.startswith("$ python ")]
    assert [shlex.split(line)[0] for line in shown] == [
        "data_prep/own_data.py", "scripts/train.py", "eval/run.py", "scripts/train.py", "eval/run.py",
        "eval/side_by_side.py", "eval/compare.py", "scripts/export.py",
    ]  # fmt: skip
    for line in (shown[0], shown[2], shown[3], shown[6]):
        run(folder, shlex.split(line))
