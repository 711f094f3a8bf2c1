"""SCaR from drawn rows to scores, controls and report, by the command that a reader would type."""

import json

import pytest

from eval.run import main as evaluate
from mmembed import Embedder
from mmembed.models.settings import EmbedderSettings, QwenVL, RoiReplay, Scratch, TextRegions

CONTROLS = ["no_image", "shuffled_region", "wrong_region", "crop", "coordinates"]
WORDS = [
    "Find the caption that best describes the segmented object, red green blue yellow circle square triangle left "
    "right above below of on grass sand water brick Referring object bbox: [0123456789.]"
]

pytestmark = pytest.mark.acceptance


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("scar")


def scored(root, regions, *options):
    name = "-".join([type(regions).__name__, *options]).replace("--", "")
    model = root / f"{type(regions).__name__}"
    if not model.exists():
        Embedder(EmbedderSettings(QwenVL(scratch=Scratch()), regions=regions), texts=WORDS).save(model)
    output = root / f"eval {name}"
    command = ["--model", str(model), "--benchmark", "scar", "--miniature", "--data-root", str(root / "data")]
    status = evaluate([*command, "--cache", str(root / "cache"), "--output", str(output), *options])
    return status, json.loads((output / "scores.json").read_text()), output


@pytest.mark.parametrize("regions", [RoiReplay(), TextRegions()], ids=["roi_replay", "text"])
def test_a_model_with_regions_is_scored_with_controls_and_by_kind_of_swap(root, regions):
    status, scores, output = scored(root, regions)

    assert (status, scores["failed"], len(scores["tasks"])) == (0, {}, 5)
    assert scores["means"]["overall"]["tasks"] == 5
    for row in scores["tasks"].values():
        assert row["chance"] == pytest.approx(0.1)
        assert list(row["blinds"]) == CONTROLS
        assert row["blind"] == max(row["blinds"][name] for name in CONTROLS[:3])
        swaps = row["candidate_groups"]["swap"]
        assert {kind: round(own["chance"], 6) for kind, own in swaps.items()} == {
            "object": 0.25, "relation": 0.25, "scene": 0.25,
        }  # fmt: skip
    assert "wrong ones of one swap alone" in (output / "report.html").read_text()
    assert "| RefCOCOg | swap object |" in (output / "report.md").read_text()


@pytest.mark.parametrize("prompts", ["coordinates", "crop"])
def test_a_model_without_regions_is_scored_in_words_or_on_crops(root, prompts, capsys):
    status, scores, _ = scored(root, None, "--prompts", prompts, "--tasks", "RefCOCOg")

    assert (status, scores["failed"]) == (0, {})
    row = scores["tasks"]["RefCOCOg"]
    # the form is the control of that name
    assert row["score"] == row["blinds"][prompts]


def test_a_model_without_regions_is_told_what_to_do(root, capsys):
    status, scores, _ = scored(root, None, "--tasks", "RefCOCOg")

    assert status == 1
    assert "this model has no region encoder" in scores["failed"]["RefCOCOg"]
