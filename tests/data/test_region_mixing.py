"""The prompts that a query's region becomes in training: what each kind is, and that nothing but the seed decides."""

import io
import json
import pickle
from collections import Counter
from dataclasses import replace

import numpy as np
import PIL.Image
import pytest

from mmembed import Image, Item, Pair, Region
from mmembed.data.batching import StepDataset, step_loader
from mmembed.data.mixture import open_mixture
from mmembed.data.prompt_shapes import Annotation
from mmembed.data.region_mixing import RegionMixer, example
from mmembed.data.settings import PROMPT_KINDS, RegionMixing, Sampling, Source
from mmembed.errors import InputError
from mmembed.media.settings import MediaSettings
from tests.cases import draw

SIZE = (60, 40)
BOX = (10.0, 8.0, 34.0, 28.0)
ALL = dict.fromkeys(PROMPT_KINDS, 1.0)


def ring(size=SIZE):
    """A mask with a hole in its middle."""
    mask = np.zeros(size[::-1], dtype=bool)
    mask[8:28, 10:34] = True
    mask[14:22, 18:26] = False
    return mask


def random(seed=0):
    return np.random.Generator(np.random.PCG64(seed))


def mixer(weights, *, seed=0, media=None, **settings):
    return RegionMixer(RegionMixing(weights, **settings), seed=seed, media=media or MediaSettings())


def pair(*regions, name="q", picture=None, source="s"):
    query = Item((Image(picture or draw(*SIZE), regions), "what is this?"), "Find the caption.", verbatim=False)
    return Pair(query, (Item.of("a ring"),), query_id=name, source=source)


def drawn(weights, region, steps=200, **choices):
    """What a region becomes at each step: a region, or None."""
    made, one = mixer(weights, **choices), pair(region)
    return [next(iter(made.query(one, step).media[0].regions), None) for step in range(steps)]


def is_in(mask, x, y):
    return bool(mask[min(int(y), mask.shape[0] - 1), min(int(x), mask.shape[1] - 1)])


def name_of(region):
    return "none" if region is None else region.fingerprint()


@pytest.mark.parametrize("region", [Region(box=BOX), Region(mask=ring())], ids=["box", "mask"])
def test_a_point_lies_inside_and_off_the_edge(region):
    shape = ring() if region.mask is not None else ~np.zeros(SIZE[::-1], dtype=bool)
    found = drawn({"point": 1}, region)

    assert len({point.fingerprint() for point in found}) > 20
    for point in found:
        [(x, y, label)] = point.points
        assert label == 1
        assert all(is_in(shape, x + dx, y + dy) for dx in (-2, 2) for dy in (-2, 2))
        assert BOX[0] + 2 <= x <= BOX[2] - 2 and BOX[1] + 2 <= y <= BOX[3] - 2


def test_a_thin_mask_has_points_though_they_are_at_its_edge():
    line = np.zeros(SIZE[::-1], dtype=bool)
    line[20, 5:55] = True

    assert all(is_in(line, *point.points[0][:2]) for point in drawn({"point": 1}, Region(mask=line), 40))


def test_points_begin_inside_and_those_outside_say_so():
    mask = ring()
    found = drawn({"points": 1}, Region(mask=mask), points=4, outside=0.5)

    counts = Counter(len(region.points) for region in found)
    assert set(counts) == {2, 3, 4}
    labels = [label for region in found for _, _, label in region.points[1:]]
    assert 0.35 < np.mean(labels) < 0.65
    for region in found:
        assert region.points[0][2] == 1
        assert all(is_in(mask, x, y) == bool(label) for x, y, label in region.points)
        assert all(0 <= x <= SIZE[0] and 0 <= y <= SIZE[1] for x, y, _ in region.points)


def test_points_outside_are_near_and_none_where_there_is_no_outside():
    outside = [point for region in drawn({"points": 1}, Region(box=BOX), outside=1.0) for point in region.points[1:]]
    assert all(-2 <= x <= 46 and -2 <= y <= 38 and not label for x, y, label in outside)

    whole = [
        point for region in drawn({"points": 1}, Region(box=(0, 0, *SIZE)), 20, outside=1.0) for point in region.points
    ]
    assert all(label == 1 for _, _, label in whole)


