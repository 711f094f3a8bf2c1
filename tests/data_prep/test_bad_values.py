"""What every converter does with a value that is not as it should be: it names the column, or does as published."""

from dataclasses import dataclass
from typing import Any

import pytest

from data_prep.converters import Converter, Media
from data_prep.converters.registry import CONVERTERS
from data_prep.engine.clones import LocalClone
from data_prep.engine.media_tree import names_of
from data_prep.engine.preparation import Wishes, prepare, row_names
from data_prep.engine.upstream_rows import read_rows
from data_prep.miniatures.draw import draw_source
from data_prep.source import SourceSet, read_source
from mmembed.errors import InputError

SETS = {
    "mmeb_pairs": "mmeb_train/VisDial",
    "colpali_pairs": "colpali_train/colpali_train_set",
    "visrag_pairs": "visrag_train/visrag_indomain",
    "docmatix_pairs": "docmatix/docmatix_images",
    "pixmo_pairs": "pixmo_docs/pixmo_docs",
    "llava_hound_answers": "llava_hound/video_caption_300k",
    "llava_hound_videos": "llava_hound/video_caption_300k_video",
    "clip_captions": "msrvtt_train/msrvtt_9k",
    "clip_labels": "ssv2_train/ssv2",
    "image_cls": "mmeb_eval/N24News",
    "image_qa": "mmeb_eval/OK-VQA",
    "image_i2t": "mmeb_eval/MSCOCO_i2t",
    "image_t2i": "mmeb_eval/WebQA",
    "image_i2i_vg": "mmeb_eval/RefCOCO-Matching",
    "vidore": "visdoc/ViDoRe_esg_reports_v2",
    "visrag": "visdoc/VisRAG_ChartQA",
    "video_labels": "mmeb_v2_video/K700",
    "video_options": "mmeb_v2_video/SmthSmthV2",
    "video_captions": "mmeb_v2_video/MSVD",
    "sibling_clips": "mmeb_v2_video/QVHighlight",
    "moments": "mmeb_v2_video/MomentSeeker",
    "mvbench": "mmeb_v2_video/MVBench",
    "videomme": "mmeb_v2_video/Video-MME",
    "nextqa": "mmeb_v2_video/NExTQA",
    "egoschema": "mmeb_v2_video/EgoSchema",
    "activitynetqa": "mmeb_v2_video/ActivityNetQA",
    "scar_pairs": "scar_train/RefCOCOg",
    "scar_ranked": "scar_eval/RefCOCOg",
    "cirr_pairs": "cirr_train/cirr",
    "fashioniq_pairs": "fashioniq_train/dress",
    "lasco_pairs": "lasco_train/lasco",
    "covr_pairs": "cc_coir_train/cc_coir",
    "megapairs_pairs": "megapairs_train/megapairs",
    "mtcir_pairs": "mtcir_train/mtcir",
    "image_captions": "image_captions/llava_pretrain",
    "cir_triplets": "cir_triplets/triplets",
    "masked_captions": "lincir_train/gcc_captions",
    "fashioniq": "fashioniq/dress",
    "cirr": "cirr/val",
    "cirr_unjudged": "cirr/test1",
    "circo": "circo/val",
    "circo_unjudged": "circo/test",
    "genecis_objects": "genecis/focus_object",
    "genecis_attributes": "genecis/focus_attribute",
    "covr": "covr/test",
}
"""A set of every converter."""
BAD: tuple[Any, ...] = (None, 7, "", [])

TEXT_TARGETS = {"qry_inst": ("",), "qry_text": (None, ""), "tgt_inst": BAD, "tgt_img_path": BAD}
GRADED, ASKED = {"score": (7,)}, {"question": ("",)}
TAKEN: dict[str, dict[str, tuple[Any, ...]]] = {
    # no picture, of which the word stays, and no negative
    "mmeb_pairs": dict.fromkeys(("qry_image_path", "pos_image_path", "neg_text", "neg_image_path"), (None, "")),
    # the prompt or the page is left
    "colpali_pairs": {"query": ("",)},
    "visrag_pairs": {"query": ("",), "source": (None, "")},
    "pixmo_pairs": {"query_text": ("",)},
    # a number names a clip, whose file is there
    "clip_captions": {"video_id": (7,)},
    "clip_labels": {"video_id": (7,)},
    # pictures without words; columns that the published parsers do not read
    **dict.fromkeys(("image_cls", "image_qa", "image_i2t"), TEXT_TARGETS),
    "image_t2i": {"qry_inst": ("",), "qry_img_path": BAD, "tgt_inst": ("",)},
    "image_i2i_vg": {"qry_inst": ("",), "qry_text": (None, ""), "tgt_inst": ("",)},
    **dict.fromkeys(("vidore", "visrag"), GRADED),
    # the clip is left, or the options
    "sibling_clips": {"query": ("",)},
    "moments": {"query": ("",), "input_frames": (None, ""), "negative_frames": ([],)},
    **dict.fromkeys(("mvbench", "videomme", "nextqa", "egoschema", "activitynetqa"), ASKED),
    "cirr_pairs": {"pairid": (7,)},
    "lasco_pairs": {"qid": (7,)},
    **{key: {"id": (7,)} for key in ("mtcir_pairs", "cir_triplets", "image_captions")},
    # a number names a query
    **{key: {"pairid": (7,)} for key in ("cirr", "cirr_unjudged")},
    **{key: {"id": (7,)} for key in ("circo", "circo_unjudged")},
}
"""Values that are taken, as the published code takes them, by converter and column."""


