"""The demo's data follow from the seed, and ask what a model can only answer by looking."""

import json
from collections import defaultdict
from contextlib import closing
from hashlib import sha256
from pathlib import Path

import pypdfium2 as pdfium
import pytest

from data_prep.demo import Sizes, main, make_demo
from data_prep.demo_items import questions
from data_prep.demo_scenes import COLOURS, DIRECTIONS, DOCUMENT_PAGES, NUM_FRAMES, REVERSE, SHAPES, SIDES, Scene
from data_prep.demo_sets import SETS
from mmembed.data.tables import ItemTable, PairTable
from mmembed.evaluation.retrieval_set import read_retrieval_set
from mmembed.items import Page, Video
from mmembed.media.decode import decode
from mmembed.media.settings import MediaSettings

SIZES = Sizes(singles=30, pairs=300, clips=6, pages=10, tests=12)
TEST_MEDIA = {
    "image_to_caption": 12,
    "caption_to_image": 12,
    "question": 12 // 4,
    "video_to_caption": 12,
    "caption_to_video": 12 * 2,
    "region_to_label": 12 // 2,
    "words_to_page": 12,
    "composed": 12 * 4,
}
TRAINED_MEDIA = 30 + 300 + 6 + 10


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    root = tmp_path_factory.mktemp("demo") / "demo"
    assert make_demo(root, 0, SIZES)
    return root


def contents(root):
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def pixels(medium):
    return sha256(b"".join(picture.tobytes() for picture in decode(medium, MediaSettings()).pictures)).hexdigest()


def things(caption):
    """The objects that a caption of two names, each as "a COLOUR SHAPE"."""
    return caption.text.split(" left of ")


def captions_of_pictures(root):
    """The caption of each training picture of two objects, by its path."""
    return {pair.query.media[0].source: pair.positives[0] for pair in PairTable(root / "pair_caption.jsonl")}


def changed(caption, change):
    """The objects of a caption after a change such as "make the left object green"."""
    _, _, side, _, colour = change.split()
    after = things(caption)
    after[SIDES.index(side)] = f"a {colour} {after[SIDES.index(side)].split()[-1]}"
    return after


def training_pairs(root):
    return [pair for path in sorted(root.glob("*.jsonl")) for pair in PairTable(path)]


