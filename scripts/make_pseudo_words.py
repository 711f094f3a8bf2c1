"""Find a pseudo-word for each picture, and write what a mapping network learns them from.

For a recipe with the objective Distillation: its table, in which each picture stands with phrases about things like it,
and the file of pseudo-words, found one by one (SEARLE, arXiv:2303.15247, section 3).
"""

import argparse
import random
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from mmembed.commands import add_data_root  # noqa: E402
from mmembed.data.tables import write_pairs  # noqa: E402
from mmembed.errors import InputError  # noqa: E402
from mmembed.items import Item, Pair  # noqa: E402
from mmembed.losses.settings import Distillation  # noqa: E402
from mmembed.models.settings import TextualInversion  # noqa: E402
from mmembed.progress import track  # noqa: E402
from mmembed.recipe import Recipe, make_embedder, read_recipe  # noqa: E402
from mmembed.training.settings import Stage  # noqa: E402

if TYPE_CHECKING:
    from torch import Tensor

    from mmembed.models.embedder import Embedder
    from mmembed.models.textual_inversion import InversionComposer

EXAMPLE = """example:
  ln -s /imagenet/test data/pseudo_words/pictures
  python scripts/make_pseudo_words.py --config searle.yaml --pictures data/pseudo_words/pictures --phrases phrases.json

FILE of --phrases is {"concept": ["a photo of concept that ...", ...], ...}; each phrase holds its concept."""
SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")
BATCH = 32


@dataclass(frozen=True)
class Wishes:
    """How pseudo-words are found, and phrases drawn.

    Args:
        inversion: settings of the optimisation; its phrases are those of the table, too.
        near: a picture's phrases are about so many concepts most like it.
        pairs: rows of the table for each picture.
        seed: of the phrases drawn.
        batch: pictures that are optimised together.
    """

    inversion: TextualInversion
    near: int = 150
    pairs: int = 8
    seed: int = 0
    batch: int = BATCH

    def __post_init__(self) -> None:
        for name in ("near", "pairs", "batch"):
            if (value := getattr(self, name)) < 1:
                raise InputError(f"--{name}", expected="at least 1", got=value, remedy="raise it")


def stage_of(recipe: Recipe) -> tuple[Stage, Distillation]:
    """The first stage that distils, and its objective.

    Raises:
        InputError: there is none, or it draws from several tables.
    """
    for name, stage in recipe.stages.items():
        if isinstance(stage.objective, Distillation):
            if len(stage.mixture) != 1:
                got = f"{len(stage.mixture)} sources"
                raise InputError(f"stages.{name}.mixture", expected="one source", got=got, remedy="leave one")
            return stage, stage.objective
    raise InputError(
        "--config", expected="a recipe with the objective Distillation", got=recipe.name, remedy="e.g. searle.yaml"
    )


def make(recipe: Recipe, data_root: Path, pictures: Sequence[Path], wishes: Wishes) -> tuple[Path, Path]:
    """Write the table and the pseudo-words of a recipe below the data root.

    Returns:
        The table and the file of pseudo-words.

    Raises:
        InputError: a picture, recipe or file of phrases that cannot be used.
    """
    from mmembed.training.teachers import write_teachers

    stage, objective = stage_of(recipe)
    (source,) = stage.mixture.values()
    table, teachers = data_root / source.table, data_root / objective.teachers
    for picture in pictures:
        if not picture.absolute().is_relative_to(table.parent.absolute()):
            raise InputError(
                picture, expected=f"pictures below {table.parent}, the folder of the table", got="one elsewhere",
                remedy=f"link their folder there: ln -s FOLDER {table.parent}/pictures",
            )  # fmt: skip
    embedder = make_embedder(recipe, data_root).eval()
    queries = [Item.of({"image": picture.absolute()}) for picture in pictures]
    composer: Any = wishes.inversion.build_for(embedder.backbone)
    phrases = spoken(composer.phrases)
    words, vectors = invert(embedder, composer, queries, wishes.batch)
    known = composer.directions(embedder.backbone).cpu()[[concept in phrases for concept in composer.phrases]]
    pairs = phrased(queries, vectors, phrases, known, wishes)
    write_teachers(teachers, queries, words, embedder)
    write_pairs(table, pairs)
    return table, teachers


