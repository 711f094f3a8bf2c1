"""Tables and held-out sets of a CSV and a folder: nothing twice, nothing on both sides, every bad row named."""

import csv
import json
from pathlib import Path

import PIL.Image
import pytest

from data_prep.check import main as check
from data_prep.commands import preparing
from data_prep.own.joined import Answer, Asked, Joining, groups_of, held_out
from data_prep.own.miniature import draw_own_data
from data_prep.own.rows import Row
from data_prep.own_data import main
from mmembed.data.tables import open_table, read_items
from mmembed.errors import InputError
from mmembed.evaluation.benchmark import read_benchmark
from mmembed.evaluation.retrieval_set import read_retrieval_set

NUMBER = 60


@pytest.fixture
def folder(tmp_path):
    """Sixty pictures of a colour each, and a CSV that names the colours."""
    (tmp_path / "photos").mkdir()
    for i in range(NUMBER):
        PIL.Image.new("RGB", (4, 3), (4 * i, 20, 200 - i)).save(tmp_path / f"photos/{i:02d}.png")
    write(tmp_path, [(f"{i:02d}.png", f"number {i}") for i in range(NUMBER)])
    return tmp_path


def write(folder, rows, header=("file", "title"), name="products.csv"):
    with (folder / name).open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *rows])


def run(folder, *more, texts=("--text-column", "title")):
    places = ["--pictures", str(folder / "photos"), "--csv", str(folder / "products.csv")]
    return main([*places, "--picture-column", "file", *texts, "--output", str(folder / "run"), *more])


def pairs(folder, name="text_to_picture"):
    return list(open_table(folder / f"run/own_data/{name}.jsonl"))


def pictures_of(folder, task="text_to_picture"):
    return {name for name, _ in read_items(folder / f"run/own_data/test/{task}/corpus.jsonl")}


def shown(item):
    (medium,) = item.media
    return str(medium.source).rpartition("/")[2]


def test_a_pair_is_asked_from_either_side_and_stands_on_one_side_of_the_split(folder, capsys):
    assert run(folder) == 0

    forwards, backwards = pairs(folder), pairs(folder, "picture_to_text")
    assert [pair.query.text for pair in forwards] == [pair.positives[0].text for pair in backwards]
    assert [shown(pair.positives[0]) for pair in forwards] == [shown(pair.query) for pair in backwards]
    assert forwards[0].query.instruction == "Find the picture that the words describe:"
    assert backwards[0].query.instruction == "Find the words that describe the picture:"
    held = pictures_of(folder)
    assert len(held) == 20
    assert held.isdisjoint(shown(pair.positives[0]) for pair in forwards)
    assert len(held) + len(forwards) == NUMBER
    out = capsys.readouterr().out
    assert f"{folder / 'products.csv'}: 60 rows, utf-8, columns between commas" in out
    assert "pairs to train on: 40; held out: 20" in out


def test_the_sets_and_tables_are_fit_for_use(folder, capsys):
    run(folder)

    benchmark = read_benchmark(folder / "run/benchmark.yaml")

    assert list(benchmark.tasks) == ["text_to_picture", "picture_to_text"]
    for task in benchmark.tasks.values():
        found = read_retrieval_set(folder / "run" / task.data)
        assert len(found.queries) == len(found.corpus) == 20
        assert check([task.data, "--data-root", str(folder / "run")]) == 0
    assert check(["own_data/text_to_picture.jsonl", "--data-root", str(folder / "run")]) == 0
    assert "40 rows, 40 media, 0 errors, 0 notes" in capsys.readouterr().out


def test_the_split_depends_on_the_content_and_the_seed_and_not_on_the_order_of_rows(folder):
    run(folder)
    first = pictures_of(folder)

    write(folder, [(f"{i:02d}.png", f"number {i}") for i in reversed(range(NUMBER))])
    run(folder)
    again = pictures_of(folder)
    run(folder, "--seed", "1")

    assert again == first
    assert pictures_of(folder) != first


def test_what_was_made_is_not_made_again_until_something_changes(folder, capsys):
    run(folder)
    table = folder / "run/own_data/text_to_picture.jsonl"
    stamp = table.stat().st_mtime_ns

    run(folder)

    assert "there already: " in capsys.readouterr().out
    assert table.stat().st_mtime_ns == stamp
    PIL.Image.new("RGB", (9, 9), "white").save(folder / "photos/00.png")
    run(folder)
    assert table.stat().st_mtime_ns != stamp


