"""The synthetic CIRR and CIRCO of the reference code's goldens as retrieval sets, their pictures words."""

import json

import numpy as np
import torch
import torch.nn.functional as F

from mmembed.evaluation.benchmark import Task
from mmembed.evaluation.retrieval_set import RetrievalSet
from mmembed.items import Item
from tests.cases import GOLDEN

READERS = GOLDEN / "cir/readers"
CIRCO = Task("val", "circo/val", "map@5", ks=(5, 10, 25, 50))
CIRR = Task("test1", "cirr/test1", "hit@1", ks=(1, 5, 10, 50), reference="removed")


def of_json(path):
    return json.loads((READERS / path).read_text())


def circo(split="val"):
    images = of_json("CIRCO/COCO2017_unlabeled/annotations/image_info_unlabeled2017.json")["images"]
    rows = of_json(f"CIRCO/annotations/{split}.json")
    return RetrievalSet(
        queries={str(row["id"]): Item((row["relative_caption"], row["shared_concept"])) for row in rows},
        corpus={str(image["id"]): Item.of(f"picture {image['id']}") for image in images},
        relevance={
            str(row["id"]): {str(i): 1.0 + (i == row["target_img_id"]) for i in row["gt_img_ids"]}
            for row in rows
            if split == "val"
        },
        groups={str(row["id"]): {"aspect": tuple(row["semantic_aspects"])} for row in rows if split == "val"},
        references={str(row["id"]): [str(row["reference_img_id"])] for row in rows},
    )


def cirr(split="test1"):
    names = of_json(f"CIRR/cirr/image_splits/split.rc2.{split}.json")
    rows = of_json(f"CIRR/cirr/captions/cap.rc2.{split}.json")
    return RetrievalSet(
        queries={str(row["pairid"]): Item.of(row["caption"]) for row in rows},
        corpus={name: Item.of(f"picture {name}") for name in names},
        relevance={str(row["pairid"]): {row["target_hard"]: 1.0} for row in rows if split == "val"},
        candidates={
            str(row["pairid"]): [m for m in row["img_set"]["members"] if m != row["reference"]] for row in rows
        },
        references={str(row["pairid"]): [row["reference"]] for row in rows},
    )


def write_set(folder, retrieval_set):
    """The set as files."""
    rows = {
        "queries": [{"id": i, "content": list(item.content)} for i, item in retrieval_set.queries.items()],
        "corpus": [{"id": i, "text": item.text} for i, item in retrieval_set.corpus.items()],
    }
    for name in ("relevance", "candidates", "references"):
        if given := getattr(retrieval_set, name):
            rows[name] = [{"query_id": query, "targets": targets} for query, targets in given.items()]
    if retrieval_set.groups:
        rows["groups"] = [{"query_id": query, "groups": groups} for query, groups in retrieval_set.groups.items()]
    folder.mkdir(parents=True)
    for name, lines in rows.items():
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def golden_vectors(retrieval_set, split):
    """Queries and targets of a golden split: the reference code's sum of a text and the reference's pseudo-word."""
    arrays = np.load(READERS / "embeddings.npz")
    images, tokens, texts = (
        dict(zip(map(str, arrays[names]), torch.tensor(arrays[feats]), strict=True))
        for names, feats in (
            ("image_names", "image_feats"),
            ("token_names", "token_feats"),
            ("text_keys", "text_feats"),
        )
    )
    queries = [
        texts[f"{split}/{place}"] + tokens[retrieval_set.references[query][0]]
        for place, query in enumerate(retrieval_set.queries)
    ]
    targets = [images[name] for name in retrieval_set.corpus]
    return (F.normalize(torch.stack(rows).float(), dim=-1) for rows in (queries, targets))
