"""Unpack archives safely: whole or not at all, nothing outside the folder, nothing larger than it should be.

Knows .zip, .tar, .tar.gz and .tgz, and the pieces of one (``x.tar.gz-00``, ``x.tar.gz-01``, ...).
"""

import gzip
import io
import json
import os
import re
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, Self, cast

from data_prep.engine.pieces import Pieces
from mmembed.errors import InputError
from mmembed.files import write_json
from mmembed.progress import Advance, progress

MAX_RATIO = 100
"""An archive that unpacks to more than this many times its size is refused; pictures and clips hardly shrink."""
FREE_BYTES = 1 << 28
"""Bytes that may be unpacked from however small an archive."""
CHUNK = 1 << 20
FEW = 200
GZIP = b"\x1f\x8b"

_PIECE = re.compile(r"(?P<whole>.+\.(?:tar|tar\.gz|tgz|zip))[-.](?:part[-_]?)?(?P<number>\d{1,4}|(?!gz\Z)[a-z]{2})\Z")
_WHOLE = re.compile(r".+\.(?:tar|tar\.gz|tgz|zip)\Z")
_UNKNOWN = re.compile(r".+\.(?:tar\.(?:xz|bz2|zst|lz4|lzma)|txz|tbz2?|tzst|7z|rar)\Z")
# KeyError is a hard link to a file that is not in the archive
_ERRORS = (tarfile.TarError, zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError, KeyError)
SAMPLE = 100
"""Files of an archive that are looked for where it may lie unpacked."""


@dataclass(frozen=True)
class Archive:
    """An archive, in one file or in pieces.

    Args:
        name: its path below its repository, without the number of a piece.
        files: the pieces in order.
    """

    name: str
    files: tuple[Path, ...]

    def stamp(self) -> list[Any]:
        """Names the archive as it lies there, without reading it."""
        return [[file.name, file.stat().st_size, file.stat().st_mtime_ns] for file in self.files]

    @property
    def bytes(self) -> int:
        """Bytes of all pieces."""
        return sum(file.stat().st_size for file in self.files)


def is_archive(name: str) -> bool:
    """Whether a file is an archive, or a piece of one, by its name."""
    return bool(_WHOLE.match(name) or _PIECE.match(name))


def refuse_unknown(folder: Path, names: Iterable[str]) -> None:
    """Refuse archives of a kind that is not unpacked here.

    Raises:
        InputError: there is one among the names of files below a folder.
    """
    for name in names:
        if _UNKNOWN.match(name):
            remedy = "unpack it by hand, and name the folder as root in media of the source"
            raise InputError(folder / name, expected="a .zip, .tar, .tar.gz or .tgz", got="another", remedy=remedy)


def archives_of(folder: Path, names: Iterable[str]) -> list[Archive]:
    """The archives among files below a folder, pieces put together.

    Raises:
        InputError: a piece is missing before the last that is there.
    """
    found: dict[str, list[str]] = {}
    for name in sorted(name for name in names if is_archive(name)):
        piece = _PIECE.match(name)
        found.setdefault(piece["whole"] if piece else name, []).append(name)
    for whole, pieces in found.items():
        numbers = [int(m["number"]) for piece in pieces if (m := _PIECE.match(piece)) and m["number"].isdigit()]
        first = min(numbers[0], 1) if numbers else 0
        missing = sorted(set(range(first, first + len(numbers))) - set(numbers))
        if missing:
            raise InputError(
                folder / whole, expected="every piece of the archive", got=f"no piece {missing[0]}",
                remedy="download the pieces again",
            )  # fmt: skip
    return [Archive(whole, tuple(folder / piece for piece in pieces)) for whole, pieces in found.items()]


