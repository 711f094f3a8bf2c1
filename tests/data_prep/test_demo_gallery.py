"""The demo's gallery: pictures with a box around each object, clips and pages, the same each time."""

import pytest

from data_prep.demo_gallery import INSTRUCTIONS, main, make_gallery
from mmembed.data.tables import read_items
from mmembed.items import Image, Page, Video
from mmembed.media.regions import check_regions
from mmembed.serve.instructions import read_instructions
from mmembed.serve.query import KINDS


@pytest.fixture
def drawn(tmp_path):
    assert make_gallery(tmp_path / "a", 1, pictures=5, clips=2, pages=3)
    return tmp_path / "a"


def test_pictures_have_two_boxes_inside_of_them(drawn):
    items = dict(read_items(drawn / "items.jsonl"))

    media = [item.media[0] for item in items.values()]
    assert [type(medium) for medium in media] == [Image] * 5 + [Video] * 2 + [Page] * 3
    assert list(items)[::5] == ["picture-00000", "clip-00000"]
    for image in media[:5]:
        assert len(image.regions) == 2
        check_regions(image, 56, 28)


def test_the_same_seed_draws_the_same_bytes_and_once(drawn, tmp_path):
    assert not make_gallery(drawn, 1, pictures=5, clips=2, pages=3)
    make_gallery(tmp_path / "b", 1, pictures=5, clips=2, pages=3)
    make_gallery(tmp_path / "c", 2, pictures=5, clips=2, pages=3)

    bytes_of = [
        {p.relative_to(root): p.read_bytes() for p in root.rglob("*") if p.is_file()}
        for root in (drawn, tmp_path / "b", tmp_path / "c")
    ]
    assert bytes_of[0] == bytes_of[1]
    assert bytes_of[0] != bytes_of[2]


def test_instructions_are_those_of_every_kind_of_query(drawn):
    assert read_instructions(drawn / "instructions.yaml") == INSTRUCTIONS
    assert set(INSTRUCTIONS) == set(KINDS)


def test_the_command_draws_below_the_data_root(tmp_path, capsys):
    few = ["--data-root", str(tmp_path), "--pictures", "2", "--clips", "1", "--pages", "1"]

    assert main(few) == 0
    assert f"drawn: {tmp_path / 'demo-gallery'}" in capsys.readouterr().out
    assert main(few) == 0
    assert "there already" in capsys.readouterr().out
