"""SCaR: from miniatures of the published schema to strings, candidates, kinds of swaps and scores."""

import json
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from data_prep.check import main as check
from data_prep.converters import Media
from data_prep.converters.registry import CONVERTERS
from data_prep.converters.scar import CUT, OTHER_QUERY, REPEATED, UNKNOWN_SWAPS
from data_prep.engine.upstream_rows import read_rows
from data_prep.engine.write_sets import write_ranked
from data_prep.miniatures import scar
from data_prep.miniatures.draw import prepare_miniature
from data_prep.source import read_source
from mmembed.data.tables import open_table
from mmembed.errors import InputError
from mmembed.evaluation.benchmark import read_benchmark
from mmembed.evaluation.crew import Crew
from mmembed.evaluation.evaluate import evaluate_task
from mmembed.evaluation.retrieval_set import read_retrieval_set
from mmembed.evaluation.vectors import asked, shown
from mmembed.media.images import open_image
from mmembed.media.settings import MediaSettings
from mmembed.models.prompts import render
from mmembed.models.settings import RawPrompt
from tests.evaluation import toy

ROOT = Path(__file__).parents[2]
NAMES = ("RefCOCO_plus", "RefCOCOg", "VisualGenome", "COCO_Stuff", "ADE20K")
TRAINING = ("scar_train", "scar_train_published", "scar_train_masks")
BENCHMARK = read_benchmark(ROOT / "eval/benchmarks/scar.yaml")
IMAGE, MEDIA = "<|image_pad|>", MediaSettings()
FIND = (
    "Find the caption that best describes the segmented object, considering both local details and global context in "
    "the given image."
)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    root = tmp_path_factory.mktemp("scar")
    manifests = {name: prepare_miniature(name, root)[name]["sets"] for name in (*TRAINING, "scar_eval")}
    return root, manifests


def written(item):
    words = [IMAGE] * len(item.media)
    return "".join(segment.text for segment in render(item, RawPrompt(), words, image_word=IMAGE))


def rows_of(root, repo, file):
    return list(read_rows([root / ".miniature" / repo / f"{file}.parquet"]))


def corners(bbox):
    x, y, width, height = bbox
    return [x, y, x + width, y + height]


def published_training_query(row):
    """What the published parser makes of a row."""
    return f"{row['qry'].replace('<|image_1|>', IMAGE)}\nReferring object bbox: {corners(row['bbox'])}"


def published_query(row):
    text = f"{IMAGE}  {row['qry_text'].replace('<|image_1|>', '')}"
    return text.replace(" \n", "\n") + f"\nReferring object bbox: {corners(row['bbox'])}"


def test_the_sizes_are_those_of_the_published_table():
    train, test = read_source("scar_train").sets, read_source("scar_eval").sets

    assert tuple(train) == tuple(test) == tuple(BENCHMARK.tasks) == NAMES
    assert sum(row.rows for row in train.values()) == 957_714
    assert sum(row.rows for row in test.values()) == 47_145
    assert [task.data for task in BENCHMARK.tasks.values()] == [f"scar_eval/{name}" for name in NAMES]


@pytest.mark.parametrize("name", NAMES)
def test_every_row_becomes_a_pair_or_a_query_whose_media_decode(prepared, capsys, name):
    root, manifests = prepared

    for source in (*TRAINING, "scar_eval"):
        entry = manifests[source][name]
        assert (entry["rows"], entry["put_aside"]["count"]) == (scar.PICTURES * scar.OBJECTS, 0)
        assert not {OTHER_QUERY, REPEATED, UNKNOWN_SWAPS, CUT} & entry["notes"].keys()
    for source in TRAINING:
        assert check([str(root / source / f"{name}.parquet")]) == 0, capsys.readouterr().out