@dataclass(frozen=True)
class Opened:
    """The miniature of a set, ready to be converted with other values."""

    row: SourceSet
    converter: Converter
    parts: dict[str, list[dict[str, Any]]]
    media: Media

    def convert(self, part, place, column, value):
        """The error that a value makes, or None."""
        parts = {name: [dict(row) for row in rows] for name, rows in self.parts.items()}
        parts[part][place][column] = value
        rows = {name: iter(rows) for name, rows in parts.items()}
        if self.converter.pairs:
            made = list(self.converter.pairs(rows["rows"], self.row, self.media))
            assert len(made) == len(self.parts["rows"])
            errors = [one for one in made if isinstance(one, InputError)]
            return errors[0] if errors else None
        try:
            self.converter.ranked(rows, self.row, self.media)
        except InputError as error:
            return error
        return None


@pytest.fixture(scope="module")
def opened(tmp_path_factory):
    known = {}

    def of(name):
        if name not in known:
            known[name] = _open(SETS[name], tmp_path_factory.mktemp(name))
        return known[name]

    return of


def _open(name, root):
    source, _, key = name.partition("/")
    sets = read_source(source).only([key])
    row, copies = sets.sets[key], root / "copies"
    draw_source(sets, copies)
    prepare(sets, root / "data", copies=copies, wishes=Wishes(compare=False))
    converter = CONVERTERS[row.converter]
    clone = LocalClone(row.origin, copies / row.origin)
    names = row_names(row, converter, clone)
    parts = {
        part: list(read_rows([clone.folder / file for file in files], form=converter.forms.get(part, "records")))
        for part, files in names.items()
    }
    roots = dict.fromkeys((*names_of(row.media), "", *row.options.get("roots", ())))
    return Opened(row, converter, parts, Media(root / "data" / source / "media", root / "made", tuple(roots)))


def columns_of(name):
    """Part and column of all that a converter reads; of MVBench's alike parts one."""
    source, _, key = SETS[name].partition("/")
    row, parts = read_source(source).sets[key], CONVERTERS[name].columns
    if name == "mvbench":
        return [("state_change", column) for column in parts["state_change"]]
    found = [(part, column) for part, columns in parts.items() for column in columns]
    if name in ("video_captions", "clip_captions"):
        found += [("rows", column) for column in row.columns if ("rows", column) not in found]
    more = {
        "mmeb_pairs": ("neg_text", "neg_image_path"),
        "vidore": ("language",),
        "image_captions": ("id", "conversations"),
        "masked_captions": ("text",),
    }.get(name, ())
    return found + [("queries" if name == "vidore" else "rows", column) for column in more]


def test_every_converter_has_a_set_here():
    assert set(SETS) == set(CONVERTERS)


@pytest.mark.parametrize("name", SETS)
def test_the_miniature_itself_converts(opened, name):
    part, column = columns_of(name)[0]
    set_here = opened(name)

    assert set_here.convert(part, 0, column, set_here.parts[part][0][column]) is None


@pytest.mark.parametrize(("name", "part", "column"), [(name, *column) for name in SETS for column in columns_of(name)])
def test_a_value_that_is_no_value_is_refused_by_its_column_or_taken_as_published(opened, name, part, column):
    set_here, taken = opened(name), TAKEN.get(name, {}).get(column, ())
    # the second row, if that is one of the set's language
    place = 1 if len(set_here.parts[part]) > 1 and name != "vidore" else 0

    for value in BAD:
        error = set_here.convert(part, place, column, value)

        if value in taken:
            assert error is None, (value, str(error))
        else:
            assert error is not None, value
            assert column in error.where, (value, str(error))
            assert "row " in error.where
            assert (part == "rows") == error.where.startswith("row ")
