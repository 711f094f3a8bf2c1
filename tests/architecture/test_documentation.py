"""What the pages show is true: their Python runs, their YAML is read, their commands exist, every setting is named."""

import dataclasses
import importlib.util
import re
import shlex
from inspect import isabstract
from pathlib import Path

import av
import numpy as np
import pytest
from fpdf import FPDF

from mmembed import Embedder
from mmembed.data.rows import PAIR_FIELDS
from mmembed.data.settings import RegionMixing, Sampling, Source
from mmembed.data.tables import open_table, read_items
from mmembed.evaluation.benchmark import Passing, Task, read_benchmark
from mmembed.evaluation.blind import BLINDS
from mmembed.evaluation.expected import Expected, ExpectedScore, read_expected
from mmembed.evaluation.metrics import METRICS
from mmembed.losses.settings import Contrastive, LearnedTemperature, ObjectiveSettings, SourceRules
from mmembed.media.settings import FrameSampling, MediaSettings
from mmembed.models.profiles import profile_names
from mmembed.models.settings import (
    BackboneSettings,
    EmbedderSettings,
    Lora,
    PixelBudget,
    PoolerSettings,
    PromptStyle,
    QwenVL,
    RegionEncoderSettings,
    Request,
    Scratch,
    SpecialTokens,
    Speed,
    TextRegions,
    TimmTower,
)
from mmembed.recipe import Recipe, read_recipe
from mmembed.settings import parse_yaml, read_settings, subclasses
from mmembed.training.settings import Checkpoints, Chunks, FeatureFiles, Optim, PartRates, Stage, Validation

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
FENCE = re.compile(r"^( *)```(\w+)\n(.*?)^\1```", re.DOTALL | re.MULTILINE)
COMMANDS = ("scripts/", "eval/", "data_prep/")
FIELDS = {
    "docs/recipes.md": (
        *(
            Recipe,
            Stage,
            Sampling,
            RegionMixing,
            Source,
            SourceRules,
            Optim,
            PartRates,
            Chunks,
            Validation,
            Checkpoints,
            FeatureFiles,
        ),
        *(Contrastive, LearnedTemperature),
    ),
    "docs/models.md": (
        *(EmbedderSettings, Scratch, Lora, TextRegions, MediaSettings, SpecialTokens, PixelBudget, TimmTower, Request),
        *(part for kind in (BackboneSettings, PromptStyle, PoolerSettings) for part in subclasses(kind).values()),
    ),
    "docs/evaluation.md": (Task, Passing, Expected, ExpectedScore),
    "docs/speed.md": (Speed, FeatureFiles),
}
PARTS = {
    "recipes": (ObjectiveSettings,),
    "models": (BackboneSettings, PromptStyle, PoolerSettings, RegionEncoderSettings, FrameSampling),
}
LISTS = {"evaluation": (*METRICS, *BLINDS), "data": PAIR_FIELDS, "exactness": profile_names()}


def page_name(page):
    return str(page.relative_to(ROOT))


def blocks(page, *languages):
    """Fenced blocks of some languages, without the indentation of a list they stand in."""
    text = page.read_text(encoding="utf-8")
    found = [(indent, body) for indent, language, body in FENCE.findall(text) if language in languages]
    return [re.sub(rf"^{indent}", "", body, flags=re.MULTILINE) for indent, body in found]


def python_of(page):
    """The Python of a page as one module, each line where the page has it, so that a traceback points there."""
    text = page.read_text(encoding="utf-8")
    lines = [""] * len(text.splitlines())
    for found in FENCE.finditer(text):
        if found[2] == "python":
            first = text.count("\n", 0, found.start(3))
            body = [line.removeprefix(found[1]) for line in found[3].splitlines()]
            lines[first : first + len(body)] = body
    return "\n".join(lines)


def commands(page):
    """Words of every command line: continued lines joined, variables before and ``&&`` between commands taken off."""
    for block in blocks(page, "bash", "sh", "console"):
        for line in block.replace("\\\n", " ").splitlines():
            for command in re.split(r"&&|;|\|", line.removeprefix("$ ")):
                words = shlex.split(command, comments=True)
                while words and re.match(r"\w+=", words[0]):
                    words = words[1:]
                if words:
                    yield words


def with_blocks(*languages):
    pages = [page for page in PAGES if page.exists() and blocks(page, *languages)]
    return pytest.mark.parametrize("page", pages, ids=page_name)


@pytest.fixture(scope="session")
def demo_model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model") / "final"
    Embedder(EmbedderSettings(QwenVL(scratch=Scratch())), texts=["a red circle"]).save(folder)
    return folder


@pytest.fixture
def folder_of_examples(tmp_path, monkeypatch, demo_model, picture):
    """A folder with the files that the pages speak of."""
    (tmp_path / "runs/demo").mkdir(parents=True)
    (tmp_path / "runs/demo/final").symlink_to(demo_model)
    (tmp_path / "frames").mkdir()
    for seed, name in enumerate(("cat.jpg", "dog.jpg", "frames/1.jpg", "frames/2.jpg")):
        picture(112, 84, seed=seed).save(tmp_path / name)
    write_clip(tmp_path / "clip.mp4")
    document = FPDF(unit="pt", format=(100, 50))
    for _ in range(3):
        document.add_page()
    document.output(str(tmp_path / "report.pdf"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write_clip(path, num_frames=16):
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=8)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for number in range(num_frames):
            grey = np.full((48, 64, 3), 15 * number, dtype=np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(grey, format="rgb24")))
        container.mux(stream.encode())


