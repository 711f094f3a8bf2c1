"""An item with regions as rows: the whole, then one region at a time, never torn apart."""

import pytest

from mmembed import Image, Item
from mmembed.data.tables import ItemTable, write_items
from mmembed.errors import InputError
from mmembed.index.region_rows import RegionRows, num_regions, pieces, with_region
from mmembed.items import Region

LEFT, RIGHT, POINT = Region(box=(0, 0, 10, 20)), Region(box=(10, 0, 30, 20)), Region(points=((5.0, 5.0, 1),))


@pytest.fixture
def table(tmp_path, picture):
    picture(56, 28).save(tmp_path / "p.png")
    path = tmp_path / "p.png"
    items = [
        ("a", Item.of({"image": path, "regions": [LEFT, RIGHT], "instruction": "Represent."})),
        ("b", Item.of("words alone")),
        ("c", Item((Image(path, (LEFT,)), " beside ", Image(path, (POINT, RIGHT))))),
    ]
    write_items(tmp_path / "items.jsonl", items)
    return ItemTable(tmp_path / "items.jsonl")


def regions_of(item):
    return [part.regions for part in item.content if isinstance(part, Image)]


def test_each_item_is_a_row_as_a_whole_and_one_for_each_region(table):
    rows = RegionRows(table, instruction="What is here?")

    got = [rows[i] for i in range(len(rows))]

    assert [name for name, _ in got] == ["a", "a", "a", "b", "c", "c", "c", "c"]
    assert [rows.number(i) for i in range(8)] == [0, 1, 2, 0, 0, 1, 2, 3]
    assert rows.starts == [0, 3, 4]
    assert [regions_of(item) for _, item in got[:3]] == [[()], [(LEFT,)], [(RIGHT,)]]
    assert [item.instruction for _, item in got[:4]] == ["Represent.", "What is here?", "What is here?", None]
    assert [regions_of(item) for _, item in got[4:]] == [
        [(), ()],
        [(LEFT,), ()],
        [(), (POINT,)],
        [(), (RIGHT,)],
    ]
    assert got[5][1].content[1] == " beside "


def test_without_an_instruction_of_their_own_regions_keep_the_items(table):
    rows = RegionRows(table)

    assert [rows[i][1].instruction for i in range(3)] == ["Represent."] * 3


def test_an_error_in_a_region_names_its_row_and_number(table):
    rows = RegionRows(table)

    assert rows.where(2) == f"{table.where(0)}, region 2"
    assert rows.where(3) == table.where(1)


def test_a_table_without_regions_is_refused(tmp_path):
    write_items(tmp_path / "items.jsonl", [("a", Item.of("red")), ("b", Item.of("blue"))])

    with pytest.raises(InputError, match="expected pictures with regions, got none in 2 rows; add regions"):
        RegionRows(ItemTable(tmp_path / "items.jsonl"))


def test_a_region_of_an_item_is_that_one_alone(table):
    item = table[2][1]

    assert num_regions(item) == 3
    assert with_region(item, 3).content == (
        Image(item.content[0].source),
        " beside ",
        Image(item.content[2].source, (RIGHT,)),
    )


@pytest.mark.parametrize(
    "starts, size, expected",
    [
        (None, 4, [(0, 4), (4, 8), (8, 10)]),
        ([0, 3, 4, 8], 4, [(0, 4), (4, 8), (8, 10)]),
        ([0, 3, 4, 8], 5, [(0, 4), (4, 8), (8, 10)]),
        ([0, 3, 4, 8], 2, [(0, 3), (3, 4), (4, 8), (8, 10)]),
        ([0, 3, 4, 8], 100, [(0, 10)]),
    ],
)
def test_pieces_cover_all_rows_and_end_where_items_do(starts, size, expected):
    assert list(pieces(0, 10, size, starts)) == expected


def test_pieces_of_a_part_begin_where_it_does():
    assert list(pieces(4, 10, 4, [0, 3, 4, 8])) == [(4, 8), (8, 10)]
    assert list(pieces(4, 4, 4, [0, 3, 4, 8])) == []
