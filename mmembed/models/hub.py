"""Files of a checkpoint, in a directory or a Hub repository."""

import json
from pathlib import Path
from typing import Any, TypeAlias

from transformers import AutoTokenizer, PreTrainedTokenizerFast
from transformers.utils import cached_file

Where: TypeAlias = dict[str, Any]
"""Which revision of a Hub repository, as keyword arguments; empty for a directory or the main branch."""

_SAID_BESIDE = ("LlamaTokenizer", "GemmaTokenizer")


def find_file(path: str, name: str, where: Where) -> Path | None:
    """A file of a checkpoint on this machine, downloaded if need be; None where it has none of that name."""
    found = cached_file(path, name, _raise_exceptions_for_missing_entries=False, **where)
    return Path(found) if found else None


def read_json(path: str, name: str, where: Where) -> dict[str, Any]:
    """A JSON file of a checkpoint; empty where there is none."""
    found = find_file(path, name, where)
    return dict(json.loads(found.read_text(encoding="utf-8"))) if found else {}


def read_tokenizer(path: str, where: Where) -> Any:
    """``tokenizer.json`` as it is written, where there is one.

    The class that a checkpoint names, or that its model type stands for, may build the steps anew to other ids:
    transformers 5 does so for Llama and Qwen2. Whether texts begin and end with a token is said beside it for the
    classes that read it there (E5-Mistral ends its texts so); for all others it is part of what is written, and their
    ``add_bos_token: false`` must not undo it (Qwen3-Embedding).
    """
    if find_file(path, "tokenizer.json", where) is None:
        return AutoTokenizer.from_pretrained(path, trust_remote_code=False, **where)
    tokenizer = PreTrainedTokenizerFast.from_pretrained(path, **where)
    said = read_json(path, "tokenizer_config.json", where)
    if str(said.get("tokenizer_class")).removesuffix("Fast") in _SAID_BESIDE:
        tokenizer.add_bos_token = said.get("add_bos_token", True)
        tokenizer.add_eos_token = said.get("add_eos_token", False)
    return tokenizer