def unpack(archive: Archive, folder: Path) -> Path:
    """Unpack an archive into a folder of its own; what was unpacked already is left alone.

    A marker beside the folder, written last, names the archive; where it names another, the folder is made again.

    Raises:
        InputError: the archive is cut off, corrupt or too large, holds a path or a link that leads out of it, or
            something that is no file, or there is no room: archive and member are named.
    """
    marker = marker_of(folder)
    if is_unpacked(archive, folder):
        return folder
    part = folder.with_name(f".{folder.name}.part")
    marker.unlink(missing_ok=True)
    for left in (part, folder):
        shutil.rmtree(left, ignore_errors=True)
    part.mkdir(parents=True)
    try:
        with progress(f"unpack {PurePosixPath(archive.name).name}: bytes", archive.bytes) as advance:
            (_unpack_zip if archive.name.endswith(".zip") else _unpack_tar)(archive, part, advance)
        _flush(part)
    except _ERRORS as error:
        shutil.rmtree(part, ignore_errors=True)
        raise _complaint(archive, error) from error
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise
    part.rename(folder)
    write_json(marker, archive.stamp())
    return folder


def marker_of(folder: Path) -> Path:
    """The file that says which archive a folder was unpacked from."""
    return folder.with_name(f"{folder.name}.json")


def is_unpacked(archive: Archive, folder: Path) -> bool:
    """Whether a folder is this archive, unpacked whole."""
    return folder.is_dir() and stamp_of(folder) == archive.stamp()


