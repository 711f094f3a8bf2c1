"""eval/run.py on queries of several texts: scaled before they are averaged or after, and each in a cache of its own."""

import json
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file

from eval.run import main
from mmembed import Embedder
from mmembed.counters import counting
from mmembed.models.settings import RawPrompt
from tests.evaluation import toy

TEXTS = [("is red", "has sleeves"), ("is long", "")]
BENCHMARK = """
tasks:
  before: {data: dress, metric: hit@1, join: e5_v}
  after: {data: dress, metric: hit@1, join: searle}
"""


@pytest.fixture(scope="module")
def root(tmp_path_factory, scratch_embedder):
    root = tmp_path_factory.mktemp("joins")
    folder = root / "data/dress"
    queries = [{"id": f"q{i}", "content": list(texts), "verbatim": False} for i, texts in enumerate(TEXTS)]
    toy.write_rows(folder / "queries.jsonl", queries)
    toy.write_rows(folder / "corpus.jsonl", [{"id": f"d{i}", "text": f"dress {i}"} for i in range(3)])
    toy.write_rows(folder / "relevance.jsonl", [{"query_id": f"q{i}", "targets": {f"d{i}": 1}} for i in range(2)])
    (root / "toy.yaml").write_text(BENCHMARK)
    scratch_embedder("qwen2_vl", prompt=RawPrompt(suffix="<|im_end|>")).save(root / "model")
    return root


def run(root, output, tasks, *more):
    places = ["--benchmark", str(root / "toy.yaml"), "--data-root", str(root / "data"), "--cache", str(root / "cache")]
    assert main(["--model", str(root / "model"), *places, "--output", str(output), "--tasks", tasks, *more]) == 0
    return load_file(output / f"embeddings/{tasks.split(',')[0]}.safetensors") if not more else {}


@pytest.fixture
def raw(root):
    """The vectors of texts before they are scaled."""
    model = Embedder.from_pretrained(root / "model", device="cpu")
    model.settings = replace(model.settings, normalize=False)
    return lambda *texts: model.encode(list(texts))


def test_a_join_that_averages_before_scaling_gets_the_vectors_as_they_are(root, tmp_path, raw):
    vectors = run(root, tmp_path, "before")

    both = raw("is red, has sleeves", "has sleeves, is red")
    assert torch.allclose(vectors["queries"][0], F.normalize(both.mean(0), dim=0), atol=1e-6)
    assert torch.allclose(vectors["queries"][1], F.normalize(raw("is long")[0], dim=0), atol=1e-6)
    assert torch.allclose(vectors["targets"], F.normalize(raw("dress 0", "dress 1", "dress 2"), dim=-1), atol=1e-6)


def test_one_that_scales_before_gets_unit_vectors_out_of_another_space(root, tmp_path, raw):
    run(root, tmp_path / "a", "before")
    with counting() as work:
        vectors = run(root, tmp_path / "b", "after")

    each = F.normalize(raw("is red and has sleeves", "has sleeves and is red"), dim=-1)
    assert torch.allclose(vectors["queries"][0], F.normalize(each.mean(0), dim=0), atol=1e-6)
    identities = {json.loads((tmp_path / f"{name}/scores.json").read_text())["protocol"]["identity"] for name in "ab"}
    assert len(identities) == 2
    # nothing of the other space is taken: the three targets are embedded again
    assert work["language_rows"] == 3 + 3


def test_both_at_once_score_as_each_alone(root, tmp_path):
    run(root, tmp_path / "both", "before,after")
    for name in ("before", "after"):
        run(root, tmp_path / name, name)

    both = json.loads((tmp_path / "both/scores.json").read_text())["tasks"]
    for name in ("before", "after"):
        alone = json.loads((tmp_path / f"{name}/scores.json").read_text())["tasks"][name]
        assert alone["metrics"] == both[name]["metrics"]
        assert alone["protocol_id"] == both[name]["protocol_id"]


def test_what_is_cached_is_told_of_every_way_to_write_a_query(root, tmp_path, capsys):
    run(root, tmp_path, "after")
    capsys.readouterr()

    run(root, tmp_path, "after", "--why-not-cached")

    printed = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["after", "query", "3", "cached"] in printed


def test_rewritten_queries_of_such_a_row_are_unit_vectors_too(root, tmp_path, raw):
    texts = ["a red dress with sleeves", "a long dress"]
    rows = [
        {"query_id": f"q{i}", "caption": "", "change": "", "text": text, "fallback": False}
        for i, text in enumerate(texts)
    ]
    toy.write_rows(tmp_path / "texts/before.jsonl", rows)

    run(root, tmp_path / "plain", "before")
    run(root, tmp_path / "rewritten", "before", "--rewritten", str(tmp_path / "texts"))

    vectors = load_file(tmp_path / "rewritten/embeddings/before.safetensors")
    assert torch.allclose(vectors["queries"], F.normalize(raw(*texts), dim=-1), atol=1e-6)
    assert torch.allclose(vectors["targets"], F.normalize(raw("dress 0", "dress 1", "dress 2"), dim=-1), atol=1e-6)
    rows = [
        json.loads((tmp_path / name / "scores.json").read_text())["tasks"]["before"] for name in ("plain", "rewritten")
    ]
    assert rows[0]["protocol_id"] == rows[1]["protocol_id"]
