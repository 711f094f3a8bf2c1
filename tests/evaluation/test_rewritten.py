"""Rewritten queries take the place of pictures with changes, every one of them, and a change by hand is seen."""

import json
from dataclasses import replace

import PIL.Image
import pytest

from mmembed.data.tables import write_items
from mmembed.errors import InputError
from mmembed.evaluation.benchmark import Benchmark, Task
from mmembed.evaluation.crew import Crew
from mmembed.evaluation.evaluate import evaluate_task
from mmembed.evaluation.protocol import protocol_id, protocol_of
from mmembed.evaluation.retrieval_set import RetrievalSet, Sample
from mmembed.evaluation.rewritten import read_rewritten
from mmembed.evaluation.runner import Evaluation, evaluate_benchmark
from mmembed.files import file_fingerprint
from mmembed.items import Image, Item
from tests.evaluation import toy

TASK = Task(
    "walls", "walls", "hit@1", query_instruction="find the changed image :", query_text="change it: {text}",
    query_layout="{media} {text}", join="megapairs_concept", blind=("no_image",), reference="removed",
)  # fmt: skip


def row(number, **changes):
    found = {"query_id": f"q{number}", "caption": "a wall", "change": "another", "text": f"word{number} wall",
             "fallback": False}  # fmt: skip
    return found | changes


def write(folder, rows, manifest=None):
    folder.mkdir(exist_ok=True)
    (folder / "walls.jsonl").write_text("".join(json.dumps(one) + "\n" for one in rows))
    if manifest is not None:
        (folder / "walls.json").write_text(json.dumps(manifest))
    return folder


def write_ranked(folder, retrieval_set):
    """The files of a set in the folder of its media."""
    for name in ("queries", "corpus"):
        write_items(folder / f"{name}.jsonl", getattr(retrieval_set, name).items(), media_root=folder)
    for name in ("relevance", "references"):
        rows = ({"query_id": query, "targets": own} for query, own in getattr(retrieval_set, name).items())
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(one) + "\n" for one in rows))


@pytest.fixture
def composed(tmp_path):
    (tmp_path / "walls").mkdir()
    PIL.Image.new("RGB", (4, 4)).save(tmp_path / "walls/a.png")
    image = Image(tmp_path / "walls/a.png")
    queries = {f"q{i}": Item((image, "another", "a wall"), instruction="find") for i in range(3)}
    corpus = {f"d{i}": Item.of(f"word{i} house") for i in range(3)}
    return RetrievalSet(
        queries, corpus, {f"q{i}": {f"d{i}": 1.0} for i in range(3)}, groups={f"q{i}": {} for i in range(3)},
        references={f"q{i}": [f"d{(i + 1) % 3}"] for i in range(3)},
    )  # fmt: skip


def test_a_set_is_asked_with_the_texts_and_keeps_all_else(tmp_path, composed):
    found = read_rewritten(write(tmp_path / "out", [row(2), row(0), row(1, fallback=True)]), "walls")

    asked = found.applied(composed)

    assert list(asked.queries) == ["q0", "q1", "q2"]
    assert [item.content for item in asked.queries.values()] == [(f"word{i} wall",) for i in range(3)]
    assert asked.queries["q0"].instruction is None
    assert replace(asked, queries=composed.queries) == composed
    assert asked.fingerprint() != composed.fingerprint()
    assert found.about() == {"fingerprint": file_fingerprint(tmp_path / "out/walls.jsonl"), "fallbacks": 1}


def test_a_row_about_pictures_with_changes_is_scored_on_texts(tmp_path, composed):
    found = read_rewritten(write(tmp_path / "out", [row(i) for i in range(3)]), "walls")
    task = found.asked(TASK)

    assert (task.join, task.query_text, task.query_layout, task.blind) == (None, None, None, ())
    assert (task.metric, task.reference, task.data) == (TASK.metric, "removed", TASK.data)
    with Crew(toy.encode) as crew:
        result = evaluate_task(task, found.applied(composed), crew)
    assert result.score == 1.0


