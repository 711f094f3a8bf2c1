"""The files around a plain checkpoint that make it a folder of sentence-transformers, and of vLLM."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from mmembed.files import write_json, write_text
from mmembed.models.embedder import Embedder
from mmembed.models.plain.processors import opened_with
from mmembed.models.plain.writing import reads_pictures
from mmembed.models.preprocess import TEMPLATE_DATE
from mmembed.models.settings import MeanToken, RawPrompt
from mmembed.serve.export.template import Words

MODULES, POOLING = "modules.json", "1_Pooling"
# of 5.4 and later, and what was read before, which vLLM takes literally
_MODES = {"cls": "cls_token", "mean": "mean_tokens", "max": "max_tokens", "lasttoken": "lasttoken",
          "mean_sqrt_len_tokens": "mean_sqrt_len_tokens", "weightedmean": "weightedmean_tokens"}  # fmt: skip
_TYPES = "sentence_transformers.models."
_FORWARD = {"method": "forward", "method_output_name": "last_hidden_state"}


def is_bare_text(model: Embedder) -> bool:
    """Whether items are bare texts behind their instruction: then no chat template is needed, nor written."""
    style = model.settings.prompt
    plain = isinstance(style, RawPrompt) and replace(style, separator=" ", media_separator=None) == RawPrompt()
    return plain and not reads_pictures(model.backbone)


def words_of(model: Embedder, *, video: bool) -> Words:
    """What the target's processor and tokenizer expect in the string that a template writes."""
    backbone: Any = model.backbone
    tokenizer = backbone.checkpoint.tokenizer
    if reads_pictures(backbone):
        named, written = list(backbone.preprocessor.words.values()), backbone.preprocessor.placeholders[0]
        clip = named[1] if video else ""
        around = written if clip and clip in written and clip != written else ""
        return Words(image=named[0], video=clip, around_video=around, today=TEMPLATE_DATE)
    # a tokenizer alone adds nothing to what a template has written
    inside, whole = (tokenizer("a", add_special_tokens=special).input_ids for special in (False, True))
    start = next(i for i in range(len(whole)) if whole[i : i + len(inside)] == inside)
    first, last = whole[:start], whole[start + len(inside) :]
    begin = tokenizer.bos_token if tokenizer.bos_token_id in first else ""
    return Words(first=_written(tokenizer, first), last=_written(tokenizer, last), begin=begin, today=TEMPLATE_DATE)


def _written(tokenizer: Any, ids: list[int]) -> str:
    return "".join(tokenizer.convert_ids_to_tokens(ids))


def write_modules(model: Embedder, directory: Path, *, video: bool) -> None:
    """``modules.json`` and a config for each module."""
    names = ["Transformer", "Pooling", *(["Normalize"] if model.settings.normalize else [])]
    modules = [
        {"idx": i, "name": str(i), "path": f"{i}_{name}" if i else "", "type": _TYPES + name}
        for i, name in enumerate(names)
    ]
    write_json(directory / MODULES, modules)
    write_json(directory / POOLING / "config.json", pooling(model))
    write_json(directory / "sentence_bert_config.json", transformer(model, video=video))
    about = {
        "model_type": "SentenceTransformer",
        # a prompt is the instruction, which the model's items bring along: none is the model's own
        "prompts": {"query": "", "document": ""},
        "default_prompt_name": None,
        "similarity_fn_name": "cosine" if model.settings.normalize else "dot",
    }
    write_json(directory / "config_sentence_transformers.json", about)


def pooling(model: Embedder) -> dict[str, Any]:
    """The pooler in both schemas; of the older one exactly one key is true."""
    mode = "mean" if isinstance(model.settings.pooler, MeanToken) else "lasttoken"
    older = {f"pooling_mode_{name}": known == mode for known, name in _MODES.items()}
    width = {"word_embedding_dimension": model.width, "embedding_dimension": model.width}
    return width | older | {"pooling_mode": mode, "include_prompt": True}


def transformer(model: Any, *, video: bool) -> dict[str, Any]:
    """What the first module is told: which media it reads, and that it reads them by the chat template.

    Without all four fields a model is opened as one of text, and its template is not used.
    """
    kinds = ["text"]
    if reads_pictures(model.backbone):
        kinds += ["image", *(["video"] if video else [])]
    modalities: dict[str, Any] = {kind: dict(_FORWARD) for kind in kinds}
    if not is_bare_text(model):
        modalities["message"] = _FORWARD | {"format": "structured"}
    how: dict[str, Any] = {"chat_template": {"add_generation_prompt": True}}
    if video:
        how["video"] = {"do_sample_frames": False}
    # a model whose pooler was left out is not to be given a random one
    bare = getattr(model.backbone.model, "pooler", model) is None
    return {
        "transformer_task": "feature-extraction",
        "modality_config": modalities,
        "module_output_name": "token_embeddings",
        "processing_kwargs": how,
        # rows without padding between them do not go together with three positions a token
        "unpad_inputs": False,
        "model_kwargs": {"add_pooling_layer": False} if bare else {},
        "processor_kwargs": opened_with(model.backbone),
    }


def write_readme(model: Any, directory: Path) -> None:
    """How vLLM serves the folder, and how it is asked."""
    what = '[{"type": "text", "text": "a red circle"}]'
    if reads_pictures(model.backbone):
        what = '[{"type": "image_url", "image_url": {"url": "https://..."}}, {"type": "text", "text": "a red circle"}]'
    if is_bare_text(model):
        body = '{"model": "NAME", "input": ["a red circle"]}'
        between = json.dumps(model.settings.prompt.separator)
        how = f"An instruction is written in front of the text, with {between} between."
    else:
        body = (
            '{"model": "NAME", "messages": [{"role": "system", "content": "Find the picture."}, '
            f'{{"role": "user", "content": {what}}}]}}'
        )
        how = "The instruction is the system message, left out where there is none; the item is the user message."
    write_text(
        directory / "README.md",
        f"""\
# Served by vLLM

```
vllm serve DIR --runner pooling --served-model-name NAME
curl http://localhost:8000/v1/embeddings -H "Content-Type: application/json" -d '{body}'
```

{how} The chat template of this folder writes the prompt: give no other. Pooling and
normalisation are read from `{MODULES}` and `{POOLING}/config.json`.

vLLM computes in the type of the weights and prepares pictures by the transformers that is installed beside it, so its
vectors differ a little from those of sentence-transformers, which opens the same folder.
""",
    )
