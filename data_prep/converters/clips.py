"""To be written."""

from data_prep.converters import Converter

CONVERTERS: dict[str, Converter] = {}