@pytest.mark.parametrize("name", NAMES)
def test_training_points_with_a_region_and_the_published_form_says_it_too(prepared, name):
    rows = rows_of(prepared[0], "Sony/SCaR-Train", f"SCAR_{name}")
    plain, published = (open_table(prepared[0] / source / f"{name}.parquet") for source in TRAINING[:2])

    assert [written(pair.query) for pair in plain] == [f"{IMAGE}\n{FIND}"] * len(rows)
    assert [written(pair.query) for pair in published] == list(map(published_training_query, rows))
    for table in (plain, published):
        boxes = [list(pair.query.media[0].regions[0].box) for pair in table]
        assert boxes == [corners(row["bbox"]) for row in rows]
        assert [written(pair.positives[0]) for pair in table] == [row["pos_text"] for row in rows]
        negatives = [[written(negative.item) for negative in pair.negatives] for pair in table]
        assert negatives == [row.get("neg_text") or [] for row in rows]


def test_a_mask_is_that_of_the_drawn_object(prepared):
    boxes, masks = (open_table(prepared[0] / source / "RefCOCOg.parquet") for source in ("scar_train", TRAINING[2]))

    for boxed, masked in zip(boxes, masks, strict=True):
        (box,), (mask,) = boxed.query.media[0].regions, masked.query.media[0].regions
        picture = np.asarray(open_image(masked.query.media[0], MEDIA), float)
        x0, y0, x1, y1 = map(int, box.box)
        ys, xs = np.nonzero(mask.mask)
        assert (xs.min(), ys.min()) == pytest.approx((x0, y0), abs=1)
        assert (xs.max(), ys.max()) == pytest.approx((x1, y1), abs=1)
        # the object is of one colour, up to the JPEG, and what is around it of another
        colour = np.median(picture[mask.mask], axis=0)
        assert np.abs(picture[mask.mask] - colour).mean() < 30
        assert np.abs(picture[~mask.mask] - colour).mean() > 30


@pytest.mark.parametrize("name", NAMES)
def test_a_query_ranks_its_ten_captions_of_which_the_first_is_right(prepared, name):
    rows = rows_of(prepared[0], "Sony/SCaR-Eval", f"SCaR_eval_{name}")

    made = read_retrieval_set(prepared[0] / "scar_eval" / name)

    assert list(made.candidates.values()) == [row["tgt_text"] for row in rows]
    assert list(made.relevance.values()) == [{row["tgt_text"][0]: 1.0} for row in rows]
    assert all(written(item) == target for target, item in made.corpus.items())
    for row, groups in zip(rows, made.candidate_groups.values(), strict=True):
        wrong = row["tgt_text"][1:]
        assert groups == {
            "swap": {"object": tuple(wrong[:3]), "relation": tuple(wrong[3:6]), "scene": tuple(wrong[6:])}
        }


@pytest.mark.parametrize("name", NAMES)
def test_each_version_of_the_prompts_writes_its_string(prepared, name):
    rows = rows_of(prepared[0], "Sony/SCaR-Eval", f"SCaR_eval_{name}")
    made = read_retrieval_set(prepared[0] / "scar_eval" / name)

    def queries(version):
        task = BENCHMARK.tasks[name].worded(version)
        return [shown(task, "query", item, MEDIA) for item in asked(task, "query", made.queries).values()]

    assert list(map(written, queries("published"))) == list(map(published_query, rows))
    assert list(map(written, queries("region"))) == [f"{IMAGE}\n{FIND}"] * len(rows)
    assert list(map(written, queries("crop"))) == [f"{IMAGE} \n{FIND}"] * len(rows)
    assert list(map(written, queries("coordinates"))) == list(map(published_query, rows))
    regions = {
        version: [len(item.media[0].regions) for item in queries(version)] for version in ("region", "published")
    }
    assert set(regions["region"]) == set(regions["published"]) == {1}
    sizes = [open_image(item.media[0], MEDIA).size for item in queries("crop")]
    assert sizes == [(int(row["bbox"][2]), int(row["bbox"][3])) for row in rows]


def test_the_published_string_is_the_one_that_was_seen():
    row = {"qry_text": f"<|image_1|>\n{FIND}", "bbox": [10.0, 20.0, 70.0, 100.0]}

    assert published_query(row) == f"{IMAGE} \n{FIND}\nReferring object bbox: [10.0, 20.0, 80.0, 120.0]"


