"""The list of published checkpoints: its page is up to date, and names every row."""

from mmembed.models.profiles import released_names, released_row
from scripts import list_released


def test_the_page_has_the_table_that_the_command_writes():
    text = list_released.PAGE.read_text(encoding="utf-8")

    assert list_released.page(text) == text, "run python scripts/list_released.py --write"
    assert all(f"`{name}`" in text for name in released_names())


def test_a_row_says_where_its_weights_lie_and_what_was_published_of_it():
    (row,) = (row for row in list_released.rows() if row[0] == "VLM2Vec/VLM2Vec-V2.0")

    assert row[1:5] == ("vlm2vec", "adapter of Qwen/Qwen2-VL-2B-Instruct", "apache-2.0", "2507.04590")
    assert "mmeb_v2: overall 58.0, image 64.9, video 34.6, visdoc 65.4" in row[5]


def test_a_word_chooses_rows(capsys):
    assert list_released.main(["--only", "v2.0"]) == 0
    assert "VLM2Vec-V2.0" in capsys.readouterr().out

    assert list_released.main(["--only", "nothing like it"]) == 1
    assert "no checkpoint or profile with 'nothing like it'" in capsys.readouterr().out


def test_a_page_that_lost_its_place_for_the_table_is_refused(tmp_path, monkeypatch, capsys):
    page = tmp_path / "released.md"
    page.write_text("# Released checkpoints\n")
    monkeypatch.setattr(list_released, "PAGE", page)

    assert list_released.main(["--write"]) == 2
    assert "put the lines back" in capsys.readouterr().err
    assert page.read_text() == "# Released checkpoints\n"


def test_every_row_with_published_scores_names_an_entry_of_its_own():
    entries = list_released.published_scores()
    named = [row.published for name in released_names() if (row := released_row(name)).published is not None]

    assert len(named) == len(set(named)) >= 30
    assert set(named) <= set(entries)
