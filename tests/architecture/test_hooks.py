"""The commit hooks are local, and stop what they should; the citation names this version."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

import mmembed
from mmembed.settings import load_yaml, parse_yaml

ROOT = Path(__file__).parents[2]
BAD = {
    "end-of-file": (b"no newline", "end with one newline: "),
    "strict-yaml": (b"a: 1\na: 2\n", "line 2: a: expected each key once"),
    "large-files": (bytes(500_001), "over 500 kB: "),
}
GOOD = b"a: 1\n"


@pytest.fixture(scope="module")
def hooks():
    (repository,) = load_yaml(ROOT / ".pre-commit-config.yaml")["repos"]
    assert repository["repo"] == "local"
    return {hook["id"]: hook for hook in repository["hooks"]}


def run(hook, path):
    words = shlex.split(hook["entry"])
    assert words[0] == ".venv/bin/python"
    return subprocess.run([sys.executable, *words[1:], path], cwd=ROOT, capture_output=True, text=True)


def test_the_hooks_are_those_of_make_lint_and_three_small_ones(hooks):
    assert set(hooks) == {"ruff-format", "ruff-check", "lint-imports", *BAD}
    assert all(hook["language"] == "system" for hook in hooks.values())


@pytest.mark.parametrize("name", BAD)
def test_a_hook_stops_a_bad_file_and_passes_a_good_one(name, hooks, tmp_path):
    bad, good = tmp_path / "bad.yaml", tmp_path / "good.yaml"
    content, message = BAD[name]
    bad.write_bytes(content)
    good.write_bytes(GOOD)

    stopped, passed = run(hooks[name], bad), run(hooks[name], good)

    assert stopped.returncode != 0
    assert message in stopped.stderr
    assert passed.returncode == 0, passed.stderr


def test_the_citation_and_the_metadata_name_this_version():
    citation = parse_yaml((ROOT / "CITATION.cff").read_text(encoding="utf-8"), "CITATION.cff")
    (version,) = re.findall(r"^version = (.+)$", (ROOT / "setup.cfg").read_text(encoding="utf-8"), re.MULTILINE)

    assert citation["version"] == version == mmembed.__version__
    assert (ROOT / "LICENSE").read_text(encoding="utf-8").count("Apache License") >= 1


def test_the_changelog_has_an_unreleased_section():
    headings = re.findall(r"^## \[(.+?)\]", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)

    assert headings[0] == "Unreleased"
