"""The command that converts formats: what it refuses, where it looks for media and ids, and what it leaves alone."""

import json

import pytest

from data_prep.convert import main
from data_prep.formats.registry import FORMATS
from mmembed.items import Item, Pair
from tests.data_prep.format_cases import (
    SHE,
    WHO,
    draw_media,
    export_refused,
    exported,
    imported,
    png,
    read_lines,
    read_table,
    refused,
    write_lines,
    write_table,
)


@pytest.fixture
def folder(tmp_path):
    return draw_media(tmp_path)


def test_tags_that_are_more_or_fewer_than_the_pictures_are_refused(folder, capsys):
    user = [{"role": "user", "content": "<image><image>she"}]
    rows = {
        "ms-swift": ({"messages": [{"role": "user", "content": "who?"}], "positive_messages": [user],
                      "positive_images": [["a.png"]]}, "positive_images[0]: expected 2, one for each <image>"),
        "mmeb": ({"qry": "who?", "qry_image_path": "a.png", "pos_text": "she", "pos_image_path": ""},
                 "qry_image_path: expected 0, one for each <|image_1|> of the text, got 1"),
    }  # fmt: skip
    for name, (row, words) in rows.items():
        path = write_lines(folder / "rows.jsonl", [row])

        said = refused(capsys, "import", name, "--input", path, "--output", folder / "pairs.jsonl")

        assert f"{path}: line 1: {words}" in said


def test_an_id_that_no_corpus_has_is_refused_and_several_files_are_looked_into(folder, capsys):
    row = {"query_id": "q", "query_text": "who?", "positive_document_ids": ["d1", "d2"], "negative_document_ids": []}
    rows = write_lines(folder / "rows.jsonl", [row])
    one = write_lines(folder / "one.jsonl", [{"docid": "d1", "text": "she"}])
    two = write_lines(folder / "two.jsonl", [{"docid": "d2", "text": "her"}, {"docid": "d1", "text": "she"}])
    paths = ("import", "tevatron", "--input", rows, "--output", folder / "pairs.jsonl", "--corpus")

    said = refused(capsys, *paths, one)

    assert f"{rows}: line 1: positive_document_ids[1]: expected an id of {one}, got 'd2'" in said
    assert main(list(map(str, (*paths, one, two)))) == 0
    assert [item.text for item in read_table(folder / "pairs.jsonl")[0].positives] == ["she", "her"]


def test_an_id_of_two_documents_is_refused_on_the_way_in_and_out(folder, capsys):
    rows = write_lines(folder / "theirs.jsonl", [{"query_id": "q", "query_text": "a", "positive_document_ids": ["d"]}])
    corpus = write_lines(folder / "corpus.jsonl", [{"docid": "d", "text": "she"}, {"docid": "d", "text": "he"}])
    paths = ("--input", rows, "--output", folder / "pairs.jsonl", "--corpus", corpus)

    assert f"{corpus}: line 2: docid: expected each id for one document" in refused(
        capsys, "import", "tevatron", *paths
    )
    pair = Pair(WHO, (SHE, Item.of("he")), query_id="q", target_ids=("d", "d"))
    assert "positives[1]: expected each id for one document" in export_refused(capsys, folder, "tevatron", pair)


def test_ids_that_a_format_needs_are_asked_for(folder, capsys):
    named = Pair(WHO, (SHE,), query_id="q7", target_ids=("t1",))

    assert "query_id: expected an id" in export_refused(capsys, folder, "tevatron", Pair(WHO, (SHE,)))
    assert "positives[0]: expected an id" in export_refused(capsys, folder, "tevatron", Pair(WHO, (SHE,), query_id="q"))
    assert "query_id: expected an id of M-BEIR" in export_refused(capsys, folder, "m-beir", named)
    assert "--dataset-id N" in export_refused(capsys, folder, "m-beir", Pair(WHO, (SHE,)), "--make-ids")


def test_a_medium_that_is_not_there_is_refused_unless_told_otherwise(folder, capsys):
    rows = write_lines(folder / "rows.jsonl", [{"q_img": "a.png", "q_text": ["x"], "t_img": "gone.png", "hns": []}])
    paths = ("megapairs", "--input", rows, "--output", folder / "pairs.jsonl")

    said = refused(capsys, "import", *paths)

    assert f"{rows}: line 1: t_img: expected a file, got no such file '{folder / 'gone.png'}'" in said
    table = imported("megapairs", rows, folder / "pairs.jsonl", "--allow-missing-media")
    out = ("export", "megapairs", "--input", table, "--output", folder / "again.jsonl")
    assert f"{table}: line 1: positives[0]: item.image: expected a file" in refused(capsys, *out)
    again = exported("megapairs", table, folder / "again.jsonl", "--allow-missing-media")
    assert read_lines(again) == read_lines(rows)


