"""Show what a training step contains, token for token, and how the sources mix."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import rich.box  # noqa: E402
from rich.console import Console  # noqa: E402
from rich.table import Table  # noqa: E402
from rich.text import Text  # noqa: E402

from mmembed.commands import add_data_root  # noqa: E402
from mmembed.errors import InputError, nearest  # noqa: E402
from mmembed.models.prompts import Kind  # noqa: E402
from mmembed.recipe import Recipe, make_preprocessor  # noqa: E402
from scripts.tables import check_data  # noqa: E402
from scripts.train import chosen_recipe  # noqa: E402

if TYPE_CHECKING:
    from mmembed.training.inspection import ChunkView, PairView, RowView, SourceShare, Span

EXAMPLE = "example: python scripts/inspect_batch.py --config demo.yaml --stage pairs --step 100 --rows 4 --steps 50"
WIDTH = 100
# brackets and colours say the same, so that a file says what a terminal says
MARKS = {Kind.TEXT: ("", ""), Kind.INSTRUCTION: ("[", "]"), Kind.TEMPLATE: ("{", "}")}
STYLES = {Kind.TEXT: "", Kind.INSTRUCTION: "cyan", Kind.TEMPLATE: "dim", Kind.REGION: "yellow"}
LEGEND = "text  [instruction]  {template}  <medium> xN; tokens are divided by |"


def span_text(span: "Span") -> Text:
    """A span with its marks and colour."""
    style = STYLES.get(span.kind, "magenta")
    if span.kind not in MARKS and len(span.words) == 1:
        return Text(f"{span.words[0]} x{span.repeats}", style)
    before, after = MARKS.get(span.kind, ("", ""))
    return Text(before + "|".join(word.replace("\n", "\\n") for word in span.words) + after, style)


def row_text(row: "RowView") -> Text:
    """A row's tokens, and under them their number and positions."""
    ranges = [f"{axis} {low}..{high}" for axis, (low, high) in row.positions.items()]
    positions = ranges[0].removeprefix("time ") if len(set(row.positions.values())) == 1 else ", ".join(ranges)
    about = Text(f"\n{row.tokens} tokens, positions {positions}", "dim")
    return Text(" ").join(span_text(span) for span in row.spans) + about


def pairs_table(pairs: Sequence["PairView"], width: int) -> Table:
    """One line for the query and each target of every pair."""
    table = Table("pair", "", "tokens", box=rich.box.SIMPLE, caption=Text(LEGEND), width=width)
    for number, pair in enumerate(pairs):
        masked = f"\nmasked targets: {', '.join(map(str, pair.masked)) or 'none'}"
        table.add_row(Text(f"{number}\n{pair.source}\n{pair.query_id}"), "query", row_text(pair.query) + masked)
        for i, target in enumerate(pair.targets):
            table.add_row("", "negative" if i else "target", row_text(target))
        table.add_section()
    return table


def chunks_table(chunks: Sequence["ChunkView"]) -> Table:
    """The chunks that pass through the model, of distinct rows."""
    table = Table("chunk", "rows", "tokens", "media", "padding", box=rich.box.SIMPLE)
    for i, chunk in enumerate(chunks):
        table.add_row(str(i), str(chunk.rows), str(chunk.tokens), str(chunk.media), f"{chunk.padding:.1%}")
    return table


def shares_table(found: Sequence["SourceShare"], title: str) -> Table:
    """Rows of each source beside the expectation."""
    table = Table("source", "share", "rows", "expected", "difference", box=rich.box.SIMPLE, title=title)
    for share in found:
        difference = f"{share.rows - share.expected:+.1f}"
        table.add_row(Text(share.source), f"{share.share:.3g}", str(share.rows), f"{share.expected:.1f}", difference)
    return table


def stage_name(recipe: Recipe, wanted: str | None) -> str:
    """The stage asked for, else the first."""
    if wanted is not None and wanted not in recipe.stages:
        remedy = nearest(wanted, recipe.stages)
        raise InputError("--stage", expected=f"a stage of {recipe.name}", got=f"'{wanted}'", remedy=remedy)
    return wanted or next(iter(recipe.stages))


def inspect(options: argparse.Namespace, overrides: Sequence[str], console: Console) -> None:
    """Print what the options ask for."""
    # takes seconds, which --help and a wrong option need not wait for
    from mmembed.training.batches import PairPreparer
    from mmembed.training.inspection import shares, view_chunks, view_pairs
    from mmembed.training.stage_data import make_mixer, open_training

    recipe, data_root = chosen_recipe(options, overrides)
    check_data(recipe, data_root, parts=True)
    name = stage_name(recipe, options.stage)
    stage = recipe.stages[name]
    if not 0 <= options.step < stage.steps:
        expected = f"0 to {stage.steps - 1} in stage '{name}'"
        raise InputError("--step", expected=expected, got=options.step, remedy="steps are counted from 0")
    mixture = open_training(name, stage, seed=recipe.seed, data_root=data_root)
    preprocessor = make_preprocessor(recipe, data_root)
    mixer = make_mixer(
        name, stage, seed=recipe.seed, preprocessor=preprocessor, backbone=recipe.embedder.backbone
    )  # fmt: skip
    prepare = PairPreparer(
        preprocessor, stage.chunks, list(stage.mixture), mixer=mixer, filled=stage.objective.filled
    )  # fmt: skip
    batch = prepare(options.step, mixture.pairs(options.step))
    pairs = view_pairs(batch, preprocessor.tokenizer, stage.objective.build(stage.rules).excluded(batch.candidates))
    chunks = view_chunks(batch)
    rows = sum(chunk.rows for chunk in chunks)
    total = f"{len(pairs)} pairs, {len(batch.target_rows)} targets, {rows} distinct rows in {len(chunks)} chunks"
    console.print(f"{recipe.name}, stage {name}, step {options.step}: {total}", highlight=False)
    console.print(pairs_table(pairs[: options.rows], min(console.width, WIDTH)))
    console.print(chunks_table(chunks))
    if options.steps:
        title = f"steps {options.step} to {options.step + options.steps - 1}"
        console.print(shares_table(shares(mixture.sampler, options.step, options.steps), title))


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; 0 is success, 2 something in the input."""
    parser = argparse.ArgumentParser(description=__doc__, epilog=EXAMPLE, allow_abbrev=False)
    parser.add_argument("--config", required=True, metavar="NAME|PATH", help="the recipe; its settings are options")
    parser.add_argument("--stage", metavar="NAME", help="default: the first")
    parser.add_argument("--step", type=int, default=0, metavar="N", help="which step, from 0 (default: 0)")
    parser.add_argument("--rows", type=int, default=8, metavar="N", help="pairs to show (default: 8)")
    parser.add_argument("--steps", type=int, default=0, metavar="M", help="count the sources over M steps from there")
    parser.add_argument("--miniature", action="store_true", help="the recipe made small, as scripts/train.py makes it")
    add_data_root(parser)
    options, overrides = parser.parse_known_args(argv)
    try:
        inspect(options, overrides, Console(width=None if sys.stdout.isatty() else WIDTH))
    except InputError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