def test_a_region_that_fills_all_but_a_corner_has_a_point_in_the_corner():
    mask = np.ones(SIZE[::-1], dtype=bool)
    mask[0, 0] = False

    assert Annotation(Region(mask=mask), SIZE).outside(random()) == (0.5, 0.5)


def test_a_box_is_the_annotated_one_or_the_smallest_around_a_mask():
    assert drawn({"box": 1}, Region(box=BOX), 1) == [Region(box=BOX)]
    assert drawn({"box": 1}, Region(mask=ring()), 1) == [Region(box=BOX)]


@pytest.mark.parametrize("box", [BOX, (0.0, 0.0, 60.0, 40.0), (-0.9, -0.9, 0.1, 5.0), (58.0, 39.9, 60.9, 40.9)])
def test_a_jittered_box_is_off_by_a_share_of_itself_and_in_the_picture(box):
    found = [region.box for region in drawn({"jittered_box": 1}, Region(box=box), jitter=0.49)]
    inside = [max(box[0], 0), max(box[1], 0), min(box[2], 60), min(box[3], 40)]
    sides = [inside[2] - inside[0], inside[3] - inside[1]] * 2

    off = np.abs(np.subtract(found, inside)) / sides
    assert off.max() <= 0.49 + 1e-9
    assert all(0 <= x0 < x1 <= 60 and 0 <= y0 < y1 <= 40 for x0, y0, x1, y1 in found)
    assert len(set(found)) > 150


def test_a_box_is_jittered_both_ways_on_every_side():
    found = np.array([region.box for region in drawn({"jittered_box": 1}, Region(box=BOX), jitter=0.1)]) - BOX

    assert np.abs(found.mean(0)).max() < 0.3
    assert (found.max(0) > [2, 1.6, 2, 1.6]).all() and (found.min(0) < [-2, -1.6, -2, -1.6]).all()


@pytest.mark.parametrize("region", [Region(box=BOX), Region(mask=ring())], ids=["box", "mask"])
def test_a_scribble_is_a_part_of_the_region(region):
    shape = np.zeros(SIZE[::-1], dtype=bool)
    shape[8:28, 10:34] = True
    shape &= ring() if region.mask is not None else True
    found = [one.mask for one in drawn({"scribble": 1}, region, 60, strokes=2)]

    assert all(mask.shape == SIZE[::-1] and mask.dtype == bool for mask in found)
    assert not any((mask & ~shape).any() for mask in found)
    shares = [mask.sum() / shape.sum() for mask in found]
    assert min(shares) > 0
    assert 0.05 < np.mean(shares) < 0.5


def test_more_strokes_are_longer_and_a_stroke_is_one_piece():
    def scribbled(strokes):
        return [one.mask.sum() for one in drawn({"scribble": 1}, Region(box=BOX), 60, strokes=strokes)]

    assert np.mean(scribbled(6)) > 1.5 * np.mean(scribbled(1))
    for one in drawn({"scribble": 1}, Region(box=BOX), 20, strokes=3):
        reached, before = np.zeros_like(one.mask), -1
        reached.flat[one.mask.argmax()] = True
        while reached.sum() != before:
            before = reached.sum()
            padded = np.pad(reached, 1)
            neighbours = [padded[1 + dy : 41 + dy, 1 + dx : 61 + dx] for dy in (-1, 0, 1) for dx in (-1, 0, 1)]
            reached = np.logical_or.reduce(neighbours) & one.mask
        assert (reached == one.mask).all()


def test_a_mask_is_itself_and_none_leaves_the_region_out():
    assert all((one.mask == ring()).all() for one in drawn({"mask": 1}, Region(mask=ring()), 3))
    assert drawn({"none": 1}, Region(mask=ring()), 3) == [None] * 3


def kind_of(region, size=SIZE):
    if region is None:
        return "none"
    if region.box is not None:
        return "box" if region.box == BOX else "jittered_box"
    if region.points:
        return "point" if len(region.points) == 1 else "points"
    return "mask" if (region.mask == ring(size)).all() else "scribble"


def test_kinds_are_drawn_as_often_as_their_weights_say():
    weights = {"none": 1, "point": 2, "points": 0, "box": 3, "jittered_box": 1, "mask": 2, "scribble": 1}
    found = Counter(map(kind_of, drawn(weights, Region(mask=ring()), 2000)))

    assert set(found) == {kind for kind, weight in weights.items() if weight}
    assert all(abs(found[kind] / 2000 - weight / 10) < 0.04 for kind, weight in weights.items())


