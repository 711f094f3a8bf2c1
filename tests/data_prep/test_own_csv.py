"""A CSV is read as people write it, and what cannot be read is said by file and line."""

import pytest

from data_prep.own.csv_file import read_csv
from mmembed.errors import InputError


@pytest.fixture
def write(tmp_path):
    def write_bytes(data):
        (tmp_path / "products.csv").write_bytes(data)
        return tmp_path / "products.csv"

    return write_bytes


@pytest.mark.parametrize("mark", [",", ";", "\t", "|"])
def test_the_delimiter_is_the_one_with_which_the_header_has_the_columns(write, mark):
    text = (
        f"file{mark}title, long; or | short\na.png{mark}red\n" if mark == "\t" else f"file{mark}title\na.png{mark}red\n"
    )

    read = read_csv(write(text.encode()), ["file"])

    assert read.delimiter == mark
    assert read.lines[0].cells["file"] == "a.png"


@pytest.mark.parametrize(
    ("encoding", "stated"), [("utf-8", "utf-8"), ("utf-8-sig", "utf-8"), ("utf-16", "utf-16"), ("cp1252", "cp1252")]
)
def test_the_encoding_is_found_out_and_stated(write, encoding, stated):
    read = read_csv(write("file;title\na.png;Stück\n".encode(encoding)), ["file", "title"])

    assert read.lines[0].cells == {"file": "a.png", "title": "Stück"}
    assert read.told == f"{stated}, columns between semicolons"


def test_quoted_cells_hold_delimiters_quotes_and_line_breaks_and_rows_keep_the_line_they_begin_in(write):
    read = read_csv(write(b'file,title\r\na.png,"red, ""soft""\r\nand long"\r\n\r\nb.png,blue\r\n'), ["file"])

    assert [line.number for line in read.lines] == [2, 5]
    assert read.lines[0].cells["title"] == 'red, "soft"\r\nand long'


def test_bytes_that_the_encoding_does_not_know_are_named_by_their_line(write):
    path = write("file,title\na.png,red\nb.png,Stück\n".encode("cp1252"))

    with pytest.raises(InputError, match=rf"{path}: line 3: expected text in utf-8, .*--encoding"):
        read_csv(path, ["file"], encoding="utf-8")
    with pytest.raises(InputError, match="--encoding: expected an encoding that Python knows, got 'utf-9'"):
        read_csv(path, ["file"], encoding="utf-9")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("file,title\na.png\n", "line 2: expected 2 cells, as the header has, got 1; quote cells"),
        ("file,title\na.png,red,large\n", "line 2: expected 2 cells, as the header has, got 3"),
        ("file,titel\na.png,red\n", "line 1: expected a column 'title', got columns file, titel; did you mean 'titel'"),
        ("file,title,title\na.png,red,x\n", "line 1: expected a column 'title', got it twice"),
        ('file,title\na.png,red\nb.png,"blue\n', "line 3: expected a row of a CSV, got unexpected end of data"),
        ("file,title\n", "products.csv: expected rows below the header, got none"),
        ("", "line 1: expected a column 'file', got columns"),
    ],
)
def test_what_is_no_such_csv_is_refused_by_file_and_line(write, text, message):
    with pytest.raises(InputError) as error:
        read_csv(write(text.encode()), ["file", "title"])

    assert message in str(error.value)


def test_a_csv_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"gone\.csv: expected a CSV, got No such file"):
        read_csv(tmp_path / "gone.csv", ["file"])
