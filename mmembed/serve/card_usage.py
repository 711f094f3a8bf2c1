"""How a model is used from three libraries, as code that runs; of a library that cannot hold it, why."""

import json
from dataclasses import dataclass
from typing import Literal

from mmembed.errors import InputError
from mmembed.models.embedder import Embedder
from mmembed.models.settings import RawPrompt
from mmembed.serve.card_facts import reads
from mmembed.serve.export.layout import is_bare_text
from mmembed.serve.export.refusals import NAMES, Target, check_target

PICTURE, INSTRUCTION, TEXT = "circle.png", "Find the picture.", "a red circle"


@dataclass(frozen=True)
class Usage:
    """How one library uses the model.

    Args:
        library: its name.
        why_not: why it cannot hold the model, in words; empty where it can.
        steps: code in order, each with its language.
        left: what stays behind in an export, in words; empty for nothing.
    """

    library: str
    steps: tuple[tuple[Literal["python", "bash"], str], ...] = ()
    why_not: str = ""
    left: str = ""


def usages(model: Embedder, repo_id: str, exported: Target | None) -> list[Usage]:
    """How mmembed, sentence-transformers and vLLM use it.

    Args:
        model: what is described.
        repo_id: where it lies on the Hub.
        exported: the library that the repository's folder was written for; None is a saved embedder.
    """
    if exported is not None:
        targets: tuple[Target, ...] = ("st", "vllm") if exported == "vllm" else (exported,)
        return [Usage(NAMES[to], _steps(model, to, repo_id)) for to in targets]
    return [
        Usage("mmembed", (("python", _ours(model, repo_id)),)),
        *(_after_export(model, repo_id, to) for to in _BOTH),
    ]


_BOTH: tuple[Target, ...] = ("st", "vllm")


def _after_export(model: Embedder, repo_id: str, to: Target) -> Usage:
    """The same behind ``scripts/export.py``, with what must stay behind for it."""
    reason = ""
    for regions, video in ((False, False), (True, False), (False, True), (True, True)):
        try:
            check_target(model, to, without_regions=regions, without_video=video)
        except InputError as error:
            reason = reason or f"expected {error.expected}, got {error.got}"
            continue
        options = [name for name, used in (("--without-regions", regions), ("--without-video", video)) if used]
        command = " ".join(["python scripts/export.py", f"--model {repo_id} --to {to} --output exported", *options])
        parts = [name for name, used in (("the region encoder", regions), ("the reading of clips", video)) if used]
        return Usage(NAMES[to], (("bash", command), *_steps(model, to, "exported")), left=" and ".join(parts))
    return Usage(NAMES[to], why_not=reason)


def _ours(model: Embedder, repo_id: str) -> str:
    target = f'{{"image": "{PICTURE}"}}' if "image" in reads(model) else f'"{TEXT} on white"'
    return "\n".join((
        "from mmembed import Embedder",
        "",
        f'model = Embedder.from_pretrained("{repo_id}")',
        f'queries = model.encode(["{TEXT}"], instruction="{INSTRUCTION}")',
        f'targets = model.encode([{target}], side="target")',
        "print(model.similarity(queries, targets))",
    ))  # fmt: skip


def _steps(model: Embedder, to: Target, place: str) -> tuple[tuple[Literal["python", "bash"], str], ...]:
    if to == "hf":
        return (("python", _transformers(place)),)
    return (("python", _sentence_transformers(model, place)),) if to == "st" else _vllm(model, place)


def _transformers(place: str) -> str:
    return "\n".join((
        "from transformers import AutoModel, AutoTokenizer",
        "",
        f'model = AutoModel.from_pretrained("{place}")',
        f'tokenizer = AutoTokenizer.from_pretrained("{place}")',
    ))  # fmt: skip


def _sentence_transformers(model: Embedder, place: str) -> str:
    target = f'{{"image": "{PICTURE}"}}' if "image" in reads(model) else f'"{TEXT} on white"'
    prompt = json.dumps(INSTRUCTION + _behind(model) if is_bare_text(model) else INSTRUCTION, ensure_ascii=False)
    return "\n".join((
        "from sentence_transformers import SentenceTransformer",
        "",
        f'model = SentenceTransformer("{place}")',
        f'queries = model.encode(["{TEXT}"], prompt={prompt})',
        f"targets = model.encode([{target}])",
        "print(model.similarity(queries, targets))",
    ))  # fmt: skip


def _vllm(model: Embedder, place: str) -> tuple[tuple[Literal["python", "bash"], str], ...]:
    if is_bare_text(model):
        body = json.dumps({"model": "NAME", "input": [INSTRUCTION + _behind(model) + TEXT]}).replace("'", "'\\''")
    else:
        body = (
            f'{{"model": "NAME", "messages": [{{"role": "system", "content": "{INSTRUCTION}"}}, '
            f'{{"role": "user", "content": [{{"type": "text", "text": "{TEXT}"}}]}}]}}'
        )
    serve = f"vllm serve {place} --runner pooling --served-model-name NAME"
    ask = f"curl http://localhost:8000/v1/embeddings -H 'Content-Type: application/json' -d '{body}'"
    return (("bash", serve), ("bash", ask))


def _behind(model: Embedder) -> str:
    """What stands between an instruction and a bare text."""
    style = model.settings.prompt
    return style.separator if isinstance(style, RawPrompt) else ""
