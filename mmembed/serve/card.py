"""A model card: what a model embeds and how, what it was trained on, how well it does, and code that uses it."""

from collections.abc import Iterable, Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import jinja2
import yaml

from mmembed.errors import InputError
from mmembed.models.embedder import Embedder
from mmembed.serve.card_facts import facts, prompts, reads
from mmembed.serve.card_tables import read_recipe_values, results, score_tables, scores_of, training
from mmembed.serve.card_usage import usages
from mmembed.serve.export.refusals import Target
from mmembed.serve.licences import licence_warning

_TEMPLATE = "assets/card.md.j2"
_LIBRARIES: dict[Target | None, str] = {
    None: "mmembed", "st": "sentence-transformers", "vllm": "sentence-transformers", "hf": "transformers",
}  # fmt: skip
_PIPELINE = "feature-extraction"


def model_card(  # noqa: PLR0913
    model: Embedder,
    repo_id: str,
    *,
    licence: str,
    licence_link: str | None = None,
    scores: Iterable[str | Path] = (),
    recipe: str | Path | None = None,
    datasets: Sequence[str] = (),
    exported: Target | None = None,
    notes: Sequence[str] = (),
    left: Sequence[str] = (),
) -> str:
    """The card of a model, as ``README.md`` of its repository holds it.

    Args:
        model: what is described.
        repo_id: where it lies on the Hub.
        licence: as the Hub names it, see :func:`mmembed.serve.licences.check_licence`.
        licence_link: where the text of a licence called ``other`` is read.
        scores: files ``scores.json`` of evaluations of it.
        recipe: ``recipe.yaml`` of the run that trained it.
        datasets: Hub ids of what it was trained on.
        exported: the library that the repository's folder was written for; None is a saved embedder.
        notes: what stays different in an export.
        left: parts that it left behind: ``regions``, ``video``.

    Raises:
        InputError: scores of a model that embeds otherwise, or a file that cannot be read.
    """
    all_scores = [scores_of(Path(path), model) for path in scores]
    values = None if recipe is None else read_recipe_values(Path(recipe))
    base, relation = base_of_model(model, values)
    if exported is not None and relation == "adapter":
        # it is folded into what is exported
        relation = "finetune"
    front = _front(
        repo_id, licence=licence, licence_link=licence_link, base_model=base, datasets=list(datasets) or None,
        base_model_relation=relation if base else None, library_name=_LIBRARIES[exported],
        tags=_tags(model, exported, left), results=results(all_scores),
    )  # fmt: skip
    body = _environment().from_string((files("mmembed.serve") / _TEMPLATE).read_text(encoding="utf-8")).render(
        title=repo_id.rpartition("/")[2],
        intro=_intro(model, base, relation, left),
        facts=facts(model, left),
        prompts=prompts(model, left),
        training=None if values is None else training(values),
        recipe=None if values is None else values["name"],
        seed=None if values is None else values.get("seed", 0),
        trains="" if values is None else _trains(values["embedder"]),
        scores=score_tables(all_scores),
        usages=usages(model, repo_id, exported),
        notes=notes,
        licence=_licence(licence, licence_link, base),
    )  # fmt: skip
    return f"---\n{front}\n---\n\n{body.rstrip()}\n"


def base_of_model(model: Embedder, recipe: Mapping[str, Any] | None) -> tuple[str | None, str | None]:
    """What the model was made of, by its Hub id, and as the Hub calls the relation; None where nobody says."""
    opened = _hub_id(getattr(model.settings.backbone, "path", None))
    if model.has_adapter:
        return opened, "adapter"
    if recipe is None:
        return opened, None
    return _hub_id(recipe["embedder"]["backbone"].get("init_args", {}).get("path")), "finetune"


def _hub_id(path: str | None) -> str | None:
    is_id = path and path.count("/") == 1 and not path.startswith((".", "/", "~")) and not Path(path).exists()
    return path if is_id else None


def _front(repo_id: str, *, licence: str, licence_link: str | None, results: list[dict[str, Any]], **more: Any) -> str:
    from huggingface_hub import EvalResult, ModelCardData

    found = [EvalResult(**result) for result in results] or None
    data = ModelCardData(
        license=licence, license_link=licence_link, pipeline_tag=_PIPELINE, eval_results=found,
        model_name=repo_id.rpartition("/")[2] if found else None, **more,
    )  # fmt: skip
    return str(data.to_yaml())


def _tags(model: Embedder, exported: Target | None, left: Sequence[str]) -> list[str]:
    taken = reads(model, left)
    kinds = ["multimodal-embedding", *(f"{kind}-embedding" for kind in taken)] if len(taken) > 1 else []
    regions = [] if model.settings.regions is None or exported else ["region-prompts"]
    return ["mmembed", *kinds, *regions, *(["vllm"] if exported == "vllm" else [])]


def _intro(model: Embedder, base: str | None, relation: str | None, left: Sequence[str]) -> str:
    *others, last = reads(model, left)
    what = f"{', '.join(others)} and {last}" if others else last
    made = {"adapter": f" It is an adapter of [{base}](https://huggingface.co/{base}).",
            "finetune": f" It was trained from [{base}](https://huggingface.co/{base}).",
            None: f" Its weights come from [{base}](https://huggingface.co/{base})."}  # fmt: skip
    return f"Embeds {what} in one space, as vectors of {model.width} numbers.{made[relation] if base else ''}"


def _trains(embedder: Mapping[str, Any]) -> str:
    lora = embedder.get("lora")
    if lora is None:
        return "all weights that the stages do not freeze"
    return f"{'DoRA' if lora['dora'] else 'LoRA'} of rank {lora['r']}, alpha {lora['alpha']}"


def _licence(licence: str, link: str | None, base: str | None) -> str:
    said = f"{licence}{f', see {link}' if link else ''}."
    warning = licence_warning(licence, base)
    return said if warning is None else f"{said} {warning}."


def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(undefined=jinja2.StrictUndefined, autoescape=False, keep_trailing_newline=True)
    environment.filters["cell"] = lambda value: str(value).replace("|", "\\|").replace("\n", " ")
    return environment


def check_card(card: str) -> None:
    """See that the Hub's client reads a card.

    Raises:
        InputError: its front matter is none.
    """
    from huggingface_hub import ModelCard

    try:
        ModelCard(card)
    except (ValueError, TypeError, yaml.YAMLError) as error:
        raise InputError(
            "model card", expected="front matter that the Hub reads", got=error, remedy="report this"
        ) from error
