"""Triplets from captions: kinds of edits, filters with their reasons, a run that goes on, and errors in words."""

import json
from collections import Counter
from functools import cache
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_prep.make_cir_triplets import main
from data_prep.miniatures.draw import prepare_miniature
from data_prep.prepare import main as prepare
from data_prep.writers.filters import REASONS, Edit, Filters, change_share, edit_distance
from data_prep.writers.prompts import edit_kinds, triplet_version
from data_prep.writers.triplets import drawn_kind, read_weights
from mmembed.data.tables import open_table, write_pairs
from mmembed.errors import InputError
from mmembed.items import Item, Pair
from tests.data_prep.chat_server import Chat
from tests.families import family_embedder

CAPTION = "a brown dog on a wooden porch"
FIELDS = ["id", "image", "caption", "instruction", "modified_caption", "edit_type", "model", "prompt_version"]


def answer(instruction="make it black", modified="a black dog on a wooden porch", **more):
    return json.dumps({"instruction": instruction, "modified_caption": modified, **more})


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ("Sure! " + answer(), "not JSON"),
        ("", "not JSON"),
        (f"```json\n{answer()}\n```", "not JSON"),
        ("[1, 2]", "other keys than the two"),
        (answer(why="because"), "other keys than the two"),
        ('{"instruction": "make it black"}', "other keys than the two"),
        (answer(modified=["a black dog"]), "not strings"),
        (answer(instruction=None), "not strings"),
        (answer("make it \ud83d"), "not strings"),
        ("[" * 100_000, "not JSON"),
        (answer("", ""), "no edit of this kind"),
        (answer(" \n"), "no edit of this kind"),
        (answer("word " * 31), "instruction too long"),
        (answer(modified=CAPTION), "caption hardly changed"),
        (answer(modified="A brown dog, on a WOODEN porch."), "caption hardly changed"),
        (answer("show a black cat on a wooden porch", "a black cat on a wooden porch"),
         "instruction restates the target"),
    ],
)  # fmt: skip
def test_an_answer_is_rejected_for_the_first_reason_there_is(said, reason):
    assert Filters().judge(said, CAPTION) == reason
    assert reason in REASONS


def test_an_answer_that_passes_is_cleaned_of_its_line_breaks():
    said = answer(" make it\nblack ", "a black dog\n on a wooden porch ")

    assert Filters().judge(said, CAPTION) == Edit("make it black", "a black dog on a wooden porch")
    assert Filters(max_words=2).judge(said, CAPTION) == "instruction too long"
    assert Filters(min_change=0.5).judge(said, CAPTION) == "caption hardly changed"
    assert Filters(max_restated=0.25).judge(said, CAPTION) == "instruction restates the target"


def test_exactly_the_limits_of_words_and_change_are_told_apart():
    at_most, over = ("word " * number for number in (30, 31))
    assert isinstance(Filters().judge(answer(at_most), CAPTION), Edit)
    assert Filters().judge(answer(over), CAPTION) == "instruction too long"
    ten = "one two three four five six seven eight nine ten"
    assert change_share(ten, ten.replace("ten", "zero")) == 0.1
    assert Filters().judge(answer(modified=ten.replace("ten", "zero")), ten) == "caption hardly changed"
    assert isinstance(Filters().judge(answer(modified=f"{ten} zero more"), ten), Edit)


def slow_distance(first, second):
    """The definition."""

    @cache
    def of(i, j):
        if 0 in (i, j):
            return i + j
        return min(of(i - 1, j) + 1, of(i, j - 1) + 1, of(i - 1, j - 1) + (first[i - 1] != second[j - 1]))

    return of(len(first), len(second))


@given(st.lists(st.sampled_from("abc"), max_size=7), st.lists(st.sampled_from("abc"), max_size=7))
def test_the_distance_is_that_of_levenshtein(first, second):
    assert edit_distance(first, second) == slow_distance(tuple(first), tuple(second))


@pytest.mark.parametrize("field", ["max_words", "min_change", "max_restated"])
def test_a_filter_that_makes_no_sense_is_refused(field):
    with pytest.raises(InputError, match=f"--{field.replace('_', '-')}"):
        Filters(**{field: -1})


def test_kinds_follow_the_seed_the_id_and_the_weights():
    weights = read_weights("colour=3,style=0,viewpoint=0")
    drawn = [drawn_kind(0, f"{i}", weights) for i in range(4000)]

    assert drawn == [drawn_kind(0, f"{i}", weights) for i in range(4000)]
    assert drawn != [drawn_kind(1, f"{i}", weights) for i in range(4000)]
    counts = Counter(drawn)
    assert set(counts) == set(edit_kinds()) - {"style", "viewpoint"}
    assert 900 < counts.pop("colour") < 1100
    assert all(250 < count < 420 for count in counts.values())


