"""Files of a checkpoint, in a directory or a Hub repository."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeAlias

from safetensors import SafetensorError
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from mmembed.errors import InputError
from mmembed.models.repository import fetched, pinned

Where: TypeAlias = dict[str, Any]
"""Which revision of a Hub repository, as keyword arguments; empty for a directory or the main branch."""

_BESIDE = ("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "chat_template.jinja")
_SAID_BESIDE = ("LlamaTokenizer", "GemmaTokenizer")


def where_of(path: str, revision: str | None) -> Where:
    """The commit that is opened of a Hub repository, see :func:`mmembed.models.repository.pinned`."""
    commit = pinned(path, revision)
    return {"revision": commit} if commit else {}


def find_file(path: str, name: str, where: Where) -> Path | None:
    """A file of a checkpoint on this machine, downloaded if need be; None where it has none of that name.

    Raises:
        InputError: a Hub repository that cannot be read.
        FileNotFoundError: neither a directory nor a name of the Hub; see :func:`in_words`.
    """
    if not Path(path).exists():
        return fetched(path, name, where.get("revision"))
    file = Path(path) / name
    return file if file.is_file() else None


def read_json(path: str, name: str, where: Where) -> dict[str, Any]:
    """A JSON file of a checkpoint; empty where there is none."""
    found = find_file(path, name, where)
    if found is None:
        return {}
    values = json.loads(found.read_text(encoding="utf-8"))
    if not isinstance(values, dict):
        raise InputError(f"{path}: {name}", expected="a mapping", got=type(values).__name__, remedy="download it again")
    return values


def read_tokenizer(path: str, where: Where) -> Any:
    """``tokenizer.json`` as it is written, where there is one.

    The class that a checkpoint names, or that its model type stands for, may build the steps anew to other ids:
    transformers 5 does so for Llama and Qwen2. Whether texts begin and end with a token is said beside it for the
    classes that read it there (E5-Mistral ends its texts so); for all others it is part of what is written, and their
    ``add_bos_token: false`` must not undo it (Qwen3-Embedding).
    """
    file = find_file(path, "tokenizer.json", where)
    if file is None:
        return AutoTokenizer.from_pretrained(path, trust_remote_code=False, **where)
    for name in _BESIDE:
        find_file(path, name, where)
    # from where it lies: by its name the library would ask the Hub for the list of its files, each time
    tokenizer = PreTrainedTokenizerFast.from_pretrained(str(file.parent))
    said = read_json(path, "tokenizer_config.json", where)
    if str(said.get("tokenizer_class")).removesuffix("Fast") in _SAID_BESIDE:
        tokenizer.add_bos_token = said.get("add_bos_token", True)
        tokenizer.add_eos_token = said.get("add_eos_token", False)
    return tokenizer


USUAL: tuple[type[Exception], ...] = (OSError, ValueError, KeyError)
"""What libraries raise for files that are not there, or are not what their names say."""


@contextmanager
def in_words(
    path: object,
    expected: str = "a checkpoint with config.json, weights and tokenizer",
    remedy: str = "check the path or Hub id",
    also: tuple[type[Exception], ...] = (),
) -> Iterator[None]:
    """Say in words what a library raises for files that cannot be opened, or for a kernel that is not there.

    Args:
        path: names the files.
        expected: what they should be.
        remedy: what to do.
        also: errors that a library raises for them besides the usual ones.

    Raises:
        InputError: instead of the library's error, which is its ``got``.
    """
    try:
        yield
    except InputError:
        raise
    except ImportError as error:
        if "ttention" in str(error):
            raise InputError(
                "backbone.attention", expected="a kernel that is installed", got=_said(error),
                remedy="install it, or use sdpa",
            ) from error  # fmt: skip
        raise InputError(
            path, expected="the libraries that it needs", got=_said(error), remedy="install what is named"
        ) from error
    except SafetensorError as error:
        raise InputError(
            path, expected="whole safetensors files", got=_said(error), remedy="download it again"
        ) from error
    except USUAL + also as error:
        raise InputError(path, expected=expected, got=_said(error), remedy=remedy) from error


def _said(error: Exception) -> str:
    return " ".join(str(error).split())
