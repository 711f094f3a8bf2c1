"""Pseudo-words found for pictures one by one, as a file that a mapping network learns from."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from mmembed.errors import InputError
from mmembed.files import whole_file
from mmembed.items import Item
from mmembed.models.embedder import Embedder
from mmembed.models.identity import weights_fingerprint
from mmembed.training.batches import TrainingBatch, number_of

FORMAT = "mmembed pseudo-words 1"


class Teachers:
    """Pseudo-words by what they were found for.

    Args:
        places: the row of each, by the number of its item's fingerprint.
        words: ``[N, W]``.
        path: of the file, for errors.
    """

    def __init__(self, places: Mapping[int, int], words: Tensor, path: Path) -> None:
        self.places = places
        self.words = words
        self.path = path

    def __call__(self, batch: TrainingBatch, device: torch.device) -> Tensor:
        """Those of a batch's queries ``[B, W]``.

        Raises:
            InputError: a query without one.
        """
        keys = batch.candidates.query_keys.tolist()
        lost = [batch.name(i) for i, key in enumerate(keys) if key not in self.places]
        if lost:
            raise InputError(
                self.path, expected="a pseudo-word for every picture", got=f"none for {', '.join(lost[:3])}",
                remedy="make them for this table: scripts/make_pseudo_words.py",
            )  # fmt: skip
        return self.words[[self.places[key] for key in keys]].to(device)


def write_teachers(path: Path, items: Sequence[Item], words: Tensor, embedder: Embedder) -> None:
    """Write the pseudo-words ``[N, W]`` of items, and of which weights they are words."""
    keys = torch.tensor([number_of(item) for item in items], dtype=torch.long)
    about = {"format": FORMAT, "weights": _weights(embedder)}
    with whole_file(path) as part:
        save_file({"keys": keys, "words": words.detach().cpu().float().contiguous()}, part, metadata=about)


def read_teachers(path: Path, embedder: Embedder) -> Teachers:
    """Read what :func:`write_teachers` wrote.

    Raises:
        InputError: no such file, or pseudo-words of another model.
    """
    remedy = "scripts/make_pseudo_words.py writes it"
    try:
        with safe_open(path, "pt") as file:
            about, held = file.metadata() or {}, set(file.keys())
            if about.get("format") != FORMAT or held != {"keys", "words"}:
                raise InputError(path, expected="a file of pseudo-words", got=sorted(held), remedy=remedy)
            keys, words = file.get_tensor("keys").tolist(), file.get_tensor("words")
    except (OSError, SafetensorError) as error:
        raise InputError(path, expected="a file of pseudo-words", got=error, remedy=remedy) from error
    if about.get("weights") != _weights(embedder):
        raise InputError(
            path, expected="pseudo-words of the model that trains", got="those of other weights",
            remedy="make them anew with this recipe: scripts/make_pseudo_words.py",
        )  # fmt: skip
    return Teachers({key: i for i, key in enumerate(keys)}, words, path)


def _weights(embedder: Embedder) -> str:
    """Names both towers, which decide what a pseudo-word means."""
    return weights_fingerprint(embedder.backbone.state_dict())