def test_copies_of_a_picture_and_spellings_of_a_text_are_one(folder, capsys):
    PIL.Image.open(folder / "photos/00.png").save(folder / "photos/copy.bmp")
    rows = [(f"{i:02d}.png", f"number {i}") for i in range(NUMBER)]
    write(
        folder,
        [*rows, ("copy.bmp", "NUMBER  0"), ("copy.bmp", "the first"), ("01.png", "number 1"), ("02.png", "number 1")],
    )

    assert run(folder) == 0

    assert "different pairs: 62; pictures that show what another one shows: 1" in capsys.readouterr().out
    asked = {pair.query.text for pair in pairs(folder)} | {
        item.text for _, item in read_items(folder / "run/own_data/test/text_to_picture/queries.jsonl")
    }
    assert {"number 0", "the first"} <= asked
    assert "NUMBER 0" not in asked
    names = {shown(pair.positives[0]) for pair in pairs(folder)} | pictures_of(folder)
    assert "copy.bmp" not in names


def test_pairs_that_share_a_picture_or_a_text_stay_together():
    def answer(text, picture):
        return Answer(Asked(None, text, None), picture, (), 2)

    linked = [answer("a", "1"), answer("b", "1"), answer("b", "2"), answer("c", "2")]
    alone = [answer(f"t{i}", f"p{i}") for i in range(50)]
    looks = {a.picture: f"look {a.picture}" for a in (*linked, *alone)}

    assert sorted(map(len, groups_of([*linked, *alone]))) == [1] * 50 + [4]
    for seed in range(8):
        drawn = held_out([*linked, *alone], looks, 20, seed)
        assert len(drawn & set(linked)) in (0, 4)
        assert 20 <= len(drawn) <= 23


def test_too_few_rows_and_rows_that_all_hang_together_are_refused_in_words(folder, capsys):
    write(folder, [(f"{i:02d}.png", f"number {i}") for i in range(39)])
    assert run(folder) == 2
    said = (
        "rows: expected 40 different pairs, 20 to hold out and 20 to train, got 39; find more rows, or hold out fewer"
    )
    assert said in capsys.readouterr().err

    write(folder, [(f"{i:02d}.png", "shoe" if i % 2 else "shirt") for i in range(NUMBER)])
    assert run(folder) == 2
    err = capsys.readouterr().err
    assert "got 2 groups, the largest of 30 pairs, in 30 of which stands 'text: s" in err
    assert not (folder / "run").exists()


def test_every_bad_row_is_named_by_file_line_and_column_and_left_out_on_demand(folder, capsys):
    (folder / "photos/broken.png").write_bytes(b"no picture")
    (folder / "secret.png").write_bytes((folder / "photos/00.png").read_bytes())
    good = [(f"{i:02d}.png", f"number {i}") for i in range(NUMBER)]
    bad = [("gone.png", "x"), ("broken.png", "x"), ("00.PNG", "x"), ("../secret.png", "x"), ("", "x"), ("01.png", " ")]
    write(folder, [*good, *bad])

    assert run(folder) == 2

    err, path = capsys.readouterr().err, folder / "products.csv"
    assert (
        "rows: expected rows that can be used, got 6 faults; mend them, or leave their rows out with --skip-bad" in err
    )
    assert f"{path}: line 62: file: expected a file, got no 'gone.png'" in err
    assert f"{path}: line 63: file: {folder / 'photos/broken.png'}: expected" in err
    assert f"{path}: line 64: file: expected a file, got no '00.PNG'; did you mean '00.png'?" in err
    assert f"{path}: line 65: file: expected a file below {folder / 'photos'}, got '../secret.png'" in err
    assert f"{path}: line 66: file: expected the name of a file, got an empty cell" in err
    assert f"{path}: line 67: title: expected words, got none" in err
    assert not (folder / "run").exists()

    assert run(folder, "--skip-bad") == 0

    out = capsys.readouterr().out
    assert out.count("left out, ") == 6
    assert "different pairs: 60;" in out


