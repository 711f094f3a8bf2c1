"""What a model card says of training and of scores: the recipe's rows, and numbers with their protocols."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from mmembed.errors import InputError
from mmembed.evaluation.scores import kind_of, percent, read_scores, what_is_less
from mmembed.models.embedder import Embedder
from mmembed.settings import dump_settings, flat_settings, load_yaml

_NOT_OF_THE_MODEL = (
    *("path", "revision", "scratch", "adapter", "adapter_revision", "dtype", "quantize", "attention", "max_length"),
    *("padding_side", "gradient_checkpointing", "special_tokens", "unpadded_causal", "image_tower"),
)
_SHOWN = {
    "temperature": "temperature", "in_batch": "negatives", "batch_size": "batch", "block_size": "block",
    "lr": "learning rate", "schedule": "schedule", "warmup_steps": "warm-up steps", "weight_decay": "weight decay",
}  # fmt: skip


def read_recipe_values(path: Path) -> dict[str, Any]:
    """A resolved recipe, as ``recipe.yaml`` of a run holds it, as plain values.

    Raises:
        InputError: no such file, or no recipe.
    """
    if not path.is_file():
        raise InputError(path, expected="recipe.yaml of a run", got="no such file", remedy="name it, or leave it out")
    values = load_yaml(path)
    if not isinstance(values, dict) or not {"name", "embedder", "stages"} <= values.keys() or not _is_resolved(values):
        raise InputError(path, expected="a resolved recipe", got="something else", remedy="name recipe.yaml of a run")
    return values


def _is_resolved(recipe: Mapping[str, Any]) -> bool:
    """Whether everything is written out, as in the folder of a run and not as in what one writes oneself."""
    stages = recipe["stages"].values()
    rows = [row for stage in stages for row in stage["mixture"].values()]
    return all({"objective", "sampling", "optim", "precision", "steps"} <= stage.keys() for stage in stages) and all(
        {"table", "weight", "limit"} <= row.keys() for row in rows
    )


def training(recipe: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Each stage of a recipe: its name, its settings in words, and its rows."""
    return [
        {"name": name, "said": _stage(stage), "rows": list(_rows(stage))} for name, stage in recipe["stages"].items()
    ]


def _stage(stage: Mapping[str, Any]) -> str:
    flat = flat_settings({"objective": stage["objective"], "sampling": stage["sampling"], "optim": stage["optim"]})
    short = {name.rpartition(".")[2]: value for name, value in flat.items()}
    objective = stage["objective"]["class_path"].rpartition(".")[2]
    said = [f"{words} {short[name]}" for name, words in _SHOWN.items() if short.get(name) is not None]
    return ", ".join([f"{stage['steps']} steps", objective, *said, f"precision {stage['precision']}"])


def _rows(stage: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    for name, row in stage["mixture"].items():
        if row["weight"]:
            limit = "all" if row["limit"] is None else f"{row['limit']:,}"
            yield {"name": name, "table": row["table"], "weight": f"{row['weight']:g}", "limit": limit}


def scores_of(path: Path, model: Embedder) -> dict[str, Any]:
    """The content of a ``scores.json``, once it is known to be of a model that embeds as this one does.

    Raises:
        InputError: no scores of this version, or of a model with other settings.
    """
    if path.is_file() and path.name != "scores.json":
        raise InputError(path, expected="a file scores.json of an evaluation", got="another name", remedy="name it")
    scores = read_scores(path.parent) if path.name == "scores.json" else read_scores(path)
    told, ours = scores.get("about", {}).get("settings"), dump_settings(model.settings)
    if told is None:
        return scores
    theirs, own = _embeds(told), _embeds(ours)
    # an older version had fewer settings
    differ = sorted(name for name in theirs.keys() & own.keys() if theirs[name] != own[name])
    if differ:
        raise InputError(
            path, expected="scores of a model that embeds as this one", got=f"another {', '.join(differ[:4])}",
            remedy="evaluate this model, or name its scores",
        )  # fmt: skip
    return scores


def _embeds(settings: Mapping[str, Any]) -> dict[str, Any]:
    parts = {name: settings.get(name) for name in ("backbone", "prompt", "pooler", "normalize")}
    parts["regions"] = (settings.get("regions") or {}).get("class_path")
    flat = {name.replace("init_args.", ""): value for name, value in flat_settings(parts).items()}
    return {name: value for name, value in flat.items() if not _is_place(name)}


def _is_place(name: str) -> bool:
    part, _, field = name.partition(".")
    return part == "backbone" and field.split(".")[0] in _NOT_OF_THE_MODEL


def score_tables(all_scores: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Each evaluation: its benchmark, what makes it less than that, its mean and a row for each task."""
    return [
        {
            "benchmark": scores["protocol"]["benchmark"],
            "notes": what_is_less(scores),
            "mean": _mean(scores),
            "rows": [_score_row(scores, name, row) for name, row in scores["tasks"].items()],
        }
        for scores in all_scores
    ]


def _mean(scores: Mapping[str, Any]) -> str | None:
    mean = (scores.get("means") or {}).get("overall") or {}
    whole = mean.get("mean") is not None and not kind_of(scores) and mean.get("tasks") == mean.get("of")
    return f"{percent(mean['mean'])} over {mean['of']} tasks" if whole else None


def _score_row(scores: Mapping[str, Any], name: str, row: Mapping[str, Any]) -> dict[str, str]:
    protocol = scores["protocol"]["tasks"].get(name, {})
    return {
        "task": name,
        "metric": row["metric"],
        "score": percent(row["score"]),
        "chance": percent(row.get("chance")),
        "blind": percent(row.get("blind")),
        "queries": f"{row['queries']:,}",
        "corpus": f"{row['corpus']:,}",
        "protocol": row["protocol_id"],
        "revision": str(protocol.get("revision", ""))[:12],
    }


def results(all_scores: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """What goes into the card's ``model-index``: scores on whole sets of a benchmark, and no others."""
    return [
        {
            "task_type": "retrieval",
            "dataset_type": f"mmembed/{scores['protocol']['benchmark']}",
            "dataset_name": f"{scores['protocol']['benchmark']}: {name}",
            "dataset_config": name,
            "dataset_revision": scores["protocol"]["tasks"].get(name, {}).get("revision"),
            "metric_type": row["metric"],
            "metric_value": row["score"],
            "metric_args": {"protocol_id": row["protocol_id"]},
        }
        for scores in all_scores
        if not kind_of(scores)
        for name, row in scores["tasks"].items()
        if row["part"] is None
    ]
