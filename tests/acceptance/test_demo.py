"""The demo as a person runs it: from nothing to a report, and a second time for free."""

import json
from functools import partial

import pytest
from bs4 import BeautifulSoup

from data_prep.demo_gallery import INSTRUCTIONS, make_gallery
from data_prep.demo_scenes import Studio, draw_pair
from mmembed.serve.query import Query
from mmembed.serve.search import Searcher
from scripts.embed import main as embed
from tests.acceptance.running import run_script

TASKS = {
    "image_to_caption": {"grey_image"},
    "caption_to_image": {"shuffle_words"},
    "question": {"no_instruction"},
    "video_to_caption": {"shuffle_frames"},
    "caption_to_video": {"targets.shuffle_frames"},
    "region_to_label": {"no_region"},
    "words_to_page": {"targets.blank_page"},
    "composed": {"no_image", "no_text"},
}
"""The tasks, and the ways each is blinded."""

pytestmark = pytest.mark.acceptance


run_demo = partial(run_script, "demo.py")


def marked_objects_found(folder, tool):
    """How many objects of new pictures, marked as on the page, find their like first in the region-indexed gallery."""
    make_gallery(folder / "gallery", 1, pictures=240, clips=0, pages=0)
    model, table = folder / "runs/demo/final", folder / "gallery/items.jsonl"
    index = ["--model", str(model), "--input", str(table), "--output", str(folder / "index"), "--regions"]
    assert embed([*index, "--region-instruction", INSTRUCTIONS["region"]]) == 0
    searcher = Searcher.open(str(model), folder / "index", device="cpu")
    # the same seed draws the same scenes, of which the table does not tell the names
    gallery = [scene for scene, _ in Studio(folder / "again", 1).scenes("pictures", [draw_pair] * 240)]
    found = []
    for scene, path in Studio(folder / "new", 99).scenes("pictures", [draw_pair] * 30):
        for thing, (x0, y0, x1, y1) in zip(scene.objects, scene.boxes, strict=True):
            query = Query().with_picture(path, searcher.model.settings.backbone.media)
            places = [(x0, y0), (x1, y1)] if tool == "box" else [((x0 + x1) / 2, (y0 + y1) / 2)]
            for place in places:
                query = query.clicked(tool, *place)
            hit = searcher.search(query.item(INSTRUCTIONS), 1)[0]
            things = gallery[int(hit.id.removeprefix("picture-"))].objects
            found.append(hit.region > 0 and things[hit.region - 1] == thing)
    return sum(found), len(found)


def test_quick_demo_walks_the_whole_path_and_a_second_call_does_nothing_again(tmp_path):
    said = run_demo(tmp_path, "--quick")

    output = tmp_path / "runs/demo-quick"
    scores = json.loads((output / "scores.json").read_text())
    assert "drawn: " in said
    assert "\ntrained: " in said
    assert sorted(scores["tasks"]) == sorted(TASKS)
    assert scores["partial"] is False
    assert (output / "final/embedder.yaml").is_file()
    page = BeautifulSoup((output / "report.html").read_text(), "html.parser")
    assert len(page.find_all("img")) >= 10

    stamps = {path: path.stat().st_mtime_ns for path in output.rglob("*") if path.is_file()}
    again = run_demo(tmp_path, "--quick")

    assert "there already: " in again
    assert "already trained: " in again
    assert all(name in again for name in TASKS)
    assert {path: path.stat().st_mtime_ns for path in output.rglob("*") if path.is_file()} == stamps


def test_another_seed_draws_and_trains_anew(tmp_path):
    run_demo(tmp_path, "--quick")

    said = run_demo(tmp_path, "--quick", "--seed", "1")

    assert "drawn: " in said
    assert "\ntrained: " in said


def test_the_demo_passes_its_own_examination(tmp_path):
    run_demo(tmp_path)

    scores = json.loads((tmp_path / "runs/demo/scores.json").read_text())["tasks"]
    for name, blinds in TASKS.items():
        task = scores[name]
        print(name, task["score"], task["chance"], task["blinds"])
        assert task["queries"] >= 200
        assert task["blinds"].keys() == blinds
        assert task["score"] >= 3 * task["chance"], name
        assert task["score"] - max(task["blinds"].values()) >= 0.3, name
        assert task["score"] >= 0.8, name
    for tool in ("box", "inside"):
        right, asked = marked_objects_found(tmp_path, tool)
        print(f"marked by {tool}: {right} of {asked} found first in the gallery")
        assert right >= 0.9 * asked >= 40
