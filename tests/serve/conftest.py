"""A small model and a region-indexed folder of pictures, made once."""

import pytest

from data_prep.demo_gallery import make_gallery
from mmembed.models.settings import TextRegions
from mmembed.serve.search import Index, Searcher
from scripts.embed import main
from tests.cases import small_embedder


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    """``model``, ``gallery/items.jsonl`` and ``index``."""
    root = tmp_path_factory.mktemp("serve")
    small_embedder(regions=TextRegions(scale=8)).save(root / "model")
    make_gallery(root / "gallery", 1, pictures=6, clips=2, pages=2)
    index = ["--model", str(root / "model"), "--input", str(root / "gallery/items.jsonl")]
    assert main([*index, "--output", str(root / "index"), "--regions", "--region-instruction", "what is here ?"]) == 0
    return root


@pytest.fixture(scope="session")
def searcher(folder):
    return Searcher.open(str(folder / "model"), folder / "index", device="cpu")


@pytest.fixture(scope="session")
def index(folder):
    return Index(folder / "index")