def test_the_pages_are_found():
    found = {page_name(page) for page in PAGES if page.exists()}

    wanted = {"index", "concepts", "data", "recipes", "models", "training", "evaluation", "speed", "exactness"}
    assert found >= {"README.md", "CONTRIBUTING.md", *(f"docs/{name}.md" for name in wanted)}
    assert len([name for name in found if name.startswith("docs/adr/")]) >= 10


@with_blocks("python")
def test_python_blocks_run_one_after_the_other(page, folder_of_examples):
    exec(compile(python_of(page), page, "exec"), {"__name__": "page"})


@with_blocks("yaml")
def test_yaml_blocks_are_read_by_what_reads_such_files(page, tmp_path):
    for text in blocks(page, "yaml"):
        content = parse_yaml(text, page_name(page))
        if "stages" in content:
            read_settings(Recipe, content)
        elif "tasks" in content:
            (tmp_path / "benchmark.yaml").write_text(text)
            assert read_benchmark(tmp_path / "benchmark.yaml").tasks
        elif "entries" in content:
            (tmp_path / "expected.yaml").write_text(text)
            assert read_expected(tmp_path / "expected.yaml")
        elif "backbone" in content:
            read_settings(EmbedderSettings, content)
        elif all(isinstance(value, dict) and "table" in value for value in content.values()):
            read_settings(Stage, {"mixture": content, "steps": 1})
        else:
            assert page.name == "CONTRIBUTING.md", f"{page_name(page)}: nothing reads\n{text}"


def test_rows_of_json_are_read_as_pairs_and_items(folder_of_examples):
    tables = blocks(ROOT / "docs/data.md", "json")
    for number, text in enumerate(tables):
        Path(f"{number}.jsonl").write_text(text, encoding="utf-8")

    pairs, items = open_table("0.jsonl"), dict(read_items("1.jsonl"))

    assert len(tables) == 2
    assert pairs[0].negatives[0].miner == "bm25"
    assert len(items) == 4


@with_blocks("bash", "sh", "console")
def test_commands_exist_and_know_their_options(page, capsys):
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)

    for words in commands(page):
        if words[0] == "make":
            assert {word for word in words[1:] if "=" not in word} <= set(targets), words
        elif Path(words[0]).name.startswith("python") and len(words) > 1 and words[1].startswith(COMMANDS):
            check_command(ROOT / words[1], words[2:], capsys)


def check_command(path, words, capsys):
    assert path.is_file(), f"no command {path.relative_to(ROOT)}"
    options = [word.split("=")[0] for word in words if word.startswith("--")]
    known = set(re.findall(r"--[\w-]+", help_of(path, capsys)))
    overrides = [option for option in options if option not in known]
    if path.name == "train.py":
        check_overrides(words, overrides)
    else:
        assert overrides == [], f"{path.relative_to(ROOT)} has no such options"


def help_of(path, capsys):
    spec = importlib.util.spec_from_file_location(f"command_{path.stem}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    with pytest.raises(SystemExit) as stop:
        module.main(["--help"])
    assert stop.value.code == 0
    return capsys.readouterr().out


def check_overrides(words, overrides):
    """The recipe is there and takes the overrides; a placeholder in capitals stands for any of them."""
    named = words[words.index("--config") + 1] if "--config" in words else None
    if named is None or not (ROOT / "configs" / named).is_file():
        assert named is None or "/" in named, f"no recipe {named} under configs/"
        return
    given = [part for option in overrides for part in (option, words[words.index(option) + 1])]
    assert read_recipe(ROOT / "configs" / named, given)


def test_the_tour_names_modules_that_are_there():
    tour = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8").split("## Add")[0]
    rows = [re.findall(r"`([^`]+)`", line.split("|")[1]) for line in tour.splitlines() if line.startswith("| `")]
    # after the first of a row, names stand beside it
    paths = [Path(row[0]).parent / Path(name).name for row in rows for name in row]
    named = {path for path in paths if "*" not in path.name}

    assert len(named) >= 30
    assert {str(path) for path in named if not (ROOT / "mmembed" / path).exists()} == set()
    folders = {path.parent.name for path in (ROOT / "mmembed").glob("*/__init__.py")}
    assert folders - {path.parts[0] for path in named} == set()


@pytest.mark.parametrize("page", FIELDS)
def test_every_setting_is_named_on_its_page(page):
    text = (ROOT / page).read_text(encoding="utf-8")
    fields = {f.name for settings in FIELDS[page] for f in dataclasses.fields(settings)}

    assert len(fields) >= 8
    assert {name for name in fields if f"`{name}`" not in text} == set()


def test_every_part_metric_pair_field_and_profile_is_named():
    text = {name: (ROOT / f"docs/{name}.md").read_text(encoding="utf-8") for name in PARTS | LISTS}

    parts = {
        name: {n for part in parts for n, made in subclasses(part).items() if not isabstract(made)}
        for name, parts in PARTS.items()
    }
    assert len(parts["models"]) >= 20
    for name, words in [*parts.items(), *LISTS.items()]:
        assert {word for word in words if f"`{word}" not in text[name]} == set()
