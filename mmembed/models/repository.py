"""A repository on the Hub: the commit that is opened, its files, and what the Hub refuses, in words.

Which commit a branch names is asked once, before anything is downloaded, and everything is read from that commit. An
answer is waited for seconds, not minutes. What the cache holds opens without the network where ``HF_HUB_OFFLINE`` is
set or the commit itself was named; a Hub that does not answer is never made up for by an older copy in silence.
"""

import re
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from huggingface_hub import HfApi, constants, errors, hf_hub_download, snapshot_download, try_to_load_from_cache
from huggingface_hub.file_download import repo_folder_name
from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

from mmembed.errors import InputError
from mmembed.files import write_text

HUB_SECONDS = 10.0
"""How long the Hub may take to say which commit a branch names."""
REACHED_SECONDS = 60.0
"""For how long a Hub that answered is taken to be there: its client tries a file again for minutes otherwise."""
COMMIT = re.compile(r"[0-9a-f]{40}")

_reached: dict[str, float] = {}


def is_repository(path: str) -> bool:
    """Whether a name can be one of a Hub repository, and is not that of something on this machine."""
    return wrong_name(path) is None and not Path(path).exists()


def wrong_name(path: str) -> str | None:
    """Why a name can be none of a Hub repository, in the Hub's words; None where it can."""
    try:
        validate_repo_id(path)
    except errors.HFValidationError as error:
        return str(error)
    return None


def pinned(path: str, revision: str | None = None) -> str | None:
    """The commit that is opened of a Hub repository; what was given for anything else.

    Args:
        path: directory or Hub id.
        revision: branch, tag or commit; None is the main branch.

    Raises:
        InputError: see :func:`commit_of`.
    """
    return commit_of(path, revision) if is_repository(path) else revision


def commit_of(path: str, revision: str | None = None) -> str:
    """The commit that a branch or tag of a Hub repository names now, or named when it was downloaded, if offline.

    Args:
        path: Hub id.
        revision: branch, tag or commit; None is the main branch.

    Raises:
        InputError: no such repository or revision, no right to it, a Hub that does not answer, or, offline, nothing in
            the cache.
    """
    name = revision or constants.DEFAULT_REVISION
    cached = _cached_commit(path, name)
    if cached is not None and (cached == name or constants.HF_HUB_OFFLINE):
        return cached
    commit = _ask(path, revision)
    if commit != name:
        # a cache that cannot be written to is as good to read
        with suppress(OSError):
            write_text(_folder(path) / "refs" / name, commit)
    return commit


def fetched(path: str, name: str, revision: str | None) -> Path | None:
    """A file of a Hub repository, downloaded if need be; None where it has none of that name.

    Offline, it has the files that the cache holds of the commit.

    Raises:
        InputError: see :func:`commit_of`.
        FileNotFoundError: no name of the Hub, and nothing on this machine.
    """
    if not is_repository(path):
        raise FileNotFoundError("no such directory")
    commit = commit_of(path, revision)
    known = try_to_load_from_cache(path, name, revision=commit)
    if known is not None or constants.HF_HUB_OFFLINE:
        return Path(known) if isinstance(known, str) else None
    if time.monotonic() - _reached.get(constants.ENDPOINT, -REACHED_SECONDS) >= REACHED_SECONDS:
        _ask(path, commit)
    with asking(path, revision):
        try:
            return Path(hf_hub_download(path, name, revision=commit))
        except errors.LocalEntryNotFoundError:
            raise
        except errors.EntryNotFoundError:
            return None


def snapshot(path: str, revision: str | None, patterns: Sequence[str]) -> Path:
    """The folder of a Hub repository's files whose names fit a pattern, downloaded if need be.

    Raises:
        InputError: see :func:`commit_of`; or, offline, a download that was interrupted.
    """
    commit = commit_of(path, revision)
    with asking(path, revision):
        return Path(snapshot_download(path, revision=commit, allow_patterns=list(patterns)))


@contextmanager
def asking(path: str, revision: str | None = None) -> Iterator[None]:
    """Say in words what the Hub refuses, and tell it from a Hub that does not answer.

    Raises:
        InputError: a gated repository, no such repository or revision, no answer, or the offline switch.
    """
    try:
        yield
    except errors.GatedRepoError as error:
        raise InputError(
            path, expected="a repository that this login may read", got="a gated one",
            remedy=f"accept its terms at {constants.ENDPOINT}/{path}, then run: hf auth login",
        ) from error  # fmt: skip
    except errors.RevisionNotFoundError as error:
        raise InputError(
            f"{path}: revision", expected="a branch, tag or commit of the repository", got=f"'{revision}'",
            remedy=f"look at {constants.ENDPOINT}/{path}/commits/main",
        ) from error  # fmt: skip
    except errors.RepositoryNotFoundError as error:
        raise InputError(
            path, expected="a directory or Hub id", got="no such directory, and no such repository on the Hub",
            remedy="check the name; if it is private, run: hf auth login",
        ) from error  # fmt: skip
    except (errors.OfflineModeIsEnabled, errors.LocalEntryNotFoundError) as error:
        raise (_not_cached(path, revision) if constants.HF_HUB_OFFLINE else _no_answer(path, error)) from error
    except _unanswered() as error:
        raise _no_answer(path, error) from error


def _ask(path: str, revision: str | None) -> str:
    with asking(path, revision):
        found = HfApi().model_info(path, revision=revision or constants.DEFAULT_REVISION, timeout=HUB_SECONDS)
    _reached[constants.ENDPOINT] = time.monotonic()
    return str(found.sha)


def _cached_commit(path: str, name: str) -> str | None:
    """The commit that a branch, tag or commit names in the cache, if anything of it is there."""
    folder = _folder(path)
    reference = folder / "refs" / name
    commit = name if COMMIT.fullmatch(name) else reference.read_text().strip() if reference.is_file() else None
    return commit if commit is not None and (folder / "snapshots" / commit).is_dir() else None


def _folder(path: str) -> Path:
    return Path(constants.HF_HUB_CACHE) / repo_folder_name(repo_id=path, repo_type="model")


def _not_cached(path: str, revision: str | None) -> InputError:
    of = f"{path} at {revision}" if revision else path
    return InputError(
        path, expected="a directory, or a Hub repository that lies in the cache while HF_HUB_OFFLINE is set",
        got=f"no such directory, and no whole {of} in {constants.HF_HUB_CACHE}",
        remedy=f"check the name; unset HF_HUB_OFFLINE, or run where there is a network: hf download {path}",
    )  # fmt: skip


def _no_answer(path: str, error: Exception) -> InputError:
    said = " ".join(str(error).split())[:200]
    cached = _cached_commit(path, constants.DEFAULT_REVISION)
    copy = f"set HF_HUB_OFFLINE=1 to open commit {cached} in the cache" if cached else "or name a directory"
    return InputError(
        path, expected=f"an answer of the Hub ({constants.ENDPOINT})", got=f"{type(error).__name__}: {said}",
        remedy=f"check network and HF_ENDPOINT; {copy}",
    )  # fmt: skip


def _unanswered() -> tuple[type[Exception], ...]:
    """What the Hub's client raises where there is no answer; the library under it has had two names."""
    found = tuple(module.HTTPError for name in ("httpx", "httpx2") if (module := sys.modules.get(name)))
    return (errors.HfHubHTTPError, ConnectionError, TimeoutError, *found)
