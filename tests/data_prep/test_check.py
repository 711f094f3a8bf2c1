"""The check names every bad row of a table, and passes a good one."""

import json

import PIL.Image
import pytest

from data_prep.check import MAX_SHOWN, main


@pytest.fixture
def folder(tmp_path):
    PIL.Image.linear_gradient("L").resize((20, 10)).save(tmp_path / "good.png")
    (tmp_path / "broken.png").write_bytes((tmp_path / "good.png").read_bytes()[:60])
    (tmp_path / "words.png").write_text("no picture")
    return tmp_path


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def test_a_good_table_passes(folder, capsys):
    rows = [{"query": f"q{i}", "positives": [{"image": "good.png", "text": f"{i}"}]} for i in range(3)]

    assert main([write(folder / "t.jsonl", rows)]) == 0
    assert "t.jsonl: 3 rows, 3 media, 0 errors, 0 notes" in capsys.readouterr().out


def test_every_error_names_file_row_and_field(folder, capsys):
    rows = [
        {"query": "fine", "positives": [{"image": "good.png"}]},
        {"query": "q", "positives": [{"image": "broken.png"}]},
        {"query": "q", "positives": ["p"], "negatives": [{"item": {"image": "words.png"}}]},
        {"query": "q", "positives": [{"image": "gone.png"}]},
        {"query": "", "positives": ["p"]},
        {"query": "  ", "positives": ["p"]},
        {"query": {"image": "good.png", "regions": [{"box": [0, 0, 50, 5]}]}, "positives": ["p"]},
    ]

    status = main([write(folder / "t.jsonl", rows)])

    out = capsys.readouterr().out
    assert status == 1
    assert "7 rows, 4 media, 6 errors, 0 notes" in out
    for place in (
        "line 2: positives[0]: ",
        "line 3: negatives[0].item: ",
        "line 4: positives[0]: item.image",
        "line 5: query: item",
        "line 6: query: text",
        "line 7: query: ",
    ):
        assert f"{folder / 't.jsonl'}: {place}" in out
    assert "regions[0].box" in out
    assert "no such file" in out


def test_duplicates_and_long_texts_are_notes(folder, capsys):
    row = {"query": "q", "positives": ["a long answer"]}

    assert main([write(folder / "t.jsonl", [row, row]), "--max-characters", "10"]) == 0

    out = capsys.readouterr().out
    assert "0 errors, 3 notes" in out
    assert "line 2: pair" in out
    assert f"that of {folder / 't.jsonl'}: line 1" in out
    assert "at most 10 characters" in out


def test_a_name_that_comes_twice_in_an_item_table_is_an_error(folder, capsys):
    rows = [{"id": "a", "text": "one"}, {"id": "a", "text": "two"}, {"id": "b", "text": "one"}]

    assert main([write(folder / "items.jsonl", rows)]) == 1

    out = capsys.readouterr().out
    assert "3 rows, 0 media, 1 errors, 1 notes" in out
    assert "line 2: id" in out
    assert "line 3: item" in out


def test_only_the_first_rows_are_checked_on_request(folder, capsys):
    rows = [{"query": "q", "positives": ["p"]}, {"query": "", "positives": ["p"]}]

    assert main([write(folder / "t.jsonl", rows), "--limit", "1"]) == 0
    assert "1 rows" in capsys.readouterr().out


def test_a_limit_that_checks_nothing_is_refused(folder, capsys):
    with pytest.raises(SystemExit):
        main(["t.jsonl", "--limit", "0"])
    assert "argument --limit: expected 1 or more, got 0" in capsys.readouterr().err


def test_a_table_is_found_below_the_data_root(folder, capsys):
    write(folder / "t.jsonl", [{"query": "q", "positives": ["p"]}])

    assert main(["t.jsonl", "--data-root", str(folder)]) == 0


def test_many_findings_are_counted_and_cut(folder, capsys):
    write(folder / "t.jsonl", [{"query": "", "positives": ["p"]}] * (MAX_SHOWN + 5))

    assert main([str(folder / "t.jsonl")]) == 1

    out = capsys.readouterr().out
    assert "105 errors" in out
    assert "and 5 more" in out


def test_a_table_that_cannot_be_opened_is_named(folder, capsys):
    write(folder / "t.jsonl", [{"query": "q"}])

    assert main([str(folder / "t.jsonl")]) == 2
    assert "t.jsonl: positives: expected this column, got columns query" in capsys.readouterr().err
    assert main(["nowhere.jsonl", "--data-root", str(folder)]) == 2
