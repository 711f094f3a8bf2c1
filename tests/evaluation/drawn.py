"""Evaluations written by hand for tests of reports: retrieval sets, rankings and scores as files, and no model."""

import json
import math
from dataclasses import asdict

import numpy as np
import PIL.Image
import PIL.ImageDraw
from fpdf import FPDF

from mmembed.data.masks import runs_of_mask
from mmembed.evaluation.benchmark import Benchmark, Passing, Task
from mmembed.evaluation.expected import Expected, ExpectedScore
from mmembed.evaluation.rankings import Ranking, write_rankings

PROTOCOL_ID = "0123456789ab"
COLOURS = {"red": (214, 69, 65), "blue": (52, 120, 190), "green": (70, 150, 90), "yellow": (235, 190, 60)}
SHAPES = ("circle", "square", "triangle")
SIZE = (320, 240)
PAGES = ("Invoice", "Minutes", "Recipe", "Timetable")
MOTIONS = {"right": (1, 0), "down": (0, 1), "left": (-1, 0), "up": (0, -1)}


def row(score, *, metric="hit@1", spread=0.05, blinds=None, **given):
    """A task's entry of scores.json; all is there, and what a test is about is given."""
    fixed = {
        "metric": metric,
        "score": score,
        "interval": [max(0.0, score - spread), min(1.0, score + spread)],
        "chance": 0.1,
        "blind": max(blinds.values()) if blinds else None,
        "blinds": blinds or {},
        "metrics": {metric: score},
        "groups": {},
        "macro": {},
        "part": None,
        "protocol_id": PROTOCOL_ID,
        "queries": 200,
        "corpus": 1000,
        "seconds": 1.5,
    }
    return fixed | given


def scores(benchmark, tasks, *, failed=None, quick=None, miniature=False, chosen=None):
    """The content of scores.json around the entries of its tasks, as it reads back."""
    protocols = {
        name: asdict(benchmark.tasks[name]) | {"id": entry["protocol_id"], "revision": "f00d" * 8}
        for name, entry in tasks.items()
    }
    protocol = {"benchmark": benchmark.name, "model": "runs/drawn/final", "mmembed": "0.1.0", "identity": "ab" * 16}
    content = {
        "protocol": protocol | {"quick": quick, "miniature": miniature, "chosen": chosen, "tasks": protocols},
        "tasks": tasks,
        "failed": failed or {},
        "partial": set(tasks) != set(benchmark.tasks),
    }
    return json.loads(json.dumps(content))


def ranked(query_id, corpus, right, place):
    """A ranking with the right target at a place counted from 1, the others around it in their order."""
    targets = [target for target in corpus if target != right]
    targets.insert(place - 1, right)
    return Ranking(query_id, targets, [0.91 - 0.07 * i for i in range(len(targets))], {right: 1.0}, place)