def test_what_an_annotation_cannot_give_falls_out_and_the_rest_keeps_its_ratios():
    found = Counter(map(kind_of, drawn({"mask": 8, "box": 3, "none": 1}, Region(box=BOX), 1000)))

    assert set(found) == {"box", "none"}
    assert abs(found["box"] / 1000 - 0.75) < 0.05


def test_points_give_themselves_and_one_of_those_inside():
    region = Region(points=((5, 5, 1), (9, 9, 0), (7, 7, 1)))

    assert drawn({"points": 1, "mask": 9}, region, 3) == [region] * 3
    singles = {one.points for one in drawn({"point": 1}, region)}
    assert singles == {((5, 5, 1),), ((7, 7, 1),)}


def test_a_region_that_gives_none_of_the_kinds_is_refused():
    with pytest.raises(
        InputError,
        match=r"regions\[0\]: expected a region that gives what .* asks for: mask, got one that gives none, point,",
    ):
        drawn({"mask": 1}, Region(box=BOX), 1)
    with pytest.raises(InputError, match=r"asks for: point, box, got one that gives none, points"):
        drawn({"point": 1, "box": 1, "mask": 0}, Region(points=((5, 5, 0),)), 1)


def test_a_region_beside_its_picture_is_refused_whatever_is_drawn():
    made = mixer(ALL)
    for region in (Region(box=(0, 0, 500, 5)), Region(mask=ring((40, 60))), Region(points=((300, 1, 1),))):
        messages = set()
        for step in range(30):
            with pytest.raises(InputError) as caught:
                made.query(pair(region), step)
            messages.add(str(caught.value))
        assert len(messages) == 1


def test_another_step_seed_source_or_query_draws_another_prompt_and_the_same_ones_the_same():
    one, made = pair(Region(mask=ring())), mixer({"point": 1}, seed=3)
    again = mixer({"point": 1}, seed=3)
    others = [
        made.query(one, 8), mixer({"point": 1}, seed=4).query(one, 7), made.query(replace(one, source="t"), 7),
        made.query(replace(one, query_id="r"), 7),
    ]  # fmt: skip

    assert made.query(one, 7) == again.query(one, 7) == pickle.loads(pickle.dumps(made)).query(one, 7)
    assert len({item.fingerprint() for item in [made.query(one, 7), *others]}) == 5


def test_queries_without_a_name_are_told_apart_by_what_they_are():
    items = [
        mixer({"point": 1}).query(pair(Region(box=BOX), name="", picture=draw(*SIZE, seed)), 0) for seed in range(9)
    ]

    assert len({item.media[0].regions for item in items}) > 3


def test_every_region_of_every_picture_is_drawn_for_itself():
    picture = draw(*SIZE)
    regions = (Region(box=BOX), Region(box=BOX))
    query = Item((Image(picture, regions), "and", Image(picture), Image(picture, regions)))
    found = mixer({"point": 1}).query(Pair(query, (Item.of("p"),), query_id="q"), 0)

    points = [region.points for image in found.media for region in image.regions]
    assert [len(image.regions) for image in found.media] == [2, 0, 2]
    assert len(set(points)) == 4


def test_all_but_the_regions_is_kept():
    one = pair(Region(box=BOX))
    found = mixer({"none": 1}).query(one, 0)

    assert found == replace(one.query, content=(Image(one.query.media[0].source), "what is this?"))
    assert mixer(ALL).query(pair(), 0) == pair().query


def test_boxes_of_a_turned_picture_are_in_pixels_of_the_upright_one():
    exif, file = PIL.Image.Exif(), io.BytesIO()
    exif[0x0112] = 6
    draw(60, 40).save(file, "jpeg", exif=exif)
    tall = pair(Region(box=(0, 0, 40, 60)), picture=file.getvalue())

    assert mixer({"box": 1}, media=MediaSettings(exif=True)).query(tall, 0) == tall.query
    with pytest.raises(InputError, match=r"regions\[0\]\.box: expected a box inside the picture of 60 x 40 pixels"):
        mixer({"box": 1}).query(tall, 0)


class Shown:
    """A batch is what each query shows."""

    def __init__(self, made):
        self.made = made

    by_step = True

    def prepare(self, pair, step):
        return self.made.query(pair, step).fingerprint()

    def assemble(self, step, prepared, bad):
        return prepared, bad