@pytest.mark.parametrize(
    ("given_weights", "message"),
    [
        ("color=1", "--weights: expected kinds of edits, got 'color'; did you mean 'colour'"),
        ("colour", "--weights colour: expected 0 or more, got ''"),
        ("colour=many", "--weights colour: expected 0 or more, got 'many'"),
        ("colour=-1", "--weights colour: expected 0 or more, got '-1'"),
        ("colour=nan", "--weights colour: expected 0 or more, got 'nan'"),
        (",".join(f"{kind}=0" for kind in edit_kinds()), "expected a kind above 0, got none"),
    ],
)
def test_bad_weights_are_refused(given_weights, message):
    with pytest.raises(InputError, match=message):
        read_weights(given_weights)


CAPTIONS = [
    "a red car on a street", "two dogs on a beach", "a white cup beside an old lamp", "a man with a blue hat",
    "a bird above a tree", "a small boat on a lake", "a green bench in a park", "three apples in a bowl",
]  # fmt: skip


def write_lines(path, rows):
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return path


@pytest.fixture
def captions(tmp_path):
    rows = [{"id": f"{i}", "image": f"images/{i}.jpg", "caption": CAPTIONS[i % 8]} for i in range(40)]
    return write_lines(tmp_path / "captions.jsonl", rows)


def make(captions, *options, writer=("--writer", "rules")):
    output = captions.with_name("triplets.jsonl")
    status = main([str(captions), "--output", str(output), *writer, *options])
    rows = [json.loads(line) for line in output.read_text().splitlines()] if output.exists() else []
    report = output.with_suffix(".report.json")
    return status, rows, json.loads(report.read_text()) if report.exists() else None


def test_the_rules_make_triplets_with_every_field_and_a_report_that_adds_up(captions, capsys):
    status, rows, report = make(captions)

    assert status == 0
    assert len(rows) > 20
    given_rows = {row["id"]: row for row in map(json.loads, captions.read_text().splitlines())}
    for row in rows:
        assert list(row) == FIELDS
        assert {name: row[name] for name in ("id", "image", "caption")} == given_rows[row["id"]]
        assert row["modified_caption"] != row["caption"]
        assert (row["model"], row["prompt_version"]) == ("rules-1", triplet_version())
    assert report["kept"] == len(rows)
    assert report["kept"] + sum(report["rejected"].values()) == report["records"] == 40
    assert report["asked_now"] <= 40
    kinds = Counter(row["edit_type"] for row in rows)
    assert {kind: found["kept"] for kind, found in report["edit_types"].items() if found["kept"]} == kinds
    assert sum(found["asked"] for found in report["edit_types"].values()) == 40
    shown = capsys.readouterr().out
    assert f"no edit of this kind {report['rejected']['no edit of this kind']:>21}".split() == next(
        line.split() for line in shown.splitlines() if "no edit" in line
    )


def test_the_same_seed_makes_the_same_bytes_and_asks_nothing_again(captions):
    make(captions)
    output = captions.with_name("triplets.jsonl")
    first = output.read_bytes()

    status, _, report = make(captions)

    assert (status, report["asked_now"]) == (0, 0)
    assert output.read_bytes() == first
    make(captions, "--seed", "1")
    assert output.read_bytes() != first


def test_a_prepared_table_is_read_whichever_side_the_picture_is_on(tmp_path):
    (tmp_path / "media").mkdir()
    for name in ("a.png", "b.png"):
        (tmp_path / "media" / name).write_bytes(b"not opened")
    picture = [Item.of({"image": tmp_path / "media" / name}) for name in ("a.png", "b.png")]
    words = [Item.of("a red car on a road"), Item.of("a blue bus on a road")]
    pairs = [Pair(picture[0], (words[0],), query_id="x"), Pair(words[1], (picture[1],), query_id="y")]
    write_pairs(tmp_path / "table.parquet", pairs)

    _, rows, _ = make(
        tmp_path / "table.parquet", "--weights", ",".join(f"{k}=0" for k in edit_kinds() if k != "colour")
    )

    assert [(row["id"], row["image"], row["caption"]) for row in rows] == [
        ("x", "media/a.png", "a red car on a road"), ("y", "media/b.png", "a blue bus on a road"),
    ]  # fmt: skip


