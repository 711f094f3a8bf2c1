"""The demo of composed retrieval as a person runs it: every composer and the demo's model on one page."""

import json
from functools import partial

import pytest
from bs4 import BeautifulSoup

from scripts.demo_cir import COMPOSERS
from tests.acceptance.running import run_script

TASK = "composed"
HALF = 0.55
"""What a picture or words alone must stay below."""

pytestmark = pytest.mark.acceptance


run_demo = partial(run_script, "demo_cir.py")


def row_of(folder, name):
    return json.loads((folder / f"runs/demo-cir/{name}/scores.json").read_text())["tasks"][TASK]


def test_the_quick_demo_compares_every_composer_and_a_second_call_computes_nothing(tmp_path):
    run_script("demo.py", tmp_path, "--quick")
    run_demo(tmp_path, "--quick")

    output = tmp_path / "runs/demo-cir"
    page = BeautifulSoup((output / "report.html").read_text(), "html.parser")
    rows = page.select("table.runs tbody tr")
    assert [row.select_one("th").text for row in rows] == [*COMPOSERS, "vlm"]
    assert len(page.select("table.answers th img")) > 0

    stamps = {
        path: path.stat().st_mtime_ns for path in output.rglob("*") if path.name != "report.html" and path.is_file()
    }
    run_demo(tmp_path, "--quick")

    assert stamps == {path: path.stat().st_mtime_ns for path in stamps}


def test_neither_half_of_a_composed_query_is_enough(tmp_path):
    said = run_demo(tmp_path)

    print(said)
    assert row_of(tmp_path, "image")["score"] < HALF
    assert row_of(tmp_path, "text")["score"] < HALF
    for name in COMPOSERS:
        assert set(row_of(tmp_path, name)["blinds"]) == {"no_image", "no_text"}
    # a trained network says something of the picture: reported as measured, above chance
    assert row_of(tmp_path, "lincir")["score"] > row_of(tmp_path, "lincir")["chance"]
