"""Opening a family's checkpoint, or making its scratch one."""

from collections.abc import Iterable
from typing import Any

from mmembed.errors import InputError
from mmembed.models.adapters import load_adapter
from mmembed.models.checkpoint import Checkpoint, open_checkpoint
from mmembed.models.families import Family
from mmembed.models.scratch import make_scratch
from mmembed.models.settings import LanguageSettings
from mmembed.models.special_tokens import add_special_tokens


def exactly_one(settings: Any) -> None:
    """Refuse a backbone that names both a checkpoint and a scratch one, or neither.

    Raises:
        InputError: which of the two it is.
    """
    if (settings.path is None) == (settings.scratch is None):
        got = "neither" if settings.path is None else "both"
        raise InputError("backbone", expected="path or scratch", got=got, remedy="give exactly one")


def open_family(
    family: Family, settings: LanguageSettings, texts: Iterable[str] | None, *, weights: bool = True
) -> Checkpoint:
    """Open the checkpoint that the settings name, or make the scratch one, add its special tokens and load its adapter.

    Args:
        family: what to expect there.
        settings: what to open.
        texts: what a scratch model's tokenizer is trained on.
        weights: load those of a checkpoint, and its adapter; without, only a preprocessor can be made of it.

    Raises:
        InputError: both or neither of path and scratch, another family's checkpoint, or a broken one.
    """
    exactly_one(settings)
    if settings.scratch is not None:
        family.check(settings.scratch.architecture or family.architectures[0], "backbone.scratch.architecture")
        if texts is None:
            raise InputError(
                "backbone.scratch", expected="texts to train a tokenizer on", got="none", remedy="give path"
            )
        checkpoint = make_scratch(
            settings.scratch, family.scratch, texts, dtype=settings.dtype, attention=settings.attention
        )
    else:
        checkpoint = open_checkpoint(
            str(settings.path),
            family,
            revision=settings.revision,
            dtype=settings.dtype,
            attention=settings.attention,
            quantize=settings.quantize,
            weights=weights,
        )
    family.trim(checkpoint.model)
    if settings.special_tokens is not None:
        add_special_tokens(checkpoint, settings.special_tokens)
    if settings.adapter is not None and weights:
        load_adapter(checkpoint.model, settings.adapter, family.renames, settings.adapter_revision)
    return checkpoint
