"""Composed retrieval: from the official layouts to queries, galleries, right targets, candidates and groups."""

import hashlib
import json
import shutil
from dataclasses import replace
from pathlib import Path

import PIL.Image
import pytest
import torch

from data_prep.check import main as check
from data_prep.converters import Media
from data_prep.converters.composed_ranked.genecis import REPEATED, cropped, square
from data_prep.converters.registry import CONVERTERS
from data_prep.engine.preparation import prepare
from data_prep.engine.upstream_rows import read_rows
from data_prep.miniatures.composed_ranked import ASPECTS
from data_prep.miniatures.draw import prepare_miniature
from data_prep.source import read_source
from mmembed.errors import InputError
from mmembed.evaluation.benchmark import read_benchmark
from mmembed.evaluation.crew import Crew
from mmembed.evaluation.retrieval_set import read_retrieval_set
from mmembed.evaluation.runner import Evaluation, evaluate_benchmark
from mmembed.media.images import open_image
from mmembed.media.settings import MediaSettings
from tests.data_prep.composed_copies import READERS, SOURCES, of_json, small

ROOT = Path(__file__).parents[2]
CATEGORIES = ("dress", "shirt", "toptee")
TASKS = ("focus_attribute", "change_attribute", "focus_object", "change_object")
SIZES = {
    "fashioniq/dress": (2017, 3817), "fashioniq/shirt": (2038, 6346), "fashioniq/toptee": (1961, 5373),
    "fashioniq/dress_val_union": (2017, 2628), "fashioniq/shirt_val_union": (2038, 3089),
    "fashioniq/toptee_val_union": (1961, 2902),
    "cirr/val": (4181, 2297), "cirr/test1": (4148, 2315),
    "circo/val": (220, 123_403), "circo/test": (800, 123_403),
    "genecis/focus_attribute": (None, None), "genecis/change_attribute": (None, None),
    "genecis/focus_object": (1960, 2192), "genecis/change_object": (1960, 2735),
    "covr/test": (None, None), "covr/val": (None, None),
}  # fmt: skip


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """The goldens, prepared."""
    root = tmp_path_factory.mktemp("goldens")
    manifests = {name: prepare(small(name), root, copies=READERS)["sets"] for name in SOURCES}
    return root, manifests


def found(data, name):
    return read_retrieval_set(data[0] / name)


def shown_file(item):
    return Path(item.media[0].source).name


def test_the_sizes_are_those_that_were_counted():
    sizes = {
        f"{name}/{key}": (row.rows, row.targets)
        for name in (*SOURCES, "covr")
        for key, row in read_source(name).sets.items()
    }

    assert sizes == SIZES
    assert all(
        "non-commercial" in row.licence + row.obtain for name in SOURCES for row in read_source(name).sets.values()
    )


@pytest.mark.parametrize("name", SOURCES)
def test_every_medium_of_the_goldens_decodes(data, capsys, name):
    for key in read_source(name).sets:
        for side in ("queries", "corpus"):
            assert check([str(data[0] / name / key / f"{side}.jsonl")]) == 0, capsys.readouterr().out


@pytest.mark.parametrize("category", CATEGORIES)
def test_fashioniq_ranks_the_list_of_the_split_and_keeps_both_captions_apart(data, category):
    rows = of_json(f"FashionIQ/captions/cap.{category}.val.json")
    made = found(data, f"fashioniq/{category}")

    assert list(made.corpus) == of_json(f"FashionIQ/image_splits/split.{category}.val.json")
    assert [list(item.content[1:]) for item in made.queries.values()] == [row["captions"] for row in rows]
    assert [shown_file(item) for item in made.queries.values()] == [f"{row['candidate']}.jpg" for row in rows]
    assert list(made.relevance.values()) == [{row["target"]: 1.0} for row in rows]
    assert list(made.references.values()) == [[row["candidate"]] for row in rows]
    assert made.candidates is None
    # a model's phrases go around words that are not verbatim
    assert not any(item.verbatim for item in (*made.queries.values(), *made.corpus.values()))


