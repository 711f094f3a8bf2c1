"""The synthetic benchmarks of the reference code's goldens as a local copy, and their sets as sources name them."""

import json
from dataclasses import replace

from data_prep.source import read_source
from tests.cases import GOLDEN

READERS = GOLDEN / "cir/readers"
SOURCES = ("fashioniq", "cirr", "circo", "genecis")


def of_json(path):
    return json.loads((READERS / path).read_text())


def small(name, *sets):
    """A source whose counts are those of the goldens, which nobody wrote down: none."""
    source = read_source(name).only(list(sets)) if sets else read_source(name)
    return replace(source, sets={key: replace(row, rows=None, targets=None) for key, row in source.sets.items()})
