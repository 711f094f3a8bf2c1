"""eval/run.py embeds what nobody embedded before, and nothing else."""

import json

import pytest

from eval.run import main
from mmembed.counters import counting
from mmembed.models.settings import RawPrompt

BENCHMARK = """\
tasks:
  caption: {data: pictures, metric: hit@1, blind: [grey_image]}
  find: {data: pictures, metric: mrr@5, target_instruction: represent it}
"""
# five pictures, five captions of which two are equal, five grey pictures of one size
ALL_ROWS = 5 + 4 + 1 + 4


@pytest.fixture
def root(tmp_path, scratch_embedder, picture, monkeypatch):
    monkeypatch.setenv("MMEMBED_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "data/pictures"
    folder.mkdir(parents=True)
    queries, corpus, relevance = [], [], []
    for i in range(5):
        picture(84, 56, seed=i).save(folder / f"{i}.png")
        queries.append({"id": f"q{i}", "image": f"{i}.png", "instruction": "describe it"})
        corpus.append({"id": f"d{i}", "text": f"picture number {max(i, 1)}"})
        relevance.append({"query_id": f"q{i}", "targets": {f"d{i}": 1}})
    for name, rows in (("queries", queries), ("corpus", corpus), ("relevance", relevance)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "toy.yaml").write_text(BENCHMARK)
    scratch_embedder("qwen2_vl", prompt=RawPrompt(suffix="<|im_end|>")).save(tmp_path / "model")
    return tmp_path


def rows_of(root, *more, model="model", benchmark="toy.yaml"):
    """How many rows the model embeds in a run of the command."""
    places = ["--model", str(root / model), "--benchmark", str(root / benchmark)]
    with counting() as work:
        assert main([*places, "--data-root", str(root / "data"), "--output", str(root / "out"), *more]) == 0
    return work["language_rows"]


def test_a_second_run_embeds_nothing_and_scores_the_same(root):
    first = rows_of(root)
    scores = json.loads((root / "out/scores.json").read_text())

    second = rows_of(root)

    again = json.loads((root / "out/scores.json").read_text())
    assert (first, second) == (ALL_ROWS, 0)
    assert [scores["tasks"][n]["metrics"] for n in scores["tasks"]] == [
        again["tasks"][n]["metrics"] for n in again["tasks"]
    ]
    assert scores["protocol"]["identity"] == again["protocol"]["identity"]


def test_another_metric_embeds_nothing(root):
    rows_of(root)
    (root / "other.yaml").write_text(BENCHMARK.replace("hit@1", "recall@3").replace("mrr@5", "ndcg_linear@2"))

    assert rows_of(root, benchmark="other.yaml") == 0


def test_a_model_that_moved_is_the_same_model(root):
    rows_of(root)
    (root / "model").rename(root / "moved")

    assert rows_of(root, model="moved") == 0


def test_another_checkpoint_reuses_nothing(root, fresh_embedder):
    rows_of(root)
    other = fresh_embedder("qwen2_vl", prompt=RawPrompt(suffix="<|im_end|>"))
    other.backbone.model.language_model.norm.weight.data[0] += 1e-3
    other.save(root / "other")

    assert rows_of(root, model="other") == ALL_ROWS


@pytest.mark.parametrize("more", [("--max-pixels", "3136"), ("--dtype", "bfloat16")])
def test_another_pixel_budget_or_type_reuses_nothing(root, more):
    rows_of(root)

    assert rows_of(root, *more) == ALL_ROWS
    assert rows_of(root) == 0


def test_another_prompt_reuses_nothing(root, scratch_embedder):
    rows_of(root)
    scratch_embedder("qwen2_vl", prompt=RawPrompt()).save(root / "plain")

    assert rows_of(root, model="plain") == ALL_ROWS


def test_another_instruction_embeds_its_side_again(root):
    rows_of(root)
    (root / "other.yaml").write_text("tasks:\n  t: {data: pictures, metric: hit@1, query_instruction: tell me}\n")

    assert rows_of(root, benchmark="other.yaml") == 5


def test_another_picture_behind_the_same_name_is_embedded(root, picture):
    rows_of(root)
    picture(56, 84, seed=9).save(root / "data/pictures/3.png")

    # itself, and a grey picture of its size
    assert rows_of(root) == 2


def test_a_damaged_shard_is_embedded_again_and_no_more(root, caplog):
    rows_of(root)
    scores = json.loads((root / "out/scores.json").read_text())["tasks"]["find"]["metrics"]
    shards = sorted((root / "cache").rglob("*.safetensors"))
    shards[0].write_bytes(shards[0].read_bytes()[:-7])

    again = rows_of(root)

    assert 0 < again < ALL_ROWS
    assert "expected a whole shard" in caplog.text
    assert json.loads((root / "out/scores.json").read_text())["tasks"]["find"]["metrics"] == scores


def test_a_cache_of_nothing_keeps_nothing(root):
    first, second = rows_of(root, "--cache-gb", "0"), rows_of(root, "--cache-gb", "0")

    # without a cache the two tasks embed the pictures each for itself
    assert first == second == ALL_ROWS + 5
    assert not (root / "cache").exists()


def test_why_not_cached_says_what_differs_and_embeds_nothing(root, capsys):
    rows_of(root)
    capsys.readouterr()

    assert rows_of(root, "--why-not-cached", "--max-pixels", "3136") == 0
    words = " ".join(capsys.readouterr().out.split())
    assert "embedded by another model:" in words
    assert "backbone.max_pixels" in words.replace(" ", "")

    assert rows_of(root, "--why-not-cached") == 0
    words = capsys.readouterr().out
    assert "cached" in words
    assert "another model" not in words


def test_why_not_cached_without_a_cache_is_refused(root, capsys):
    places = ["--model", str(root / "model"), "--benchmark", str(root / "toy.yaml"), "--output", str(root / "out")]

    assert main([*places, "--data-root", str(root / "data"), "--why-not-cached", "--cache-gb", "0"]) == 2

    assert "--why-not-cached: expected a cache, got --cache-gb 0; give it room" in capsys.readouterr().err