def test_an_empty_caption_stays_a_part_of_its_own_and_is_counted(data):
    shirt, toptee = found(data, "fashioniq/shirt"), found(data, "fashioniq/toptee")
    empty = "queries of which one caption is empty"

    assert shirt.queries["5"].content[1:] == ("is striped", "")
    assert (toptee.queries["1"].content[1:], toptee.queries["6"].content[1:]) == (
        ("", "more cats"), ("same dog but two", " "),
    )  # fmt: skip
    assert [data[1]["fashioniq"][category]["notes"].get(empty, 0) for category in CATEGORIES] == [0, 1, 2]


@pytest.mark.parametrize("category", CATEGORIES)
def test_the_val_union_ranks_what_the_queries_name_and_asks_the_same(data, category):
    whole, union = found(data, f"fashioniq/{category}"), found(data, f"fashioniq/{category}_val_union")
    named = {name for row in of_json(f"FashionIQ/captions/cap.{category}.val.json")
             for name in (row["candidate"], row["target"])}  # fmt: skip

    assert list(union.corpus) == [name for name in whole.corpus if name in named]
    assert [item.fingerprint() for item in union.queries.values()] == [i.fingerprint() for i in whole.queries.values()]
    assert (union.relevance, union.references) == (whole.relevance, whole.references)


