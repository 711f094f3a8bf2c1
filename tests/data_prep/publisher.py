"""A publisher of two small sets: pairs of questions about pictures, and a retrieval set of the same pictures."""

from dataclasses import replace

from data_prep.engine.clones import LocalClone
from data_prep.miniatures.studio import Studio
from data_prep.source import MediaFiles, Source, SourceSet

ROWS = 8
MEDIA = MediaFiles(files=("pictures.zip",), into="images", root="images")
PAIRS = SourceSet(
    "pairs", "mmeb_pairs", "o/n", columns=("qry", "qry_image_path", "pos_text", "pos_image_path"), media=(MEDIA,)
)
INSTRUCTION = "<|image_1|>\nRepresent the given image with the following question:"
RANKED = SourceSet(
    "ranked", "image_qa", "o/n", config="ranked", split="test", media=(MEDIA,),
    options={"query": INSTRUCTION + " {text}"},
)  # fmt: skip

DRAWN = """
about: two small sets
defaults:
  repo: o/n
  rows: 8
  licence: mit
  media: [{files: [pictures.zip], into: images, root: images}]
sets:
  pairs: {converter: mmeb_pairs, columns: [qry]}
  ranked:
    converter: image_qa
    config: ranked
    split: test
    options: {query: "<|image_1|>\\nRepresent the given image with the following question: {text}"}
"""
"""The source of the two, as a file of sources."""


def pair_rows():
    return [
        {
            "qry": f"<|image_1|>\nwhat is {i}?", "qry_image_path": f"images/{i}.png",
            "pos_text": f"{i}", "pos_image_path": "",
        }
        for i in range(ROWS)
    ]  # fmt: skip


def ranked_rows():
    return [
        {
            "qry_inst": INSTRUCTION,
            "qry_text": f"what is {i}?", "qry_img_path": f"{i}.png",
            "tgt_inst": "", "tgt_text": [f"{i}", "other", f"{i + 1}"], "tgt_img_path": ["", "", ""],
        }
        for i in range(ROWS)
    ]  # fmt: skip


class Publisher:
    """Draws a local copy below ``root/copies``."""

    def __init__(self, root):
        self.copies = root / "copies"
        self.studio = Studio(self.copies)
        self.repo = self.studio.repo("o/n")
        self.packed = root / "packed"
        for i in range(ROWS):
            Studio(root).picture(self.packed / f"{i}.png")
        self.rows_of_pairs(pair_rows())
        self.rows_of_ranked(ranked_rows())
        self.pack()

    @property
    def pair_file(self):
        return self.repo / "data/train-00000-of-00001.parquet"

    @property
    def archive(self):
        return self.repo / "pictures.zip"

    def rows_of_pairs(self, rows):
        self.studio.parquet(self.pair_file, rows)

    def rows_of_ranked(self, rows):
        self.studio.parquet(self.repo / "ranked/test-00000-of-00001.parquet", rows)

    def pack(self):
        self.studio.archive(self.archive, self.packed)

    def clone(self):
        return LocalClone("o/n", self.repo)


def source(*rows, **fields):
    """A source of these sets, with other values of some fields."""
    return Source("drawn", "two small sets", {row.name: replace(row, **fields) for row in rows or (PAIRS, RANKED)})
