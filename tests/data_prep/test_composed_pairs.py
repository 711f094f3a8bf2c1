"""Training rows of composed retrieval: from miniatures of the published layouts to pairs, and what rows may lack."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from data_prep.check import main as check
from data_prep.converters import Media
from data_prep.converters.composed_pairs import ORDERS
from data_prep.converters.registry import CONVERTERS
from data_prep.miniatures.draw import prepare_miniature
from data_prep.miniatures.studio import ROWS, Studio
from data_prep.source import read_source
from mmembed.data.tables import open_table
from mmembed.errors import InputError
from mmembed.items import Image, Item, Pair, Video

PICTURES = ("cirr_train/cirr", "fashioniq_train/dress", "lasco_train/lasco", "cc_coir_train/cc_coir")
SETS = {
    **dict.fromkeys((*PICTURES, "fashioniq_train/shirt", "fashioniq_train/toptee"), ROWS),
    **dict.fromkeys(("webvid_covr_train/webvid2m_covr", "megapairs_train/megapairs", "mtcir_train/mtcir"), ROWS),
    **{f"fashioniq_train_ways/{name}": 4 * ROWS for name in ("dress", "shirt", "toptee")},
    "image_captions/llava_pretrain": ROWS,
    "cir_triplets/triplets": 3 * ROWS,
}


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    root = tmp_path_factory.mktemp("composed")
    sources = dict.fromkeys(name.partition("/")[0] for name in SETS)
    return root, {name: prepare_miniature(name, root)[name]["sets"] for name in sources}


@pytest.fixture
def media(tmp_path):
    return Media(tmp_path / "media", tmp_path / "media/made", ("images", ""))


@pytest.fixture
def studio(media):
    return Studio(media.folder)


def table(prepared, name):
    return list(open_table(prepared[0] / f"{name}.parquet"))


def convert(source, rows, media, **options):
    row_set = next(iter(read_source(source).sets.values()))
    row_set = replace(row_set, options=row_set.options | options)
    return list(CONVERTERS[row_set.converter].pairs(iter(rows), row_set, media))


def test_every_set_of_the_sources_is_here():
    sources = {name.partition("/")[0] for name in SETS}

    assert {f"{source}/{name}" for source in sources for name in read_source(source).sets} == set(SETS)


@pytest.mark.parametrize("name", SETS)
def test_every_row_of_a_miniature_becomes_pairs_whose_media_decode(prepared, capsys, name):
    root, manifests = prepared
    source, _, row = name.partition("/")

    entry = manifests[source][row]
    assert (entry["rows"], entry["put_aside"]["count"]) == (SETS[name], 0)
    assert check([str(root / f"{name}.parquet")]) == 0, capsys.readouterr().out


@pytest.mark.parametrize("name", [*PICTURES, "mtcir_train/mtcir", "megapairs_train/megapairs"])
def test_a_picture_and_a_change_find_the_next_picture(prepared, name):
    pairs = table(prepared, name)

    shown = [pair.query.media[0] for pair in pairs]
    assert [pair.positives for pair in pairs] == [(Item.of(after),) for after in (*shown[1:], shown[0])]
    assert [pair.query for pair in pairs] == [
        Item.of({"image": pair.query.media[0], "text": pair.query.text}) for pair in pairs
    ]
    assert [f"number {i + 1}" in pair.query.text for i, pair in enumerate(pairs)] == [True] * ROWS
    assert all(len(pair.target_ids) == 1 for pair in pairs)


def test_the_names_of_queries_and_targets_are_the_publishers(prepared):
    first = {name: table(prepared, name)[0] for name in (*PICTURES, "mtcir_train/mtcir")}

    assert {name: (pair.query_id, pair.target_ids) for name, pair in first.items()} == {
        "cirr_train/cirr": ("0", ("train-1-1-img0",)),
        "fashioniq_train/dress": ("", ("BDRESS0001",)),
        "lasco_train/lasco": ("28714000", ("28715",)),
        "cc_coir_train/cc_coir": ("0", ("000001/4001",)),
        "mtcir_train/mtcir": ("pair0", ("00001/0000101.jpg",)),
    }


def test_clips_are_asked_for_as_clips(prepared):
    pair = table(prepared, "webvid_covr_train/webvid2m_covr")[0]

    (shown, change), (target,) = pair.query.content, pair.positives[0].content
    assert (type(shown), type(target), shown.num_frames, target.num_frames) == (Video, Video, 8, 8)
    assert (Path(shown.source).name, Path(target.source).name) == ("4000.mp4", "4001.mp4")
    assert (change, pair.query.verbatim) == ("make it a green cube, number 1", False)


def test_the_query_of_megapairs_is_the_first_hard_negative(prepared):
    for pair in table(prepared, "megapairs_train/megapairs"):
        assert [negative.miner for negative in pair.negatives] == ["query", *["published"] * 4]
        assert pair.negatives[0].item == Item.of(pair.query.media[0])


def test_captions_are_the_answers_to_pictures(prepared):
    pair = table(prepared, "image_captions/llava_pretrain")[1]

    assert (pair.query.media[0].source.endswith("00001/0000101.jpg"), pair.query.text) == (True, "")
    assert pair.positives == (Item.of("a green cube on a table"),)


def test_a_triplet_has_the_caption_before_the_change_as_its_hard_negative(prepared):
    pair = table(prepared, "cir_triplets/triplets")[1]

    assert pair.query.text == "make it a blue cone, number 2"
    assert pair.positives == (Item.of("a blue cone on a table, number 2"),)
    assert [(negative.item.text, negative.miner) for negative in pair.negatives] == [
        ("a red ball on a table, number 0", "before")
    ]


@pytest.fixture
def garment(studio):
    for name in ("B0", "B1"):
        studio.picture(studio.root / f"images/{name}.jpg")
    return {"candidate": "B0", "target": "B1", "captions": ["is red.", "has sleeves"]}


@pytest.mark.parametrize(
    ("options", "changes"),
    [
        ({}, ["Is red and has sleeves"]),
        ({"join": "magiclens"}, ["is red. and has sleeves"]),
        ({"join": "searle"}, ["is red and has sleeves", "has sleeves and is red"]),
        ({"orders": list(ORDERS)}, ["Is red and has sleeves", "Has sleeves and is red", "Is red", "Has sleeves"]),
        ({"orders": ["both", "reversed"], "join": "searle"}, ["is red and has sleeves", "has sleeves and is red"]),
    ],
)
def test_two_captions_are_written_as_the_options_say(options, changes, garment, media):
    row = (
        garment
        if options.get("join") in ("magiclens", "searle")
        else garment | {"captions": ["is red.", "has sleeves"]}
    )

    made = convert("fashioniq_train", [row], media, **options)

    assert [pair.query.text for pair in made] == changes


def test_the_four_ways_are_written_as_often(prepared):
    pairs = table(prepared, "fashioniq_train_ways/shirt")

    assert set(Counter(pair.target_ids for pair in pairs).values()) == {4}
    assert [pair.query.text for pair in pairs[:4]] == [
        "Make it a green cube, number 1 and has 0 sleeves", "Has 0 sleeves and make it a green cube, number 1",
        "Make it a green cube, number 1", "Has 0 sleeves",
    ]  # fmt: skip


@pytest.mark.parametrize(("orders", "changes"), [(["both"], ["Is red"]), (list(ORDERS), ["Is red"])])
def test_an_empty_caption_leaves_no_pair_without_words_nor_a_dangling_and(orders, changes, garment, media):
    made = convert("fashioniq_train", [garment | {"captions": ["", "is red"]}], media, orders=orders)

    assert [pair.query.text for pair in made] == changes


@pytest.mark.parametrize("captions", [["", " "], ["one"], ["a", "b", "c"]])
def test_captions_of_another_number_or_without_words_are_put_aside(captions, garment, media):
    made = convert("fashioniq_train", [garment, garment | {"captions": captions}, garment], media)

    assert [type(one) for one in made] == [Pair, InputError, Pair]
    assert made[1].where == "row 1: captions"


@pytest.mark.parametrize(
    ("source", "options", "message"),
    [
        ("fashioniq_train", {"orders": ["revesed"]}, r"options\.orders: .*did you mean 'reversed'"),
        ("fashioniq_train", {"join": "clip4cri"}, "join: .*did you mean 'clip4cir'"),
        ("mtcir_train", {"texts": "some"}, r"options\.texts: expected one or all, got 'some'"),
    ],
)
def test_options_that_are_not_known_are_refused(source, options, message, garment, media):
    row = garment | {"id": "0", "image": "B0.jpg", "target_image": "B1.jpg", "modifications": ["x"]}

    try:
        (error,) = convert(source, [row], media, **options)
    except InputError as refused:
        error = refused

    with pytest.raises(InputError, match=message):
        raise error


def test_of_several_changes_one_is_drawn_by_the_row_or_all_are_pairs(garment, media):
    row = {"id": "0", "image": "B0.jpg", "target_image": "B1.jpg", "modifications": ["x", "y"]}

    drawn = [convert("mtcir_train", [row] * 20, media) for _ in range(2)]
    everything = convert("mtcir_train", [row], media, texts="all")

    assert drawn[0] == drawn[1]
    assert {pair.query.text for pair in drawn[0]} == {"x", "y"}
    assert [pair.query.text for pair in everything] == ["x", "y"]


@pytest.mark.parametrize(
    ("edit", "changes"),
    [("make it red", ["make it red"]), ("['make it red', \"it's a dog\"]", ["make it red", "it's a dog"])],
)
def test_a_field_of_csv_holds_a_change_or_a_list_of_them(edit, changes, garment, media):
    made = convert("cc_coir_train", [{"pth1": "B0", "pth2": "B1", "edit": edit}], media, texts="all")

    assert [pair.query.text for pair in made] == changes


@pytest.mark.parametrize("edit", ["", "[make it red", "[]", "[1, 2]", "['']", "[x()]"])
def test_a_change_that_is_none_is_put_aside(edit, garment, media):
    (made,) = convert("cc_coir_train", [{"pth1": "B0", "pth2": "B1", "edit": edit}], media)

    assert isinstance(made, InputError)
    assert made.where.startswith("row 0: edit")


def test_a_picture_is_found_by_its_name_wherever_it_lies_and_two_of_one_name_are_refused(studio, media):
    for path in ("train/0/a.png", "train/1/b.png", "train/2/c.png", "train/3/c.png"):
        studio.picture(studio.root / path)
    rows = [{"pairid": i, "reference": "a", "target_hard": name, "caption": "x"} for i, name in enumerate("bcd")]

    found, twice, missing = convert("cirr_train", rows, media)

    assert found.positives == (Item.of(Image(str(media.folder / "train/1/b.png"))),)
    assert (twice.where, missing.where) == ("row 1: target_hard", "row 2: target_hard")
    assert "train/3/c.png" in twice.got
    assert missing.got == f"no 'd' below {media.folder}"


@pytest.mark.parametrize(
    ("source", "row", "column"),
    [
        ("fashioniq_train", {"candidate": "gone"}, "candidate"),
        ("fashioniq_train", {"target": "../B1"}, "target"),
        ("cc_coir_train", {"pth2": "gone"}, "pth2"),
        ("webvid_covr_train", {"pth1": "B0"}, "pth1"),
        ("megapairs_train", {"hns": ["B0.jpg", "gone.jpg"]}, "hns"),
        ("lasco_train", {"query-image": [7, "gone.jpg"]}, "query-image"),
        ("lasco_train", {"target-image": [7]}, "target-image"),
        ("image_captions", {"image": "/etc/hostname"}, "image"),
        ("image_captions", {"conversations": [{"value": "no picture"}, {"value": "a"}]}, "conversations"),
        ("image_captions", {"conversations": [{"value": "<image>"}, {"value": "a <image>"}]}, "conversations"),
        ("cir_triplets", {"modified_caption": " "[1:]}, "modified_caption"),
    ],
)
def test_a_row_whose_media_or_words_are_missing_is_put_aside_by_its_column(source, row, column, garment, media):
    good = garment | {
        "id": "0", "image": "B0.jpg", "target_image": "B1.jpg", "pth1": "B0", "pth2": "B1", "edit": "x", "qid": 1,
        "q_img": "B0.jpg", "t_img": "B1.jpg", "q_text": ["x"], "hns": ["B0.jpg"], "query-text": "x",
        "query-image": [0, "B0.jpg"], "target-image": [1, "B1.jpg"], "caption": "a", "instruction": "x",
        "modified_caption": "b",
    }  # fmt: skip

    (made,) = convert(source, [good | row], media)

    assert isinstance(made, InputError)
    assert made.where.startswith(f"row 0: {column}")


def test_plain_rows_of_a_picture_and_a_caption_are_read_too(garment, media):
    (made,) = convert("image_captions", [{"image": "B0.jpg", "caption": "a dress"}], media)

    assert (made.positives, made.query_id) == ((Item.of("a dress"),), "")
