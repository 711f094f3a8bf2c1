"""The video sets of MMEB-V2 (arXiv:2507.04590): labels, captions, moments and questions, ranked as published."""

from data_prep.converters import Converter
from data_prep.converters.clips_ranked import captions, labels, moments, questions

CONVERTERS: dict[str, Converter] = {
    **labels.CONVERTERS,
    **captions.CONVERTERS,
    **moments.CONVERTERS,
    **questions.CONVERTERS,
}
