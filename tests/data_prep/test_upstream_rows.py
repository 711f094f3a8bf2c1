"""Rows are found where publishers keep them, and a file that is not whole is an error that names it."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_prep.engine.clones import LocalClone
from data_prep.engine.upstream_rows import front_matter, placed, read_rows, regex_of, row_files
from data_prep.source import SourceSet
from mmembed.errors import InputError

FRONT = """---
license: mit
configs:
- config_name: A
  default: true
  data_files:
  - split: train
    path: A/train-*
  - split: test
    path: [A/test-0.parquet, A/test-1.parquet]
- config_name: B
  data_files: B/all.jsonl
- config_name: C
  data_files: {test: C/t.json}
- config_name: D
  data_dir: deep/D
---
# About
"""


def repository(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return LocalClone("o/n", folder)


def found(clone, config, split, part=None, **fields):
    row = SourceSet("s", "c", "o/n", config=config, split=split, **fields)
    return row_files(row, part, front_matter(clone.folder / "README.md"), clone.match)


def test_the_front_matter_of_the_readme_says_where_a_split_lies(tmp_path):
    names = (
        "A/train-0.parquet",
        "A/train-1.parquet",
        "A/test-1.parquet",
        "A/test-0.parquet",
        "B/all.jsonl",
        "C/t.json",
    )
    clone = repository(tmp_path, *names, "A/test-2.parquet", "deep/D/test-0.parquet")
    (tmp_path / "README.md").write_text(FRONT)

    assert found(clone, "A", "train") == ["A/train-0.parquet", "A/train-1.parquet"]
    assert found(clone, "A", "test") == ["A/test-0.parquet", "A/test-1.parquet"]
    assert found(clone, "B", "train") == ["B/all.jsonl"]
    assert found(clone, "C", "test") == ["C/t.json"]
    assert found(clone, "D", "test") == ["deep/D/test-0.parquet"]
    assert found(clone, None, "train") == ["A/train-0.parquet", "A/train-1.parquet"]
    assert found(clone, None, "train", part="B") == ["B/all.jsonl"]


@pytest.mark.parametrize(
    ("config", "split", "name"),
    [
        ("A", "original", "A/original-00000-of-00001.parquet"),
        ("A", "test", "A/test.jsonl"),
        ("queries", "test", "queries/test-00000-of-00001.parquet"),
        ("A", "test", "data/A/test.parquet"),
        ("A", "train", "A.jsonl"),
        ("A", "test", "A_test.json"),
        (None, "test", "data/test-00000-of-00001.parquet"),
        (None, "val", "val.json"),
        (None, "test", "test_1k.jsonl"),
    ],
)
def test_without_front_matter_the_usual_places_are_looked_into(tmp_path, config, split, name):
    clone = repository(tmp_path, name, "data/other-0.parquet", "notes.json", "B/other.parquet")

    assert found(clone, config, split) == [name]


def test_patterns_of_the_source_go_before_and_may_name_the_part(tmp_path):
    clone = repository(tmp_path, "data/train-0.parquet", "x/queries.jsonl", "x/corpus.jsonl")

    assert found(clone, None, "train", files=("x/q*.jsonl",)) == ["x/queries.jsonl"]
    assert found(clone, None, "train", part="corpus", files=("x/{part}.jsonl",)) == ["x/corpus.jsonl"]


def test_rows_that_are_nowhere_are_named_with_the_places_looked_into(tmp_path):
    clone = repository(tmp_path, "data/test-0.parquet")

    with pytest.raises(InputError, match=r"o/n: A, split train: expected files like A/train-\*\.parquet, .* got none"):
        found(clone, "A", "train")


def test_shards_that_are_missing_or_there_twice_are_refused(tmp_path):
    clone = repository(tmp_path / "a", *(f"data/train-0000{i}-of-00004.parquet" for i in (0, 1, 3)))
    with pytest.raises(InputError, match=r"o/n: data/train: expected 4 shards, got no 2; download the missing ones"):
        found(clone, None, "train")

    names = ("data/train-00000-of-00001.parquet", "data/train-00000-of-00002.parquet")
    clone = repository(tmp_path / "b", *names, "data/train-00001-of-00002.parquet")
    with pytest.raises(InputError, match=r"o/n: data/train: expected each shard once, got .*-of-00001\.parquet, "):
        found(clone, None, "train")

    clone = repository(tmp_path / "c", "data/train-00000-of-00001.parquet", "data/train-00000-of-00001.jsonl")
    with pytest.raises(InputError, match="o/n: data/train: expected each shard once"):
        found(clone, None, "train", files=("data/train-*",))


@pytest.mark.parametrize(
    ("configs", "message"),
    [
        ("default", "expected a list of configurations with their data_files"),
        ("[default]", "expected a list of configurations with their data_files"),
        ("[{config_name: A, data_files: 3}]", "expected a list of configurations with their data_files"),
        ("[{config_name: A, data_files: [{split: train}]}]", "expected a list of configurations"),
        ("[{config_name: A, data_files: [{split: train, path: 3}]}]", "expected a list of configurations"),
        ("[{config_name: A, data_files: [[3]]}]", "expected paths below the repository, got "),
        ("[{config_name: A, data_files: /etc/x.parquet}]", "expected paths below the repository, got '/etc/x.parquet'"),
        ("[{config_name: A, data_files: ../../x.parquet}]", "expected paths below the repository, got '../../x"),
        ("[{config_name: A, data_dir: ../x}]", "expected paths below the repository, got '../x/train-"),
    ],
)
def test_front_matter_of_another_shape_or_that_leads_out_is_refused(tmp_path, configs, message):
    clone = repository(tmp_path / "o/n", "x.parquet")
    repository(tmp_path, "x.parquet", "x/train-0.parquet")
    (clone.folder / "README.md").write_text(f"---\nconfigs: {configs}\n---\n")

    with pytest.raises(InputError, match=rf"README\.md: configs: {message}"):
        found(clone, "A", "train")
    assert found(clone, "A", "train", files=("x.parquet",)) == ["x.parquet"]


def test_a_path_from_the_folder_itself_means_the_same_as_without(tmp_path):
    clone = repository(tmp_path, "A/x-0.parquet")
    (tmp_path / "README.md").write_text("---\nconfigs: [{config_name: A, data_files: ./A/x-*}]\n---\n")

    seen = []
    row_files(SourceSet("s", "c", "o/n", config="A"), None, front_matter(tmp_path / "README.md"), lambda pattern: (
        seen.append(pattern) or clone.match(pattern)
    ))  # fmt: skip
    assert seen == ["A/x-*"]


def test_an_error_about_a_row_names_the_file_and_the_row_in_it(tmp_path):
    for name, rows in (("1.jsonl", 3), ("2.jsonl", 2), ("q.jsonl", 9)):
        (tmp_path / name).write_text("{}\n" * rows)
    begun = {"rows": [], "queries": []}
    list(read_rows([tmp_path / "1.jsonl", tmp_path / "2.jsonl"], (), begun["rows"]))
    list(read_rows([tmp_path / "q.jsonl"], (), begun["queries"]))

    def where(place):
        return placed(InputError(place, expected="e", got="g", remedy="r"), begun).where

    assert where("row 2: a: b") == f"{tmp_path}/1.jsonl: row 2: a: b"
    assert where("row 3") == f"{tmp_path}/2.jsonl: row 0"
    assert where("queries: row 7: text") == f"{tmp_path}/q.jsonl: row 7: text"
    assert where("A-1: queries: row 7: text") == f"{tmp_path}/q.jsonl: row 7: text"
    for other in ("rows 2", f"{tmp_path}/1.json: row 2: a", "row"):
        assert where(other) == other


def test_a_readme_without_yaml_is_named(tmp_path):
    (tmp_path / "README.md").write_text("---\na: [\n---\n")

    with pytest.raises(InputError, match=r"README\.md: expected front matter in YAML"):
        front_matter(tmp_path / "README.md")
    (tmp_path / "README.md").write_text("# no front matter\n---\n")
    assert front_matter(tmp_path / "README.md") == {}


def test_patterns_mean_the_same_on_the_hub_and_on_the_disk(tmp_path):
    names = ["a/b/c.tar.gz-00", "a/c.tar.gz-01", "a/[1].png", "c.tar.gz-02", "a/1.png"]
    clone = repository(tmp_path, *names)

    for pattern in ("*", "**/*.png", "a/*.tar.gz-*", "a/**/*-0?", "a/[[]1].png", "a/[0-9].png", "a/[!2].png"):
        assert [name for name in sorted(names) if regex_of(pattern).match(name)] == clone.match(pattern), pattern


def test_rows_are_read_from_every_kind_of_file_in_order(tmp_path):
    pq.write_table(pa.table({"a": list(range(100))}), tmp_path / "1.parquet", row_group_size=7)
    (tmp_path / "2.jsonl").write_text('{"a": 100}\n\n{"a": 101}\n')
    (tmp_path / "3.json").write_text(json.dumps([{"a": 102}]))
    (tmp_path / "4.json").write_text('{"a": 103}\n{"a": 104}')
    files = sorted(tmp_path.iterdir())

    assert [row["a"] for row in read_rows(files, ["a"])] == list(range(105))


def test_a_renamed_column_is_named_with_the_nearest(tmp_path):
    pq.write_table(pa.table({"question_text": ["q"], "answer": ["a"]}), tmp_path / "r.parquet")
    (tmp_path / "r.jsonl").write_text('{"question": "q", "answer": "a"}\n{"answer": "b"}\n')

    with pytest.raises(InputError, match=r"r\.parquet: query_text: expected this column, .*'question_text'\?"):
        list(read_rows([tmp_path / "r.parquet"], ["query_text"]))
    with pytest.raises(InputError, match=r"r\.jsonl: line 2: question: expected this column, got columns answer"):
        list(read_rows([tmp_path / "r.jsonl"], ["question"]))


def test_a_shard_that_is_cut_off_or_corrupt_is_named(tmp_path):
    file = tmp_path / "shard-1.parquet"
    pq.write_table(pa.table({"a": [str(i) * 50 for i in range(1000)]}), file, compression="snappy")
    whole = file.read_bytes()

    file.write_bytes(whole[:-100])
    with pytest.raises(InputError, match=r"shard-1\.parquet: expected a whole Parquet file.*download it again"):
        list(read_rows([file]))
    file.write_bytes(whole[:4] + bytes(len(whole) // 2) + whole[4 + len(whole) // 2 :])
    with pytest.raises(InputError, match=r"shard-1\.parquet: expected a whole Parquet file"):
        list(read_rows([file]))


def test_lines_that_are_cut_off_or_no_objects_are_named(tmp_path):
    file = tmp_path / "rows.jsonl"
    for text, got in (('{"a": 1}\n{"a": 2', "line 2: expected JSON"), ("[1]\n", "line 1: expected a JSON object")):
        file.write_text(text)
        with pytest.raises(InputError, match=f"rows.jsonl: {got}"):
            list(read_rows([file]))


def test_a_pointer_of_git_lfs_is_not_taken_for_rows(tmp_path):
    file = tmp_path / "rows.parquet"
    file.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")

    with pytest.raises(InputError, match=r"rows\.parquet: expected rows, got a Git LFS pointer; run git lfs pull"):
        list(read_rows([file]))


def test_a_file_of_another_kind_is_refused(tmp_path):
    (tmp_path / "rows.txt").write_text("a,b\n")

    with pytest.raises(InputError, match=r"rows\.txt: expected a file of rows"):
        list(read_rows([tmp_path / "rows.txt"]))