def test_media_outside_the_root_and_on_the_network_are_refused(folder, capsys):
    row = {"q_img": "a.png", "q_text": ["x"], "t_img": "https://example.com/b.png", "hns": []}
    remote = write_lines(folder / "remote.jsonl", [row])
    near = write_lines(folder / "near.jsonl", [row | {"t_img": "a.png"}])
    (folder / "tables").mkdir()

    said = refused(capsys, "import", "megapairs", "--input", remote, "--output", folder / "pairs.jsonl")
    assert "t_img: expected the path of a file, got 'https://example.com/b.png'; download it" in said
    outside = ("import", "megapairs", "--input", near, "--output", folder / "tables/pairs.jsonl")
    assert "q_img: expected a path inside" in (said := refused(capsys, *outside))
    assert "--output-media" in said
    assert main([*map(str, outside), "--output-media", str(folder)]) == 0
    table = folder / "tables/pairs.jsonl"
    out = ("export", "megapairs", "--input", table, "--input-media", folder, "--output", folder / "tables/rows.jsonl")
    assert "--absolute-paths" in refused(capsys, *out)


def test_outputs_that_are_there_are_kept_unless_told_otherwise(folder, capsys):
    table = write_table(folder / "table.jsonl", [Pair(WHO, (SHE,))])
    (folder / "rows.jsonl").write_text("mine")
    paths = ("export", "ms-swift", "--input", table, "--output")

    assert "expected nothing there yet" in refused(capsys, *paths, folder / "rows.jsonl")
    assert (folder / "rows.jsonl").read_text() == "mine"
    (folder / "home").mkdir()
    home = ("export", "sentence-transformers", "--input", table, "--output", folder / "home", "--overwrite")
    assert "a folder is replaced with all it holds" in refused(capsys, *home)
    assert "expected another file than the input" in refused(capsys, *paths, table, "--overwrite")
    assert "--output: expected .jsonl" in refused(capsys, *paths, folder / "rows.parquet")
    assert "--drop: expected a field that can be left out, got 'class'; did you mean 'class_id'?" in refused(
        capsys, *paths, folder / "more.jsonl", "--drop", "class"
    )


def test_a_corpus_without_a_row_that_names_it_leaves_no_items_behind(folder, capsys):
    rows = folder / "rows.jsonl"
    rows.write_text("\n")
    corpus = write_lines(folder / "corpus.jsonl", [{"docid": "d", "text": "she"}])
    before = set(folder.rglob("*"))

    said = refused(
        capsys, "import", "tevatron", "--input", rows, "--corpus", corpus, "--items", folder / "items.jsonl",
        "--output", folder / "pairs.jsonl",
    )  # fmt: skip

    assert "pairs.jsonl: expected at least one row, got none" in said
    assert set(folder.rglob("*")) == before


def test_a_misspelt_or_missing_field_names_the_nearest(folder, capsys):
    rows = write_lines(folder / "rows.jsonl", [{"qry_text": "a"}])

    said = refused(capsys, "import", "mmeb", "--input", rows, "--output", folder / "pairs.jsonl")

    assert "line 1: qry_text: expected a field that a pair table can hold" in said


def test_only_the_first_rows_are_taken_where_that_is_asked_for(folder):
    table = write_table(folder / "table.jsonl", [Pair(Item.of(str(i)), (SHE,)) for i in range(5)])

    rows = exported("ms-swift", table, folder / "rows.jsonl", "--limit", "3")
    back = imported("ms-swift", rows, folder / "back.jsonl", "--limit", "2")

    assert len(read_lines(rows)) == 3
    assert [pair.query.text for pair in read_table(back)] == ["0", "1"]


def test_the_list_of_formats_names_each(capsys):
    assert main(["formats"]) == 0

    said = capsys.readouterr().out
    for name in FORMATS:
        assert name in said


def test_an_example_of_the_documentation_of_ms_swift_is_read(folder):
    row = json.loads(
        '{"messages": [{"role": "user", "content": "<image>sentence1"}], "images": ["a.png"], "positive_messages": '
        '[[{"role": "user", "content": "<image>sentence2"}]], "positive_images": [["a.png"]], "negative_messages": '
        '[[{"role": "user", "content": "<image><image>sentence3"}], [{"role": "user", "content": "<image>4"}]], '
        '"negative_images": [["a.png", "below/b.png"], ["c d.png"]]}'
    )

    (pair,) = read_table(imported("ms-swift", write_lines(folder / "rows.jsonl", [row]), folder / "pairs.jsonl"))

    one, two, three = (str(folder / name) for name in ("a.png", "below/b.png", "c d.png"))
    assert pair.query == Item.of({"image": one, "text": "sentence1"})
    assert pair.positives == (Item.of({"image": one, "text": "sentence2"}),)
    assert [negative.item for negative in pair.negatives] == [
        Item.of({"image": [one, two], "text": "sentence3"}),
        Item.of({"image": three, "text": "4"}),
    ]