def test_the_same_seed_draws_the_same_bytes_and_another_others(drawn, tmp_path):
    make_demo(tmp_path / "again", 0, SIZES)
    make_demo(tmp_path / "other", 1, SIZES)

    first, again, other = contents(drawn), contents(tmp_path / "again"), contents(tmp_path / "other")
    assert first == again
    assert first.keys() == other.keys()
    media = [name for name in first if name.endswith((".png", ".mp4", ".pdf"))]
    leaves = (10, TEST_MEDIA["words_to_page"])
    documents = sum(-(-count // DOCUMENT_PAGES) for count in leaves)
    assert len(media) == TRAINED_MEDIA + sum(TEST_MEDIA.values()) - sum(leaves) + documents
    assert not any(first[name] == other[name] for name in media)


def test_what_is_there_is_not_drawn_again(drawn, tmp_path, capsys):
    before = contents(drawn)

    assert not make_demo(drawn, 0, SIZES)

    assert contents(drawn) == before
    sizes = [word for name in vars(SIZES) for word in (f"--{name}", "4")]
    arguments = ["--data-root", str(tmp_path), *sizes]
    assert main(arguments) == 0
    assert main(arguments) == 0
    assert capsys.readouterr().out == f"drawn: {tmp_path / 'demo'}\nthere already: {tmp_path / 'demo'}\n"


def test_no_picture_clip_or_page_of_a_test_is_in_the_training_data(drawn):
    trained = {
        pixels(medium)
        for pair in training_pairs(drawn)
        for item in (pair.query, *pair.positives, *(negative.item for negative in pair.negatives))
        for medium in item.media
    }
    tables = [ItemTable(path) for name in ("queries", "corpus") for path in drawn.glob(f"test/*/{name}.jsonl")]
    tested = {pixels(medium) for table in tables for _, item in table for medium in item.media}

    assert len(trained) == TRAINED_MEDIA
    assert len(tested) == sum(TEST_MEDIA.values())
    assert not trained & tested


def test_every_table_opens_and_every_row_reads(drawn):
    tables = {path.stem: list(PairTable(path)) for path in drawn.glob("*.jsonl")}

    several = sum(first != second for pair in tables["pair_caption"] for first, second in [things(pair.positives[0])])
    assert 0 < len(tables.pop("pair_composed")) <= 300
    assert 0 < len(tables.pop("single_composed")) <= 30
    assert 0 < len(tables.pop("caption_masked")) <= 12 + 144 + 14
    assert {name: len(pairs) for name, pairs in tables.items()} == {
        "captioned": 30 + 300,
        "told": 300,
        "single_caption": 30,
        "single_image": 30,
        "single_question": 30 * 2,
        "pair_caption": 300,
        "pair_image": 300,
        "pair_question": 300 * 4,
        "pair_region": several * 2,
        "single_change": 30,
        "pair_change": 300,
        "motion": 6,
        "motion_video": 6,
        "page": 10,
        "page_question": 10 * 2,
    }
    assert SETS.keys() == TEST_MEDIA.keys()
    for task in SETS:
        retrieval_set = read_retrieval_set(drawn / "test" / task)
        assert retrieval_set.queries.keys() == retrieval_set.relevance.keys()


def test_captions_alone_are_each_once_and_masked_and_pictures_with_captions_have_no_instruction(drawn):
    masked, *shown = (list(PairTable(drawn / f"{name}.jsonl")) for name in ("caption_masked", "captioned", "told"))
    captioned = [pair for pairs in shown for pair in pairs]

    captions = [pair.positives[0].text for pair in masked]
    assert set(captions) == {pair.positives[0].text for pair in captioned}
    assert len(captions) == len(set(captions))
    assert {pair.query.text for pair in masked} == {"$", "$ left of $", "$ is $"}
    assert not any(pair.query.instruction or pair.query.text for pair in captioned)


def test_words_that_say_a_part_of_a_picture_are_true_of_it(drawn):
    captions = {path: things(caption) for path, caption in captions_of_pictures(drawn).items()}
    parts = list(PairTable(drawn / "told.jsonl"))

    assert len(parts) == 300
    for pair in parts:
        side, said = pair.positives[0].text.removeprefix("the ").split(" object is ")
        thing = captions[pair.query.media[0].source][side == "right"]
        assert said.removeprefix("a ") in thing.split()


def test_a_task_has_two_hundred_queries_by_default():
    tests = Sizes().tests
    two_objects = Scene((("red", "circle"), ("blue", "cross")))

    assert tests >= 200
    assert tests // 4 * len(questions(two_objects)) == tests
    assert tests // 2 * len(two_objects.objects) == tests


def test_every_set_has_the_queries_asked_for(drawn):
    sets = {task: read_retrieval_set(drawn / "test" / task) for task in SETS}

    assert {task: len(found.queries) for task, found in sets.items()} == dict.fromkeys(SETS, SIZES.tests)


def test_regions_are_boxes_and_points_and_grouped_as_such(drawn):
    found = read_retrieval_set(drawn / "test/region_to_label")

    for query_id, query in found.queries.items():
        (region,) = query.media[0].regions
        assert found.groups[query_id] == {"region": ("box" if region.box else "point",)}
    assert {own["region"] for own in found.groups.values()} == {("box",), ("point",)}
    assert read_retrieval_set(drawn / "test/composed").groups == {}


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


def test_the_clips_offered_hold_one_of_the_same_object_moving_the_other_way(drawn):
    retrieval_set = read_retrieval_set(drawn / "test/caption_to_video")
    clips = list(retrieval_set.corpus.values())
    right = {target: query for query, targets in retrieval_set.relevance.items() for target in targets}

    for number, clip in enumerate(clips):
        assert clip.media[0].source.endswith(f"{number:05d}.mp4")
    for number, query in enumerate(retrieval_set.queries.values()):
        forward, backward = clips[2 * number : 2 * number + 2]
        direction = query.text.split()[-1]
        assert went(forward.media[0], direction) > 6
        assert went(backward.media[0], REVERSE[direction]) > 6
    assert len(right) >= len(clips) // 2


@pytest.mark.parametrize("task", ["caption_to_image", "caption_to_video", "words_to_page"])
def test_every_target_with_the_same_caption_is_right(drawn, task):
    retrieval_set = read_retrieval_set(drawn / "test" / task)
    by_caption = defaultdict(set)
    for query_id, relevant in retrieval_set.relevance.items():
        by_caption[retrieval_set.queries[query_id].text].add(frozenset(relevant))

    assert all(len(sets) == 1 for sets in by_caption.values())
    right = [target for sets in by_caption.values() for target in next(iter(sets))]
    assert len(right) == len(set(right)) <= len(retrieval_set.corpus)


def test_a_clip_moves_the_way_its_caption_says(drawn):
    pairs = list(PairTable(drawn / "motion.jsonl"))

    for pair in pairs:
        (clip,) = pair.query.media
        assert isinstance(clip, Video)
        assert went(clip, pair.positives[0].text.split()[-1]) > 6


def went(clip, direction):
    """Pixels that the object of a clip went in a direction."""
    frames = decode(clip, MediaSettings()).pictures
    assert len(frames) == NUM_FRAMES
    first, last = (centre_of_object(frame) for frame in (frames[0], frames[-1]))
    return sum(way * (end - start) for way, start, end in zip(DIRECTIONS[direction], first, last, strict=True))


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

    assert made == {"seed": 0, "version": made["version"], **vars(SIZES)}


def test_a_relative_data_root_is_drawn_alike(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    make_demo(Path("data/demo"), 0, Sizes(4, 4, 4, 4, 4))

    assert len(list(PairTable(Path("data/demo/pair_caption.jsonl")))) == 4
    assert '"image": "train/pair/00000.png"' in Path("data/demo/pair_caption.jsonl").read_text()


def test_a_region_holds_the_object_that_its_label_names(drawn):
    retrieval_set = read_retrieval_set(drawn / "test/region_to_label")
    asked = [(pair.query, pair.positives[0].text) for pair in PairTable(drawn / "pair_region.jsonl")]
    asked += [(query, *retrieval_set.relevance[query_id]) for query_id, query in retrieval_set.queries.items()]

    for query, label in asked:
        (picture,) = query.media
        (region,) = picture.regions
        shown = decode(picture, MediaSettings()).pictures[0]
        box = region.box or (*region.points[0][:2], *region.points[0][:2])
        middle = round((box[0] + box[2]) / 2), round((box[1] + box[3]) / 2)
        assert shown.getpixel(middle) == COLOURS[label.split()[1]]
    assert {region.box is None for query, _ in asked for region in query.media[0].regions} == {True, False}


def test_a_picture_is_pointed_at_in_two_places_with_different_answers(drawn):
    retrieval_set = read_retrieval_set(drawn / "test/region_to_label")
    answers = defaultdict(set)
    for query_id, query in retrieval_set.queries.items():
        answers[query.media[0].source].add(tuple(retrieval_set.relevance[query_id]))

    assert all(len(found) == 2 for found in answers.values())
    assert len(retrieval_set.corpus) == len(COLOURS) * len(SHAPES)


def test_a_changed_picture_is_trained_to_be_the_one_after_the_change_and_not_the_one_before(drawn):
    captions = captions_of_pictures(drawn)
    pairs = list(PairTable(drawn / "pair_composed.jsonl"))

    assert sum(len(pair.negatives) for pair in pairs) > len(pairs) / 2
    for pair in pairs:
        before = captions[pair.query.media[0].source]
        assert things(captions[pair.positives[0].media[0].source]) == changed(before, pair.query.text)
        for negative in pair.negatives:
            assert captions[negative.item.media[0].source] == before
            assert negative.item.media[0].source != pair.query.media[0].source
        assert pair.class_id == captions[pair.positives[0].media[0].source].text


def colours_of(item):
    """The colours of the two objects in an item's picture, from left to right."""
    shown = decode(item.media[0], MediaSettings()).pictures[0]
    middle = shown.width // 2
    return [colour_of(shown.crop((x, 0, x + middle, shown.height))) for x in (0, middle)]


def colour_of(half):
    """The colour of the object in half a picture."""
    counts = {colour: count for count, colour in half.getcolors(half.width * half.height)}
    return max(COLOURS, key=lambda name: counts.get(COLOURS[name], 0))


def test_the_gallery_of_composed_queries_holds_answers_to_half_of_each(drawn):
    retrieval_set = read_retrieval_set(drawn / "test/composed")
    gallery = list(retrieval_set.corpus)

    for number, (query_id, query) in enumerate(retrieval_set.queries.items()):
        target, same, true = gallery[3 * number : 3 * number + 3]
        before = colours_of(query)
        _, _, side, _, wanted = query.text.split()
        place = SIDES.index(side)
        seen = {name: colours_of(retrieval_set.corpus[name]) for name in (target, same, true)}
        assert target in retrieval_set.relevance[query_id]
        assert not {same, true} & set(retrieval_set.relevance[query_id])
        assert seen[same] == before
        assert seen[true][place] == seen[target][place] == wanted != before[place]
        assert seen[target][1 - place] == before[1 - place]


def test_a_change_in_words_is_answered_by_the_caption_after_it(drawn):
    captions = captions_of_pictures(drawn)

    for pair in PairTable(drawn / "pair_change.jsonl"):
        before = captions[pair.query.media[0].source]
        assert things(pair.positives[0]) == changed(before, pair.query.text) != things(before)


def test_a_page_is_asked_for_each_of_its_words(drawn):
    shown = {pair.positives[0].media[0]: pair.query.text.split(" above ") for pair in PairTable(drawn / "page.jsonl")}
    asked = defaultdict(list)
    for pair in PairTable(drawn / "page_question.jsonl"):
        asked[pair.query.media[0]].append(pair.positives[0].text)

    assert len(shown) == SIZES.pages
    assert asked == shown


def test_pages_are_those_of_documents_with_real_text(drawn):
    retrieval_set = read_retrieval_set(drawn / "test/words_to_page")

    for query_id, relevant in retrieval_set.relevance.items():
        for target in relevant:
            (page,) = retrieval_set.corpus[target].media
            assert isinstance(page, Page)
            with closing(pdfium.PdfDocument(page.source)) as document:
                text = document[page.page - 1].get_textpage().get_text_range()
                assert len(document) in (DOCUMENT_PAGES, SIZES.tests % DOCUMENT_PAGES)
            assert " above ".join(text.split()) == retrieval_set.queries[query_id].text
