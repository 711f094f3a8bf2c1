"""Composed retrieval: a picture or clip and a text that changes it find what shows the change; one module a benchmark.

A query keeps its texts as they are, one part each behind its reference; how they become one text is the benchmark row's
choice (``join``). Annotations and media are on no Hub: a source names the folder that people keep them in, laid out as
SEARLE's code reads it (arXiv:2303.15247).
"""

from data_prep.converters import Converter
from data_prep.converters.composed_ranked import circo, cirr, covr, fashioniq, genecis

CONVERTERS: dict[str, Converter] = {
    **fashioniq.CONVERTERS,
    **cirr.CONVERTERS,
    **circo.CONVERTERS,
    **genecis.CONVERTERS,
    **covr.CONVERTERS,
}
"""Every converter by its name, as sources name it."""
