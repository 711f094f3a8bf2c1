import json

import numpy as np
import PIL.Image
import pytest
import torch
from safetensors.torch import load_file, safe_open

from mmembed.counters import count, counting
from mmembed.errors import InputError
from mmembed.evaluation.benchmark import Benchmark, Task
from mmembed.evaluation.evaluate import evaluate_benchmark, evaluate_task
from mmembed.evaluation.rankings import read_rankings
from mmembed.evaluation.retrieval_set import read_retrieval_set
from mmembed.media.decode import decode
from mmembed.media.settings import MediaSettings

COLOURS = {"red": (210, 40, 40), "green": (40, 170, 60), "blue": (50, 80, 215), "yellow": (225, 205, 50)}


def encode(items, *, side):
    """Colours of pictures and of colour words, weighed by their place; counts rows as a model does."""
    count("language_rows", len(items))
    vectors = []
    for item in items:
        pictures = [np.asarray(p, float).mean((0, 1)) for m in item.media for p in decode(m, MediaSettings()).pictures]
        words = [
            COLOURS[word] for part in item.content if isinstance(part, str) for word in part.split() if word in COLOURS
        ]
        seen = np.array([*pictures, *words, (1, 1, 1)]) - 128.0
        vectors.append(sum(colour / (place + 1) for place, colour in enumerate(seen[:-1])) + 0.01 * seen[-1])
    vectors = torch.tensor(np.array(vectors)).float()
    return torch.nn.functional.normalize(vectors, dim=-1)


