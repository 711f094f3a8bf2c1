"""A publisher of two small sets, and where they are prepared."""

import pytest

from data_prep import source as sources
from tests.data_prep.publisher import DRAWN, Publisher


@pytest.fixture
def publisher(tmp_path, monkeypatch):
    """Its copies, and its source ``drawn`` with a group around it, which stand for all sources there are."""
    folder = tmp_path / "sources"
    folder.mkdir()
    (folder / "drawn.yaml").write_text(DRAWN)
    (folder / "group.yaml").write_text("about: a group\nincludes: [drawn/pairs, drawn]\n")
    monkeypatch.setattr(sources, "SOURCES", folder)
    return Publisher(tmp_path)


@pytest.fixture
def data(tmp_path):
    return tmp_path / "data"