@pytest.fixture
def steps(tmp_path):
    draw(*SIZE).save(tmp_path / "p.png")
    (tmp_path / "broken.png").write_bytes(b"noise")
    lines = [
        {"query": {"image": "broken.png" if i == 5 else "p.png", "regions": [{"box": BOX}]}, "positives": ["p"],
         "query_id": str(i)} for i in range(12)
    ]  # fmt: skip
    (tmp_path / "t.jsonl").write_text("\n".join(map(json.dumps, lines)))

    def make(**ranks):
        mixture = open_mixture({"t": Source("t.jsonl")}, Sampling(6, 6, 2, max_bad=0.2), seed=0, data_root=tmp_path)
        return StepDataset(mixture, Shown(mixer(ALL, seed=5)), **ranks)

    return make


@pytest.mark.filterwarnings("ignore:This DataLoader will create 2 worker processes")
@pytest.mark.parametrize("num_workers", [0, 1, 2])
def test_workers_and_the_step_begun_at_do_not_change_what_is_drawn(steps, num_workers):
    expected = [steps()[step] for step in range(8)]

    assert list(step_loader(steps(), 0, 8, num_workers)) == expected
    assert list(step_loader(steps(), 5, 8, num_workers)) == expected[5:]
    assert any(bad for _, bad in expected)


def test_ranks_share_the_batch_of_one(steps):
    ranks = [steps(rank=rank, world=2) for rank in range(2)]
    for step in range(6):
        parts = [part[step][0] for part in ranks]
        assert [parts[i % 2][i // 2] for i in range(6)] == steps()[step][0]


def test_a_row_is_drawn_anew_each_time_it_is_met(steps):
    one = steps()
    names = Counter(name for step in range(10) for name in one[step][0])

    # of 60 draws, a kind in seven is one that never varies
    assert len(names) > 30


def test_a_row_that_one_draw_makes_unusable_is_tried_again_at_the_next_step(steps):
    class Picky(Shown):
        def prepare(self, pair, step):
            if not self.made.query(pair, step).media[0].regions:
                raise InputError("row", expected="a region", got="none", remedy="wait")
            return super().prepare(pair, step)

    one, other = (StepDataset(steps().mixture, Picky(mixer({"none": 1, "point": 30}))) for _ in range(2))

    # whichever steps were prepared before
    assert [one[step] for step in range(8)] == [other[step] for step in reversed(range(8))][::-1]
    assert len({row for step in range(8) for row in one[step][1]}) > 1


@pytest.mark.parametrize("kind", PROMPT_KINDS)
def test_an_example_is_of_its_kind_and_fits_its_picture(kind):
    found = example(kind, RegionMixing({kind: 1}), SIZE)

    size_of_mask = None if found is None or found.mask is None else found.mask.shape
    given = "none" if found is None else next(n for n in ("box", "points", "mask") if found._has(n))
    assert given == {"point": "points", "jittered_box": "box", "scribble": "mask"}.get(kind, kind)
    assert size_of_mask in (None, SIZE[::-1])
    assert (kind == "points") == (found is not None and any(not label for _, _, label in found.points))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"weights": {"boxes": 1}}, r"weights\.boxes: expected a kind of prompt, got 'boxes'; did you mean 'box'"),
        ({"weights": {"box": -1}}, r"region_prompts\.weights\.box: expected a positive number, or 0, got -1"),
        ({"weights": {"box": float("nan")}}, r"weights\.box: expected a positive number, or 0, got nan"),
        ({"weights": {}}, r"region_prompts\.weights: expected a kind with a weight, got none"),
        ({"weights": {"box": 0}}, r"region_prompts\.weights: expected a kind with a weight"),
        ({"jitter": 0.5}, r"region_prompts\.jitter: expected above 0 and below 0\.5"),
        ({"points": 1}, r"region_prompts\.points: expected at least 2, got 1; use the kind point"),
        ({"outside": 1.1}, r"region_prompts\.outside: expected 0 to 1, got 1\.1"),
        ({"strokes": 0}, r"region_prompts\.strokes: expected at least 1, got 0"),
    ],
)  # fmt: skip
def test_settings_that_draw_nothing_are_refused(settings, message):
    with pytest.raises(InputError, match=message):
        RegionMixing(**({"weights": ALL} | settings))
