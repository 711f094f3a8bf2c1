import json

import numpy as np
import PIL.Image
import pytest
import torch

from mmembed.counters import count, counting
from mmembed.errors import InputError
from mmembed.evaluation.benchmark import Task
from mmembed.evaluation.crew import Crew
from mmembed.evaluation.evaluate import evaluate_task
from mmembed.evaluation.retrieval_set import RetrievalSet, read_retrieval_set
from mmembed.items import Item
from mmembed.media.decode import decode
from mmembed.media.settings import MediaSettings
from tests.evaluation import toy

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

    result = evaluate_task(captions_task(blind=("grey_image",)), retrieval_set, Crew(encode))

    assert result.score == 1.0
    assert result.chance == pytest.approx(1 / 5)
    assert result.blinds["grey_image"] == pytest.approx(1 / 4)
    assert result.metrics["hit@1"] == 1.0
    assert {name for name in result.metrics if name.startswith("hit")} == {"hit@1", "hit@2"}
    assert (result.vectors.queries.shape, result.vectors.targets.shape) == ((12, 3), (5, 3))


def test_each_distinct_input_is_encoded_once(tmp_path):
    retrieval_set = read_retrieval_set(pictures_to_captions(tmp_path))

    with counting() as work:
        evaluate_task(captions_task(), retrieval_set, Crew(encode))

    # of the five captions two are equal
    assert work["language_rows"] == 12 + 4
    assert work["cache_hits"] == 1


def test_blinded_queries_that_are_equal_are_encoded_once(tmp_path):
    retrieval_set = read_retrieval_set(pictures_to_captions(tmp_path))

    with counting() as work:
        evaluate_task(captions_task(blind=("grey_image",)), retrieval_set, Crew(encode))

    # twelve grey pictures of three sizes
    assert work["language_rows"] == 12 + 4 + 3


def test_pessimistic_ties_cost_what_the_index_gave(tmp_path):
    retrieval_set = read_retrieval_set(pictures_to_captions(tmp_path))

    result = evaluate_task(captions_task(ties="pessimistic"), retrieval_set, Crew(encode))

    # the three red queries tie with the repeated caption, which is not judged right
    assert result.score == pytest.approx(9 / 12)


def test_local_candidates_have_a_chance_of_their_own(tmp_path):
    retrieval_set = read_retrieval_set(pictures_to_captions(tmp_path))

    result = evaluate_task(captions_task(candidates="local"), retrieval_set, Crew(encode))

    assert (result.score, result.chance) == (1.0, pytest.approx(1 / 3))
    assert all(len(ranking.targets) == 3 for ranking in result.rankings)


def test_instructions_of_the_row_replace_those_of_the_data(tmp_path):
    retrieval_set = read_retrieval_set(pictures_to_captions(tmp_path))
    seen = {"query": set(), "target": set()}

    def listen(items, *, side):
        seen[side] |= {item.instruction for item in items}
        return encode(items, side=side)

    evaluate_task(
        captions_task(query_instruction="Find the caption.", target_instruction=""), retrieval_set, Crew(listen)
    )

    assert seen == {"query": {"Find the caption."}, "target": {None}}


def test_blinding_that_changes_no_query_is_refused(tmp_path):
    retrieval_set = read_retrieval_set(pictures_to_captions(tmp_path))

    with pytest.raises(InputError, match=r"captions.blind: .* got shuffle_words, which changes nothing"):
        evaluate_task(captions_task(blind=("shuffle_words",)), retrieval_set, Crew(encode))


def test_local_candidates_that_the_set_lacks_are_refused(tmp_path):
    folder = pictures_to_captions(tmp_path)
    (folder / "candidates.jsonl").unlink()

    with pytest.raises(InputError, match=r"captions.candidates: .* got 'local'"):
        evaluate_task(captions_task(candidates="local"), read_retrieval_set(folder), Crew(encode))


def test_a_thousand_queries_with_a_thousand_candidates_each_embed_each_distinct_one_once():
    corpus = {f"d{i}": Item.of(f"w{i} u{i % 5}") for i in range(1500)}
    queries = {f"q{i}": Item.of(f"w{i} v{i % 7}") for i in range(1000)}
    candidates = {f"q{i}": [f"d{(i + j) % 1500}" for j in range(1000)] for i in range(1000)}
    relevance = {f"q{i}": {f"d{i}": 1.0} for i in range(1000)}
    task = Task(name="local", data="local", metric="hit@1", candidates="local", ties="pessimistic")

    with counting() as work:
        result = evaluate_task(task, RetrievalSet(queries, corpus, relevance, candidates), Crew(toy.encode))

    assert work["language_rows"] == 1000 + 1500
    assert work["score_bytes"] == 8 * 1000 * 1000
    assert work["score_bytes_at_once"] == 8 * 1000
    assert result.chance == pytest.approx(1 / 1000)
    assert result.score > 0.1
