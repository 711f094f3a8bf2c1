"""A tiny recipe, its data, and the command that trains it."""

import pytest

from data_prep.demo import Sizes, make_demo
from scripts.train import main
from tests.cases import TINY


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    make_demo(root / "demo", 0, Sizes(singles=12, pairs=12, clips=6, pages=8, tests=4))
    return root


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "tiny.yaml"
    path.write_text(TINY)
    return path


@pytest.fixture
def train(config, data, tmp_path):
    def run(*more, output="run"):
        return main(["--config", str(config), "--data-root", str(data), "--output", str(tmp_path / output), *more])

    return run
