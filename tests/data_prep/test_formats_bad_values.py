"""What every format does with a value of the wrong type: it names file, row and field, and writes nothing."""

import copy
import json
import re

import pytest

from data_prep.convert import main
from data_prep.formats.registry import FORMATS
from tests.data_prep.format_cases import HAS_CORPUS, draw_media, write_lines

BAD = (7, True, ["x", 7], {"no": "such"}, "", None, [])
CHAT = [{"role": "user", "content": "<image>what?"}]
ROWS = {
    "mmeb": {
        "qry": "<|image_1|>\nwho?", "qry_image_path": "a.png", "pos_text": "she", "pos_image_path": "",
        "neg_text": "he", "neg_image_path": "",
    },
    "m-beir": {
        "qid": "9:1", "query_txt": "who?", "query_img_path": "a.png", "query_modality": "image,text",
        "query_src_content": None, "pos_cand_list": ["9:2"], "neg_cand_list": ["9:2"], "task_id": 6,
    },
    "megapairs": {"q_img": "a.png", "q_text": ["redder"], "t_img": "below/b.png", "hns": ["a.png"]},
    "tevatron": {
        "query_id": "q", "query_text": "who?", "query_image": "a.png", "query_video": "one.mp4",
        "positive_document_ids": ["d"], "negative_document_ids": ["d"],
    },
    "ms-swift": {
        "messages": CHAT, "images": ["a.png"], "videos": [],
        "positive_messages": [CHAT], "positive_images": [["a.png"]], "positive_videos": [[]],
        "negative_messages": [CHAT], "negative_images": [["a.png"]], "negative_videos": [[]],
    },
    "sentence-transformers": {
        "anchor": "who?", "positive": {"image": "a.png", "text": "she", "video": "one.mp4"},
        "negative_1": {"image": ["a.png"]}, "label": [1.0, 0.5],
    },
}  # fmt: skip
"""A row of every format with all its fields."""
DOCUMENTS = {
    "m-beir": {"did": "9:2", "txt": "she", "img_path": None, "modality": "text", "src_content": None},
    "tevatron": {"docid": "d", "text": "she", "image": "a.png", "video": "one.mp4"},
}
NOTHING = ("", None)
TAKEN = {
    "mmeb": {"qry_image_path": NOTHING, "pos_image_path": NOTHING, "neg_text": NOTHING, "neg_image_path": NOTHING},
    "m-beir": {
        "neg_cand_list": (None, []), "query_modality": (None,), "query_src_content": (None, []), "task_id": (None,),
    },
    "megapairs": {"hns": (None, [])},
    "tevatron": {
        "query_text": NOTHING, "query_image": NOTHING, "query_video": NOTHING, "negative_document_ids": (None, []),
    },
    "ms-swift": {"videos": (None, []), "positive_videos": (None,), "negative_videos": (None,)},
    "sentence-transformers": {"label": (None,)},
}  # fmt: skip
"""Values that are taken, for they say that nothing is there."""
TAKEN_OF_DOCUMENTS = {
    "m-beir": {"img_path": NOTHING, "modality": (None,), "src_content": (None, [])},
    "tevatron": {"text": NOTHING, "image": NOTHING, "video": NOTHING},
}


RELATED = {
    # a medium and its place in the text are two fields, and one of them is wrong
    "mmeb": {"qry": ("qry_image_path",), "qry_image_path": ("qry",), "pos_text": ("pos_text",)},
    "m-beir": {
        "query_txt": ("query_modality",), "query_img_path": ("query_modality",), "pos_cand_list": ("pos_cand_list",),
    },
    "ms-swift": {
        "messages": ("images",), "positive_messages": ("positive_images",), "negative_messages": ("negative_images",),
    },
    "sentence-transformers": {"negative_1": ("label",)},
}  # fmt: skip
"""Fields of which one is wrong where the other is."""


@pytest.fixture
def folder(tmp_path):
    return draw_media(tmp_path)


