"""The goldens of composed retrieval, prepared once for all tests that score them."""

import pytest

from tests.evaluation.cir_goldens import prepare_goldens


@pytest.fixture(scope="session")
def cir_data(tmp_path_factory):
    return prepare_goldens(tmp_path_factory.mktemp("goldens"))