def test_triplets_are_prepared_as_their_source_says_and_show_the_pictures_of_the_captions(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    prepare_miniature("image_captions", Path("data"))
    folder = Path("copies/cir_triplets")
    folder.mkdir(parents=True)
    (folder / "media").symlink_to("../../data/image_captions/media")

    captions, output = "data/image_captions/llava_pretrain.parquet", str(folder / "triplets.jsonl")
    assert main([captions, "--output", output, "--writer", "rules"]) == 0
    assert prepare(["cir_triplets", "--source", "copies"]) == 0

    rows = [json.loads(line) for line in Path(output).read_text().splitlines()]
    pairs = list(open_table("data/cir_triplets/triplets.parquet"))
    shown = {pair.query_id: pair.query.media[0] for pair in open_table(captions)}
    assert [(pair.query_id, pair.query.text) for pair in pairs] == [(row["id"], row["instruction"]) for row in rows]
    assert all(pair.query.media[0].fingerprint() == shown[pair.query_id].fingerprint() for pair in pairs)


@pytest.mark.parametrize("image", ["../a.jpg", "/a.jpg"])
def test_a_picture_that_is_not_below_the_folder_of_its_captions_is_refused_before_anything_is_asked(
    tmp_path, chat, capsys, image
):
    captions = write_lines(tmp_path / "captions.jsonl", [GOOD, GOOD | {"id": "1", "image": image}])

    status, rows, _ = make(captions, writer=openai(chat))

    assert (status, rows, chat.requests) == (2, [], [])
    assert f"captions.jsonl: record 1: image: expected a path below the media, got '{image}'" in capsys.readouterr().err


GOOD = {"id": "0", "image": "a.jpg", "caption": "a dog"}


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"id": "1", "image": "b.jpg"}, r"captions\.jsonl: line 2: caption: expected words, got nothing"),
        ({"id": "1", "image": "b.jpg", "caption": "  "}, r"line 2: caption: expected words, got '  '"),
        ({"id": 1, "image": "b.jpg", "caption": "a cat"}, r"line 2: id: expected words, got 1"),
        ({"id": "1", "image": ["b.jpg"], "caption": "a cat"}, r"line 2: image: expected words, got \['b\.jpg'\]"),
        ({"id": "1", "image": "b.jpg", "captoin": "a"}, r"line 2: captoin: .*did you mean 'caption'"),
        (GOOD, r"line 2: id: expected each id once, got '0' again"),
        ("{nonsense", r"line 2: expected a JSON object"),
        ("[]", r"line 2: expected a JSON object"),
    ],
)
def test_a_bad_record_is_named_by_file_line_and_field(tmp_path, capsys, row, message):
    captions = write_lines(tmp_path / "captions.jsonl", [GOOD, row])

    status, rows, report = make(captions)

    assert (status, rows, report) == (2, [], None)
    said = capsys.readouterr().err
    with pytest.raises(AssertionError, match=message):
        raise AssertionError(said)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--writer", "openai", "--url", "http://x/v1"], "--model: expected a value with --writer openai, got none"),
        (["--writer", "openai", "--model", "m"], "--url: expected a value with --writer openai, got none"),
        (["--writer", "rules", "--model", "m"], "--model: expected none with --writer rules, got 'm'"),
        (["--writer", "rules", "--parallel", "2"], "--parallel: expected 1, or more with --writer openai, got 2"),
        (["--writer", "rules", "--clip-band", "0.9", "0.1"], "--clip-band: expected -1 <= LOW < HIGH <= 1"),
        (["--writer", "rules", "--clip-band", "0.1", "0.9"], "--clip-band: expected --clip beside it, got none"),
        (["--writer", "rules", "--max-words", "0"], "--max-words: expected 1 or more, got 0"),
        (["--writer", "openai", "--model", "m", "--url", "http://x/v1", "--retries", "-1"], "--retries: expected 0"),
    ],
)
def test_options_that_do_not_go_together_are_refused(captions, capsys, options, message):
    status, rows, _ = make(captions, writer=options)

    assert (status, rows) == (2, [])
    assert message in capsys.readouterr().err


def test_the_output_is_jsonl_and_not_the_input(captions, capsys):
    assert main([str(captions), "--output", str(captions.with_name("out.parquet")), "--writer", "rules"]) == 2
    assert "--output: expected a .jsonl file" in capsys.readouterr().err
    before = captions.read_bytes()
    assert main([str(captions), "--output", str(captions), "--writer", "rules"]) == 2
    assert "--output: expected another file than CAPTIONS" in capsys.readouterr().err
    assert captions.read_bytes() == before


