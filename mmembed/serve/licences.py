"""Licences as the Hub names them, and that of the model another one was made of."""

from contextlib import suppress

from mmembed.errors import InputError, nearest
from mmembed.models.profiles import load_released, released_names
from mmembed.models.repository import fetched, is_repository

LICENCES = frozenset((
    "afl-3.0", "agpl-3.0", "apache-2.0", "apple-amlr", "apple-ascl", "artistic-2.0", "bigcode-openrail-m",
    "bigscience-bloom-rail-1.0", "bigscience-openrail-m", "bsd", "bsd-2-clause", "bsd-3-clause",
    "bsd-3-clause-clear", "bsl-1.0", "c-uda", "cc", "cc-by-2.0", "cc-by-2.5", "cc-by-3.0", "cc-by-4.0",
    "cc-by-nc-2.0", "cc-by-nc-3.0", "cc-by-nc-4.0", "cc-by-nc-nd-3.0", "cc-by-nc-nd-4.0", "cc-by-nc-sa-2.0",
    "cc-by-nc-sa-3.0", "cc-by-nc-sa-4.0", "cc-by-nd-4.0", "cc-by-sa-3.0", "cc-by-sa-4.0", "cc0-1.0",
    "cdla-permissive-1.0", "cdla-permissive-2.0", "cdla-sharing-1.0", "creativeml-openrail-m",
    "deepfloyd-if-license", "ecl-2.0", "epl-1.0", "epl-2.0", "etalab-2.0", "eupl-1.1", "eupl-1.2",
    "fair-noncommercial-research-license", "gemma", "gfdl", "gpl", "gpl-2.0", "gpl-3.0", "h-research",
    "intel-research", "isc", "lgpl", "lgpl-2.1", "lgpl-3.0", "lgpl-lr", "llama2", "llama3", "llama3.1", "llama3.2",
    "llama3.3", "llama4", "lppl-1.3c", "mit", "mpl-2.0", "ms-pl", "ncsa", "odbl", "odc-by", "ofl-1.1", "openrail",
    "openrail++", "osl-3.0", "other", "pddl", "postgresql", "unknown", "unlicense", "wtfpl", "zlib",
))  # fmt: skip
"""The names that the Hub takes (its documentation, Repositories, Licenses)."""
_USUAL = "apache-2.0, mit, cc-by-4.0 or cc-by-nc-4.0"


def check_licence(licence: str | None, base: str | None = None) -> str:
    """A licence as the Hub names it.

    Args:
        licence: what was given.
        base: what the model was made of, by its Hub id, whose licence is suggested where none was given.

    Raises:
        InputError: none, or none that the Hub knows; the nearest is given.
    """
    if licence is None:
        known = None if base is None else licence_of(base)
        remedy = f"name one, e.g. {_USUAL}" if known is None else f"its base {base} is under {known}: licence {known}"
        raise InputError("licence", expected="under what others may use the model", got="none", remedy=remedy)
    if licence.lower() not in LICENCES:
        remedy = nearest(licence.lower(), LICENCES)
        raise InputError("licence", expected="a licence as the Hub names it", got=f"'{licence}'", remedy=remedy)
    return licence.lower()


def licence_of(model: str) -> str | None:
    """The licence of a model of the Hub: of its row, else of its card where that can be read; None where neither."""
    if model in released_names() and (known := load_released(model)[0].licence) is not None:
        return known
    if not is_repository(model):
        return None
    with suppress(InputError):
        card = fetched(model, "README.md", None)
        return None if card is None else _of_card(card.read_text(encoding="utf-8"))
    return None


def licence_warning(licence: str, base: str | None) -> str | None:
    """What to think of where a base is under narrower terms than the model; None where nothing is."""
    theirs = None if base is None else licence_of(base)
    if theirs is None or theirs == licence:
        return None
    if is_non_commercial(theirs) and not is_non_commercial(licence):
        return f"Its base {base} is under {theirs}, for non-commercial use only, which {licence} cannot undo"
    return f"Its base {base} is under {theirs}: see whether that lets you give the model on under {licence}"


def is_non_commercial(licence: str) -> bool:
    """Whether a licence is known to forbid commercial use."""
    return "nc" in licence.split("-") or licence in (
        *("fair-noncommercial-research-license", "intel-research", "h-research", "apple-amlr"),
        "deepfloyd-if-license",
    )


def _of_card(text: str) -> str | None:
    from huggingface_hub import ModelCard

    said = getattr(ModelCard(text, ignore_metadata_errors=True).data, "license", None)
    return said if isinstance(said, str) else None
