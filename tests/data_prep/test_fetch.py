"""Downloads go on where they were killed, are compared with what was published, and fail in words."""

import hashlib
import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from data_prep.engine.clones import LocalClone, Repositories, commit_of
from data_prep.engine.fetch import check_sha256
from mmembed.errors import InputError
from tests.data_prep.hub import COMMIT, Hub

ROOT = Path(__file__).resolve().parents[2]
BIG = random.Random(0).randbytes(24_000_000)
GET = """
import json, sys
from pathlib import Path
from data_prep.engine.clones import Repositories
from mmembed.errors import InputError
repo, revision, root, *patterns = sys.argv[1:]
update = revision == "newest"
try:
    clone = Repositories(Path(root), update=update).open(repo, None if update else revision or None)
    names = [name for pattern in patterns for name in clone.match(pattern)]
    missing = clone.missing_bytes(names)
    clone.get(names)
    print(json.dumps({"names": names, "missing": missing, "commit": clone.revision}))
except InputError as error:
    print(json.dumps({"error": str(error)}))
"""


@pytest.fixture
def hub():
    files = {
        "README.md": b"---\n---\n",
        "data/train-0.parquet": b"small",
        "media/[1] a.tar": BIG,
        "media/b.tar": b"b" * 5000,
    }
    made = Hub({"o/n": files})
    yield made
    made.close()


def environment(hub, tmp_path, **more):
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith("HF_") and "proxy" not in name.lower()
    }
    return kept | {
        "HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "home"), "HF_HUB_DISABLE_XET": "1", "PYTHONPATH": str(ROOT),
        "HF_HUB_DISABLE_PROGRESS_BARS": "1", **more,
    }  # fmt: skip