def test_a_model_that_looks_nowhere_is_scored_with_its_controls(prepared):
    made = read_retrieval_set(prepared[0] / "scar_eval/ADE20K")

    result = evaluate_task(BENCHMARK.tasks["ADE20K"], made, Crew(toy_encode))

    # one vector for everything: pessimistic ties leave nothing
    assert result.score == 0.0
    assert result.chance == pytest.approx(0.1)
    assert list(result.blinds) == ["no_image", "shuffled_region", "wrong_region", "crop", "coordinates"]
    swaps = result.row()["candidate_groups"]["swap"]
    assert {kind: (own["score"], round(own["chance"], 3)) for kind, own in swaps.items()} == {
        "object": (0.0, 0.25), "relation": (0.0, 0.25), "scene": (0.0, 0.25),
    }  # fmt: skip


def toy_encode(items, *, side):
    return toy.encode([item.of("same") for item in items], side=side)


def eval_row(**changes):
    return {
        "qry_text": scar.QUERY, "qry_image_path": "val/a.jpg", "bbox": [2.0, 3.0, 10.0, 8.0],
        "tgt_text": ["right", *(f"wrong {i}" for i in range(9))],
    } | changes  # fmt: skip


def train_row(**changes):
    return {
        "qry": scar.QUERY, "qry_image_path": "a.jpg", "pos_text": "right", "pos_image_path": "",
        "bbox": [2, 3, 10, 8], "segmentation": [[2.0, 3.0, 12.0, 3.0, 12.0, 11.0]],
    } | changes  # fmt: skip


@pytest.fixture
def media(tmp_path):
    folder = tmp_path / "media/images/val"
    folder.mkdir(parents=True)
    PIL.Image.new("RGB", (30, 20), "red").save(folder / "a.jpg")
    return Media(tmp_path / "media", tmp_path / "media/made", ("images", "images/val"))


def ranked(media, *rows):
    return CONVERTERS["scar_ranked"].ranked({"rows": iter(rows)}, read_source("scar_eval").sets["ADE20K"], media)


def pairs(media, *rows, source="scar_train"):
    return list(CONVERTERS["scar_pairs"].pairs(iter(rows), read_source(source).sets["ADE20K"], media))


def test_a_picture_is_found_by_its_path_or_by_its_name_in_the_folder_of_the_set(media):
    found = [ranked(media, eval_row(qry_image_path=path)).queries["0"].media[0].source
             for path in ("val/a.jpg", "a.jpg", "elsewhere/a.jpg")]  # fmt: skip

    assert len(set(found)) == 1


def test_a_text_without_the_word_for_its_picture_gets_one_in_training(media):
    (pair,) = pairs(media, train_row(qry="Find it."))

    assert written(pair.query) == f"{IMAGE}\nFind it."


def test_whole_numbers_are_told_as_they_are_stored(media):
    (pair,) = pairs(media, train_row(), source="scar_train_published")

    assert written(pair.query).endswith("\nReferring object bbox: [2, 3, 12, 11]")


@pytest.mark.parametrize(
    ("given", "captions"),
    [
        ({}, []),
        ({"neg_text": None}, []),
        ({"neg_text": ""}, []),
        ({"neg_text": []}, []),
        ({"neg_text": "wrong"}, ["wrong"]),
        ({"neg_text": ["wrong", "worse"]}, ["wrong", "worse"]),
    ],
)
def test_wrong_captions_are_negatives_where_a_row_has_any(media, given, captions):
    (pair,) = pairs(media, train_row(**given))

    assert [negative.item.text for negative in pair.negatives] == captions


