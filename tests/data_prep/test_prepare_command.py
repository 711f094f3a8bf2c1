"""The command: what it prints, how it ends, and a whole preparation from the Hub."""

import os
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from data_prep.converters import registry
from data_prep.engine.lock import locked
from data_prep.engine.manifest import read_manifest
from data_prep.miniatures.draw import draw_source
from data_prep.prepare import main
from data_prep.source import read_source
from mmembed.data.tables import open_table
from tests.data_prep.hub import COMMIT, Hub
from tests.data_prep.publisher import ROWS, ranked_rows

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def options(publisher, tmp_path):
    return ["--source", str(publisher.copies), "--data-root", str(tmp_path / "data")]


def test_everything_whole_ends_with_0_and_a_line_a_set(publisher, options, capsys):
    assert main(["group", *options]) == 0

    assert capsys.readouterr().out.splitlines() == ["drawn/pairs: 8 pairs", "drawn/ranked: 8 queries; 10 targets"]


def test_a_set_alone_is_prepared(publisher, options, tmp_path):
    assert main(["drawn/ranked", *options]) == 0

    assert list(read_manifest(tmp_path / "data", "drawn")["sets"]) == ["ranked"]


def test_fewer_rows_than_expected_end_with_1_and_are_said_aloud(publisher, options, capsys, tmp_path):
    publisher.rows_of_ranked(ranked_rows()[:3])

    assert main(["drawn", *options]) == 1

    assert "drawn/ranked: 3 queries; 5 targets; EXPECTED 8: " in capsys.readouterr().out
    assert main(["drawn", *options, "--list"]) == 0
    assert "3 rows where 8 are expected" in capsys.readouterr().out


def test_a_limited_set_is_said_to_be_one(publisher, options, capsys):
    assert main(["drawn", *options, "--limit", "2"]) == 0

    assert "the first 2 rows only" in capsys.readouterr().out
    main(["drawn", *options, "--list"])
    assert "only the first 2 rows" in capsys.readouterr().out


def test_a_set_that_fails_does_not_keep_the_others(publisher, options, capsys, tmp_path):
    publisher.pair_file.write_bytes(b"PAR1 no more")

    assert main(["drawn", *options]) == 2

    said = capsys.readouterr()
    assert "drawn/pairs: not prepared\n" in said.err
    assert "expected a whole Parquet file" in said.err
    assert said.out == "drawn/ranked: 8 queries; 10 targets\n"


def test_rows_put_aside_are_said(publisher, options, capsys):
    rows = [{"qry": "q", "qry_image_path": "", "pos_text": f"{i}", "pos_image_path": ""} for i in range(ROWS)]
    publisher.rows_of_pairs([*rows[1:], {**rows[0], "qry_image_path": "gone.png"}])

    assert main(["drawn/pairs", *options]) == 2
    assert main(["drawn/pairs", *options, "--max-bad", "0.2"]) == 0

    assert "drawn/pairs: 7 pairs; 1 rows put aside (see the manifest); the first: " in capsys.readouterr().out
    main(["drawn/pairs", *options, "--list"])
    assert "yes, 1 put aside" in capsys.readouterr().out
    # what was allowed then is not allowed now
    assert main(["drawn/pairs", *options]) == 2


def test_the_list_says_what_there_is_and_what_is_prepared(publisher, options, capsys):
    assert main(["--list", *options]) == 0
    before = capsys.readouterr().out
    main(["drawn/pairs", *options])
    capsys.readouterr()
    main(["--list", *options])
    after = capsys.readouterr().out

    rows = [line.split() for line in before.splitlines() if "drawn/" in line]
    assert rows == [[f"drawn/{name}", "8", "o/n", "mit", "not", "prepared"] for name in ("pairs", "ranked")]
    assert [line.split()[-1] for line in after.splitlines() if "drawn/" in line] == ["yes", "prepared"]


def test_a_dry_run_says_what_is_needed_and_does_nothing(publisher, options, capsys, tmp_path):
    assert main(["drawn", *options, "--dry-run"]) == 0

    out = capsys.readouterr().out
    assert f"drawn/pairs: 1 files of {publisher.repo}, nothing to download" in out
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "expected a source; --list names all there is"),
        (["drawn", "--limit", "0"], "argument --limit: expected 1 or more, got 0"),
        (["drawn", "--max-bad", "2"], "argument --max-bad: expected 0 to 1, got 2.0"),
        (["drawn", "--source", "/nowhere"], "argument --source: expected a folder of copies"),
    ],
)
def test_options_that_cannot_be_meant_are_refused(publisher, arguments, message, capsys):
    with pytest.raises(SystemExit):
        main(arguments)

    assert message in capsys.readouterr().err


def test_a_data_root_that_is_a_file_is_refused(publisher, tmp_path, capsys):
    (tmp_path / "file").touch()

    with pytest.raises(SystemExit):
        main(["drawn", "--data-root", str(tmp_path / "file")])

    assert f"argument --data-root: expected a folder, got the file '{tmp_path}/file'" in capsys.readouterr().err