def write_rows(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def pictures_to_captions(root, per_colour=3):
    """Pictures of one colour each; the caption of that colour is right. Captions are repeated."""
    folder = root / "captions"
    folder.mkdir(parents=True)
    queries, relevance = [], []
    for name, colour in COLOURS.items():
        for i in range(per_colour):
            PIL.Image.new("RGB", (30 + i, 20), colour).save(folder / f"{name}{i}.png")
            queries.append({"id": f"{name}{i}", "image": f"{name}{i}.png"})
            relevance.append({"query_id": f"{name}{i}", "targets": {name: 1}})
    write_rows(folder / "queries.jsonl", queries)
    corpus = [{"id": name, "text": f"a {name} thing"} for name in COLOURS]
    write_rows(folder / "corpus.jsonl", [*corpus, {"id": "red again", "text": "a red thing"}])
    write_rows(folder / "relevance.jsonl", relevance)
    others = {name: [other for other in COLOURS if other != name][:2] for name in COLOURS}
    own = [{"query_id": q["id"], "targets": [*others[q["id"][:-1]], q["id"][:-1]]} for q in queries]
    write_rows(folder / "candidates.jsonl", own)
    return folder


def captions_task(**fields):
    return Task(**{"name": "captions", "data": "captions", "metric": "hit@1", "ks": (1, 2)} | fields)


def test_a_model_that_sees_scores_above_chance_and_a_blinded_one_does_not(tmp_path):
    retrieval_set = read_retrieval_set(pictures_to_captions(tmp_path))

    result = evaluate_task(captions_task(blind="grey_image"), retrieval_set, encode)

    assert result.score == 1.0
    assert result.chance == pytest.approx(1 / 5)
    assert result.blind == pytest.approx(1 / 4)
    assert result.metrics["hit@1"] == 1.0
    assert {name for name in result.metrics if name.startswith("hit")} == {"hit@1", "hit@2"}
    assert (result.queries.shape, result.targets.shape) == ((12, 3), (5, 3))


def test_each_distinct_input_is_encoded_once(tmp_path):
    retrieval_set = read_retrieval_set(pictures_to_captions(tmp_path))

    with counting() as work:
        evaluate_task(captions_task(), retrieval_set, encode)

    # of the five captions two are equal
    assert work["language_rows"] == 12 + 4
    assert work["cache_hits"] == 1


def test_blinded_queries_that_are_equal_are_encoded_once(tmp_path):
    retrieval_set = read_retrieval_set(pictures_to_captions(tmp_path))

    with counting() as work:
        evaluate_task(captions_task(blind="grey_image"), retrieval_set, encode)

    # twelve grey pictures of three sizes
    assert work["language_rows"] == 12 + 4 + 3


def test_pessimistic_ties_cost_what_the_index_gave(tmp_path):
    retrieval_set = read_retrieval_set(pictures_to_captions(tmp_path))

    result = evaluate_task(captions_task(ties="pessimistic"), retrieval_set, encode)

    # the three red queries tie with the repeated caption, which is not judged right
    assert result.score == pytest.approx(9 / 12)


def test_local_candidates_have_a_chance_of_their_own(tmp_path):
    retrieval_set = read_retrieval_set(pictures_to_captions(tmp_path))

    result = evaluate_task(captions_task(candidates="local"), retrieval_set, encode)

    assert (result.score, result.chance) == (1.0, pytest.approx(1 / 3))
    assert all(len(ranking.targets) == 3 for ranking in result.rankings)


def test_instructions_of_the_row_replace_those_of_the_data(tmp_path):
    retrieval_set = read_retrieval_set(pictures_to_captions(tmp_path))
    seen = {"query": set(), "target": set()}

    def listen(items, *, side):
        seen[side] |= {item.instruction for item in items}
        return encode(items, side=side)

    evaluate_task(captions_task(query_instruction="Find the caption.", target_instruction=""), retrieval_set, listen)

    assert seen == {"query": {"Find the caption."}, "target": {None}}


def test_blinding_that_changes_no_query_is_refused(tmp_path):
    retrieval_set = read_retrieval_set(pictures_to_captions(tmp_path))

    with pytest.raises(InputError, match=r"captions.blind: .* got shuffle_words, which changes none"):
        evaluate_task(captions_task(blind="shuffle_words"), retrieval_set, encode)


def test_local_candidates_that_the_set_lacks_are_refused(tmp_path):
    folder = pictures_to_captions(tmp_path)
    (folder / "candidates.jsonl").unlink()

    with pytest.raises(InputError, match=r"captions.candidates: .* got 'local'"):
        evaluate_task(captions_task(candidates="local"), read_retrieval_set(folder), encode)


def toy_benchmark():
    return Benchmark("toy", {"captions": captions_task(), "own": captions_task(name="own", candidates="local")})


def test_a_benchmark_leaves_scores_rankings_and_embeddings(tmp_path):
    pictures_to_captions(tmp_path / "data")

    scores = evaluate_benchmark(
        toy_benchmark(), encode, data_root=tmp_path / "data", output=tmp_path / "out", model="colours"
    )

    assert json.loads((tmp_path / "out/scores.json").read_text()) == json.loads(json.dumps(scores))
    assert scores.keys() == {"protocol", "tasks", "partial"}
    assert scores["partial"] is False
    row = scores["tasks"]["captions"]
    assert list(row) == ["metric", "score", "chance", "blind", "metrics", "queries", "corpus", "seconds"]
    assert (row["metric"], row["score"], row["blind"], row["queries"], row["corpus"]) == ("hit@1", 1.0, None, 12, 5)
    revision = read_retrieval_set(tmp_path / "data/captions").fingerprint()
    assert scores["protocol"]["tasks"]["own"]["revision"] == revision
    assert scores["protocol"]["model"] == "colours"
    rankings = read_rankings(tmp_path / "out/rankings/captions.jsonl")
    assert (rankings[0].query_id, rankings[0].targets[0], rankings[0].first_hit) == ("red0", "red", 1)
    assert load_file(tmp_path / "out/embeddings/captions.safetensors")["queries"].shape == (12, 3)
    with safe_open(tmp_path / "out/embeddings/captions.safetensors", "pt") as file:
        assert json.loads(file.metadata()["target_ids"]) == [*COLOURS, "red again"]


def test_some_tasks_of_a_benchmark_are_marked_partial(tmp_path):
    pictures_to_captions(tmp_path)

    scores = evaluate_benchmark(
        toy_benchmark(), encode, data_root=tmp_path, output=tmp_path / "out", model="m", tasks=["own"]
    )

    assert (list(scores["tasks"]), scores["partial"]) == (["own"], True)


def test_a_task_without_its_data_is_named_and_what_was_scored_before_stays(tmp_path):
    pictures_to_captions(tmp_path)
    benchmark = Benchmark("toy", {"captions": captions_task(), "lost": captions_task(name="lost", data="lost")})

    with pytest.raises(InputError, match=r"task lost: .*queries.jsonl: expected one file, .* got no such file"):
        evaluate_benchmark(benchmark, encode, data_root=tmp_path, output=tmp_path / "out", model="m")

    kept = json.loads((tmp_path / "out/scores.json").read_text())
    assert (list(kept["tasks"]), kept["partial"]) == (["captions"], True)


def test_an_encoder_that_fails_leaves_no_scores(tmp_path):
    pictures_to_captions(tmp_path)

    def broken(items, *, side):
        return torch.full((len(items), 3), torch.nan)

    with pytest.raises(InputError, match="task captions: embeddings: expected finite numbers"):
        evaluate_benchmark(toy_benchmark(), broken, data_root=tmp_path, output=tmp_path / "out", model="m")

    assert not (tmp_path / "out").exists()