def test_a_cell_that_can_be_no_files_name_is_a_row_that_cannot_be_used(folder, capsys):
    good = [(f"{i:02d}.png", f"number {i}") for i in range(NUMBER)]
    write(folder, [*good, ("word " * 80, "x"), ("5\0.png", "x")])

    assert run(folder) == 2

    err, path = capsys.readouterr().err, folder / "products.csv"
    assert f"{path}: line 62: file: expected a file, got no 'word word" in err
    assert f"{path}: line 63: file: expected a file, got no '5\0.png'" in err


def test_tables_whose_benchmark_is_gone_are_made_anew(folder, capsys):
    run(folder)
    (folder / "run/benchmark.yaml").unlink()
    capsys.readouterr()

    run(folder)

    assert "there already" not in capsys.readouterr().out
    assert len(read_benchmark(folder / "run/benchmark.yaml").tasks) == 2


def test_several_columns_of_words_are_one_text_or_a_text_each(folder):
    rows = [(f"{i:02d}.png", f"number {i}", "" if i == 7 else f"colour of {i}") for i in range(NUMBER)]
    write(folder, rows, ("file", "title", "description"))
    words = ("--text-column", "title", "description")

    run(folder, texts=words)
    texts = {pair.query.text for pair in pairs(folder)}
    assert any(text.startswith("number") and "\ncolour of" in text for text in texts)

    run(folder, "--each-text", texts=words)
    texts = {pair.query.text for pair in pairs(folder)}
    assert any(text.startswith("colour of") for text in texts)
    assert not any("\n" in text for text in texts)


def test_texts_of_five_pictures_each_may_be_held_out():
    looks = {f"{i}.png": str(i) for i in range(80)}
    rows = [Row(i, f"{i}.png", f"shape {i // 5}") for i in range(80)]

    held = held_out(Joining.of(rows, looks).answers(rows), looks, None, 0)

    assert len(held) == 20
    with pytest.raises(InputError, match=r"in groups of at most 2 that share no picture and no text .* hold out more"):
        held_out(Joining.of(rows, looks).answers(rows), looks, 5, 0)


def test_pictures_ask_for_pictures_and_with_words_beside_them_for_a_change(folder):
    rows = [(f"{i:02d}.png", f"{i + 1:02d}.png", "brighter") for i in range(0, NUMBER, 2)]
    write(folder, rows * 2, ("before", "file", "change"))

    assert run(folder, "--query-picture-column", "before", "--held-out", "5", texts=()) == 0
    (task,) = read_benchmark(folder / "run/benchmark.yaml").tasks
    assert task == "picture_to_picture"
    assert len(pairs(folder, task)) == 25
    assert {shown(pair.query) for pair in pairs(folder, task)}.isdisjoint(pictures_of(folder, task))

    run(folder, "--query-picture-column", "before", "--held-out", "5", texts=("--text-column", "change"))
    (task,) = read_benchmark(folder / "run/benchmark.yaml").tasks
    assert task == "composed"
    assert {pair.query.text for pair in pairs(folder, task)} == {"brighter"}


def test_negatives_are_trained_on_unless_they_are_held_out_and_may_not_be_right(folder, capsys):
    rows = [(f"{i:02d}.png", f"number {i}", f"{(i + 1) % NUMBER:02d}.png" if i else "") for i in range(NUMBER)]
    header = ("file", "title", "wrong")
    write(folder, rows, header)

    assert run(folder, "--negative-column", "wrong") == 0

    held = pictures_of(folder)
    found = {shown(pair.positives[0]): [shown(n.item) for n in pair.negatives] for pair in pairs(folder)}
    wanted = {row[0]: [row[2]] if row[2] and row[2] not in held else [] for row in rows if row[0] not in held}
    assert found == wanted

    write(folder, [*rows, ("03.png", "number 9", "09.png")], header)
    assert run(folder, "--negative-column", "wrong") == 2
    assert "line 62: expected a wrong answer, got '09.png', which shows a right one" in capsys.readouterr().err


