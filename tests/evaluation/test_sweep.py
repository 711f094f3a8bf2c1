"""Sweeps over the share of the words: the composers' own scores, without a model for any share."""

import json
from dataclasses import replace

import PIL.Image
import pytest
import torch

from eval.sweep import main
from mmembed import Embedder
from mmembed.counters import counting
from mmembed.errors import InputError
from mmembed.evaluation.baselines import Parts
from mmembed.evaluation.benchmark import read_benchmark
from mmembed.evaluation.crew import Crew
from mmembed.evaluation.evaluate import evaluate_task
from mmembed.evaluation.retrieval_set import read_retrieval_set
from mmembed.evaluation.sweep import Point, Sweep, composed, shares
from mmembed.models.settings import Slerp, Sum
from tests.evaluation import drawn
from tests.families import family_settings

BENCHMARK = """
tasks:
  composed: {data: composed, metric: mrr@10, query_instruction: "", blind: [no_text]}
  pictures: {data: pictures, metric: hit@1}
"""


def clip(pooler=None):
    torch.manual_seed(0)
    return Embedder(replace(family_settings("clip"), pooler=pooler), texts=["red"]).eval()


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("sweep")
    drawn.draw_gallery(root)
    (root / "toy.yaml").write_text(BENCHMARK)
    clip().save(root / "model")
    return root


def sweep(root, output, *more, tasks="composed"):
    places = ["--benchmark", str(root / "toy.yaml"), "--data-root", str(root / "data"), "--cache", str(root / "cache")]
    return main(["--model", str(root / "model"), *places, "--tasks", tasks, "--output", str(output), *more])


@pytest.mark.parametrize(("rule", "alpha", "pooler"), [("slerp", 0.3, Slerp(0.3)), ("sum", 0.8, Sum(0.2))])
def test_a_point_is_the_score_of_the_model_with_that_composer(root, tmp_path, rule, alpha, pooler):
    assert sweep(root, tmp_path, "--alpha", f"0,{alpha},1") == 0

    row = json.loads((tmp_path / "sweep.json").read_text())["tasks"]["composed"]
    task = read_benchmark(root / "toy.yaml").tasks["composed"]
    model = evaluate_task(task, read_retrieval_set(root / "data/composed"), Crew(clip(pooler).encode))
    assert {point["alpha"]: point["score"] for point in row["curves"][rule]}[alpha] == pytest.approx(model.score)
    assert row["metric"] == "mrr@10"
    assert len(row["protocol_id"]) == 12


def test_no_share_costs_a_model(root, tmp_path):
    with counting() as few:
        sweep(root, tmp_path, "--alpha", "0.5", "--cache", str(tmp_path / "few"))
    with counting() as many:
        sweep(root, tmp_path, "--alpha", "0:1:0.02", "--cache", str(tmp_path / "many"))
    with counting() as again:
        sweep(root, tmp_path, "--alpha", "0:1:0.1", "--cache", str(tmp_path / "many"))

    for name in ("tower_forwards", "language_rows"):
        assert many[name] == few[name] > 0
        assert again[name] == 0


def test_the_table_marks_the_best_and_the_curve_is_a_picture(root, tmp_path, capsys):
    assert sweep(root, tmp_path) == 0

    printed = capsys.readouterr().out
    row = json.loads((tmp_path / "sweep.json").read_text())["tasks"]["composed"]
    assert len(row["curves"]["slerp"]) == len(row["curves"]["sum"]) == 11
    for rule in ("slerp", "sum"):
        best = row["best"][rule]
        assert best["score"] == max(point["score"] for point in row["curves"][rule])
        assert f"composed: best {rule}: {100 * best['score']:.1f} at alpha {best['alpha']:g}" in printed
    assert row["protocol_id"] in printed
    with PIL.Image.open(tmp_path / "sweep.png") as picture:
        assert picture.format == "PNG"
        assert min(picture.size) > 300


def test_a_task_of_other_queries_is_refused(root, tmp_path, capsys):
    assert sweep(root, tmp_path, tasks="pictures") == 2

    assert "pictures: expected composed queries, each a picture and words, got others" in capsys.readouterr().err


def test_shares_are_a_range_or_a_list():
    assert shares("0:1:0.25") == [0, 0.25, 0.5, 0.75, 1]
    assert shares("0.2,0.5") == [0.2, 0.5]
    assert len(shares("0:1:0.1")) == 11
    assert shares("0:1:0.6") == [0, 0.6]


@pytest.mark.parametrize("words", ["", "a", "0:1", "0:1:0", "0:2:0.5", "-1,0", "1:0:0.1", "0:inf:1"])
def test_shares_that_are_none_are_refused(words):
    with pytest.raises(InputError, match="--alpha: expected shares from 0 to 1"):
        shares(words)


def test_of_equal_scores_the_most_even_share_is_the_best():
    points = [Point(0.1, 0.5), Point(0.4, 0.5), Point(0.9, 0.5), Point(1.0, 0.2)]

    assert Sweep("t", "hit@1", "0" * 12, {"sum": points}).best("sum").alpha == 0.4


def test_the_ends_are_the_halves():
    parts = Parts(torch.nn.functional.normalize(torch.randn(3, 5), dim=-1), torch.randn(3, 5))

    for rule in ("slerp", "sum"):
        assert torch.allclose(composed(rule, 0.0, parts), parts.image, atol=1e-6)
        text = torch.nn.functional.normalize(parts.text, dim=-1)
        assert torch.allclose(composed(rule, 1.0, parts), text, atol=1e-6)