def write_rows(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def write_set(folder, queries, corpus, right, groups=None):
    """A retrieval set from plain rows, ids as keys."""
    for name, rows in (("queries", queries), ("corpus", corpus)):
        write_rows(folder / f"{name}.jsonl", [{"id": key, **value} for key, value in rows.items()])
    write_rows(folder / "relevance.jsonl", [{"query_id": q, "targets": {t: 1}} for q, t in right.items()])
    if groups:
        write_rows(folder / "groups.jsonl", [{"query_id": q, "groups": own} for q, own in groups.items()])


def write_evaluation(output, content, rankings):
    """scores.json and rankings/ of an evaluation."""
    output.mkdir(parents=True, exist_ok=True)
    (output / "scores.json").write_text(json.dumps(content))
    for name, own in rankings.items():
        write_rankings(output / "rankings" / f"{name}.jsonl", own)


def draw_shape(colour, shape, centre=(160, 120), size=SIZE):
    picture = PIL.Image.new("RGB", size, (238, 235, 228))
    pen, (x, y) = PIL.ImageDraw.Draw(picture), centre
    if shape == "circle":
        pen.ellipse((x - 60, y - 60, x + 60, y + 60), fill=COLOURS[colour])
    elif shape == "square":
        pen.rectangle((x - 55, y - 55, x + 55, y + 55), fill=COLOURS[colour])
    else:
        pen.polygon([(x, y - 65), (x - 65, y + 55), (x + 65, y + 55)], fill=COLOURS[colour])
    return picture


def draw_gallery(folder):
    """An evaluation with one task of every kind of medium, one failed and one not evaluated.

    Returns:
        The benchmark, ``data_root`` and ``output`` as write_report takes them, and an entry to expect.
    """
    data, output = folder / "data", folder / "out"
    drawers = {
        "pictures": _pictures, "pages": _pages, "clips": _clips, "regions": _regions, "composed": _composed,
    }  # fmt: skip
    blinds = {"pictures": ("grey_image",), "composed": ("no_image", "no_text")}
    passing = Passing(aim=0.7)
    names = (*drawers, "broken", "later")
    tasks = {
        name: Task(name=name, data=name, metric="hit@1", blind=blinds.get(name, ()), passing=passing) for name in names
    }
    benchmark = Benchmark("gallery", tasks)
    rankings = {name: draw(data / name) for name, draw in drawers.items()}
    rows = {}
    for number, (name, own) in enumerate(rankings.items()):
        rates = {k: sum(r.first_hit <= k for r in own) / len(own) for k in (1, 5, 10)}
        sizes = {"queries": len(own), "corpus": len(own[0].targets), "protocol_id": f"{number}a1b2c3d4e5f"}
        blind = {way: 0.25 + 0.125 * i for i, way in enumerate(blinds.get(name, ()))}
        metrics = {f"hit@{k}": rate for k, rate in rates.items()}
        rows[name] = row(rates[1], spread=0.12, blinds=blind, metrics=metrics, **sizes)
    rows["composed"] |= {
        "groups": {
            "change": {"colour": {"score": 0.75, "queries": 4}, "shape": {"score": 0.5, "queries": 4}},
            "target": {
                shape: {"score": rate, "queries": 3} for shape, rate in zip(SHAPES, (1, 0.4, 0.55), strict=True)
            },
        },
        "macro": {"change": 0.625, "target": 0.65},
    }
    message = "task broken: queries.jsonl: row 7: image: expected a readable file, got broken/7.png; check --data-root"
    write_evaluation(output, scores(benchmark, rows, failed={"broken": message}), rankings)
    published = {
        "pictures": ExpectedScore(rows["pictures"]["score"] + 0.01),
        "pages": ExpectedScore(0.3),
        "regions": ExpectedScore(0.98),
        "clips": ExpectedScore(0.5, protocol_id="f" * 12),
        "later": ExpectedScore(0.4),
    }
    expected = Expected("paper", "group/model-2b", "arXiv:2507.00001 table 2, 2026-01", published, tolerance=0.02)
    return benchmark, {"data_root": data, "output": output}, expected


def _shapes(folder):
    """Twelve drawn shapes by id."""
    folder.mkdir(parents=True)
    found = {}
    for colour in COLOURS:
        for shape in SHAPES:
            name = f"{colour}-{shape}"
            draw_shape(colour, shape).save(folder / f"{name}.png")
            found[name] = {"image": f"{name}.png"}
    return found


def _pictures(folder):
    shapes = _shapes(folder)
    captions = {name: {"text": f"a {name.replace('-', ' ')} <b>on paper</b>"} for name in shapes}
    write_set(folder, shapes, captions, {name: name for name in shapes})
    return [ranked(name, captions, name, 3 if i % 4 == 3 else 1) for i, name in enumerate(shapes)]


def _pages(folder):
    folder.mkdir(parents=True)
    document = FPDF(unit="pt", format=(420, 594))
    for title in PAGES:
        document.add_page()
        document.set_font("Helvetica", size=36)
        document.cell(text=title)
        document.ln(50)
        document.set_font("Helvetica", size=14)
        document.multi_cell(w=340, text=f"What a page titled {title.lower()} says, line by line. " * 12)
    document.output(str(folder / "papers.pdf"))
    corpus = {title: {"pdf": "papers.pdf", "page": i} for i, title in enumerate(PAGES, start=1)}
    queries = {f"q{i}": {"text": f"where is the {title.lower()}?"} for i, title in enumerate(PAGES)}
    write_set(folder, queries, corpus, dict(zip(queries, PAGES, strict=True)))
    places = (1, 1, 2, 1)
    return [ranked(q, corpus, t, place) for q, t, place in zip(queries, PAGES, places, strict=True)]


def _clips(folder):
    for motion, (dx, dy) in MOTIONS.items():
        (folder / motion).mkdir(parents=True)
        for i in range(8):
            step = 10 * i - 35
            draw_shape("green", "circle", (160 + 2 * dx * step, 120 + dy * step)).save(folder / motion / f"{i}.png")
    corpus = {motion: {"video": motion} for motion in MOTIONS}
    queries = {f"moves {motion}": {"text": f"the circle moves {motion}"} for motion in MOTIONS}
    write_set(folder, queries, corpus, dict(zip(queries, MOTIONS, strict=True)))
    return [ranked(q, corpus, t, 1 + i % 3) for i, (q, t) in enumerate(zip(queries, MOTIONS, strict=True))]


def _regions(folder):
    folder.mkdir(parents=True)
    scene = draw_shape("red", "circle", (90, 120))
    scene.paste(draw_shape("blue", "square", (80, 120), (160, 240)), (160, 0))
    scene.save(folder / "scene.png")
    mask = np.array([[math.hypot(x - 90, y - 120) < 60 for x in range(SIZE[0])] for y in range(SIZE[1])])
    queries = {
        "box": {"image": "scene.png", "regions": [{"box": [185, 65, 295, 175]}]},
        "points": {"image": "scene.png", "regions": [{"points": [[240, 120, 1], [90, 120, 0]]}]},
        "mask": {"image": "scene.png", "regions": [{"mask": runs_of_mask(mask)}]},
    }
    corpus = {"red": {"text": "the red circle"}, "blue": {"text": "the blue square"}, "none": {"text": "nothing"}}
    right = {"box": "blue", "points": "blue", "mask": "red"}
    write_set(folder, queries, corpus, right)
    return [ranked(q, corpus, t, 2 if q == "points" else 1) for q, t in right.items()]


def _composed(folder):
    shapes = _shapes(folder)
    queries, right, groups, rankings = {}, {}, {}, []
    for i, colour in enumerate(list(COLOURS)[:4]):
        for change, target in (("colour", f"{list(COLOURS)[i - 1]}-circle"), ("shape", f"{colour}-square")):
            query = f"{colour}-{change}"
            words = {"colour": f"the same in {target.split('-')[0]}", "shape": "as a square"}[change]
            queries[query] = {"image": f"{colour}-circle.png", "text": words, "instruction": "change it so :"}
            right[query], groups[query] = target, {"change": [change], "target": [target.split("-")[1]]}
            # a miss finds the query's own picture first
            own = f"{colour}-circle"
            order = [own, *(name for name in shapes if name != own)]
            rankings.append(ranked(query, order, target, 7 if i == 3 else 1 + (change == "shape" and i % 2)))
    write_set(folder, queries, shapes, right, groups)
    return rankings
