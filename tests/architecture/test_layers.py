"""The import contracts of setup.cfg hold, and cover what they should."""

from pathlib import Path

import pytest
from importlinter import api
from importlinter.cli import lint_imports

ROOT = Path(__file__).parents[2]
CONFIG = ROOT / "setup.cfg"


@pytest.fixture(scope="module")
def contracts():
    return {contract["name"]: contract for contract in api.read_configuration(str(CONFIG))["contracts_options"]}


def test_the_import_contracts_are_kept(capsys, monkeypatch, contracts):
    monkeypatch.chdir(ROOT)
    # it would switch off every logger that is there already
    monkeypatch.setattr("importlinter.cli.logging_config.dictConfig", lambda settings: None)

    code = lint_imports(config_filename=str(CONFIG), no_cache=True)

    assert code == 0, capsys.readouterr().out
    assert f"{len(contracts)} kept, 0 broken" in " ".join(capsys.readouterr().out.split())


def test_layers_hold_every_module_of_the_package(contracts):
    layers = contracts["One natural direction"]

    assert layers["exhaustive"].lower() == "true"
    assert layers["layers"].index("recipe") < layers["layers"].index("errors | files | counters | timers | commands")


def test_the_model_libraries_are_forbidden_outside_models(contracts):
    vendors = contracts["Only models touches the model libraries"]
    folders = {f"mmembed.{path.parent.name}" for path in (ROOT / "mmembed").glob("*/__init__.py")}

    assert set(vendors["source_modules"]) >= folders - {"mmembed.models"}
    assert set(vendors["forbidden_modules"]) >= {"transformers", "peft", "open_clip", "timm", "tokenizers"}
