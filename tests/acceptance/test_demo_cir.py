"""The demo of composed retrieval as a person runs it: every composer and a vision-language model on one page."""

import json
from functools import partial

import pytest
from bs4 import BeautifulSoup

from mmembed import Embedder
from mmembed.models.settings import EmbedderSettings, QwenVL, Scratch
from scripts.demo_cir import COMPOSERS
from tests.acceptance.running import run_script

TASK = "composed"
HALF = 0.55
"""What a picture or words alone must stay below."""

pytestmark = pytest.mark.acceptance


run_demo = partial(run_script, "demo_cir.py")


def row_of(folder, name):
    return json.loads((folder / f"runs/demo-cir/{name}/scores.json").read_text())["tasks"][TASK]


def test_every_composer_stands_on_the_page_neither_half_is_enough_and_a_second_call_computes_nothing(tmp_path):
    # test_demo.py examines the demo's own model; here one that has learned nothing stands for it
    Embedder(EmbedderSettings(QwenVL(scratch=Scratch())), texts=["the left object is red"]).save(tmp_path / "vlm")
    asked = ("--vlm", "vlm")

    print(run_demo(tmp_path, *asked))

    output = tmp_path / "runs/demo-cir"
    page = BeautifulSoup((output / "report.html").read_text(), "html.parser")
    rows = page.select("table.runs tbody tr")
    assert [row.select_one("th").text for row in rows] == [*COMPOSERS, "vlm"]
    assert len(page.select("table.answers th img")) > 0
    assert row_of(tmp_path, "image")["score"] < HALF
    assert row_of(tmp_path, "text")["score"] < HALF
    for name in COMPOSERS:
        assert set(row_of(tmp_path, name)["blinds"]) == {"no_image", "no_text"}
    # a trained network says something of the picture: reported as measured, above chance
    assert row_of(tmp_path, "lincir")["score"] > row_of(tmp_path, "lincir")["chance"]

    stamps = {
        path: path.stat().st_mtime_ns for path in output.rglob("*") if path.name != "report.html" and path.is_file()
    }
    run_demo(tmp_path, *asked)

    assert stamps == {path: path.stat().st_mtime_ns for path in stamps}
