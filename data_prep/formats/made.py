"""Pictures that come as bytes where a path is wanted: written as files that their content names."""

import io
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import PIL.Image

from mmembed.errors import InputError
from mmembed.files import bytes_fingerprint, whole_file


@dataclass
class Made:
    """Pictures written below a folder, each once; a ``with`` block that fails takes them away again.

    Args:
        folder: where they go; it is made with the first.
    """

    folder: Path
    written: list[Path] = field(default_factory=list)

    def keep(self, data: bytes, where: str) -> Path:
        """The file of these bytes.

        Raises:
            InputError: they are no picture.
        """
        try:
            with PIL.Image.open(io.BytesIO(data)) as picture:
                kind = (picture.format or "image").lower()
        except (OSError, ValueError) as error:
            got = f"{len(data)} bytes that are none"
            raise InputError(where, expected="an encoded picture", got=got, remedy="mend the row") from error
        path = self.folder / f"{bytes_fingerprint(data)}.{'jpg' if kind == 'jpeg' else kind}"
        if not path.exists():
            with whole_file(path) as part:
                part.write_bytes(data)
            self.written.append(path)
        return path

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        if kind is None:
            return
        for path in self.written:
            path.unlink(missing_ok=True)
        if self.written and not any(self.folder.iterdir()):
            self.folder.rmdir()