def test_fashioniq_takes_png_files_and_pic2words_folder_of_annotations(tmp_path):
    copy = tmp_path / "copies/fashion-iq"
    shutil.copytree(READERS / "FashionIQ", copy)
    (copy / "captions").rename(copy / "json")
    names = of_json("FashionIQ/image_splits/split.dress.val.json")
    for name in names[::2]:
        PIL.Image.open(copy / f"images/{name}.jpg").save(copy / f"images/{name}.png")
        (copy / f"images/{name}.jpg").unlink()

    prepare(small("fashioniq", "dress"), tmp_path / "data", copies=tmp_path / "copies")

    made = read_retrieval_set(tmp_path / "data/fashioniq/dress")
    assert [shown_file(item)[-4:] for item in made.corpus.values()] == [".png", ".jpg"] * (len(names) // 2)


@pytest.mark.parametrize("split", ["val", "test1"])
def test_cirr_ranks_the_split_and_its_candidates_are_the_five_others_of_the_group(data, split):
    rows = of_json(f"CIRR/cirr/captions/cap.rc2.{split}.json")
    made = found(data, f"cirr/{split}")

    assert list(made.corpus) == list(of_json(f"CIRR/cirr/image_splits/split.rc2.{split}.json"))
    assert list(made.queries) == [str(row["pairid"]) for row in rows]
    assert [item.content[1:] for item in made.queries.values()] == [(row["caption"],) for row in rows]
    assert list(made.references.values()) == [[row["reference"]] for row in rows]
    groups = [[name for name in row["img_set"]["members"] if name != row["reference"]] for row in rows]
    assert list(made.candidates.values()) == groups
    assert {len(group) for group in groups} == {5}
    if split == "val":
        assert list(made.relevance.values()) == [{row["target_hard"]: 1.0} for row in rows]
    else:
        assert (made.judged, made.relevance) == (False, {})


@pytest.mark.parametrize("split", ["val", "test"])
def test_circo_ranks_all_of_coco_and_grades_the_picture_that_a_change_was_written_for(data, split):
    rows = of_json(f"CIRCO/annotations/{split}.json")
    made = found(data, f"circo/{split}")
    images = of_json("CIRCO/COCO2017_unlabeled/annotations/image_info_unlabeled2017.json")["images"]

    assert list(made.corpus) == [str(image["id"]) for image in images]
    assert list(made.queries) == [str(row["id"]) for row in rows]
    said = [(row["relative_caption"], row["shared_concept"]) for row in rows]
    assert [item.content[1:] for item in made.queries.values()] == said
    assert list(made.references.values()) == [[str(row["reference_img_id"])] for row in rows]
    if split == "test":
        assert not made.judged
        return
    for row, grades in zip(rows, made.relevance.values(), strict=True):
        assert list(grades) == [str(number) for number in row["gt_img_ids"]]
        assert {name for name, grade in grades.items() if grade == 2} == {str(row["target_img_id"])}
    assert sum(len(grades) > 1 for grades in made.relevance.values()) > 3
    assert list(made.groups.values()) == [{"aspect": tuple(row["semantic_aspects"])} for row in rows]


@pytest.mark.parametrize("task", TASKS)
def test_genecis_ranks_the_right_picture_first_and_one_named_again_under_another_name(data, task):
    rows = of_json(f"GeneCIS/genecis/{task}.json")
    made = found(data, f"genecis/{task}")

    assert [item.content[1:] for item in made.queries.values()] == [(row["condition"],) for row in rows]
    for row, own, right in zip(rows, made.candidates.values(), made.relevance.values(), strict=True):
        assert len(own) == 1 + len(row["gallery"]) == (10 if task == "focus_attribute" else 15)
        assert right == {own[0]: 1.0}
        named = [str(part.get("val_image_id", part.get("image_id"))) for part in (row["target"], *row["gallery"])]
        assert [name.partition("#")[0].partition("_")[0] for name in own] == named
    assert made.references == {}


def test_a_target_that_its_template_names_again_is_a_wrong_candidate_of_the_same_picture(data):
    made = found(data, "genecis/change_object")
    again = [name for own in made.candidates.values() for name in own if name.endswith("#2")]

    assert len(again) == 2
    assert data[1]["genecis"]["change_object"]["notes"][REPEATED] == 2
    query, own = next((query, own) for query, own in made.candidates.items() if f"{own[0]}#2" in own)
    assert list(made.relevance[query]) == [own[0]]
    assert made.corpus[f"{own[0]}#2"] == made.corpus[own[0]]


@pytest.mark.parametrize("task", ["focus_attribute", "change_attribute"])
def test_a_part_of_a_picture_is_cut_out_as_the_published_code_does_it(data, task):
    made, golden = found(data, f"genecis/{task}"), of_json("genecis_crops.json")[task]
    compared = 0

    for (query, own), crops in zip(made.candidates.items(), golden, strict=True):
        items = [made.queries[query], *(made.corpus[name] for name in own)]
        for item, crop in zip(items, crops, strict=True):
            with PIL.Image.open(item.media[0].source) as picture:
                assert list(picture.size) == crop["size"]
                assert hashlib.sha256(picture.convert("RGB").tobytes()).hexdigest()[:16] == crop["sha256"]
            compared += 1
    assert compared == 8 * (11 if task == "focus_attribute" else 16)


@pytest.mark.parametrize(
    ("box", "size"),
    [
        # context to the left and above alone: 1.7 sides, which end where the box ends
        ((40, 40, 10, 20), (17, 34)),
        # stopped at 0, it is 1.7 sides from there
        ((0, 0, 10, 20), (17, 34)),
        # 5 of 7 pixels are there to the left
        ((5, 40, 10, 20), (17, 34)),
        # stopped at the right and lower edge
        ((95, 70, 10, 20), (12, 24)),
        ((0, 0, 100, 80), (100, 80)),
    ],
)
def test_a_crop_grows_to_the_left_and_upwards(box, size):
    assert cropped(PIL.Image.new("RGB", (100, 80)), box, "target").size == size


def test_a_crop_ends_where_its_box_ends_and_stands_in_the_middle_of_a_black_square():
    picture = PIL.Image.new("RGB", (100, 80), "red")
    picture.putpixel((49, 59), (0, 0, 255))

    shown = square(cropped(picture, (40, 40, 10, 20), "target"))

    assert shown.size == (34, 34)
    assert shown.getpixel((8 + 16, 33)) == (0, 0, 255)
    assert [shown.getpixel((x, 5)) for x in (7, 8, 24, 25)] == [(0, 0, 0), (255, 0, 0), (255, 0, 0), (0, 0, 0)]


def test_covr_ranks_target_clips_and_says_which_of_them_a_query_shows(tmp_path):
    prepare_miniature("covr", tmp_path)

    made = read_retrieval_set(tmp_path / "covr/test")

    assert list(made.corpus) == [f"{number % 2:03d}/{90 + number}" for number in range(6)]
    assert list(made.references.values()) == [[name] for name in list(made.corpus)[2:]] + [[], []]
    assert made.queries["0"].content[1:] == ("Make it is longer",)
    assert [shown_file(item) for item in made.queries.values()] == [f"{92 + number}.mp4" for number in range(6)]
    assert list(made.relevance.values()) == [{name: 1.0} for name in made.corpus]


@pytest.mark.parametrize("name", [*SOURCES, "covr"])
def test_a_miniature_has_the_layout_of_the_source_and_decodes(tmp_path, capsys, name):
    manifest = prepare_miniature(name, tmp_path)[name]["sets"]

    assert list(manifest) == list(read_source(name).sets)
    for key in manifest:
        made = read_retrieval_set(tmp_path / name / key)
        assert len(made.queries) == 6
        for side in ("queries", "corpus"):
            assert check([str(tmp_path / name / key / f"{side}.jsonl")]) == 0, capsys.readouterr().out


def test_pictures_of_other_modes_are_shown_as_rgb_and_not_turned(tmp_path):
    copy = tmp_path / "copies/CIRR"
    shutil.copytree(READERS / "CIRR", copy)
    turned = PIL.Image.Exif()
    turned[0x0112] = 6
    file = copy / "dev/dev-109-1-img1.png"
    PIL.Image.new("RGBA", (20, 10), (255, 0, 0, 0)).save(file, exif=turned)
    PIL.Image.new("P", (20, 10)).save(copy / "dev/dev-155-3-img1.png")
    PIL.Image.new("L", (20, 10)).save(copy / "dev/dev-122-2-img0.png")
    prepare(small("cirr", "val"), tmp_path / "data", copies=tmp_path / "copies")

    made = read_retrieval_set(tmp_path / "data/cirr/val")

    for name in ("dev-109-1-img1", "dev-155-3-img1", "dev-122-2-img0"):
        shown = open_image(made.corpus[name].media[0], MediaSettings())
        assert (shown.mode, shown.size) == ("RGB", (20, 10))


def convert(name, rows, gallery, tmp_path):
    source, _, key = name.partition("/")
    row = read_source(source).sets[key]
    parts = {"rows": iter(rows)} | ({} if gallery is None else {"gallery": iter(gallery)})
    return CONVERTERS[row.converter].ranked(parts, row, Media(tmp_path, tmp_path / "made"))


GARMENT = {"candidate": "A", "target": "B", "captions": ["is red", "is long"]}
LIST = [{"value": "A"}, {"value": "B"}]
MEMBERS = [f"m{number}" for number in range(6)]
PATHS = [{"key": name, "value": f"./dev/{name}.png"} for name in MEMBERS]
PAIR = {"pairid": 1, "reference": "m0", "target_hard": "m1", "caption": "c", "img_set": {"members": MEMBERS}}
INFO = [{"key": "images", "value": [{"id": number, "file_name": f"{number}.jpg"} for number in (1, 2, 3)]}]
ASKED = {
    "id": 0, "reference_img_id": 1, "target_img_id": 2, "gt_img_ids": [2, 3], "relative_caption": "c",
    "shared_concept": "s", "semantic_aspects": ["addition"],
}  # fmt: skip
PART = {"image_id": 1, "instance_bbox": [1, 2, 3, 4]}
TEMPLATE = {"condition": "c", "reference": PART, "target": PART, "gallery": [PART]}


@pytest.mark.parametrize(
    ("name", "rows", "gallery", "message"),
    [
        ("fashioniq/dress", [{**GARMENT, "candidate": "C"}], LIST, "row 0: candidate: expected a name of the gallery"),
        ("fashioniq/dress", [{**GARMENT, "target": "C"}], LIST, "row 0: target: expected a name of the gallery"),
        ("fashioniq/dress", [{**GARMENT, "captions": ["a"]}], LIST, "row 0: captions: expected two texts, one of them"),
        ("fashioniq/dress", [{**GARMENT, "captions": ["", " "]}], LIST, "row 0: captions: expected two texts, one of"),
        ("cirr/val", [{**PAIR, "target_hard": "x"}], PATHS, "row 0: target_hard: expected a name of the gallery"),
        ("cirr/val", [{**PAIR, "img_set": {"members": MEMBERS[:5]}}], PATHS, "img_set.members: expected 6 different"),
        ("cirr/val", [{**PAIR, "img_set": {"members": [*MEMBERS[:5], "m0"]}}], PATHS, "expected 6 .* got 5 of 6 names"),
        ("cirr/val", [{**PAIR, "img_set": {}}], PATHS, "row 0: img_set: members: expected a list"),
        ("cirr/val", [PAIR], [*PATHS, {"key": "up", "value": "../up.png"}], "gallery: row 6: value: expected a path"),
        ("circo/val", [{**ASKED, "reference_img_id": 9}], INFO, "row 0: reference_img_id: expected a name of the gal"),
        ("circo/val", [{**ASKED, "target_img_id": 1}], INFO, "row 0: target_img_id: expected one of gt_img_ids"),
        ("cirr/val", [{**PAIR, "target_hard": "m0"}], PATHS, "row 0: right targets: expected other pictures than"),
        ("circo/val", [{**ASKED, "gt_img_ids": [2, 1]}], INFO, "row 0: right targets: .* got '1'"),
        ("circo/val", [{**ASKED, "gt_img_ids": [2, 9]}], INFO, r"row 0: gt_img_ids\[1\]: expected a name of the gal"),
        ("circo/val", [ASKED], [{"key": "images", "value": [{"id": 1}]}], r"gallery: row 0: value\[0\]: file_name"),
        ("circo/val", [ASKED, ASKED], INFO, "row 1: id: expected each query once, got '0' again"),
        ("genecis/focus_attribute", [{**TEMPLATE, "gallery": [{"image_id": 1}]}], None, r"gallery\[0\].instance_bbox"),
        ("genecis/focus_attribute", [{**TEMPLATE, "target": {**PART, "instance_bbox": [1, 2, 0, 4]}}], None,
         "target.instance_bbox: expected 4 numbers x, y, width, height, the last two above 0"),
        ("genecis/focus_attribute", [{**TEMPLATE, "target": {**PART, "instance_bbox": [1, 2, float("nan"), 4]}}], None,
         "target.instance_bbox: expected 4 numbers"),
        ("genecis/focus_attribute", [{**TEMPLATE, "gallery": [PART, {**PART, "instance_bbox": [20, 2, 3, 4]}]}], None,
         r"row 0: gallery\[1\].instance_bbox: expected a box in 8 x 8 pixels"),
        ("genecis/focus_object", [{**TEMPLATE, "reference": {"val_image_id": "a"}}], None, "a number, got 'a'"),
    ],
)  # fmt: skip
def test_a_row_that_cannot_be_is_refused_by_its_number_and_field(tmp_path, name, rows, gallery, message):
    (tmp_path / "dev").mkdir()
    for file in ("A.jpg", "B.jpg", *(f"dev/{name}.png" for name in MEMBERS), "1.jpg", "2.jpg", "3.jpg"):
        PIL.Image.new("RGB", (8, 8)).save(tmp_path / file)

    with pytest.raises(InputError, match=message):
        convert(name, rows, gallery, tmp_path)


def test_a_box_that_no_pixel_is_in_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"target.instance_bbox: expected a box in 8 x 8 pixels, got \[20, 2, 3, 4\]"):
        cropped(PIL.Image.new("RGB", (8, 8)), (20, 2, 3, 4), "target")


