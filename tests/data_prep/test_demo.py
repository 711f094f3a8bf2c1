"""The demo's data follow from the seed, and ask what a model can only answer by looking."""

import json
from collections import defaultdict
from hashlib import sha256
from pathlib import Path

import pytest

from data_prep.demo import NUM_FRAMES, REVERSE, Scene, Sizes, main, make_demo, questions
from mmembed.data.tables import ItemTable, PairTable
from mmembed.evaluation.retrieval_set import read_retrieval_set
from mmembed.items import Video
from mmembed.media.decode import decode
from mmembed.media.settings import MediaSettings

SIZES = Sizes(singles=6, pairs=10, clips=6, tests=12)
TASKS = ("image_to_caption", "caption_to_image", "question", "video_to_caption")


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    root = tmp_path_factory.mktemp("demo") / "demo"
    assert make_demo(root, 0, SIZES)
    return root


def contents(root):
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def pixels(medium):
    return sha256(b"".join(picture.tobytes() for picture in decode(medium, MediaSettings()).pictures)).hexdigest()


def training_pairs(root):
    return [pair for path in sorted(root.glob("*.jsonl")) for pair in PairTable(path)]


def test_the_same_seed_draws_the_same_bytes_and_another_others(drawn, tmp_path):
    make_demo(tmp_path / "again", 0, SIZES)
    make_demo(tmp_path / "other", 1, SIZES)

    first, again, other = contents(drawn), contents(tmp_path / "again"), contents(tmp_path / "other")
    assert first == again
    assert first.keys() == other.keys()
    media = [name for name in first if name.endswith((".png", ".mp4"))]
    assert len(media) == 6 + 10 + 6 + 12 * 3 + 12 // 4
    assert not any(first[name] == other[name] for name in media)


def test_what_is_there_is_not_drawn_again(drawn, tmp_path, capsys):
    before = contents(drawn)

    assert not make_demo(drawn, 0, SIZES)

    assert contents(drawn) == before
    arguments = ["--data-root", str(tmp_path), "--singles", "1", "--pairs", "1", "--clips", "1", "--tests", "4"]
    assert main(arguments) == 0
    assert main(arguments) == 0
    assert capsys.readouterr().out == f"drawn: {tmp_path / 'demo'}\nthere already: {tmp_path / 'demo'}\n"


def test_no_picture_or_clip_of_a_test_is_in_the_training_data(drawn):
    trained = {
        pixels(m) for pair in training_pairs(drawn) for item in (pair.query, *pair.positives) for m in item.media
    }
    tables = [ItemTable(path) for path in drawn.glob("test/*/*.jsonl") if path.stem != "relevance"]
    tested = {pixels(medium) for table in tables for _, item in table for medium in item.media}

    assert len(trained) == 6 + 10 + 6
    assert len(tested) == 12 * 3 + 12 // 4
    assert not trained & tested


def test_every_table_opens_and_every_row_reads(drawn):
    tables = {path.stem: list(PairTable(path)) for path in drawn.glob("*.jsonl")}

    assert {name: len(pairs) for name, pairs in tables.items()} == {
        "single_caption": 6,
        "single_image": 6,
        "single_question": 6 * 2,
        "pair_caption": 10,
        "pair_image": 10,
        "pair_question": 10 * 4,
        "motion": 6,
    }
    for task in TASKS:
        retrieval_set = read_retrieval_set(drawn / "test" / task)
        assert retrieval_set.queries.keys() == retrieval_set.relevance.keys()


def test_a_task_has_two_hundred_queries_by_default():
    tests = Sizes().tests
    two_objects = Scene((("red", "circle"), ("blue", "cross")))

    assert tests >= 200
    assert tests // 4 * len(questions(two_objects)) >= 200


def test_a_picture_is_asked_different_questions_with_different_answers(drawn):
    asked = defaultdict(dict)
    for pair in PairTable(drawn / "pair_question.jsonl"):
        asked[pair.query.media[0].source][pair.query.instruction] = pair.positives[0].text

    assert all(len(answers) == 4 for answers in asked.values())
    assert all(len(set(answers.values())) >= 2 for answers in asked.values())


def test_the_captions_offered_hold_every_clips_reverse(drawn):
    retrieval_set = read_retrieval_set(drawn / "test/video_to_caption")

    for relevant in retrieval_set.relevance.values():
        (caption,) = relevant
        *words, direction = caption.split()
        assert " ".join([*words, REVERSE[direction]]) in retrieval_set.corpus


def test_every_picture_with_the_same_caption_is_right(drawn):
    retrieval_set = read_retrieval_set(drawn / "test/caption_to_image")
    by_caption = defaultdict(set)
    for query_id, relevant in retrieval_set.relevance.items():
        by_caption[retrieval_set.queries[query_id].text].add(frozenset(relevant))

    assert all(len(sets) == 1 for sets in by_caption.values())
    assert sum(len(next(iter(sets))) for sets in by_caption.values()) == len(retrieval_set.corpus)


def test_a_clip_moves_the_way_its_caption_says(drawn):
    pairs = list(PairTable(drawn / "motion.jsonl"))

    for pair in pairs:
        (clip,) = pair.query.media
        assert isinstance(clip, Video)
        frames = decode(clip, MediaSettings()).pictures
        assert len(frames) == NUM_FRAMES
        first, last = (centre_of_object(frame) for frame in (frames[0], frames[-1]))
        across, down = last[0] - first[0], last[1] - first[1]
        direction = pair.positives[0].text.split()[-1]
        assert {"left": -across, "right": across, "up": -down, "down": down}[direction] > 6


def centre_of_object(frame):
    background = frame.getpixel((0, 0))
    inside = [
        (x, y)
        for x in range(frame.width)
        for y in range(frame.height)
        if sum(abs(a - b) for a, b in zip(frame.getpixel((x, y)), background, strict=True)) > 120
    ]
    return tuple(sum(values) / len(inside) for values in zip(*inside, strict=True))


def test_the_marker_says_what_was_drawn(drawn):
    made = json.loads((drawn / "demo.json").read_text())

    assert made == {"seed": 0, "version": made["version"], "singles": 6, "pairs": 10, "clips": 6, "tests": 12}


def test_a_relative_data_root_is_drawn_alike(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    make_demo(Path("data/demo"), 0, Sizes(4, 4, 4, 4))

    assert len(list(PairTable(Path("data/demo/pair_caption.jsonl")))) == 4
    assert '"image": "train/pair/00000.png"' in Path("data/demo/pair_caption.jsonl").read_text()
