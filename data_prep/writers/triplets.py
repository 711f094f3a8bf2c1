"""Triplets for InstructCIR: what is asked for each record, what is made of its answer, and which ones are kept."""

import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass

from data_prep.writers import Writer
from data_prep.writers.filters import Edit, Filters, normalised
from data_prep.writers.prompts import edit_kinds, triplet_version
from mmembed.errors import InputError, nearest
from mmembed.files import fingerprint

CLIP_BAND = (0.5, 0.97)
"""Cosines of caption and modified caption that are usual."""


@dataclass(frozen=True)
class Captioned:
    """A picture and its caption."""

    id: str
    """Names the record."""
    image: str
    """Path of the picture, from the folder of the file."""
    caption: str
    """What it shows."""


@dataclass(frozen=True)
class Triplet:
    """A record of the output."""

    id: str
    """As in the input."""
    image: str
    """As in the input: from the folder of that file, and below it."""
    caption: str
    """Of the picture."""
    instruction: str
    """What is to change."""
    modified_caption: str
    """Of the changed picture."""
    edit_type: str
    """The kind of edit that was asked for."""
    model: str
    """Who wrote it."""
    prompt_version: str
    """Version of the prompt, and a hash of its words."""


def drawn_kind(seed: int, record_id: str, weights: Mapping[str, float]) -> str:
    """The kind of edit of a record: the same for the same seed and id, whatever else the input holds."""
    rng = random.Random(fingerprint(f"{seed}", record_id))
    return rng.choices(list(weights), list(weights.values()))[0]


def read_weights(given: str | None) -> dict[str, float]:
    """Weights of all kinds from ``colour=2,style=0``; those not named have 1.

    Raises:
        InputError: a kind that is not known, no number, or nothing but zeros.
    """
    weights = dict.fromkeys(edit_kinds(), 1.0)
    for part in given.split(",") if given else ():
        kind, _, value = part.partition("=")
        if kind not in weights:
            raise InputError("--weights", expected="kinds of edits", got=f"'{kind}'", remedy=nearest(kind, weights))
        try:
            weights[kind] = float(value)
        except ValueError:
            weights[kind] = -1.0
        if not 0 <= weights[kind] < float("inf"):
            raise InputError(f"--weights {kind}", expected="0 or more", got=f"'{value}'", remedy="write colour=2")
    if not any(weights.values()):
        raise InputError("--weights", expected="a kind above 0", got="none", remedy="leave it out")
    return weights


def judged(
    records: Sequence[Captioned], kinds: Sequence[str], answers: Iterable[str], filters: Filters, writer: Writer
) -> Iterator[Triplet | str]:
    """For each record its triplet, or the reason why there is none."""
    version, model = triplet_version(), str(writer.facts["model"])
    for record, kind, answer in zip(records, kinds, answers, strict=True):
        edit = filters.judge(answer, record.caption)
        if isinstance(edit, Edit):
            yield Triplet(record.id, record.image, record.caption, **asdict(edit), edit_type=kind, model=model,
                          prompt_version=version)  # fmt: skip
        else:
            yield edit


def within_band(triplets: Sequence[Triplet], model: str, profile: str | None, band: Sequence[float]) -> list[bool]:
    """Whether the two captions of each triplet are as alike to the text side of a dual encoder as the band says.

    Raises:
        InputError: the model is no dual encoder, or does not open.
    """
    # torch and its friends take seconds, which only this filter needs
    from mmembed import Embedder
    from mmembed.models.settings import DualEncoder

    if not triplets:
        return []
    embedder = Embedder.from_pretrained(model, profile=profile)
    if not isinstance(embedder.settings.backbone, DualEncoder):
        got = type(embedder.settings.backbone).__name__
        raise InputError("--clip", expected="a dual encoder", got=got, remedy="name a CLIP, e.g. ViT-B-32:openai")
    before, after = (
        embedder.encode([getattr(triplet, name) for triplet in triplets], progress=True)
        for name in ("caption", "modified_caption")
    )
    low, high = band
    return [low <= cosine <= high for cosine in (before * after).sum(1).tolist()]


def without_repeats(triplets: Sequence[Triplet]) -> list[bool]:
    """Whether each triplet is the first of its picture with this instruction, and with this modified caption."""
    seen = set[tuple[str, str, str]]()
    kept = []
    for triplet in triplets:
        names = ("instruction", "modified_caption")
        keys = {(triplet.image, name, normalised(getattr(triplet, name))) for name in names}
        kept.append(not keys & seen)
        if kept[-1]:
            seen |= keys
    return kept