def test_pictures_of_a_table_that_are_bytes_become_files_and_go_with_an_export_that_fails(folder, capsys):
    good = Pair(Item.of({"image": png(), "text": "redder"}), (Item.of({"image": png()}),))
    table = write_table(folder / "table.jsonl", [good])

    rows = exported("ms-swift", table, folder / "rows.jsonl")

    (made,) = (folder / "rows_media").iterdir()
    assert made.read_bytes() == png()
    assert read_lines(rows)[0]["images"] == [f"rows_media/{made.name}"] == read_lines(rows)[0]["positive_images"][0]
    assert f"pictures written to {folder / 'rows_media'}: 1" in capsys.readouterr().out
    write_table(table, [good, Pair(WHO, (SHE,), class_id="c")])
    before = set(folder.rglob("*"))
    said = refused(
        capsys, "export", "tevatron", "--make-ids", "--input", table, "--output", folder / "more.jsonl",
        "--corpus", folder / "corpus.jsonl",
    )  # fmt: skip
    assert f"{table}: line 2: class_id: expected none" in said
    assert set(folder.rglob("*")) == before


PROMPTS = "header\ntext\timage\tMSCOCO\t9\tFind me an image.\n"


def test_instructions_of_mbeir_that_its_file_does_not_have_are_refused(folder, capsys):
    prompts = folder / "prompts.tsv"
    image = Item.of({"image": str(folder / "a.png")})
    paths = ("--instructions", prompts)

    def said_of(query, name, *more):
        pair = Pair(query, (image,), query_id=name, target_ids=("9:7",))
        return export_refused(capsys, folder, "m-beir", pair, *paths, *more)

    prompts.write_text(PROMPTS)
    other, known = Item.of("a cat", "Show me an image."), Item.of("a cat", "Find me an image.")
    assert "query.instruction: expected 'Find me an image.', got 'Show me an image.'" in said_of(other, "9:1")
    assert "instruction: expected prompt 0 of 8, text, image, got 0 prompts" in said_of(known, "8:1")
    assert "instruction: expected prompt 1 of 9, text, image, got 1 prompts" in said_of(known, "9:1", "--prompt", "1")
    prompts.write_text("header\ntext\timage\tMSCOCO\t9\n")
    assert f"{prompts}: line 2: expected modalities" in said_of(known, "9:1")
    prompts.unlink()
    assert f"{prompts}: expected a readable text file" in said_of(known, "9:1")


def test_what_mbeir_says_of_a_row_must_follow_from_its_texts_and_pictures(folder, capsys):
    query = {"qid": "9:1", "query_txt": "a cat", "query_modality": "image", "pos_cand_list": ["9:7"], "task_id": 0}
    corpus = write_lines(folder / "corpus.jsonl", [{"did": "9:7", "img_path": "a.png", "modality": "image"}])
    paths = ("import", "m-beir", "--output", folder / "pairs.jsonl", "--corpus", corpus, "--input")

    rows = write_lines(folder / "rows.jsonl", [query])
    assert f"{rows}: line 1: query_modality: expected 'text'" in refused(capsys, *paths, rows)
    write_lines(rows, [query | {"query_modality": "text", "task_id": 4}])
    assert f"{rows}: line 1: task_id: expected '0'" in (said := refused(capsys, *paths, rows))
    assert "--drop task_id" in said
    assert main([*map(str, (*paths, rows)), "--drop", "task_id,weather"]) == 0
    said = capsys.readouterr().out
    assert "task_id left out: 1" in said
    assert "weather left out: 0" in said


def test_empty_lists_are_the_only_absent_negatives_of_ms_swift(folder, capsys):
    user = [{"role": "user", "content": "she"}]
    rows = write_lines(
        folder / "rows.jsonl", [{"messages": user, "positive_messages": [user], "negative_messages": ""}]
    )

    said = refused(capsys, "import", "ms-swift", "--input", rows, "--output", folder / "pairs.jsonl")

    assert f"{rows}: line 1: negative_messages: expected a list, got ''" in said


def test_a_chat_of_more_turns_or_with_sound_is_refused(folder, capsys):
    user, answer = {"role": "user", "content": "who?"}, {"role": "assistant", "content": "she"}
    sound = {"role": "user", "content": "<audio>who?"}
    for chat, words in (
        ([user, answer], "messages: expected a user's turn, and a system's before it, got user, assistant"),
        ([], "messages: expected a user's turn, and a system's before it, got none"),
        ([user | {"content": [{"type": "text", "text": "who?"}]}], "messages[0].content: expected a text"),
        ([sound], "messages: expected no <audio>"),
    ):
        rows = write_lines(folder / "rows.jsonl", [{"messages": chat, "positive_messages": [[user]]}])

        said = refused(capsys, "import", "ms-swift", "--input", rows, "--output", folder / "pairs.jsonl")

        assert f"{rows}: line 1: {words}" in said