def stamp_of(folder: Path) -> Any:
    """The stamp of the archive that a folder was unpacked from; None where that did not come to its end."""
    try:
        return json.loads(marker_of(folder).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def is_shown(archive: Archive, folder: Path, strip: str = "") -> bool:
    """Whether what is in an archive lies in a folder, by some of its files: of a tar the first ones.

    Of an archive that cannot be read nobody can tell; then it does.

    Args:
        archive: the archive.
        folder: where it may lie unpacked.
        strip: folder at the beginning of the archived paths that is taken off.
    """
    try:
        names = _zip_sample(archive) if archive.name.endswith(".zip") else _tar_sample(archive)
    except _ERRORS:
        return True
    return all((folder / name.removeprefix("./").removeprefix(f"{strip}/")).is_file() for name in names)


def _zip_sample(archive: Archive) -> list[str]:
    with Pieces(archive.files) as file, zipfile.ZipFile(io.BufferedReader(file, CHUNK)) as packed:
        names = [member.filename for member in packed.infolist() if not member.is_dir()]
    return [*names[:: max(1, len(names) // SAMPLE)], *names[-1:]]


def _tar_sample(archive: Archive) -> list[str]:
    with Pieces(archive.files) as file, _plain(file) as plain, tarfile.open(fileobj=plain, mode="r|") as packed:
        return [member.name for member in islice((member for member in packed if member.isfile()), SAMPLE)]


def _flush(folder: Path) -> None:
    """Bring everything to the disk; of many files not one by one, which takes hours."""
    paths = [folder, *islice(folder.rglob("*"), FEW)]
    if len(paths) > FEW:
        os.sync()
        return
    for path in paths:
        if not path.is_symlink():
            handle = os.open(path, os.O_RDONLY)
            os.fsync(handle)
            os.close(handle)


class _Member(tarfile.TarInfo):
    """Notes that the walk came to the empty block at the end: tarfile takes a broken header for the end, too."""

    @classmethod
    def fromtarfile(cls, packed: tarfile.TarFile) -> Self:
        try:
            return super().fromtarfile(packed)
        except tarfile.EOFHeaderError:
            packed.came_to_end = True  # type: ignore[attr-defined]
            raise


def _unpack_tar(archive: Archive, folder: Path, advance: Advance) -> None:
    _refuse_full_disk(archive, folder, archive.bytes)
    limit, total, told, links = max(FREE_BYTES, MAX_RATIO * archive.bytes), 0, 0, set[PurePosixPath]()
    with Pieces(archive.files) as file, _plain(file) as plain:
        with tarfile.open(fileobj=plain, mode="r|", tarinfo=_Member) as packed:
            for member in packed:
                total += member.size
                _refuse_bomb(archive, member.name, total, limit)
                if path := _inside(archive, member.name):
                    _check_kind(archive, member, path, links)
                    packed.extract(member, folder, filter="data")
                advance(file.tell() - told)
                told = file.tell()
            if not getattr(packed, "came_to_end", False):
                raise EOFError("the end of the archive is missing")
        # the checksum of gzip comes last
        while plain.read(CHUNK):
            pass


def _plain(file: Pieces) -> BinaryIO:
    """The archive without its compression, which its first bytes tell."""
    buffered = io.BufferedReader(file, CHUNK)
    return cast(BinaryIO, gzip.GzipFile(fileobj=buffered) if buffered.peek(2)[:2] == GZIP else buffered)


def _check_kind(archive: Archive, member: tarfile.TarInfo, path: PurePosixPath, links: set[PurePosixPath]) -> None:
    """Refuse what is no file, folder or link, a link that leads out, and what lies behind a link."""
    if links and not links.isdisjoint(path.parents):
        raise _unsafe(archive, member.name, "a path of folders", "a path through a link")
    if member.issym() or member.islnk():
        target = PurePosixPath(member.linkname)
        steps = [part == ".." for part in target.parts]
        depth = len(path.parent.parts) if member.issym() else 0
        # steps up stand first, so that the path is what it looks like
        if target.is_absolute() or sum(steps) > depth or any(steps[sum(steps) :]):
            raise _unsafe(archive, member.name, "a link inside the archive", f"a link to '{member.linkname}'")
        links.add(path)
    elif not (member.isfile() or member.isdir()):
        raise _unsafe(archive, member.name, "a file, folder or link", "a device or pipe")


def _unpack_zip(archive: Archive, folder: Path, advance: Advance) -> None:
    with Pieces(archive.files) as file, zipfile.ZipFile(io.BufferedReader(file, CHUNK)) as packed:
        total = sum(member.file_size for member in packed.infolist())
        _refuse_bomb(archive, "all files", total, max(FREE_BYTES, MAX_RATIO * archive.bytes))
        _refuse_full_disk(archive, folder, total)
        for member in packed.infolist():
            path = _inside(archive, member.filename)
            if stat.S_IFMT(member.external_attr >> 16) not in (0, stat.S_IFREG, stat.S_IFDIR):
                raise _unsafe(archive, member.filename, "a file or folder", "a link or device")
            if path and not member.is_dir():
                target = folder / path
                target.parent.mkdir(parents=True, exist_ok=True)
                with packed.open(member) as content, target.open("wb") as written:
                    shutil.copyfileobj(content, written, CHUNK)
            advance(member.compress_size)


def _inside(archive: Archive, name: str) -> PurePosixPath | None:
    """The path of a member, which lies inside; None is the folder itself."""
    path = PurePosixPath(name.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts or "\0" in name:
        raise _unsafe(archive, name, "a path inside the archive", f"'{name}'")
    return path if path.parts else None


def _refuse_bomb(archive: Archive, member: str, total: int, limit: int) -> None:
    if total > limit:
        expected = f"at most {limit} bytes, {MAX_RATIO} times the archive"
        raise _unsafe(archive, member, expected, f"{total} bytes or more")


def _refuse_full_disk(archive: Archive, folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < needed:
        got, expected = f"{free / 1e9:.1f} GB", f"{needed / 1e9:.1f} GB of room in {folder.parent}"
        raise InputError(archive.files[0], expected=expected, got=got, remedy="free space or give another --data-root")


def _unsafe(archive: Archive, member: str, expected: str, got: str) -> InputError:
    remedy = "do not trust the archive; download it again from its publisher"
    return InputError(f"{archive.files[0]}: {member}", expected=expected, got=got, remedy=remedy)


def _complaint(archive: Archive, error: BaseException) -> InputError:
    if isinstance(error, OSError) and error.errno is not None:
        remedy = "free space, or check the rights of the folder"
        return InputError(archive.files[0], expected="an archive that unpacks", got=error, remedy=remedy)
    got, remedy = f"{type(error).__name__}: {error}", "download it again: it is corrupt or cut off"
    return InputError(archive.files[0], expected="a whole archive", got=got, remedy=remedy)