def test_whatever_a_library_raises_of_one_set_is_said_and_does_not_keep_the_others(
    publisher, options, capsys, monkeypatch
):
    def broken(rows, row_set, media):
        raise MemoryError("no more")

    usual = registry.CONVERTERS["mmeb_pairs"]
    monkeypatch.setitem(registry.CONVERTERS, "mmeb_pairs", replace(usual, pairs=broken))

    assert main(["drawn", *options]) == 2

    said = capsys.readouterr()
    assert said.err.splitlines()[-2:] == ["drawn/pairs: not prepared", "  MemoryError: no more"]
    assert said.out == "drawn/ranked: 8 queries; 10 targets\n"


def test_a_full_disk_is_said_in_words(publisher, options, capsys, tmp_path):
    def full(rows, row_set, media):
        with Path("/dev/full").open("w") as file:
            file.write("x")

    usual = registry.CONVERTERS["mmeb_pairs"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(registry.CONVERTERS, "mmeb_pairs", replace(usual, pairs=full))
        assert main(["drawn/pairs", *options]) == 2

    err = capsys.readouterr().err
    assert f"{tmp_path}/data: expected to read and write files, got [Errno 28] No space left on device; free" in err
    assert "not prepared" in err


def test_several_folders_of_copies_may_be_given(publisher, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    root = ["--data-root", str(tmp_path / "data")]

    assert main(["drawn/pairs", "--source", str(tmp_path / "empty"), *root]) == 2
    assert "expected a copy of o/n at " in capsys.readouterr().err
    assert main(["drawn/pairs", "--source", str(tmp_path / "empty"), "--source", str(publisher.copies), *root]) == 0


def test_a_hub_that_cannot_be_reached_is_said_once_and_there_is_no_total(publisher, tmp_path):
    code = "import sys; from data_prep import source; from pathlib import Path; from data_prep.prepare import main\n"
    code += "source.SOURCES = Path(sys.argv[1]); sys.exit(main(['drawn', '--dry-run', '--data-root', sys.argv[2]]))"
    command = [sys.executable, "-c", code, str(tmp_path / "sources"), str(tmp_path / "data")]

    done = subprocess.run(
        command, cwd=ROOT, env=os.environ | {"HF_HUB_OFFLINE": "1"}, capture_output=True, text=True, timeout=120
    )

    assert done.returncode == 2
    assert done.stderr.count("HF_HUB_OFFLINE is set") == 1, done.stderr
    assert done.stdout == ""


def test_a_dry_run_that_cannot_look_up_a_set_gives_no_total(publisher, options, capsys):
    publisher.pair_file.unlink()

    assert main(["drawn", *options, "--dry-run"]) == 2

    said = capsys.readouterr()
    assert "drawn/pairs: o/n: rows, split train: expected files like" in said.err
    assert said.out.splitlines()[-1] == "no total: some sets could not be looked up"


def test_a_source_that_is_not_there_is_refused_with_the_nearest(publisher, options, capsys):
    assert main(["drown", *options]) == 2

    assert "expected a source, got 'drown'; did you mean 'drawn'?" in capsys.readouterr().err


def test_a_second_preparation_waits_for_the_first(publisher, options, tmp_path, capsys):
    done = threading.Event()

    def second():
        assert main(["drawn/pairs", *options]) == 0
        done.set()

    with locked(tmp_path / "data/drawn"):
        thread = threading.Thread(target=second)
        thread.start()
        assert not done.wait(0.5)
    thread.join(60)

    assert done.is_set()
    assert "another preparation is at work" in capsys.readouterr().err


def test_a_source_is_prepared_from_the_hub_at_the_commit_that_it_answers(tmp_path):
    small = read_source("mmeb_train").only(["OK-VQA"])
    draw_source(small, tmp_path / "copies")
    repo = tmp_path / "copies/TIGER-Lab/MMEB-train"
    files = {path.relative_to(repo).as_posix(): path.read_bytes() for path in repo.rglob("*") if path.is_file()}
    hub = Hub({"TIGER-Lab/MMEB-train": {**files, "README.md": b"# no front matter\n", "large.bin": bytes(9)}})
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith("HF_") and "proxy" not in name.lower()
    }
    environment = kept | {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "home"), "HF_HUB_DISABLE_XET": "1"}

    def run(*more):
        command = [sys.executable, "data_prep/prepare.py", "mmeb_train/OK-VQA", "--data-root", str(tmp_path), *more]
        return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120)

    dry, first, again = run("--dry-run"), run(), run()
    hub.close()

    assert dry.returncode == 0, dry.stderr
    assert f"TIGER-Lab/MMEB-train at {COMMIT}" in dry.stdout
    # a miniature has fewer rows than are expected
    assert first.returncode == again.returncode == 1, first.stderr
    assert "EXPECTED 9009" in first.stdout
    entry = read_manifest(tmp_path, "mmeb_train")["sets"]["OK-VQA"]
    assert entry["inputs"]["TIGER-Lab/MMEB-train"]["revision"] == COMMIT
    assert len(open_table(tmp_path / "mmeb_train/OK-VQA.parquet")) == entry["rows"] > 5
    rows, archive = "OK-VQA/original-00000-of-00001.parquet", "images_zip/OK-VQA.zip"
    assert hub.served.keys() == {"README.md", rows, archive}
    assert hub.served[archive] == len(files[archive])
