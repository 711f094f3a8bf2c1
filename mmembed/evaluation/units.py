"""Units of work: which rows are embedded together, by an estimate of what each costs."""

from collections.abc import Sequence

from mmembed.items import Item, Video

UNIT_ROWS = 512
UNIT_COST = 1 << 19
"""Tokens, as estimated: about a minute of a large model's work, so that little is lost when a run is killed."""
UNITS_A_PROCESS = 4
"""Units are cut smaller until every process can have so many: uneven ones then even out."""
PICTURE_COST, TEXT_COST = 256, 0.25
"""Tokens of a picture or frame and of a character: guesses; dynamic units forgive them."""
USUAL_FRAMES = 8


def plan_units(costs: Sequence[float], world: int) -> list[list[int]]:
    """Cut rows into units of work, the dearest rows first.

    Args:
        costs: of each row, estimated.
        world: how many processes share them.

    Returns:
        The rows of each unit, each row in exactly one.
    """
    share = 1 if world == 1 else UNITS_A_PROCESS * world
    most_rows, most_cost = min(UNIT_ROWS, -(-len(costs) // share)), min(UNIT_COST, sum(costs) / share)
    units: list[list[int]] = []
    held = 0.0
    for row in sorted(range(len(costs)), key=lambda row: -costs[row]):
        if not units or len(units[-1]) == most_rows or held + costs[row] > most_cost:
            units.append([])
            held = 0.0
        units[-1].append(row)
        held += costs[row]
    return units


def cost(item: Item) -> float:
    """Roughly how many tokens an item has, without opening any file."""
    pictures = sum((part.num_frames or USUAL_FRAMES) if isinstance(part, Video) else 1 for part in item.media)
    return TEXT_COST * (len(item.text) + len(item.instruction or "")) + PICTURE_COST * pictures
