"""Captions without a model that writes: those of a file, or the nearest one of a file to an embedder."""

from collections.abc import Iterable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from data_prep.writers.records import read_captions
from data_prep.writers.triplets import Captioned
from mmembed.errors import InputError
from mmembed.files import file_fingerprint
from mmembed.items import Image
from mmembed.media.sources import source_name


class FileCaptioner:
    """Captions that are there: ``{"id", "image", "caption"}`` a line, or a table of pictures and captions.

    A picture is told by its bytes, wherever it lies.

    Args:
        path: the file.

    Raises:
        InputError: a row that lacks something, or two captions of one picture.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._captions: dict[str, str] = {}
        for record in read_captions(path):
            picture = Image(path.parent / record.image).fingerprint()
            if self._captions.setdefault(picture, record.caption) != record.caption:
                raise InputError(
                    f"{path}: {record.id}", expected="one caption of a picture",
                    got=f"two of '{record.image}'", remedy="keep one of them",
                )  # fmt: skip

    @cached_property
    def facts(self) -> Mapping[str, Any]:
        """See :class:`data_prep.writers.Captioner`."""
        return {"captioner": "file", "model": self.path.name, "file": file_fingerprint(self.path)}

    def caption(self, image: Image) -> str:
        """See :meth:`data_prep.writers.Captioner.caption`."""
        if (caption := self._captions.get(image.fingerprint())) is None:
            raise InputError(
                self.path, expected=f"a caption of {source_name(image.source)}", got="none",
                remedy="add it, or take a captioner that looks at pictures",
            )  # fmt: skip
        return caption


class NearestCaptioner:
    """The caption of a file that an embedder finds nearest to the picture: retrieval in place of writing.

    Args:
        path: captions, as :class:`FileCaptioner` reads them; what pictures they are of does not matter.
        model: directory or Hub id of an embedder.
        profile: how a released checkpoint embeds; None for a run.
        instruction: given with the picture; None where the model needs none.
    """

    def __init__(self, path: Path, model: str, profile: str | None = None, instruction: str | None = None) -> None:
        from mmembed import Embedder

        self.path, self.model, self.instruction = path, model, instruction
        self._captions = _distinct(read_captions(path))
        self._embedder = Embedder.from_pretrained(model, profile=profile)

    @cached_property
    def facts(self) -> Mapping[str, Any]:
        """See :class:`data_prep.writers.Captioner`; the model counts by its weights, wherever they lie."""
        from mmembed.models.identity import weights_fingerprint

        return {
            "captioner": "nearest", "model": self.model, "instruction": self.instruction,
            "weights": weights_fingerprint(self._embedder.state_dict()), "file": file_fingerprint(self.path),
        }  # fmt: skip

    def caption(self, image: Image) -> str:
        """See :meth:`data_prep.writers.Captioner.caption`."""
        (vector,) = self._embedder.encode([image], instruction=self.instruction)
        return self._captions[int((self._vectors @ vector).argmax())]

    @cached_property
    def _vectors(self) -> Any:
        return self._embedder.encode(self._captions, side="target")


def _distinct(records: Iterable[Captioned]) -> list[str]:
    return list(dict.fromkeys(record.caption for record in records))
