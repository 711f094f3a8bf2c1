"""Tables read back what was written, row by row, and say file, row and field of what is wrong."""

import base64
import json
import os
import pickle
from pathlib import Path

import numpy as np
import PIL.Image
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mmembed.data.arrow import ITEM_SCHEMA, PAIR_SCHEMA
from mmembed.data.tables import ItemTable, open_table, read_items, write_items, write_pairs
from mmembed.errors import InputError
from mmembed.items import Image, Item, Negative, Page, Pair, Region, Video

FORMATS = ["jsonl", "parquet"]


@pytest.fixture
def media(tmp_path):
    """Empty files where media would be: tables name media, they do not open them."""
    for name in ("cat.jpg", "dog.png", "clip.mp4", "report.pdf", "frames/1.png", "frames/2.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    return tmp_path


@pytest.fixture
def varied_pairs(media):
    """Pairs that use every field of rows and items."""
    cat, dog = str(media / "cat.jpg"), str(media / "dog.png")
    box, points = Region(box=(1.5, 2.0, 30.0, 40.25)), Region(points=((3.0, 4.5, 1), (0.0, 0.0, 0)))
    return [
        Pair(Item.of("a red circle"), (Item.of({"image": cat}),)),
        Pair(
            Item(("before ", Image(cat, (box, points)), " and ", Image(b"\x00\xff"), ""), instruction="Compare"),
            (Item.of({"image": dog, "text": "same, but blue"}), Item.of("a second answer")),
            (
                Negative(Item.of("no"), "bm25", 3, 12.5),
                Negative(Item.of({"image": dog, "instruction": "Represent"})),
                Negative(Item.of("never"), rank=1, target_id="t9"),
            ),
            (0.1, -2.0, 3.0, 1e-9, 4.0),
            query_id="q1",
            target_ids=("t1", "t2"),
            class_id="cats",
        ),
        Pair(
            Item.of({"video": str(media / "clip.mp4"), "num_frames": 8, "start_s": 1.5, "end_s": 4.0, "text": "é\n☃"}),
            (Item.of({"pdf": str(media / "report.pdf"), "page": 3, "dpi": 72}), Item((Page(b"%PDF"),))),
        ),
        Pair(
            Item((Video((dog, b"two", cat)), Video(str(media / "frames"), fps=0.5)), verbatim=False),
            (Item(("one", "two"), verbatim=False), Item(("", Image(cat)), verbatim=False)),
        ),
        Pair(Item.of({"image": [cat, dog], "text": "two"}), (Item(("plain",), verbatim=True),)),
    ]


@pytest.mark.parametrize("suffix", FORMATS)
def test_pairs_come_back_equal(varied_pairs, media, suffix):
    path = media / f"pairs.{suffix}"

    write_pairs(path, varied_pairs)

    table = open_table(path)
    assert (table.name, len(table)) == ("pairs", 5)
    assert list(table) == varied_pairs
    assert [table[row] for row in (3, 0, 4, 1)] == [varied_pairs[row] for row in (3, 0, 4, 1)]


@pytest.mark.parametrize("suffix", FORMATS)
def test_masks_come_back_equal(media, suffix):
    masks = [np.random.default_rng(seed).random((5, 7)) < 0.4 for seed in range(3)]
    masks += [np.ones((2, 3), bool), np.eye(4, 1, dtype=bool)]
    item = Item((Image(str(media / "cat.jpg"), tuple(Region(mask=mask) for mask in masks)),))

    write_items(media / f"masks.{suffix}", [("m", item)])

    [(_, found)] = read_items(media / f"masks.{suffix}")
    for region, mask in zip(found.media[0].regions, masks, strict=True):
        assert region.mask.dtype == bool
        assert np.array_equal(region.mask, mask)


@pytest.mark.parametrize("suffix", FORMATS)
def test_items_come_back_equal(varied_pairs, media, suffix):
    items = [(f"{i}", pair.query) for i, pair in enumerate(varied_pairs)]

    write_items(media / f"items.{suffix}", items)

    assert list(read_items(media / f"items.{suffix}")) == items
    assert ItemTable(media / f"items.{suffix}")[2] == items[2]


def test_parquet_has_the_schema_it_promises(varied_pairs, media):
    write_pairs(media / "pairs.parquet", varied_pairs)
    write_items(media / "items.parquet", [("a", varied_pairs[1].query)])

    assert pq.read_schema(media / "pairs.parquet").equals(PAIR_SCHEMA)
    assert pq.read_schema(media / "items.parquet").equals(ITEM_SCHEMA)


def test_a_parquet_table_of_before_negatives_had_names_opens_as_it_was(media):
    negatives = (Negative(Item.of("no"), "bm25", 3, 12.5), Negative(Item.of({"image": str(media / "cat.jpg")})))
    pair = Pair(Item.of("a red circle"), (Item.of("yes"),), negatives)
    write_pairs(media / "new.parquet", [pair])
    position = PAIR_SCHEMA.get_field_index("negatives")
    negative = PAIR_SCHEMA.field(position).type.value_type
    fields = [negative.field(name) for name in ("item", "miner", "rank", "score")]
    schema = PAIR_SCHEMA.set(position, pa.field("negatives", pa.list_(pa.struct(fields))))
    rows = pq.read_table(media / "new.parquet").to_pylist()
    for one in rows[0]["negatives"]:
        assert one.pop("target_id") in ("", None)
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), media / "old.parquet")

    (found,) = open_table(media / "old.parquet")

    assert "target_id: " not in str(pq.read_schema(media / "old.parquet"))
    assert found == pair