def get(hub, tmp_path, *arguments, **more):
    command = [sys.executable, "-c", GET, *arguments]
    done = subprocess.run(command, env=environment(hub, tmp_path, **more), capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def wait_until(true, seconds=60):
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_only_the_files_that_fit_are_downloaded_and_only_once(hub, tmp_path):
    arguments = ("o/n", "", str(tmp_path), "data/*.parquet", "media/b.*")

    first, second = get(hub, tmp_path, *arguments), get(hub, tmp_path, *arguments)

    assert first == {"names": ["data/train-0.parquet", "media/b.tar"], "missing": 5005, "commit": COMMIT}
    assert second["missing"] == 0
    assert hub.served == {"data/train-0.parquet": 5, "media/b.tar": 5000}
    assert (tmp_path / "raw/o/n/data/train-0.parquet").read_bytes() == b"small"
    assert not (tmp_path / "raw/o/n/README.md").exists()


def test_a_killed_download_goes_on_where_it_was(hub, tmp_path):
    hub.stall_after = 12_000_000
    arguments = [sys.executable, "-c", GET, "o/n", "", str(tmp_path), "media/[[]1] a.tar"]
    running = subprocess.Popen(arguments, env=environment(hub, tmp_path), stdout=subprocess.DEVNULL)
    assert hub.stalled.wait(60)
    # the client writes what it has in pieces of ten million bytes
    wait_until(lambda: any(file.stat().st_size >= 10_000_000 for file in tmp_path.rglob("parts/*")))
    running.kill()
    running.wait()
    assert not (tmp_path / "raw/o/n/media/[1] a.tar").exists()
    hub.stall_after, before = None, hub.served["media/[1] a.tar"]

    get(hub, tmp_path, "o/n", "", str(tmp_path), "media/[[]1] a.tar")

    assert (tmp_path / "raw/o/n/media/[1] a.tar").read_bytes() == BIG
    assert hub.served["media/[1] a.tar"] - before <= len(BIG) - 10_000_000


def test_a_file_that_is_not_what_was_published_is_removed(hub, tmp_path):
    hub.corrupt.add("media/b.tar")

    said = get(hub, tmp_path, "o/n", "", str(tmp_path), "media/b.tar")

    assert f"b.tar: expected sha256 {hashlib.sha256(b'b' * 5000).hexdigest()}, got" in said["error"]
    assert not (tmp_path / "raw/o/n/media/b.tar").exists()
    hub.corrupt.clear()
    assert "error" not in get(hub, tmp_path, "o/n", "", str(tmp_path), "media/b.tar")


def test_a_file_that_changed_on_the_disk_is_downloaded_again(hub, tmp_path):
    arguments = ("o/n", "", str(tmp_path), "media/b.tar")
    get(hub, tmp_path, *arguments)
    file = tmp_path / "raw/o/n/media/b.tar"
    file.unlink()

    assert get(hub, tmp_path, *arguments)["missing"] == 5000
    assert file.stat().st_size == 5000


def test_the_newest_commit_is_resolved_once_for_a_data_root(hub, tmp_path):
    first = get(hub, tmp_path, "o/n", "", str(tmp_path), "data/*")
    hub.commits.append("e" * 40)
    later = get(hub, tmp_path, "o/n", "", str(tmp_path), "media/b.*")
    elsewhere = get(hub, tmp_path, "o/n", "", str(tmp_path / "other"), "data/*")
    updated = get(hub, tmp_path, "o/n", "newest", str(tmp_path), "data/*")
    after = get(hub, tmp_path, "o/n", "", str(tmp_path), "data/*")

    commits = [said["commit"][0] for said in (first, later, elsewhere, updated, after)]
    assert commits == ["c", "c", "e", "e", "e"]


def test_two_downloads_of_a_repository_at_once_take_turns(hub, tmp_path):
    command = [sys.executable, "-c", GET, "o/n", "", str(tmp_path), "media/*"]
    running = [
        subprocess.Popen(
            command, env=environment(hub, tmp_path), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        for _ in range(2)
    ]
    said = [json.loads(process.communicate(timeout=120)[0]) for process in running]

    assert [answer.get("error") for answer in said] == [None, None]
    assert (tmp_path / "raw/o/n/media/[1] a.tar").read_bytes() == BIG
    assert hub.served == {"media/[1] a.tar": len(BIG), "media/b.tar": 5000}


def test_what_the_hub_refuses_is_said_in_words(hub, tmp_path):
    hub.repos["o/gated"] = hub.repos["o/n"]
    hub.gated.add("o/gated")

    gated, missing, commit = (
        get(hub, tmp_path, repo, revision, str(tmp_path), "*")["error"]
        for repo, revision in (("o/gated", ""), ("o/none", ""), ("o/n", "d" * 40))
    )

    assert "o/gated: expected access to a gated repository" in gated
    assert "datasets/o/gated, then run: hf auth login" in gated
    assert "o/none: expected a dataset on the Hub, got no such repository" in missing
    assert "o/n: expected a commit of the repository, got none of that name" in commit


def test_a_repository_whose_paths_lead_out_is_refused(hub, tmp_path):
    hub.repos["o/evil"] = {"../../escaped.txt": b"x"}

    said = get(hub, tmp_path, "o/evil", "", str(tmp_path), "**")["error"]

    assert "o/evil: expected paths below the repository, got '../../escaped.txt'" in said
    assert not list(tmp_path.rglob("escaped.txt"))


def test_no_network_and_the_offline_switch_are_told_apart(hub, tmp_path):
    offline = get(hub, tmp_path, "o/n", "", str(tmp_path), "*", HF_HUB_OFFLINE="1")["error"]
    hub.close()
    unreachable = get(hub, tmp_path, "o/n", "", str(tmp_path), "*")["error"]

    assert "o/n: expected to reach the Hub, got HF_HUB_OFFLINE is set" in offline
    assert "o/n: expected to" in unreachable
    assert "give a local copy with --source DIR" in unreachable
    assert "HF_HUB_OFFLINE" not in unreachable


def test_a_local_copy_is_found_by_its_whole_or_short_name(tmp_path):
    for name in ("a/owner/name", "b/name"):
        (tmp_path / name).mkdir(parents=True)

    for copies, place in (("a", "a/owner/name"), ("b", "b/name"), ("b/name", "b/name")):
        clone = Repositories(tmp_path / "data", (tmp_path / copies,)).open("owner/name", None)
        assert isinstance(clone, LocalClone)
        assert clone.folder == tmp_path / place


def test_a_copy_that_is_not_there_is_not_downloaded_instead(tmp_path):
    with pytest.raises(
        InputError, match=r"expected a copy of owner/name at .*/owner/name, .*/name, or .*got no such folder"
    ):
        Repositories(tmp_path, (tmp_path,)).open("owner/name", None)


def test_a_copy_says_its_commit_where_git_or_the_client_wrote_it_down(tmp_path):
    for name, file, text in (
        ("detached", ".git/HEAD", "a" * 40),
        ("client", ".cache/huggingface/download/data/x.parquet.metadata", "b" * 40 + "\netag\n1.5\n"),
        ("branch", ".git/refs/heads/main", "c" * 40),
        ("packed", ".git/packed-refs", "# pack\n" + "d" * 40 + " refs/heads/main\n"),
    ):
        path = tmp_path / name / file
        path.parent.mkdir(parents=True)
        path.write_text(text)
        if name in ("branch", "packed"):
            (tmp_path / name / ".git/HEAD").write_text("ref: refs/heads/main\n")
    (tmp_path / "plain").mkdir()

    commits = {path.name: commit_of(path) for path in tmp_path.iterdir()}

    letters = {"detached": "a", "client": "b", "branch": "c", "packed": "d"}
    assert commits == {name: letter * 40 for name, letter in letters.items()} | {"plain": ""}


def test_a_copy_of_another_commit_than_is_pinned_is_refused(tmp_path):
    (tmp_path / "o/n/.git").mkdir(parents=True)
    (tmp_path / "o/n/.git/HEAD").write_text("a" * 40)

    assert Repositories(tmp_path, (tmp_path,)).open("o/n", "a" * 40).revision == "a" * 40
    with pytest.raises(InputError, match=rf"o/n: expected commit {'b' * 40} of o/n, got {'a' * 40}"):
        Repositories(tmp_path, (tmp_path,)).open("o/n", "b" * 40)


def test_files_of_a_copy_that_differ_from_the_checksum_stay(tmp_path):
    file = tmp_path / "f"
    file.write_bytes(b"x")

    with pytest.raises(InputError, match=f"expected sha256 {'0' * 64}"):
        check_sha256(file, "0" * 64)

    assert file.exists()
    check_sha256(file, hashlib.sha256(b"x").hexdigest().upper())


def cloned(folder, url):
    (folder / ".git").mkdir(parents=True)
    (folder / ".git/config").write_text(f'[core]\n\tbare = false\n[remote "origin"]\n\turl = {url}\n')
    return folder


@pytest.mark.parametrize(
    "url",
    [
        "https://huggingface.co/datasets/owner/name", "https://huggingface.co/datasets/owner/name/",
        "https://me:secret@huggingface.co/datasets/owner/name.git", "git@hf.co:datasets/owner/name",
    ],
)  # fmt: skip
def test_a_clone_under_another_name_is_found_by_its_url(tmp_path, url):
    inner, itself = cloned(tmp_path / "a/video", url), cloned(tmp_path / "b", url)

    assert Repositories(tmp_path, (tmp_path / "a",)).open("owner/name", None).folder == inner
    assert Repositories(tmp_path, (tmp_path / "b",)).open("owner/name", None).folder == itself


def test_a_clone_of_another_repository_of_that_name_is_not_taken(tmp_path):
    cloned(tmp_path / "a/name", "https://huggingface.co/datasets/other/name")
    (tmp_path / "b/name").mkdir(parents=True)

    with pytest.raises(InputError, match="expected a copy of owner/name"):
        Repositories(tmp_path, (tmp_path / "a",)).open("owner/name", None)
    both = Repositories(tmp_path, (tmp_path / "a", tmp_path / "b"))
    assert both.open("owner/name", None).folder == tmp_path / "b/name"
