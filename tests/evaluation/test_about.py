"""What an evaluation says of the code and the libraries that made it."""

import platform
import re
import subprocess

from mmembed import __version__
from mmembed.evaluation.about import about, commit, versions


def git(folder, *words):
    identity = ["-c", "user.name=test", "-c", "user.email=test@example.org"]
    subprocess.run(["git", "-C", str(folder), *identity, *words], check=True, capture_output=True)


def test_versions_are_those_of_the_identity_and_of_python():
    found = versions({"library.torch": "2.9.0", "library.timm": "none", "weights": "abc"})

    commit_found = found.pop("commit")
    assert commit_found is None or re.fullmatch(r"[0-9a-f]{40}(-dirty)?", commit_found)
    assert found == {"mmembed": __version__, "python": platform.python_version(), "torch": "2.9.0", "timm": None}


def test_a_checkout_has_a_commit_and_says_when_files_differ(tmp_path):
    git(tmp_path, "init")
    (tmp_path / "a.py").write_text("a = 1\n")
    git(tmp_path, "add", "a.py")
    git(tmp_path, "commit", "-m", "first")

    clean = commit(tmp_path)
    (tmp_path / "a.py").write_text("a = 2\n")

    assert re.fullmatch(r"[0-9a-f]{40}", clean)
    assert commit(tmp_path) == f"{clean}-dirty"


def test_what_is_no_checkout_has_no_commit(tmp_path):
    git(tmp_path, "init")
    (tmp_path / "inside").mkdir()

    assert commit(tmp_path / "inside") is None
    assert commit(tmp_path) is None  # nothing is committed


def test_settings_of_the_model_are_there(scratch_embedder):
    model = scratch_embedder("qwen2_vl")

    found = about(model, {}, processes=2)

    assert found["settings"]["backbone"]["class_path"] == "QwenVL"
    assert "max_pixels" in found["settings"]["backbone"]["init_args"]
    assert found["settings"]["prompt"]["class_path"] == "ChatPrompt"
    assert (found["device"], found["processes"]) == ("cpu", 2)
