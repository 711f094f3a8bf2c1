"""Download the files of a repository from the Hub as they are needed: resumed, and compared with what was published."""

import hashlib
import json
import os
import shutil
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

from data_prep.engine.lock import locked
from data_prep.engine.upstream_rows import regex_of
from mmembed.errors import InputError
from mmembed.files import write_json
from mmembed.progress import track

SLOW_BYTES = 16_000_000
"""Files of as many bytes are downloaded such that a killed download goes on within the file."""
MOST_BYTES = 50_000_000_000
"""Larger files are not to be had by plain HTTP."""


class UnreachableError(InputError):
    """The Hub gives no answer."""


@dataclass(frozen=True)
class HubClone:
    """A dataset repository of the Hub: files are downloaded when they are asked for, and go on where they stopped.

    Args:
        repo: ``owner/name``.
        folder: where its files come to lie.
        wanted: commit; None is the newest of the first download, which is written down then.
        update: take the newest there is now where no commit is wanted.
    """

    repo: str
    folder: Path
    wanted: str | None = None
    update: bool = False

    @cached_property
    def _info(self) -> Any:
        from huggingface_hub import HfApi

        revision = self.wanted or (None if self.update else self._resolved())
        return _asked(self.repo, lambda: HfApi().dataset_info(self.repo, revision=revision, files_metadata=True))

    def _resolved(self) -> str | None:
        """The commit that was the newest at the first download."""
        said = _read_json(self._newest)
        return str(said["revision"]) if isinstance(said, dict) and "revision" in said else None

    @property
    def _newest(self) -> Path:
        return self.folder / ".cache" / "newest.json"

    @property
    def revision(self) -> str:
        """The commit that the Hub answered with; a pinned one is the one that was wanted.

        Raises:
            InputError: the Hub has another one under that name.
        """
        commit = str(self._info.sha)
        if self.wanted and not commit.startswith(self.wanted) and len(self.wanted) >= 7 and _is_commit(self.wanted):
            remedy = "correct revision of the source"
            raise InputError(self.repo, expected=f"commit {self.wanted}", got=commit, remedy=remedy)
        return commit

    @cached_property
    def files(self) -> dict[str, Any]:
        """Every file of the commit, with what the Hub says of it."""
        files = {file.rfilename: file for file in self._info.siblings}
        for name in files:
            if ".." in PurePosixPath(name).parts or PurePosixPath(name).is_absolute():
                remedy = "do not trust the repository"
                raise InputError(self.repo, expected="paths below the repository", got=f"'{name}'", remedy=remedy)
        return files

    def match(self, pattern: str) -> list[str]:
        """See :class:`data_prep.engine.clones.Clone`."""
        fits = regex_of(pattern)
        return sorted(name for name in self.files if fits.match(name))

    def get(self, names: Iterable[str]) -> None:
        """Download files that do not lie there; each is compared with the checksum that the Hub published.

        Raises:
            InputError: no network, no right to the repository, or a file that is not what was published.
        """
        wanted = list(names)
        # two downloads of one file would both write its beginning
        with locked(self.folder):
            if self.wanted is None and self._resolved() != self.revision:
                write_json(self._newest, {"revision": self.revision})
            verified = self._verified()
            self._download([name for name in wanted if name not in verified], verified)

    def _download(self, fresh: Sequence[str], verified: dict[str, list[Any]]) -> None:
        from huggingface_hub import snapshot_download

        if not fresh:
            return
        self._refuse_full_disk(fresh)
        for name in fresh:
            if SLOW_BYTES <= (self.files[name].size or 0) <= MOST_BYTES and self.files[name].lfs is not None:
                self._go_on(name)
        patterns = ["".join(f"[{letter}]" if letter in "*?[" else letter for letter in name) for name in fresh]
        _asked(
            self.repo,
            lambda: snapshot_download(
                self.repo, repo_type="dataset", revision=self.revision, allow_patterns=patterns, local_dir=self.folder
            ),
        )
        for name in track(fresh, f"verify {self.repo}"):
            published = self.files[name].lfs
            if published is not None:
                check_sha256(self.folder / name, published.sha256, remove=True)
            verified[name] = _state(self.folder / name, self.revision)
        write_json(self._record, verified)

    def _refuse_full_disk(self, names: Sequence[str]) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        needed, free = self.missing_bytes(names), shutil.disk_usage(self.folder).free
        if free < needed:
            expected, got = f"{needed / 1e9:.1f} GB of room in {self.folder}", f"{free / 1e9:.1f} GB"
            remedy = "free space or give another --data-root"
            raise InputError(self.repo, expected=expected, got=got, remedy=remedy)

    def _go_on(self, name: str) -> None:
        """Download a large file, or the rest of it: the Hub's client begins a file anew when it was killed."""
        from huggingface_hub import hf_hub_url
        from huggingface_hub.file_download import http_get
        from huggingface_hub.utils import build_hf_headers

        target, published = self.folder / name, self.files[name]
        if target.is_file() and target.stat().st_size == published.size:
            return
        part = self.folder / ".cache" / "parts" / published.lfs.sha256
        part.parent.mkdir(parents=True, exist_ok=True)
        part.touch()
        url = hf_hub_url(self.repo, name, repo_type="dataset", revision=self.revision)
        with part.open("r+b") as file:
            there = file.seek(0, os.SEEK_END)
            if there > published.size:
                there = file.truncate(file.seek(0))
            _asked(
                self.repo,
                lambda: http_get(
                    url, file, resume_size=there, headers=build_hf_headers(), expected_size=published.size
                ),
            )
        check_sha256(part, published.lfs.sha256, remove=True)
        target.parent.mkdir(parents=True, exist_ok=True)
        part.replace(target)

    def missing_bytes(self, names: Iterable[str]) -> int:
        """Bytes of files that would be downloaded."""
        verified = self._verified()
        return sum(self.files[name].size or 0 for name in names if name not in verified)

    @property
    def _record(self) -> Path:
        return self.folder / ".cache" / "verified.json"

    def _verified(self) -> dict[str, list[Any]]:
        """Files that lie there as they were when they were verified, of this commit."""
        said = _read_json(self._record) or {}
        return {name: state for name, state in said.items() if state == _state(self.folder / name, self.revision)}