def test_json_rows_are_as_short_as_people_write_them(varied_pairs, media):
    write_pairs(media / "pairs.jsonl", varied_pairs)

    rows = [json.loads(line) for line in (media / "pairs.jsonl").read_text().splitlines()]
    assert rows[0] == {"query": "a red circle", "positives": [{"image": "cat.jpg"}]}
    assert rows[1]["positives"][0] == {"image": "dog.png", "text": "same, but blue"}
    assert rows[1]["query"]["content"][3] == {"image": {"bytes": base64.b64encode(b"\x00\xff").decode()}}


def test_json_rows_may_be_written_by_hand(media):
    row = {
        "query": {"image": {"path": "cat.jpg"}, "regions": [{"mask": {"size": [2, 2], "counts": [1, 2, 1]}}]},
        "positives": ["yes", {"content": ["see ", {"pdf": "report.pdf", "page": 2}]}],
        "negatives": ["no", {"text": "nor this", "instruction": "Find"}],
    }
    (media / "t.jsonl").write_text(json.dumps(row))

    [pair] = open_table(media / "t.jsonl")

    assert pair.query.media[0].regions[0].mask.tolist() == [[False, True], [True, False]]
    assert pair.positives[1] == Item(("see ", Page(str(media / "report.pdf"), 2)))
    assert pair.negatives[1] == Negative(Item.of("nor this", "Find"))


def test_parquet_of_others_may_have_plain_strings(tmp_path):
    rows = {"query": ["q0", "q1"], "positives": [["p0"], ["p1", "p2"]]}
    pq.write_table(pa.table(rows), tmp_path / "plain.parquet")

    table = open_table(tmp_path / "plain.parquet")

    assert table[1] == Pair(Item.of("q1"), (Item.of("p1"), Item.of("p2")))


