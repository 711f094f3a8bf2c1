"""Every format by the name that the command knows it by."""

from data_prep.formats import Format, mbeir, megapairs, mmeb, ms_swift, sentence_transformers, tevatron

FORMATS: dict[str, Format] = {
    "mmeb": mmeb.FORMAT,
    "m-beir": mbeir.FORMAT,
    "megapairs": megapairs.FORMAT,
    "tevatron": tevatron.FORMAT,
    "ms-swift": ms_swift.FORMAT,
    "sentence-transformers": sentence_transformers.FORMAT,
}
"""Every format by its name."""
