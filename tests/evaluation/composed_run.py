"""A run on composed queries written by hand, for tests of grids."""

import json
import shutil

from mmembed.evaluation.benchmark import read_benchmark
from mmembed.evaluation.rankings import Ranking, write_rankings
from tests.evaluation import drawn

BENCHMARK = """
tasks:
  val: {data: composed, metric: map@5, join: change}
  subset: {data: composed, metric: hit@1, candidates: local}
  clips: {data: clips, metric: hit@1}
"""
TEXTS = ["make it blue", "show three of them <on> a beach, and remove everything else that can be seen"]
SHAPES = [f"{colour}-{shape}" for colour in drawn.COLOURS for shape in drawn.SHAPES]
PLACES = {"q0": 1, "q1": 3, "q2": 6, "q3": None}
"""Ranks of the right targets; the reference is always second."""


def draw_run(root):
    """An evaluation of composed queries, their own candidates, and clips: ``data``, ``out`` and ``toy.yaml``."""
    drawn.draw_gallery(root)
    shutil.rmtree(root / "data/composed")
    (root / "data/composed").mkdir()
    queries, right, groups, rankings, own = {}, {}, {}, [], []
    for name in SHAPES:
        drawn.draw_shape(*name.split("-")).save(root / f"data/composed/{name}.png")
    for i, (query, place) in enumerate(PLACES.items()):
        reference, target = SHAPES[i], SHAPES[i + 6]
        content = [{"image": f"{reference}.png"}, TEXTS[i % 2], f"concept {i}"]
        queries[query] = {"content": content, "verbatim": False}
        right[query], groups[query] = target, {"aspect": ["addition"] if i % 2 else ["negation", "viewpoint"]}
        order = [name for name in SHAPES if name not in (reference, target)]
        order.insert(1, reference)
        if place is not None:
            order.insert(place - 1, target)
        order = order[:8]
        scores = [0.9 - 0.05 * j for j in range(len(order))]
        rankings.append(Ranking(query, order, scores, {target: 1.0}, place))
        own.append(Ranking(query, [SHAPES[i + 7], target], [0.5, 0.4], {target: 1.0}, 2))
    corpus = {name: {"image": f"{name}.png"} for name in SHAPES}
    drawn.write_set(root / "data/composed", queries, corpus, right, groups)
    for name, rows in (
        ("candidates", {ranking.query_id: ranking.targets for ranking in own}),
        ("references", {query: [SHAPES[i]] for i, query in enumerate(PLACES)}),
    ):
        lines = [{"query_id": query, "targets": targets} for query, targets in rows.items()]
        drawn.write_rows(root / f"data/composed/{name}.jsonl", lines)
    (root / "toy.yaml").write_text(BENCHMARK)
    benchmark = read_benchmark(root / "toy.yaml")
    rows = {"val": drawn.row(0.25, metric="map@5", queries=4), "subset": drawn.row(0.0), "clips": drawn.row(0.5)}
    (root / "out/scores.json").write_text(json.dumps(drawn.scores(benchmark, rows)))
    for name, written in (("val", rankings), ("subset", own)):
        write_rankings(root / f"out/rankings/{name}.jsonl", written)
    return root
