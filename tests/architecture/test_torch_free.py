"""Settings, items and recipes are read without the libraries that compute."""

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
HEAVY = {"torch", "transformers", "lightning", "av", "datasets", "peft", "matplotlib"}
IMPORT_AND_LIST = """
import importlib, json, sys
for name in sys.argv[1:]:
    importlib.import_module(name)
print(json.dumps(list(sys.modules)))
"""


SHOW_HELP = """
import contextlib, json, os, runpy, sys
heavy, first = set(json.loads(sys.argv[1])), {}
paths = sys.argv[2:]
for path in paths:
    sys.argv = [path, "--help"]
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
        try:
            runpy.run_path(path, run_name="__main__")
        except SystemExit as done:
            assert done.code == 0, path
    for name in heavy & set(sys.modules) - set(first):
        first[name] = path
print(json.dumps(first))
"""


def modules_after(*names):
    command = [sys.executable, "-c", IMPORT_AND_LIST, *names]
    return set(json.loads(subprocess.run(command, cwd=ROOT, capture_output=True, check=True, text=True).stdout))


def test_settings_items_and_recipe_import_without_torch():
    package = ROOT / "mmembed"
    files = sorted([*package.rglob("settings.py"), *package.rglob("settings/*.py")])
    names = [".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__") for file in files]

    loaded = modules_after(*names, "mmembed.items", "mmembed.recipe")

    assert len(names) >= 12
    assert loaded >= set(names)
    assert not loaded & HEAVY


def test_the_package_itself_imports_nothing_but_itself():
    loaded = {name for name in modules_after("mmembed") if name.split(".")[0] == "mmembed"}

    assert loaded == {"mmembed"}


def test_the_help_of_no_command_imports_torch():
    folders = [ROOT / folder for folder in ("scripts", "eval", "data_prep")]
    sources = {path: path.read_text() for folder in folders for path in sorted(folder.glob("*.py"))}
    commands = [str(path) for path, text in sources.items() if "__main__" in text and "argparse" in text]
    command = [sys.executable, "-c", SHOW_HELP, json.dumps(["torch", "transformers", "lightning"]), *commands]

    first = subprocess.run(command, cwd=ROOT, capture_output=True, check=True, text=True).stdout

    assert len(commands) > 30
    assert json.loads(first) == {}
