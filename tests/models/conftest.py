"""One small model of each family, and one on disk, for all tests of models."""

from contextlib import ExitStack
from functools import cache

import pytest

from tests.families import family_embedder
from tests.speeds import all_on, at_speed


@pytest.fixture(scope="session")
def embedder_of():
    """One embedder for each choice, in evaluation mode; never train it."""
    return cache(lambda name, **choices: family_embedder(name, **choices).eval())


@pytest.fixture(scope="session")
def saved(tmp_path_factory, embedder_of):
    """The directory of a saved small model."""

    @cache
    def save(name, **choices):
        directory = tmp_path_factory.mktemp("families") / name
        embedder_of(name, **choices).save(directory)
        return directory

    return save


@pytest.fixture(params=["as usual", "all on"])
def sped(request):
    """Takes an embedder, and gives it as it is and with everything on that is computed faster, until the test ends."""
    with ExitStack() as stack:
        if request.param == "all on":
            yield lambda embedder: stack.enter_context(at_speed(embedder, all_on(embedder)))
        else:
            yield lambda embedder: embedder
