"""Items in the layouts that a prompt style has for each side."""

from dataclasses import replace

from mmembed.items import Item, pieces_of
from mmembed.models.settings import LaidOutPrompt, PromptStyle, Side


def laid_out(item: Item, style: PromptStyle, side: Side) -> Item:
    """The item with the style's layout instead of its own, if the style has layouts.

    Args:
        item: to be written.
        style: how items are written.
        side: that the item is on.

    Returns:
        The item itself under any other style. Where the layout has no place for an instruction, it begins the text.
    """
    if not isinstance(style, LaidOutPrompt):
        return item
    layouts = style.query if side == "query" else style.target
    if side == "query" and item.instruction is None and style.uninstructed is not None:
        layouts = style.uninstructed
    takes_instruction = "instruction" in {slot for _, slot in pieces_of(getattr(layouts, _holds(item)))}
    if item.instruction and not takes_instruction:
        item = _said_first(item)
    instruction = item.instruction if takes_instruction else None
    return replace(item, layout=getattr(layouts, _holds(item)), instruction=instruction, verbatim=False)


def _holds(item: Item) -> str:
    """The field of Layouts that speaks of an item."""
    if not item.media:
        return "text"
    return "both" if any(isinstance(part, str) and part for part in item.content) else "media"


def _said_first(item: Item) -> Item:
    """The item with its instruction before the words of its text."""
    content = list(item.content)
    first = next((i for i, part in enumerate(content) if isinstance(part, str)), len(content))
    words = [item.instruction or "", *map(str, content[first : first + 1])]
    content[first : first + 1] = [" ".join(word for word in words if word)]
    return replace(item, content=tuple(content), instruction=None)