def test_media_may_live_elsewhere(media, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("tables") / "t.jsonl"
    pair = Pair(Item.of("cat"), (Item.of({"image": str(media / "cat.jpg")}),))

    write_pairs(elsewhere, [pair], media_root=media)

    assert list(open_table(elsewhere, media_root=media)) == [pair]
    with pytest.raises(InputError, match=r"t\.jsonl: line 1: positives\[0\]: item\.image: .*no such file"):
        open_table(elsewhere)[0]


@pytest.mark.parametrize("suffix", FORMATS)
def test_long_tables_are_read_in_any_order_and_from_copies(tmp_path, suffix):
    pairs = [Pair(Item.of(f"q{i}"), (Item.of(f"p{i}" * (i % 7 + 1)),)) for i in range(1300)]
    write_pairs(tmp_path / f"t.{suffix}", pairs)
    table = open_table(tmp_path / f"t.{suffix}")

    copied = pickle.loads(pickle.dumps(table))

    for row in (1299, 0, 512, 511, 256, 255, 700):
        assert table[row] == copied[row] == pairs[row]
    with pytest.raises(IndexError, match="row 1300 of 1300"):
        table[1300]


def test_a_changed_parquet_file_is_read_anew(tmp_path):
    path = tmp_path / "t.parquet"
    write_pairs(path, [Pair(Item.of("old"), (Item.of("p"),))])
    assert open_table(path)[0].query.text == "old"

    write_pairs(path, [Pair(Item.of("new"), (Item.of("p"),))])
    os.utime(path, ns=(1, 1))

    assert open_table(path)[0].query.text == "new"
    assert sorted(f.name for f in tmp_path.iterdir()) == [".t.parquet.arrow", "t.parquet"]


def test_the_copy_of_parquet_is_not_made_twice(tmp_path):
    path = tmp_path / "t.parquet"
    write_pairs(path, [Pair(Item.of("q"), (Item.of("p"),))])
    open_table(path)
    made = (tmp_path / ".t.parquet.arrow").stat().st_ino

    open_table(path)

    assert (tmp_path / ".t.parquet.arrow").stat().st_ino == made


def refuse(tmp_path: Path, row, message: str, suffix: str = "jsonl") -> None:
    """The second row of a table is ``row``; reading it complains with ``message``."""
    good = {"query": "q", "positives": ["p"]}
    path = tmp_path / f"bad.{suffix}"
    path.write_text("\n".join(text if isinstance(text, str) else json.dumps(text) for text in (good, row)))
    with pytest.raises(InputError) as caught:
        open_table(path)[1]
    assert str(caught.value).startswith(f"{path}: line 2")
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"query": ""}, "query: item: expected some text or media, got empty text"),
        ({"query": None}, "query: expected a value, got nothing"),
        ({"query": 7}, "query: expected a string or an object, got 7"),
        ({"positives": []}, "pair.positives: expected at least one, got none"),
        ({"positives": "p"}, "positives: expected a list, got 'p'"),
        ({"positives": ["p", {"image": "gone.jpg"}]}, "positives[1]: item.image: expected a file, got no such file '"),
        ({"positives": [{"image": "../up.jpg"}]}, "positives[0]: item.image: expected a path inside "),
        ({"positives": [{"image": "/etc/passwd"}]}, "got '/etc/passwd'; move it or give another media root"),
        ({"positives": [{"video": ["gone.png"]}]}, "item.video: expected a file"),
        ({"positives": [{"imagee": "x"}]}, "item.imagee: expected a known field, got 'imagee'; did you mean 'image'?"),
        ({"query": {"image": 5}}, "item.image: expected a path or {bytes: ...}, got 5"),
        ({"query": {"image": {"bytes": "%%"}}}, "item.image.bytes: expected base64, got "),
        ({"query": {"text": "x", "verbatim": True}}, "item.verbatim: expected a boolean beside content, got True"),
        ({"query": {"content": [{"image": "gone.jpg"}]}}, "item.image: expected a file"),
        ({"query": {"content": "abc"}}, "query: item.content: expected a list, got 'abc'"),
        ({"query": {"content": [5]}}, "query: item: expected an object, got 5"),
        ({"query": {"image": {"path": 7}}}, "query: item.image.path: expected a string, got 7"),
        ({"query": {"text": "x", "instruction": 3}}, "query: item.instruction: expected a string, got 3"),
        (
            {"query": {"image": {"bytes": "AA=="}, "regions": [{"box": [0, 0, "wide", 9]}]}},
            "item.regions[0]: region.box: expected 4 numbers x0 y0 x1 y1, got [0, 0, 'wide', 9]; write numbers",
        ),
        ({"query_idd": "x"}, "query_idd: expected a known field, got 'query_idd'; did you mean 'query_id'?"),
        ({"query_id": 3}, "query_id: expected a string, got 3"),
        ({"target_ids": ["a", "b"]}, "target_ids: expected 1 names, one for each positive, got 2"),
        ({"teacher_scores": [1.0, 2.0]}, "pair.teacher_scores: expected 1 scores"),
        ({"teacher_scores": [float("nan")]}, "teacher_scores[0]: expected a finite number, got nan"),
        ({"negatives": [{"item": "n", "ranks": 1}]}, "negatives[0].ranks: expected a known field"),
        ({"negatives": ["n", {"item": "n", "rank": 0}]}, "negatives[1].rank: expected a whole number from 1, got 0"),
        ({"negatives": [{"item": "n", "target_id": 7}]}, "negatives[0].target_id: expected a string, got 7"),
        ({"negatives": [{"item": "n", "score": "high"}]}, "negatives[0].score: expected a finite number, got 'high'"),
    ],
)
def test_a_bad_row_names_file_row_and_field(tmp_path, change, message):
    refuse(tmp_path, {"query": "q", "positives": ["p"]} | change, message)


@pytest.mark.parametrize(
    ("runs", "message"),
    [
        ({"size": [2, 2], "counts": [1, 2]}, "runs over 2 x 2 pixels, at most 268435456 of them, got 3 pixels"),
        ({"size": [1 << 20, 1 << 20], "counts": [1 << 40]}, "at most 268435456 of them, got 1099511627776 pixels"),
        ({"size": [2], "counts": [2]}, "region.mask: expected run lengths, got {'size': [2]"),
        ({"size": [2, 2], "counts": "0123"}, "region.mask: expected run lengths"),
        ("m.png", "region.mask: expected run lengths, got 'm.png'"),
    ],
)
def test_a_bad_mask_is_refused(media, runs, message):
    row = {"query": {"image": "cat.jpg", "regions": [{"mask": runs}]}, "positives": ["p"]}

    refuse(media, row, message)


