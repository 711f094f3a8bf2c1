"""The steps of scripts/own_data.py: each shows the command that does it alone, and does not do again what is done."""

import argparse
import json
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from data_prep.commands import OWN_DATA
from data_prep.own.made import MADE, Made, make
from data_prep.own.written import FIND_PICTURE
from data_prep.own_data import choice_of, show
from mmembed import __version__
from mmembed.files import file_fingerprint, fingerprint, write_json
from scripts.own_recipe import STAGE, Base, find_base, own_recipe, write_recipe

STEPS = ("data", "recipe", "before", "train", "after", "export")
DONE = "evaluated.json"

Main = Callable[[Sequence[str]], int]


class StepError(RuntimeError):
    """A step ended with a status that is not 0, and said why itself."""

    def __init__(self, status: int) -> None:
        super().__init__(f"status {status}")
        self.status = status


@dataclass(frozen=True)
class Run:
    """One call of the command.

    Args:
        options: as given.
        overrides: settings of the recipe among them.
        output: folder of everything.
        data_words: the options of the data, as one would type them.
    """

    options: argparse.Namespace
    overrides: Sequence[str]
    output: Path
    data_words: Sequence[str]

    @property
    def recipe(self) -> Path:
        """The recipe for these data."""
        return self.output / "recipe.yaml"

    @property
    def final(self) -> Path:
        """The trained model."""
        return self.output / "run/final"

    @property
    def places(self) -> list[str]:
        """Where the data of a step lie."""
        return ["--data-root", str(self.output)]

    def begin(self, step: str, title: str, script: str, words: Sequence[str]) -> None:
        """Print what comes, and the command that does it alone."""
        print(f"\n[{STEPS.index(step) + 1}/{len(STEPS)}] {title}\n$ python {script} {shlex.join(words)}", flush=True)


def make_data(run: Run) -> Made:
    """Tables and held-out sets."""
    words = [*run.data_words, "--output", str(run.output)]
    run.begin("data", "tables and held-out sets", "data_prep/own_data.py", words)
    made = make(choice_of(run.options), run.output)
    show(made)
    return made


def make_recipe(run: Run, made: Made) -> Base:
    """The recipe, and the model that it begins with."""
    options = run.options
    words = ["--config", str(run.recipe), "--print_config"]
    run.begin("recipe", "a recipe for their number; the command shows it", "scripts/train.py", words)
    base = find_base(options.model, options.adapter, options.profile, chosen_settings(options))
    if base.profile is not None:
        why = "" if options.profile else ", as is usual for its kind"
        print(f"{options.model} embeds by profile {base.profile}{why}")
    named, steps = run.output.name, options.steps
    recipe = own_recipe(base, made, named, train=options.train, steps=steps, overrides=run.overrides)
    done = write_recipe(run.recipe, recipe)
    stage = recipe.stages[STAGE]
    told = f"{options.train}, {stage.steps} steps of {stage.sampling.batch_size} pairs, rate {stage.optim.lr:g}"
    if done == "kept, changed by hand":
        told = "options of the model and its training do not change it; without the file they would"
    print(f"{done}: {run.recipe} ({told})")
    return base


def chosen_settings(options: argparse.Namespace) -> dict[str, object]:
    """Settings of the backbone in which the model differs from what was saved or published."""
    dtype = options.dtype
    if dtype is None and options.train == "lora":
        import torch

        dtype = "bfloat16" if torch.cuda.is_available() else None
    chosen = {"dtype": dtype, "max_pixels": options.max_pixels}
    return {name: value for name, value in chosen.items() if value is not None}


def evaluate_before(run: Run, base: Base) -> None:
    """The model as it is, on the held-out sets; refused here if nothing could be exported after hours of training."""
    evaluate(run, "before", "the model as it is", base.options)
    if run.options.until == "export" and not run.final.is_dir():
        from mmembed import Embedder
        from mmembed.serve.export.refusals import check_target

        options = run.options
        model = Embedder.from_pretrained(
            base.model, adapter=base.adapter, profile=base.profile, device="cpu", **base.overrides
        )  # fmt: skip
        without = {"without_regions": options.without_regions, "without_video": options.without_video}
        check_target(model, options.to, **without)


def train(run: Run) -> None:
    """Train by the recipe."""
    from scripts.train import main as train_main

    words = ["--config", str(run.recipe), *run.places, "--output", str(run.final.parent)]
    run.begin("train", "training", "scripts/train.py", words)
    call(train_main, [*words, *(["--overwrite"] if run.options.overwrite else [])])


