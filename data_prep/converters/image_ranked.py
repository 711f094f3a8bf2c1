r"""The 36 image sets of MMEB (arXiv:2410.05160): each query ranks candidates of its own, of which the first is right.

A row holds the words of both sides beside their texts and paths. They are taken apart here, and the benchmark's row
lays them out again. What the data say is compared with the published prompts, which a set's options ``query`` and
``target`` spell with ``{text}`` for the text, up to the line breaks that the published code adds at the end (option
``query_end``, one unless it says otherwise). An item that says otherwise gets a layout of its own, by which it reads
exactly as the published code writes it, and is counted in the notes.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial

from data_prep.converters import Converter, Media, Ranked, Record
from data_prep.converters.fields import in_row, maybe_text, text, texts
from data_prep.converters.published import stray
from data_prep.source import SourceSet
from mmembed.errors import InputError
from mmembed.items import Item

IMAGE = "<|image_1|>"
"""Stands in the data for a picture, also in text queries that have none (WebQA, EDIS)."""
COLUMNS = ("qry_inst", "qry_text", "qry_img_path", "tgt_inst", "tgt_text", "tgt_img_path")
END = "\n"
"""What the published code puts behind queries, and behind targets that have words of their own."""
OTHER_QUERY = "queries that the data word otherwise than the published prompt, and that are kept as they are worded"
OTHER_TARGET = "targets that the data word otherwise than the published prompt, and that are kept as they are worded"
OTHER_TEXT = "candidates left out for a first one of the same picture with another text"
REPEATED = "candidates that their query names twice"


@dataclass(frozen=True)
class Rule:
    """What a published parser makes of a row.

    Args:
        query_image: queries bring a picture; else they are texts, in which a stray image token may stand.
        stripped: blanks around the instruction of a query do not count.
        target_image: candidates are pictures, named by their paths; else they are texts, named by themselves.
        captioned: the caption of a candidate is part of its name.
    """

    query_image: bool = True
    stripped: bool = False
    target_image: bool = False
    captioned: bool = False


RULES = {
    "image_cls": Rule(),
    "image_qa": Rule(stripped=True),
    "image_i2t": Rule(),
    "image_t2i": Rule(query_image=False, target_image=True),
    "image_i2i_vg": Rule(stripped=True, target_image=True, captioned=True),
}
"""Rules by the names of the published parsers."""


def image_set(rule: Rule, parts: Mapping[str, Iterator[Record]], row: SourceSet, media: Media) -> Ranked:
    """The retrieval set of rows; a query is named by the number of its row.

    Raises:
        InputError: a row that lacks a picture, a text or a candidate: its number and the field.
    """
    making = _Making(rule, row, media, Ranked())
    for number, record in enumerate(parts["rows"]):
        with in_row(number):
            making.add(str(number), record)
    return making.made


@dataclass(frozen=True)
class _Making:
    rule: Rule
    row: SourceSet
    media: Media
    made: Ranked

    def add(self, name: str, record: Record) -> None:
        names = self._pictures(record) if self.rule.target_image else self._texts(record)
        self.made.note(REPEATED, len(names) - len(set(names)))
        self.made.query(name, self._query(record), {names[0]: 1.0}, names)

    def _query(self, record: Record) -> Item:
        words = text(record, "qry_inst", empty=True)
        instruction = words.replace(IMAGE, "").strip() or None
        if not self.rule.query_image:
            asked = text(record, "qry_text")
            if self._differs(OTHER_QUERY, f"{words} {asked}", "query", asked):
                return stray(f"{words} {asked}{self.row.options.get('query_end', END)}", IMAGE, "qry_inst")
            return Item.of({"text": asked}, instruction)
        words, asked = words.replace(IMAGE, ""), maybe_text(record, "qry_text")
        said = _said(f"\n{words.strip()}" if self.rule.stripped else words, asked)
        asked = _joined(asked)
        image = self._find(text(record, "qry_img_path"), "qry_img_path")
        if self._differs(OTHER_QUERY, said, "query", asked):
            return _as_said(image, said + END)
        return Item.of({"image": image, "text": asked}, instruction)

    def _texts(self, record: Record) -> list[str]:
        return [self.made.target(answer, partial(Item.of, answer)) for answer in texts(record, "tgt_text")]

    def _pictures(self, record: Record) -> list[str]:
        captions, paths = texts(record, "tgt_text", empty=True), texts(record, "tgt_img_path")
        if len(captions) != len(paths):
            raise InputError(
                "tgt_img_path", expected=f"{len(captions)} paths, one for each text of tgt_text", got=len(paths),
                remedy="download the rows again",
            )  # fmt: skip
        # the first caption decides for all of the row, as in the published parsers
        with_text = bool(captions[0].strip())
        words = text(record, "tgt_inst", empty=True).replace(IMAGE, "")
        make = partial(self._target, words, words.strip() or None, with_text)
        return [self._picture(make, path, caption, with_text) for path, caption in zip(paths, captions, strict=True)]

    def _picture(self, make: Callable[[str, str], Item], path: str, caption: str, with_text: bool) -> str:
        name = path + ":" + caption.strip('"') if self.rule.captioned else path
        shown = _joined(caption) if with_text else ""
        kept = self.made.corpus.get(name)
        if kept is not None:
            self.made.note(OTHER_TEXT, kept.text != shown)
        return self.made.target(name, partial(make, path, shown))

    def _target(self, words: str, instruction: str | None, with_text: bool, path: str, shown: str) -> Item:
        # an empty caption beside others leaves the space before it
        said = _said(f"{words} {shown}" if with_text else words, "")
        # the line break after the caption, which a candidate of VG without one lacks
        bare = self.rule.captioned and "{text}" in self.row.options["target"] and not with_text
        image = self._find(path, "tgt_img_path")
        if self._differs(OTHER_TARGET, said, "target", shown, otherwise=bare):
            return _as_said(image, said + ("" if self.rule.captioned and not with_text else END))
        return Item.of({"image": image, "text": shown}, instruction)

    def _differs(self, note: str, said: str, option: str, words: str, *, otherwise: bool = False) -> bool:
        """Whether the data say something else than the published prompt; it is noted."""
        prompt = self.row.options[option]
        wanted = prompt.replace("{text}", words) if words else prompt.replace(" {text}", "")
        otherwise = otherwise or said != wanted or words.startswith("\n")
        self.made.note(note, otherwise)
        return otherwise

    def _find(self, path: str, column: str) -> str:
        return str(self.media.find(path, column))


def _as_said(image: str, said: str) -> Item:
    """A picture and words that no row of a benchmark lays out again."""
    return Item.of({"image": image, "text": said.removeprefix(IMAGE), "layout": "{media}{text}"})


def _said(words: str, of_row: str) -> str:
    """What the published code writes for a picture and words, without the line break that it adds."""
    return _joined(f"{IMAGE} {words} {of_row}" if of_row else f"{IMAGE} {words}")


def _joined(words: str) -> str:
    """The words without spaces before line breaks, as the published code has them beside a picture."""
    return words.replace(" \n", "\n")


CONVERTERS: dict[str, Converter] = {
    name: Converter(ranked=partial(image_set, rule), columns={"rows": COLUMNS}) for name, rule in RULES.items()
}