@pytest.mark.parametrize(
    ("line", "got"),
    [("{'query': 1}", "got '{'query': 1}' (Expecting property name"), ("", "got ''"), ("[1]", "got '[1]'")],
)
def test_a_line_that_is_no_object_is_refused(tmp_path, line, got):
    refuse(tmp_path, line + "\n{}", f"line 2: expected a JSON object, {got}")


def test_a_missing_column_names_file_columns_and_nearest(tmp_path):
    (tmp_path / "t.jsonl").write_text('{"query": "q", "positive": ["p"]}\n')
    pq.write_table(pa.table({"querry": ["q"], "positives": [["p"]]}), tmp_path / "t.parquet")

    with pytest.raises(
        InputError, match=r"t\.jsonl: positives: .* got columns query, positive; did you mean 'positive'"
    ):
        open_table(tmp_path / "t.jsonl")
    with pytest.raises(InputError, match=r"t\.parquet: query: .* got columns querry, positives; did you mean 'querry'"):
        open_table(tmp_path / "t.parquet")


def test_an_item_without_a_name_is_refused(tmp_path):
    (tmp_path / "t.jsonl").write_text('{"id": "a", "text": "x"}\n{"id": 5, "text": "x"}\n')

    with pytest.raises(InputError, match=r"t\.jsonl: line 2: id: expected a string, got 5"):
        list(read_items(tmp_path / "t.jsonl"))


def test_bad_parquet_rows_are_named(media):
    item = {"content": [{"type": "image", "path": "gone.jpg"}]}
    strange = {"content": [{"type": "imge", "path": "cat.jpg"}]}
    rows = [{"query": {"content": [{"type": "text", "text": "q"}]}, "positives": [x]} for x in (item, strange)]
    pq.write_table(pa.Table.from_pylist(rows, schema=PAIR_SCHEMA), media / "t.parquet")
    table = open_table(media / "t.parquet")

    with pytest.raises(
        InputError, match=r"t\.parquet: row 0: positives\[0\]: item\.image: expected a file, got no such"
    ):
        table[0]
    with pytest.raises(InputError, match=r"t\.parquet: row 1: content\.type: .* got 'imge'; did you mean 'image'"):
        table[1]


def test_files_that_are_no_tables_are_refused(tmp_path):
    (tmp_path / "t.parquet").write_text("not parquet")
    (tmp_path / "empty.jsonl").touch()
    (tmp_path / "t.csv").touch()
    cases = {
        "t.parquet": "expected a Parquet file",
        "empty.jsonl": "expected at least one row, got an empty table",
        "t.csv": "expected a .jsonl or .parquet file, got '.csv'",
        "gone.jsonl": "expected a file, got no such file",
    }

    for name, message in cases.items():
        with pytest.raises(InputError) as caught:
            open_table(tmp_path / name)
        assert f"{tmp_path / name}: {message}" in str(caught.value)


@pytest.mark.parametrize("suffix", FORMATS)
def test_writing_refuses_what_would_not_come_back(tmp_path, suffix):
    path = tmp_path / f"t.{suffix}"
    good, text = Pair(Item.of("q"), (Item.of("p"),)), Item.of("q")
    picture = Pair(text, (Item.of(PIL.Image.new("RGB", (2, 2))),))
    outside = Pair(text, (Item.of({"image": "/etc/hosts"}),))

    with pytest.raises(
        InputError, match=r"row 1: positives\[0\]: item\.image: expected a path or bytes, got an open pict"
    ):
        write_pairs(path, [good, picture])
    with pytest.raises(
        InputError, match=r"row 0: positives\[0\]: item\.image: expected a path inside .* got '/etc/hosts'"
    ):
        write_pairs(path, [outside])
    with pytest.raises(InputError, match=r"row 0: teacher_scores\[0\]: expected a finite number, got inf"):
        write_pairs(path, [Pair(text, (text,), teacher_scores=(float("inf"),))])
    with pytest.raises(InputError, match="expected at least one row, got none"):
        write_pairs(path, [])
    assert list(tmp_path.iterdir()) == []


def test_writing_refuses_other_formats(tmp_path):
    with pytest.raises(InputError, match=r"t\.csv: expected a \.jsonl or \.parquet file, got '\.csv'"):
        write_items(tmp_path / "t.csv", [("a", Item.of("x"))])