def check_sha256(path: Path, published: str, *, remove: bool = False) -> None:
    """Compare a file with a checksum that was published.

    Args:
        path: the file.
        published: 64 hex digits.
        remove: take a file that differs away, so that it is downloaded again.

    Raises:
        InputError: it differs.
    """
    with path.open("rb") as handle:
        found = hashlib.file_digest(handle, "sha256").hexdigest()
    if found != published.lower():
        if remove:
            path.unlink()
        remedy = "it was removed; run the command again" if remove else "copy it again"
        raise InputError(path, expected=f"sha256 {published}", got=found, remedy=remedy)


def _read_json(path: Path) -> Any:
    """What a file of this module says; None where there is none, or it cannot be read."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def _state(path: Path, revision: str) -> list[Any]:
    stat = path.stat() if path.is_file() else None
    return [revision, stat and stat.st_size, stat and stat.st_mtime_ns]


def _is_commit(revision: str) -> bool:
    return set(revision) <= set("0123456789abcdef")


def _http_errors() -> tuple[type[Exception], ...]:
    """What the Hub's client raises where there is no answer; its library has two names."""
    return tuple(module.HTTPError for name in ("httpx", "httpx2") if (module := sys.modules.get(name)))


def _asked(repo: str, ask: Callable[[], Any]) -> Any:
    """What the Hub answers; what it refuses, in words."""
    from huggingface_hub import errors

    remedy = "check the connection, or give a local copy with --source DIR"
    try:
        return ask()
    except errors.GatedRepoError as error:
        remedy = f"accept its terms at https://huggingface.co/datasets/{repo}, then run: hf auth login"
        raise InputError(repo, expected="access to a gated repository", got="none", remedy=remedy) from error
    except errors.RevisionNotFoundError as error:
        remedy = "correct revision of the source"
        raise InputError(repo, expected="a commit of the repository", got="none of that name", remedy=remedy) from error
    except errors.RepositoryNotFoundError as error:
        remedy = "check its name; if it is private, run: hf auth login"
        raise InputError(repo, expected="a dataset on the Hub", got="no such repository", remedy=remedy) from error
    except (errors.OfflineModeIsEnabled, errors.LocalEntryNotFoundError) as error:
        offline = os.environ.get("HF_HUB_OFFLINE", "") in ("1", "ON", "YES", "TRUE")
        got = "HF_HUB_OFFLINE is set" if offline else "no answer"
        raise UnreachableError(repo, expected="to reach the Hub", got=got, remedy=remedy) from error
    except errors.HfHubHTTPError as error:
        got = " ".join(str(error).split())[:200]
        raise InputError(repo, expected="an answer of the Hub", got=got, remedy=remedy) from error
    except (OSError, *_http_errors()) as error:
        got = f"{type(error).__name__}: {error}"
        raise UnreachableError(repo, expected="to download it", got=got, remedy=remedy) from error
