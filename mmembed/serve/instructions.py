"""The usual instruction of each kind of query, from a YAML file."""

from collections.abc import Mapping
from pathlib import Path

from mmembed.errors import InputError, nearest
from mmembed.serve.query import KINDS
from mmembed.settings import load_yaml


def read_instructions(path: Path) -> Mapping[str, str]:
    """The usual instructions by kind of query: ``region: what is here ?``.

    Raises:
        InputError: the file cannot be read, an unknown kind, or a value that is not words.
    """
    content = load_yaml(path)
    if not isinstance(content, Mapping):
        raise InputError(
            path, expected="kinds of query with their words", got=repr(content), remedy="write kind: words"
        )
    for kind, words in content.items():
        if kind not in KINDS:
            raise InputError(f"{path}: {kind}", expected="a kind of query", got=kind, remedy=nearest(str(kind), KINDS))
        if not isinstance(words, str):
            raise InputError(f"{path}: {kind}", expected="words", got=repr(words), remedy="quote them")
    return {kind: words.strip() for kind, words in content.items()}
