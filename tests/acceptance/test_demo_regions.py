"""The region demo as a person runs it: every encoder side by side, and roi_replay trained whole."""

import json
from functools import partial

import pytest
from bs4 import BeautifulSoup

from scripts.demo_regions import ENCODERS
from tests.acceptance.running import run_script

TASK = "region_to_label"

pytestmark = pytest.mark.acceptance


run_demo = partial(run_script, "demo_regions.py")


def row_of(folder, encoder):
    return json.loads((folder / f"runs/demo-regions/{encoder}/scores.json").read_text())["tasks"][TASK]


def test_the_quick_demo_trains_every_encoder_and_a_second_call_trains_none(tmp_path):
    run_demo(tmp_path, "--quick")

    output = tmp_path / "runs/demo-regions"
    page = BeautifulSoup((output / "report.html").read_text(), "html.parser")
    rows = page.select("table.runs tbody tr")
    assert [row.select_one("th").text for row in rows] == list(ENCODERS)
    assert len(page.select("table.answers th img")) > 0
    for encoder in ENCODERS:
        assert set(row_of(tmp_path, encoder)["blinds"]) == {"no_region", "wrong_region", "shuffled_region"}

    stamps = {
        path: path.stat().st_mtime_ns for path in output.rglob("*") if path.name != "report.html" and path.is_file()
    }
    run_demo(tmp_path, "--quick")

    assert stamps == {path: path.stat().st_mtime_ns for path in stamps}


def test_roi_replay_looks_where_it_is_pointed(tmp_path):
    said = run_demo(tmp_path, "--encoders", "roi_replay")

    row = row_of(tmp_path, "roi_replay")
    print(said)
    assert row["score"] - row["blinds"]["no_region"] >= 0.3
    assert row["blinds"]["wrong_region"] <= row["chance"] + 0.1