def test_a_picture_to_cut_that_does_not_open_is_named_with_its_row(tmp_path):
    (tmp_path / "1.jpg").write_bytes(b"no picture")

    with pytest.raises(InputError, match=r"row 0: .*1\.jpg: expected a whole picture"):
        convert("genecis/focus_attribute", [TEMPLATE], None, tmp_path)


def test_a_gallery_of_another_kind_is_unknown(tmp_path):
    row = read_source("fashioniq").sets["dress"]
    row.options["gallery"] = "val_union"

    with pytest.raises(InputError, match=r"options.gallery: expected original or val-union, got 'val_union'; did you"):
        CONVERTERS["fashioniq"].ranked({"rows": iter(()), "gallery": iter(())}, row, Media(tmp_path, tmp_path))


def test_rows_of_json_values_of_an_object_and_of_csv_are_read(tmp_path):
    (tmp_path / "list.json").write_text(json.dumps(["a", "b"]))
    (tmp_path / "object.json").write_text(json.dumps({"a": 1}, indent=1))
    (tmp_path / "rows.csv").write_text('x,y\n1,"two, quoted\nlines"\n')

    assert list(read_rows([tmp_path / "list.json"], form="values")) == [{"value": "a"}, {"value": "b"}]
    assert list(read_rows([tmp_path / "object.json"], form="mapping")) == [{"key": "a", "value": 1}]
    assert list(read_rows([tmp_path / "rows.csv"], ("y",))) == [{"x": "1", "y": "two, quoted\nlines"}]
    with pytest.raises(InputError, match=r"object.json: expected a JSON list, got dict"):
        list(read_rows([tmp_path / "object.json"], form="values"))
    with pytest.raises(InputError, match=r"list.json: expected a JSON object, got list"):
        list(read_rows([tmp_path / "list.json"], form="mapping"))
    with pytest.raises(InputError, match=r"rows.csv: z: expected this column"):
        list(read_rows([tmp_path / "rows.csv"], ("z",)))
    for text, message in (
        ("x,y\n1\n", "line 2: expected 2 fields"), ("x,y\n1,2,3\n", "line 2: expected 2 fields"),
        ('x,y\n1,"open\n', "expected a whole CSV file"),
    ):  # fmt: skip
        (tmp_path / "bad.csv").write_text(text)
        with pytest.raises(InputError, match=message):
            list(read_rows([tmp_path / "bad.csv"]))


