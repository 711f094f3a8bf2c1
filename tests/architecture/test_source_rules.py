"""Rules that every source file keeps: direction of names, size, no prints, nothing unpickled, no remote code."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
COMMAND_FOLDERS = ("scripts", "eval", "data_prep")
PACKAGE = sorted((ROOT / "mmembed").rglob("*.py"))
COMMANDS = sorted(path for folder in COMMAND_FOLDERS for path in (ROOT / folder).rglob("*.py"))
TESTS = sorted((ROOT / "tests").rglob("*.py"))
MAX_LINES = 500
MAX_ADAPTER_LINES = 250
PICKLING = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
OUTSIDE = {"configs", "eval", "data_prep", "scripts", "tests"}
# a folder's name as a path or module, not the method eval() nor a word that ends alike
NAMED_OUTSIDE = re.compile(r"(?<![\w./])(configs/|eval/|data_prep\b)")


def imports(tree):
    """Top-level names of all modules that a tree imports."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module.split(".")[0]


def calls(tree):
    """Dotted name and node of each call."""
    return [(ast.unparse(node.func), node) for node in ast.walk(tree) if isinstance(node, ast.Call)]


def is_true(node, keyword):
    found = [k.value for k in node.keywords if k.arg == keyword]
    return bool(found) and isinstance(found[0], ast.Constant) and found[0].value is True


def is_false_or_absent(node, keyword):
    found = [k.value for k in node.keywords if k.arg == keyword]
    return all(isinstance(value, ast.Constant) and value.value is False for value in found)


def prints(tree):
    """Standard output belongs to the commands; progress goes to standard error."""
    found = [node for name, node in calls(tree) if name in ("print", "pprint", "builtins.print")]
    return [
        n.lineno for n in found if not any(k.arg == "file" and ast.unparse(k.value) == "sys.stderr" for k in n.keywords)
    ]


def pickles(tree):
    return sorted(set(imports(tree)) & PICKLING)


def loads_unsafely(tree):
    unsafe = [node.lineno for name, node in calls(tree) if name == "torch.load" and not is_true(node, "weights_only")]
    imported = [n for n in ast.walk(tree) if isinstance(n, ast.ImportFrom) and n.module == "torch"]
    # under another name the calls would not be seen
    return unsafe + [node.lineno for node in imported if any(alias.name == "load" for alias in node.names)]


def runs_remote_code(tree):
    return [node.lineno for _, node in calls(tree) if not is_false_or_absent(node, "trust_remote_code")]


def names_outside(tree):
    strings = [n.value for n in ast.walk(tree) if isinstance(n, ast.Constant) and isinstance(n.value, str)]
    return sorted({*(set(imports(tree)) & OUTSIDE), *(found for s in strings for found in NAMED_OUTSIDE.findall(s))})


PACKAGE_RULES = {rule.__name__: rule for rule in (prints, pickles, loads_unsafely, runs_remote_code, names_outside)}
SAFETY_RULES = ("pickles", "loads_unsafely", "runs_remote_code")
BROKEN = [
    ("prints", "print('x')"),
    ("prints", "print('x', file=sys.stdout)"),
    ("pickles", "import pickle"),
    ("pickles", "def f():\n    from dill import load"),
    ("loads_unsafely", "torch.load('x')"),
    ("loads_unsafely", "torch.load('x', weights_only=False)"),
    ("loads_unsafely", "from torch import load"),
    ("runs_remote_code", "AutoModel.from_pretrained(p, trust_remote_code=True)"),
    ("runs_remote_code", "AutoModel.from_pretrained(p, trust_remote_code=flag)"),
    ("names_outside", "from eval import run"),
    ("names_outside", "path = 'configs/demo.yaml'"),
    ("names_outside", "'''See data_prep.'''"),
]
FINE = """
import torch
model.eval()
print("1 of 2", file=sys.stderr)
torch.load("x", weights_only=True)
open_it(p, trust_remote_code=False)
path = "retrieval/x"
"""


def broken_files(files, rule):
    found = {path: rule(ast.parse(path.read_text(encoding="utf-8"))) for path in files}
    return {str(path.relative_to(ROOT)): where for path, where in found.items() if where}


@pytest.mark.parametrize("rule", PACKAGE_RULES)
def test_the_package_keeps(rule):
    assert len(PACKAGE) >= 60
    assert broken_files(PACKAGE, PACKAGE_RULES[rule]) == {}


@pytest.mark.parametrize("rule", SAFETY_RULES)
def test_the_commands_keep(rule):
    assert len(COMMANDS) >= 5
    assert broken_files(COMMANDS, PACKAGE_RULES[rule]) == {}


@pytest.mark.parametrize(("rule", "code"), BROKEN)
def test_a_broken_rule_is_seen(rule, code):
    assert PACKAGE_RULES[rule](ast.parse(code))


@pytest.mark.parametrize("rule", PACKAGE_RULES)
def test_what_is_fine_passes(rule):
    assert not PACKAGE_RULES[rule](ast.parse(FINE))


def test_no_source_is_longer_than_a_reader_can_hold():
    sources = [*PACKAGE, *COMMANDS, *TESTS]
    lengths = {str(path.relative_to(ROOT)): len(path.read_text(encoding="utf-8").splitlines()) for path in sources}

    assert len(TESTS) >= 30
    assert {name: lines for name, lines in lengths.items() if lines > MAX_LINES} == {}


def test_no_file_of_an_adapter_is_longer_than_one_sitting():
    sources = sorted((ROOT / "mmembed/models/backbones").rglob("*.py"))
    lengths = {str(path.relative_to(ROOT)): len(path.read_text(encoding="utf-8").splitlines()) for path in sources}

    assert len(sources) >= 20
    assert {name: lines for name, lines in lengths.items() if lines > MAX_ADAPTER_LINES} == {}