def read(folder, name, row, document, capsys):
    """Exit code and complaint of reading a good row and then this one."""
    corpus = []
    if name in HAS_CORPUS:
        corpus = ["--corpus", str(write_lines(folder / "corpus.jsonl", [document]))]
    write_lines(folder / "rows.jsonl", [ROWS[name], row] if document == DOCUMENTS.get(name) else [row])
    paths = ["--input", str(folder / "rows.jsonl"), "--output", str(folder / "pairs.jsonl"), "--overwrite"]
    code = main(["import", name, *paths, *corpus])
    return code, capsys.readouterr().err


def taken(known, column, value):
    return any(value == one and type(value) is type(one) for one in known.get(column, ()))


@pytest.mark.parametrize(("name", "column"), [(name, column) for name in FORMATS for column in ROWS[name]])
def test_a_value_of_the_wrong_type_in_a_row_is_refused_by_file_line_and_field(folder, name, column, capsys):
    for value in BAD:
        row = copy.deepcopy(ROWS[name]) | {column: value}

        code, said = read(folder, name, row, DOCUMENTS.get(name), capsys)

        if taken(TAKEN[name], column, value):
            assert code == 0, (value, said)
            (folder / "pairs.jsonl").unlink()
            continue
        assert code == 2, (value, said)
        assert f"{folder / 'rows.jsonl'}: line 2: " in said, (value, said)
        related = {column, *RELATED.get(name, {}).get(column, ())}
        assert any(re.search(rf"line 2: {re.escape(field)}\b", said) for field in related), (value, said)
        assert "expected " in said
        assert "; " in said
        assert not (folder / "pairs.jsonl").exists()


@pytest.mark.parametrize(("name", "column"), [(name, column) for name in HAS_CORPUS for column in DOCUMENTS[name]])
def test_a_value_of_the_wrong_type_in_a_document_is_refused_by_file_line_and_field(folder, name, column, capsys):
    for value in BAD:
        document = DOCUMENTS[name] | {column: value}

        code, said = read(folder, name, ROWS[name], document, capsys)

        if taken(TAKEN_OF_DOCUMENTS[name], column, value):
            assert code == 0, (value, said)
            (folder / "pairs.jsonl").unlink()
            continue
        assert code == 2, (value, said)
        assert f"{folder / 'corpus.jsonl'}: line 1: " in said, (value, said)
        assert re.search(rf"line 1: {column}\b", said), (value, said)
        assert not (folder / "pairs.jsonl").exists()


@pytest.mark.parametrize("name", FORMATS)
def test_a_line_that_is_no_json_object_is_refused(folder, name, capsys):
    for line in ("{", "[1]", "7", "\xff"):
        corpus = []
        if name in HAS_CORPUS:
            corpus = ["--corpus", str(write_lines(folder / "corpus.jsonl", [DOCUMENTS[name]]))]
        (folder / "rows.jsonl").write_bytes((json.dumps(ROWS[name]) + "\n").encode() + line.encode("latin-1") + b"\n")

        code = main(
            ["import", name, "--input", str(folder / "rows.jsonl"), "--output", str(folder / "pairs.jsonl"), *corpus]
        )

        said = capsys.readouterr().err
        assert code == 2
        assert f"{folder / 'rows.jsonl'}: line 2: expected a JSON object" in said
        assert not (folder / "pairs.jsonl").exists()


@pytest.mark.parametrize("name", FORMATS)
def test_a_field_that_no_table_can_hold_is_refused_and_left_out_only_by_its_name(folder, name, capsys):
    row = ROWS[name] | {"weather": "fine"}

    code, said = read(folder, name, row, DOCUMENTS.get(name), capsys)

    assert code == 2
    assert "line 2: weather: expected a field that a pair table can hold, got 'fine'; say --drop weather" in said

    corpus = ["--corpus", str(folder / "corpus.jsonl")] if name in HAS_CORPUS else []
    paths = ["--input", str(folder / "rows.jsonl"), "--output", str(folder / "pairs.jsonl")]
    assert main(["import", name, *paths, *corpus, "--drop", "weather"]) == 0
    assert "weather left out: 1" in capsys.readouterr().out