def test_a_row_may_bring_its_own_instruction(folder):
    rows = [(f"{i:02d}.png", f"number {i}", "Find the shop's picture:" if i % 2 else "") for i in range(NUMBER)]
    write(folder, rows, ("file", "title", "task"))

    run(folder, "--instruction-column", "task", "--find-picture", "", "--find-text", "Name it:")

    said = {pair.query.instruction for pair in pairs(folder)}
    assert said == {"Find the shop's picture:", None}
    assert {pair.query.instruction for pair in pairs(folder, "picture_to_text")} == {"Name it:"}


def test_a_held_out_file_of_ones_own_takes_its_pictures_and_texts_out_of_training(folder, capsys):
    write(folder, [("05.png", "another name"), ("59.png", "number 8")], name="test.csv")

    assert run(folder, "--held-out-csv", str(folder / "test.csv")) == 0

    assert pictures_of(folder) == {"05.png", "59.png"}
    kept = {shown(pair.positives[0]) for pair in pairs(folder)}
    assert kept == {f"{i:02d}.png" for i in range(NUMBER)} - {"05.png", "08.png", "59.png"}
    assert f"share a picture or a text with {folder / 'test.csv'}: 3" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--held-out", "0"), "--held-out: expected 1 or more, got 0"),
        (("--delimiter", "::"), "--delimiter: expected one character, got '::'"),
        (("--pictures", "nowhere"), "--pictures: expected a folder, got 'nowhere'"),
        (("--held-out", "5", "--held-out-csv", "products.csv"), "--held-out: expected no number beside --held-out-csv"),
        (("--query-picture-column", "file"), "line 2: expected two pictures, got '00.png' as the answer to itself"),
    ],
)
def test_choices_that_cannot_be_are_refused_in_words(folder, more, message, capsys):
    assert run(folder, *more) == 2

    assert message in capsys.readouterr().err


def test_a_held_out_file_that_leaves_too_little_to_train_on_is_refused(folder, capsys):
    write(folder, [(f"{i:02d}.png", f"number {i}") for i in range(NUMBER - 19)], name="test.csv")

    assert run(folder, "--held-out-csv", str(folder / "test.csv")) == 2

    assert "rows: expected 20 pairs to train on, and some to hold out, got 19 and 41" in capsys.readouterr().err
    assert not (folder / "run").exists()


def test_a_held_out_row_whose_picture_answers_itself_is_refused_by_its_file(folder, capsys):
    header = ("before", "file")
    write(folder, [(f"{i:02d}.png", f"{i + 1:02d}.png") for i in range(0, NUMBER - 2, 2)], header)
    write(folder, [("58.png", "58.png")], header, name="test.csv")

    assert run(folder, "--query-picture-column", "before", "--held-out-csv", str(folder / "test.csv"), texts=()) == 2

    assert f"{folder / 'test.csv'}: line 2: expected two pictures, got '58.png'" in capsys.readouterr().err


def test_without_anything_to_ask_with_nothing_is_made(folder, capsys):
    assert run(folder, texts=()) == 2

    assert "--text-column: expected something to ask with, got none" in capsys.readouterr().err


def test_photos_that_lie_on_their_side_are_counted(folder, capsys):
    exif = PIL.Image.Exif()
    exif[0x0112] = 6
    PIL.Image.new("RGB", (8, 6), "red").save(folder / "photos/05.png", exif=exif)

    assert run(folder) == 0

    assert "pictures that lie on their side (EXIF), and are seen so: 1" in capsys.readouterr().out


def test_a_recipe_without_its_tables_says_which_command_makes_them():
    (line,) = preparing(["own_data/text_to_picture", "own_data/picture_to_text"], Path("runs/shoes"))

    assert line.startswith("python data_prep/own_data.py --pictures DIR --csv FILE")
    assert line.endswith("--output runs/shoes")


def test_the_miniature_is_drawn_once(tmp_path):
    first = draw_own_data(tmp_path)
    again = draw_own_data(tmp_path)

    assert (first.anew, again.anew) == (True, False)
    assert first.train == {"text_to_picture": 52, "picture_to_text": 52}
    assert json.loads((first.folder / "made.json").read_text())["test"] == first.test


def test_too_few_groups_say_so():
    answers = [Answer(Asked(None, f"t{i}", None), "one.png", (), 2) for i in range(50)]

    with pytest.raises(InputError, match=r"got 1 groups, the largest of 50 pairs, in 50 of which stands 'one\.png'"):
        held_out(answers, {"one.png": "look"}, None, 0)