@pytest.mark.parametrize(
    ("changes", "note", "count"),
    [
        ({"qry_text": "<|image_1|>\nWhat is it?"}, OTHER_QUERY, 1),
        ({"qry_text": FIND}, OTHER_QUERY, 1),
        ({"tgt_text": ["right", "wrong", "right", "wrong", *"abcdef"]}, REPEATED, 2),
        ({"tgt_text": ["right", "wrong"]}, UNKNOWN_SWAPS, 1),
        ({"bbox": [22.0, 3.0, 10.0, 8.0]}, CUT, 1),
    ],
)
def test_what_is_odd_is_counted(media, changes, note, count):
    assert note not in ranked(media, eval_row()).notes
    assert ranked(media, eval_row(**changes)).notes[note] == count


def test_a_query_that_is_worded_otherwise_keeps_its_words_and_their_published_string(media):
    rows = [eval_row(qry_text=words) for words in (
        "What is it?", "<|image_1|>\nWhat is it?", "<|image_1|> What is it?", "<|image_1|> \nWhat is it?",
        "<|image_1|>\nWhat? \nHere.", "<|image_1|>\nWhat is it?\n",
    )]  # fmt: skip
    task, made = BENCHMARK.tasks["ADE20K"], ranked(media, *rows)

    texts = [written(item) for item in asked(task, "query", made.queries).values()]
    published = task.worded("published")
    strings = [shown(published, "query", item, MEDIA) for item in asked(published, "query", made.queries).values()]

    assert texts[:2] == [f"{IMAGE}  What is it?", f"{IMAGE}\nWhat is it?"]
    assert list(map(written, strings)) == list(map(published_query, rows))


def test_a_box_that_leaves_its_picture_is_cut_to_it_and_one_within_a_pixel_is_left(media):
    made = ranked(media, eval_row(bbox=[22.0, 3.0, 10.0, 8.0]), eval_row(bbox=[22.0, 3.0, 8.5, 8.0]))

    assert [item.media[0].regions[0].box for item in made.queries.values()] == [(22, 3, 30, 11), (22, 3, 30.5, 11)]


def test_repeated_captions_are_in_their_first_groups_and_never_the_right_one(media, tmp_path):
    made = ranked(media, eval_row(tgt_text=["right", "a", "a", "right", "b", "c", "d", "e", "f", "a"]))
    write_ranked(media.folder.parent / "set", made)

    groups = json.loads((media.folder.parent / "set/candidate_groups.jsonl").read_text())["groups"]

    assert groups == {"swap": {"object": ["a"], "relation": ["b", "c", "d"], "scene": ["e", "f", "a"]}}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"bbox": [1.0, 2.0, 3.0]}, r"row 0: bbox: expected 4 numbers x, y, width, height, got \[1.0, 2.0, 3.0\]"),
        ({"bbox": None}, r"row 0: bbox: expected 4 numbers"),
        ({"bbox": [1.0, 2.0, 0.0, 4.0]}, r"row 0: region.box: expected x0 < x1 and y0 < y1"),
        ({"bbox": [40.0, 2.0, 9.0, 4.0]}, r"row 0: region.box: expected x0 < x1 and y0 < y1"),
        ({"tgt_text": []}, r"row 0: tgt_text: expected a list, got an empty one"),
        ({"qry_image_path": "val/b.jpg"}, r"row 0: qry_image_path: .* no 'b.jpg' in"),
    ],
)
def test_a_bad_row_of_the_benchmark_is_named_with_its_field(media, changes, message):
    with pytest.raises(InputError, match=message):
        ranked(media, eval_row(**changes))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"bbox": [1, 2, True, 3]}, r"row 0: bbox: expected 4 numbers"),
        ({"pos_text": ""}, r"row 0: pos_text: expected a text, got an empty one"),
        ({"qry": "<|image_1|> and <|image_1|>"}, r"row 0: qry: expected '<\|image_1\|>' once"),
        ({"segmentation": None}, r"row 0: segmentation: expected polygons or run lengths"),
    ],
)
def test_a_bad_row_of_training_comes_out_as_its_error(media, changes, message):
    (error,) = pairs(media, train_row(**changes), source="scar_train_masks")

    assert isinstance(error, InputError)
    with pytest.raises(InputError, match=message):
        raise error