def compare(run: Run) -> None:
    """The trained model on the same sets, beside the model as it was."""
    from eval.compare import main as compare_main
    from eval.side_by_side import main as side_by_side_main

    evaluate(run, "after", "the trained model", ["--model", str(run.final)])
    before, after = run.output / "before", run.output / "after"
    benchmark = ["--benchmark", str(run.output / "benchmark.yaml"), *run.places]
    words = [f"before={before}", f"after={after}", *benchmark, "--output", str(run.output / "report.html")]
    run.begin("after", "before and after, side by side", "eval/side_by_side.py", words)
    call(side_by_side_main, words)
    words = [str(before), str(after)]
    run.begin("after", "what training changed, query by query", "eval/compare.py", words)
    call(compare_main, words)


def evaluate(run: Run, name: str, title: str, model: Sequence[str]) -> None:
    """A model on the held-out sets, unless that is done."""
    from eval.run import main as run_main

    output = run.output / name
    words = [*model, "--benchmark", str(run.output / "benchmark.yaml"), *run.places, "--output", str(output)]
    run.begin("before" if name == "before" else "after", title, "eval/run.py", words)
    key = evaluation_key(run, words)
    if (output / DONE).is_file() and json.loads((output / DONE).read_text(encoding="utf-8"))["key"] == key:
        print(f"there already: {output / 'report.html'}")
        return
    call(run_main, words)
    write_json(output / DONE, {"key": key})


def evaluation_key(run: Run, words: Sequence[str]) -> str:
    """Names what an evaluation computes: the command, the data, and the files of a model that lies here."""
    models = [Path(words[words.index(option) + 1]) for option in ("--model", "--adapter") if option in words]
    files = sorted(path for model in models if model.is_dir() for path in model.rglob("*") if path.is_file())
    stamps = (f"{path} {path.stat().st_size} {path.stat().st_mtime_ns}" for path in files)
    data = (file_fingerprint(path) for path in (run.output / OWN_DATA / MADE, run.output / "benchmark.yaml"))
    return fingerprint(__version__, *words, *stamps, *data)


def export(run: Run, made: Made) -> None:
    """The trained model for other libraries, and how to use what was made."""
    from scripts.export import main as export_main

    output, options = run.output / "export", run.options
    without = [f"--without-{part}" for part in ("regions", "video") if getattr(options, f"without_{part}")]
    words = ["--model", str(run.final), "--to", options.to, "--output", str(output), *without]
    run.begin("export", "the trained model for other libraries", "scripts/export.py", words)
    marker = run.output / "exported.json"
    key = fingerprint(__version__, *words, file_fingerprint(run.final.parent / "run.json"))
    if output.is_dir() and marker.is_file() and json.loads(marker.read_text(encoding="utf-8"))["key"] == key:
        print(f"there already: {output}")
    else:
        call(export_main, [*words, "--overwrite"])
        write_json(marker, {"key": key})
    print(usage(run, made))


def usage(run: Run, made: Made) -> str:
    """How to use what was made, in Python: the last of its tasks, asked as it was trained."""
    options, task = run.options, list(made.test)[-1]
    query = {"image": f"{options.pictures}/NAME"} | ({"text": "CHANGE"} if task == "composed" else {})
    told = options.find_text if task == "picture_to_text" else options.find_picture
    told = FIND_PICTURE[task] if told is None else told

    def encode(option: str) -> str:
        words = f", {option}={json.dumps(told, ensure_ascii=False)}" if told else ""
        return f"  model.encode([{json.dumps(query, ensure_ascii=False)}]{words})"

    lines = [
        f"\nlook at {run.output / 'report.html'}, and use the model:\n",
        "  from mmembed import Embedder",
        f"  model = Embedder.from_pretrained({json.dumps(str(run.final))})",
        encode("instruction"),
    ]
    if options.to == "st":
        lines += [
            "\n  from sentence_transformers import SentenceTransformer",
            f"  model = SentenceTransformer({json.dumps(str(run.output / 'export'))})",
            encode("prompt"),
        ]
    return "\n".join(lines)


def call(step: Main, words: Sequence[str]) -> None:
    """Do a step as its command does.

    Raises:
        StepError: it ended with another status than 0, and said why.
    """
    if (status := step(words)) != 0:
        raise StepError(status)