def test_an_evaluation_asks_with_the_texts_under_the_protocol_of_the_row(tmp_path, composed):
    folder = write(tmp_path / "out", [row(i, fallback=i == 1) for i in range(3)])
    task = Task("walls", "walls", "hit@1", join="change", reference="removed")
    write_ranked(tmp_path / "walls", composed)
    plain = Evaluation(Benchmark("b", {"walls": task}), tmp_path, tmp_path / "scores", "toy")
    rewritten = replace(plain, rewritten={"walls": read_rewritten(folder, "walls")})

    with Crew(toy.encode) as crew:
        scores = evaluate_benchmark(rewritten, crew)

    assert scores["failed"] == {}
    assert scores["tasks"]["walls"]["score"] == 1.0
    assert scores["tasks"]["walls"]["protocol_id"] == protocol_id(protocol_of(task, plain.read(task)))
    assert scores["about"]["rewritten"]["walls"]["fallbacks"] == 1
    assert len(replace(rewritten, sample=Sample(2)).read(task).queries) == 2


def test_the_reference_stays_where_the_row_says_so(tmp_path, composed):
    rows = [row(0, keep_reference=True), row(1, keep_reference=False), row(2)]

    asked = read_rewritten(write(tmp_path / "out", rows), "walls").applied(composed)

    (image,) = composed.queries["q0"].media
    assert asked.queries["q0"].content == (image, "word0 wall")
    assert not asked.queries["q1"].media
    assert not asked.queries["q2"].media


def test_a_query_too_few_or_too_many_is_named(tmp_path, composed):
    few = read_rewritten(write(tmp_path / "few", [row(0), row(2)]), "walls")
    many = read_rewritten(write(tmp_path / "many", [row(i) for i in range(4)]), "walls")

    with pytest.raises(InputError, match=r"walls\.jsonl: expected a row for query 'q1', got none"):
        few.check(composed)
    with pytest.raises(InputError, match=r"walls\.jsonl: expected queries of this set, got 'q3'"):
        many.check(composed)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"text": " "}, r"walls\.jsonl: line 2: text: expected words, got none"),
        ({"text": None}, r"line 2: text: expected a string, got None"),
        ({"fallback": "no"}, r"line 2: fallback: expected true or false, got 'no'"),
        ({"keep_reference": 1}, r"line 2: keep_reference: expected true or false, got 1"),
        ({"query_id": 3}, r"line 2: query_id: expected a string, got 3"),
        ({"query_id": "q0"}, r"line 2: query_id: expected each query once, got 'q0' again"),
        ({"score": 1}, r"line 2: score: .*got another field"),
    ],
)
def test_a_bad_row_is_named_by_line_and_field(tmp_path, changes, message):
    write(tmp_path / "out", [row(0), row(1, **changes)])

    with pytest.raises(InputError, match=message):
        read_rewritten(tmp_path / "out", "walls")


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(InputError, match=r"other\.jsonl: expected the rewritten queries of other, got no such file"):
        read_rewritten(write(tmp_path / "out", [row(0)]), "other")


def test_who_wrote_it_is_told_and_a_change_by_hand_is_seen(tmp_path):
    folder = write(tmp_path / "out", [row(0)])
    name = file_fingerprint(folder / "walls.jsonl")
    write(folder, [row(0)], {"writer": {"model": "m"}, "outputs": name})
    assert read_rewritten(folder, "walls").about() == {"writer": {"model": "m"}, "fingerprint": name, "fallbacks": 0}

    write(folder, [row(0, text="mended")])
    with pytest.raises(InputError, match=rf"walls\.jsonl: expected the bytes that walls\.json names, {name}"):
        read_rewritten(folder, "walls")
    write(folder, [row(0)], ["nonsense"])
    with pytest.raises(InputError, match=r"walls\.json: expected a mapping with outputs"):
        read_rewritten(folder, "walls")