def invert(
    embedder: "Embedder", composer: "InversionComposer", items: Sequence[Item], batch_size: int
) -> tuple["Tensor", "Tensor"]:
    """The pseudo-words ``[N, W]`` of pictures, and their vectors ``[N, D]``."""
    import torch

    from mmembed.models.sequence import collate

    words, vectors = [], []
    backbone: Any = embedder.backbone
    for start in track(range(0, len(items), batch_size), "find pseudo-words"):
        batch = collate(embedder.prepare(items[start : start + batch_size], "query")).to(embedder.device)
        with torch.no_grad():
            seen, _ = backbone.media(backbone.embed(batch, embedder.vision(batch)))
        words.append(composer.words(seen, backbone).cpu())
        vectors.append(seen.cpu())
    return torch.cat(words), torch.cat(vectors)


def phrased(
    queries: Sequence[Item], vectors: "Tensor", phrases: Mapping[str, Sequence[str]], known: "Tensor", wishes: Wishes
) -> list[Pair]:
    """Rows of the table: a picture, a phrase about a concept like it, and the phrase with the placeholder for it.

    Args:
        queries: the pictures.
        vectors: theirs ``[N, D]``.
        phrases: about each concept.
        known: the directions of the concepts ``[C, D]``.
        wishes: how many rows, and what they draw.
    """
    from torch.nn.functional import normalize

    concepts = list(phrases)
    nearest = (normalize(vectors, dim=-1) @ known.T).topk(min(wishes.near, len(concepts))).indices.tolist()
    draw = random.Random(wishes.seed)
    spelt = f" {wishes.inversion.placeholder} "
    pairs = []
    for number, (query, near) in enumerate(zip(queries, nearest, strict=True)):
        for _ in range(wishes.pairs):
            concept = concepts[draw.choice(near)]
            phrase = draw.choice(phrases[concept])
            filled = " ".join(word_of(concept).sub(lambda _: spelt, phrase, count=1).split())
            pairs.append(Pair(query, (Item.of(phrase), Item.of(filled)), query_id=f"{number:07d}"))
    return pairs


def spoken(phrases: Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
    """The phrases in which the concept is a word of its own: the hat in "that" is none.

    Raises:
        InputError: none is left.
    """
    whole = {concept: [text for text in texts if word_of(concept).search(text)] for concept, texts in phrases.items()}
    left = {concept: texts for concept, texts in whole.items() if texts}
    if not left:
        raise InputError("--phrases", expected="phrases with their concept in it", got="none", remedy="see --help")
    return left


def word_of(concept: str) -> re.Pattern[str]:
    """Finds a concept as a word of its own."""
    return re.compile(rf"(?<!\w){re.escape(concept)}(?!\w)")


def pictures_below(folder: Path, limit: int | None) -> list[Path]:
    """The pictures below a folder, in the order of their paths.

    Raises:
        InputError: there is none.
    """
    found = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)[:limit]
    if not found:
        raise InputError(folder, expected=f"pictures ({', '.join(SUFFIXES)})", got="none", remedy="check --pictures")
    return found


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; 0 is success, 2 something in the input."""
    from scripts.train import find_config

    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLE, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", required=True, metavar="NAME|PATH", help="the recipe, e.g. searle.yaml")
    parser.add_argument(
        "--pictures", type=Path, required=True, metavar="DIR", help="pictures, at any depth, beside the table"
    )
    parser.add_argument("--phrases", type=Path, required=True, metavar="FILE", help="phrases about concepts, as JSON")
    parser.add_argument("--limit", type=int, metavar="N", help="only the first N pictures")
    parser.add_argument("--steps", type=int, default=350, metavar="N", help="of a picture's optimisation (350)")
    parser.add_argument(
        "--near", type=int, default=150, metavar="N", help="concepts a picture's phrases are about (150)"
    )
    parser.add_argument("--pairs", type=int, default=8, metavar="N", help="rows of the table for each picture (8)")
    parser.add_argument("--batch", type=int, default=BATCH, metavar="N", help=f"pictures at once ({BATCH})")
    parser.add_argument("--seed", type=int, default=0, help="of what is drawn (0)")
    add_data_root(parser)
    options = parser.parse_args(argv)
    try:
        inversion = TextualInversion(steps=options.steps, phrases=str(options.phrases), seed=options.seed)
        wishes = Wishes(inversion, options.near, options.pairs, options.seed, options.batch)
        recipe = read_recipe(find_config(options.config))
        pictures = pictures_below(options.pictures, options.limit)
        table, teachers = make(recipe, options.data_root, pictures, wishes)
    except InputError as error:
        print(error, file=sys.stderr)
        return 2
    print(f"{len(pictures)} pictures: {table} and {teachers}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
