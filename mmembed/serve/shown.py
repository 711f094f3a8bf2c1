"""What the page says and shows beside its controls, as HTML."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from html import escape
from typing import Any

from mmembed.errors import InputError
from mmembed.evaluation.thumbnails import Shown, Thumbnails
from mmembed.items import Item
from mmembed.media.settings import MediaSettings
from mmembed.serve.search import Hit, Searcher

NOTHING_ASKED = "Nothing asked yet. Type words, or give a picture, a clip or a page, and search."
NOTES = "Otherwise than when the index was made; scores may differ in the last digits"
SIDE_PX = 224


def results(hits: Sequence[Hit], media: MediaSettings, *, asked: str, num_items: int) -> str:
    """The hits, best first, each with its pictures and its score, under what was asked of how many."""
    thumbnails = _thumbnails(media)
    cards = "".join(_card(place, hit, thumbnails) for place, hit in enumerate(hits, start=1))
    head = f'<p class="asked" role="status">{len(hits)} of {num_items:,} items for {escape(asked)}</p>'
    return f'{head}<ol class="hits" aria-label="results">{cards}</ol>'


def preview(item: Item, media: MediaSettings) -> str:
    """A clip or a page as the model sees it.

    Raises:
        InputError: it cannot be opened.
    """
    return "".join(_part(part) for part in _thumbnails(media).show(item))


def said(words: str) -> str:
    """A plain sentence where results would be."""
    return f'<p class="said">{escape(words)}</p>'


def warning(error: InputError) -> str:
    """What is wrong with what was given, as a person reads it."""
    told = _sentence(f"expected {error.expected}, got {error.got}")
    return (
        f'<div class="warning" role="alert"><strong>{escape(error.where)}</strong>'
        f"<p>{escape(told)}</p><p>{escape(_sentence(error.remedy))}</p></div>"
    )


def facts(searcher: Searcher) -> str:
    """What model and index are, and what differs from when the index was made."""
    tables = {"Model": _model_facts(searcher), "Index": _index_facts(searcher)}
    shown = "".join(f"<h3>{title}</h3>{_table(rows)}" for title, rows in tables.items())
    notes = "".join(f"<li>{escape(note)}</li>" for note in searcher.notes)
    if notes:
        shown += f"<h3>{NOTES}</h3><ul>{notes}</ul>"
    parts = searcher.index.about["identity"]
    shown += f"<details><summary>Every setting, as when the index was made</summary>{_table(parts)}</details>"
    return f'<div class="facts">{shown}</div>'


def _model_facts(searcher: Searcher) -> dict[str, object]:
    model = searcher.model
    settings = model.settings
    backbone: Any = settings.backbone
    return {
        "opened from": backbone.path,
        "backbone": type(backbone).__name__,
        "prompt": type(settings.prompt).__name__,
        "pooler": type(settings.pooler).__name__,
        "regions": "none" if settings.regions is None else settings.regions,
        "adapter": "yes" if model.has_adapter else "no",
        "weights": searcher.weights,
        "parameters": f"{sum(p.numel() for p in model.parameters()):,}",
        "width": model.width,
        "dtype": str(next(model.parameters()).dtype).removeprefix("torch."),
        "device": model.device,
    }


def _index_facts(searcher: Searcher) -> dict[str, object]:
    index = searcher.index
    by_region = "no, one vector an item"
    if index.is_by_region:
        by_region = f"yes, {sum(region > 0 for region in index.vectors.regions):,} regions"
    return {
        "folder": index.directory,
        "item table": index.table.path,
        "items": f"{len(index):,}",
        "vectors": f"{len(index.vectors.ids):,}",
        "region-indexed": by_region,
        "instruction": index.about["instruction"] or "that of each item",
        "of regions": index.about.get("region_instruction") or "the same",
        "made by": index.manifest["model"],
    }


def _table(rows: Mapping[str, object]) -> str:
    cells = (
        f'<tr><th scope="row">{escape(name)}</th><td>{escape(str(value))}</td></tr>' for name, value in rows.items()
    )
    return f"<table>{''.join(cells)}</table>"


def _card(place: int, hit: Hit, thumbnails: Thumbnails) -> str:
    try:
        content = "".join(_part(part) for part in thumbnails.show(hit.item))
    except InputError as error:  # a file that went away must not take the other hits with it
        content = warning(error)
    region = f' <span class="object">object {hit.region}</span>' if hit.region else ""
    caption = (
        f'<span class="place">{place}</span> <span class="id">{escape(hit.id)}</span>{region} '
        f'<span class="score">{hit.score:.3f}</span>'
    )
    return f'<li data-id="{escape(hit.id)}"><figure>{content}<figcaption>{caption}</figcaption></figure></li>'


def _part(part: Shown) -> str:
    if not part.pictures:
        return f"<blockquote>{escape(part.text)}</blockquote>"
    pictures = "".join(
        f'<img src="{picture.uri}" width="{picture.width}" height="{picture.height}" alt="{escape(part.text)}">'
        for picture in part.pictures
    )
    return f'<div class="strip frames-{len(part.pictures)}">{pictures}</div>'


def _thumbnails(media: MediaSettings) -> Thumbnails:
    """New ones each time: a page that is open for weeks must not keep every picture that it showed."""
    return Thumbnails(replace(media, square=None), side_px=SIDE_PX)


def _sentence(words: str) -> str:
    return f"{words[:1].upper()}{words[1:].rstrip('.')}."