def test_the_two_galleries_of_fashioniq_are_asked_and_scored_alike():
    whole, union = (read_benchmark(ROOT / f"eval/benchmarks/fashioniq{name}.yaml") for name in ("", "_val_union"))

    assert union.tasks == {
        name: replace(task, data=f"{task.data}_val_union") for name, task in whole.tasks.items()
    }  # fmt: skip


def encode_names(items, *, side):
    """Directions drawn by what an item is, whatever it shows."""
    rows = [torch.randn(16, generator=torch.Generator().manual_seed(int(item.fingerprint()[:8], 16))) for item in items]
    return torch.stack(rows)


@pytest.mark.parametrize("name", [*SOURCES, "fashioniq_val_union", "covr"])
def test_every_row_of_a_benchmark_is_scored_on_its_miniature_under_every_version_of_its_prompts(tmp_path, name):
    benchmark = read_benchmark(ROOT / f"eval/benchmarks/{name}.yaml")
    prepare_miniature(name.removesuffix("_val_union"), tmp_path)
    versions = {version for task in benchmark.tasks.values() for version in (task.prompts, *task.wordings)}

    for version in versions:
        evaluation = Evaluation(benchmark.worded(version), tmp_path, tmp_path / "out", "toy", miniature=True)
        scores = evaluate_benchmark(evaluation, Crew(encode_names, scale=True))
        assert (scores["failed"], list(scores["tasks"])) == ({}, list(benchmark.tasks))
    if name == "circo":
        assert set(scores["tasks"]["val_aspects"]["groups"]["aspect"]) == set(ASPECTS)
