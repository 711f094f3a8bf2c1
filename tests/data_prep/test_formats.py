"""Every format gives back what it was given: a table written and read again, and rows read and written again."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_prep.formats.registry import FORMATS
from mmembed.items import Item, Pair
from tests.data_prep.format_cases import (
    FILES,
    HAS_CORPUS,
    PAIRS,
    SMALL,
    SUFFIX,
    corpus_of,
    draw_media,
    exported,
    imported,
    read_lines,
    read_table,
    write_lines,
    write_table,
)

WRITTEN = [(name, suffix) for name in FORMATS for suffix in SUFFIX[name]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return draw_media(tmp_path_factory.mktemp("formats"))


@pytest.mark.parametrize(("name", "suffix"), WRITTEN)
@pytest.mark.parametrize("table_suffix", [".jsonl", ".parquet"])
def test_a_table_comes_back_equal_from_every_format_that_can_hold_it(folder, name, suffix, table_suffix):
    @settings(**SMALL)
    @given(st.data())
    def comes_back(data):
        pairs = data.draw(PAIRS[name](folder))
        table = write_table(folder / f"table{table_suffix}", pairs)

        rows = exported(name, table, folder / f"rows{suffix}")
        back = imported(name, rows, folder / f"back{table_suffix}")

        assert read_table(back) == pairs

    comes_back()


@pytest.mark.parametrize("name", FORMATS)
def test_rows_of_every_format_come_back_equal_from_a_table(folder, name):
    @settings(**SMALL)
    @given(FILES[name])
    def come_back(files):
        rows, corpus = files
        write_lines(folder / "theirs.jsonl", rows)
        if corpus is not None:
            write_lines(folder / "theirs_corpus.jsonl", corpus)

        table = imported(name, folder / "theirs.jsonl", folder / "table.jsonl")
        again = exported(name, table, folder / "again.jsonl")

        assert read_lines(again) == rows
        if corpus is not None:
            assert read_lines(corpus_of(again)) == corpus

    come_back()


@pytest.mark.parametrize("name", HAS_CORPUS)
def test_a_corpus_comes_back_whole_and_in_order_with_documents_that_no_row_names(folder, name):
    @settings(**SMALL)
    @given(FILES[name])
    def comes_back(files):
        rows, corpus = files
        more = [{**row, **{key: f"{row[key]}0" for key in ("did", "docid") if key in row}} for row in corpus]
        known = {key: row[key] for row in corpus for key in ("did", "docid") if key in row}
        ids = {row[key] for row in corpus for key in known if key in row}
        unnamed = [row for row in more if not ids & set(map(str, row.values()))]
        whole = [*unnamed, *reversed(corpus)]
        write_lines(folder / "theirs.jsonl", rows)
        write_lines(folder / "theirs_corpus.jsonl", whole)
        items = folder / "items.jsonl"

        table = imported(name, folder / "theirs.jsonl", folder / "table.jsonl", "--items", items)
        again = exported(name, table, folder / "again.jsonl", "--items", items)

        assert read_lines(again) == rows
        assert read_lines(corpus_of(again)) == whole

    comes_back()


def test_tevatron_documents_are_read_by_the_names_of_the_readme_and_written_by_either(folder):
    rows = [{"query_id": "q", "query_text": "who?", "positive_document_ids": ["d"], "negative_document_ids": []}]
    written = [{"docid": "d", "document_text": "she", "document_image": "a.png"}]
    write_lines(folder / "readme.jsonl", rows)
    write_lines(folder / "readme_corpus.jsonl", written)

    table = imported("tevatron", folder / "readme.jsonl", folder / "table.jsonl")
    by_code = exported("tevatron", table, folder / "code.jsonl")
    by_readme = exported("tevatron", table, folder / "again.jsonl", "--field-names", "readme")

    assert read_lines(corpus_of(by_code)) == [{"docid": "d", "text": "she", "image": "a.png"}]
    assert read_lines(corpus_of(by_readme)) == written
    assert read_table(table)[0].positives == (Item.of({"text": "she", "image": str(folder / "a.png")}),)


PROMPTS = """query_modality\tcand_modality\tdataset_name\tdataset_id\tprompt_1\tprompt_2
text\timage\tMSCOCO\t9\tFind me an everyday image.\tShow me an image.\t
"""


def test_an_instruction_of_mbeir_is_read_from_its_file_and_given_back_to_it(folder):
    (folder / "prompts.tsv").write_text(PROMPTS)
    rows = [
        {
            "qid": "9:1", "query_txt": "a cat", "query_img_path": None, "query_modality": "text",
            "query_src_content": None, "pos_cand_list": ["9:7"], "neg_cand_list": [], "task_id": 0,
        }
    ]  # fmt: skip
    pool = [{"did": "9:7", "txt": None, "img_path": "a.png", "modality": "image", "src_content": None}]
    write_lines(folder / "asked.jsonl", rows)
    write_lines(folder / "asked_corpus.jsonl", pool)
    prompts = ("--instructions", folder / "prompts.tsv", "--prompt", 1)

    table = imported("m-beir", folder / "asked.jsonl", folder / "table.jsonl", *prompts)
    again = exported("m-beir", table, folder / "again.jsonl", *prompts)

    assert read_table(table)[0].query == Item.of({"text": "a cat", "instruction": "Show me an image."})
    assert read_lines(again) == rows


def test_equal_documents_are_given_one_id(folder, capsys):
    wrong, right = Item.of("no"), Item.of({"image": str(folder / "a.png")})
    pairs = [Pair(Item.of("one"), (right, wrong)), Pair(Item.of("two"), (wrong, right))]
    table = write_table(folder / "unnamed.jsonl", pairs)

    rows = exported("m-beir", table, folder / "named.jsonl", "--make-ids", "--dataset-id", 3)

    assert [row["qid"] for row in read_lines(rows)] == ["3:0", "3:1"]
    assert [row["pos_cand_list"] for row in read_lines(rows)] == [["3:0", "3:1"], ["3:1", "3:0"]]
    assert [row["did"] for row in read_lines(corpus_of(rows))] == ["3:0", "3:1"]
    said = capsys.readouterr().out
    assert "queries given an id: 2" in said
    assert "documents given an id: 2" in said
    back = read_table(imported("m-beir", rows, folder / "back.jsonl"))
    assert [(pair.query, pair.positives) for pair in back] == [(pair.query, pair.positives) for pair in pairs]


def test_paths_are_written_whole_or_from_another_folder_where_that_is_asked_for(folder):
    table = write_table(
        folder / "shown.jsonl", [Pair(Item.of({"image": str(folder / "below/b.png")}), (Item.of("b"),))]
    )
    (folder / "out").mkdir(exist_ok=True)

    whole = exported("ms-swift", table, folder / "out/whole.jsonl", "--absolute-paths")
    above = exported("ms-swift", table, folder / "out/above.jsonl", "--output-media", folder)
    back = imported("ms-swift", above, folder / "back.jsonl", "--input-media", folder)

    assert read_lines(whole)[0]["images"] == [str(folder / "below/b.png")]
    assert read_lines(above)[0]["images"] == ["below/b.png"]
    assert read_table(back) == read_table(table)
    assert json.loads((folder / "back.jsonl").read_text())["query"] == {"image": "below/b.png"}