def test_a_dry_run_shows_a_request_and_a_limit_takes_the_first_records(captions, capsys):
    status, rows, report = make(captions, "--dry-run")
    assert (status, rows, report) == (0, [], None)
    shown = capsys.readouterr().out
    assert f"Caption: {CAPTIONS[0]}\nKind of edit: {drawn_kind(0, '0', read_weights(None))} (" in shown
    assert sorted(path.name for path in captions.parent.iterdir()) == ["captions.jsonl"]

    _, rows, report = make(captions, "--limit", "7")
    assert report["records"] == 7
    assert {row["id"] for row in rows} <= {f"{i}" for i in range(7)}


def test_where_nothing_passes_only_the_report_is_written(captions, capsys):
    status, rows, report = make(captions, "--max-restated", "0")

    assert (status, rows, report["kept"]) == (1, [], 0)
    assert "no answer passed the filters" in capsys.readouterr().err


@pytest.fixture
def chat(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-very-secret")

    def said(messages):
        caption = messages[0]["content"].rpartition("Caption: ")[2].partition("\n")[0]
        return answer("paint everything gold", f"a golden picture of {caption}")

    server = Chat(said)
    yield server
    server.close()


def openai(chat, *more):
    return ["--writer", "openai", "--url", chat.url, "--model", "tiny", "--retries", "0", *more]


def test_a_run_that_was_stopped_asks_only_for_what_is_missing(captions, chat, capsys):
    chat.failures = [(200, {})] * 10 + [(401, {})]
    status, rows, _ = make(captions, writer=openai(chat))
    assert (status, rows) == (2, [])
    assert "put a valid key into the environment variable" in capsys.readouterr().err
    answers = captions.with_name("triplets.answers")
    assert len(answers.read_text().splitlines()) == 10
    # as if killed in the middle of a line
    answers.write_bytes(answers.read_bytes()[:-5])
    chat.failures, before = [], len(chat.requests)

    status, rows, report = make(captions, writer=openai(chat, "--parallel", "4"))

    distinct = {json.dumps(body["messages"]) for _, _, body in chat.requests}
    assert (status, len(rows)) == (0, 40)
    assert report["asked_now"] == len(chat.requests) - before == len(distinct) - 9
    assert [row["id"] for row in rows] == [f"{i}" for i in range(40)]


def test_the_key_is_sent_and_written_nowhere(captions, chat, capsys):
    make(captions, writer=openai(chat))

    assert chat.requests[0][1]["Authorization"] == "Bearer sk-very-secret"
    written = b"".join(path.read_bytes() for path in captions.parent.iterdir())
    said = capsys.readouterr()
    assert b"very-secret" not in written
    assert "very-secret" not in said.out + said.err


def test_repeats_of_a_picture_are_dropped_and_those_of_another_are_not(tmp_path, chat):
    rows = [
        {"id": "0", "image": "a.jpg", "caption": "a dog"},
        {"id": "1", "image": "a.jpg", "caption": "a cat"},
        {"id": "2", "image": "b.jpg", "caption": "a dog"},
    ]
    status, kept, report = make(write_lines(tmp_path / "captions.jsonl", rows), writer=openai(chat))

    assert status == 0
    assert [row["id"] for row in kept] == ["0", "2"]
    assert report["rejected"]["again for this picture"] == 1


@pytest.fixture(scope="module")
def dual(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clip")
    embedder = family_embedder("clip")
    embedder.save(folder)
    return embedder, folder


def test_a_dual_encoder_keeps_the_captions_within_the_band(captions, dual, capsys):
    embedder, folder = dual
    _, rows, _ = make(captions)
    before, after = (embedder.encode([row[name] for row in rows]) for name in ("caption", "modified_caption"))
    cosines = (before * after).sum(1)
    low, high = cosines.quantile(0.25).item(), cosines.quantile(0.75).item()

    band = ["--clip", str(folder), "--clip-profile", "", "--clip-band", f"{low + 1e-6}", f"{high - 1e-6}"]
    status, kept, report = make(captions, *band)

    inside = [row for row, cosine in zip(rows, cosines.tolist(), strict=True) if low + 1e-6 <= cosine <= high - 1e-6]
    assert (status, kept) == (0, inside)
    assert 0 < len(kept) < len(rows)
    assert report["rejected"]["outside the CLIP band"] == len(rows) - len(kept)
    assert report["filters"]["clip"] == str(folder)


def test_only_a_dual_encoder_compares_captions(captions, tmp_path, capsys):
    family_embedder("bert").save(tmp_path / "bert")

    status, rows, _ = make(captions, "--clip", str(tmp_path / "bert"), "--clip-profile", "")

    assert (status, rows) == (2, [])
    assert "--clip: expected a dual encoder, got TextModel" in capsys.readouterr().err
