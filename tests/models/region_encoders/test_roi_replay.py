"""RoI replay: a region's tokens are the picture's own features once more, with where they lie and what they are."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from mmembed import Embedder, Image, Region
from mmembed.counters import counting
from mmembed.errors import InputError
from mmembed.models.sequence import Features, collate
from mmembed.models.settings import RoiReplay
from tests.cases import WORDS, draw
from tests.families import FAMILIES, family_settings
from tests.regions import MAPPED, SIZES, full_mask, marked, mixed_items, random_mask


def replaying(architecture="qwen2_vl", regions=None, **choices):
    settings = replace(family_settings(architecture, **choices), regions=regions or RoiReplay())
    return Embedder(settings, texts=WORDS).eval()


def tokens_of(embedder, item, features=None):
    batch = collate(embedder.prepare([item], "query"))
    with torch.no_grad():
        features = embedder.vision(batch) if features is None else features(batch)
        return embedder.regions.tokens(batch, features, embedder.backbone)


def told(embedder):
    """The encoder as it is after training: what it begins at zero is not."""
    with torch.no_grad():
        embedder.regions.place.weight.normal_(generator=torch.Generator().manual_seed(3))
        embedder.regions.kind.normal_(generator=torch.Generator().manual_seed(4))
    return embedder


def silent(embedder):
    """Tokens that are features alone."""
    with torch.no_grad():
        embedder.regions.kind.zero_()
    return embedder


def random_features(batch):
    generator = torch.Generator().manual_seed(0)
    return Features([torch.randn(int(grid.prod()) // 4, 64, generator=generator) for grid in batch.grids])


def test_a_token_stands_for_each_cell_and_each_point():
    preparer = RoiReplay(size=3).preparer()
    item = marked((84, 56), Region(box=(0, 0, 9, 9)), Region(points=((1, 1, 1), (50, 50, 0))), full_mask(84, 56))

    slots = preparer.slots(0, item.media[0], (84, 56))

    assert [slot.tokens for slot in slots] == [9, 2, 9]
    assert preparer.slots(0, Image(draw(8, 8)), (8, 8)) == []


def test_tokens_are_what_sampling_the_map_point_by_point_finds():
    size = (140, 84)
    embedder = told(replaying(regions=RoiReplay(size=3)))
    regions = [Region(box=(10, 5, 133, 50)), random_mask(*size), Region(points=((3, 80, 1), (70, 40, 0)))]
    item = marked(size, *regions)
    grid = random_features(collate(embedder.prepare([item], "query"))).maps[0].view(3, 5, 64)

    found = tokens_of(embedder, item, random_features)

    point_side = 0.1 * 84 / 28
    expected = slow_area(embedder, grid, (10, 5, 133, 50), None, size)
    expected += slow_area(embedder, grid, bounds(regions[1].mask), regions[1].mask, size)
    for i, (x, y, label) in enumerate(regions[2].points):
        x0, x1 = max(x / 28 - point_side / 2, 0), min(x / 28 + point_side / 2, 5)
        y0, y1 = max(y / 28 - point_side / 2, 0), min(y / 28 + point_side / 2, 3)
        samples = [
            bilinear(grid, y0 + (a + 0.5) * (y1 - y0) / 2, x0 + (b + 0.5) * (x1 - x0) / 2)
            for a in (0, 1)
            for b in (0, 1)
        ]
        kinds = [0, label, 1 - label, i == 0]
        place = ((x0 + x1) / 10, (y0 + y1) / 6, (x1 - x0) / 5, (y1 - y0) / 3)
        expected.append(sum(samples) / 4 + slow_told(embedder, place, kinds))
    assert len(found) == 9 + 9 + 2
    assert torch.allclose(found, torch.stack(expected), atol=1e-4)


def bounds(mask):
    rows, columns = mask.any(1).nonzero()[0], mask.any(0).nonzero()[0]
    return (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1)


def bilinear(grid, y, x):
    """Between the centres of cells; beyond the last, its value."""
    height, width = grid.shape[:2]
    y, x = min(max(y - 0.5, 0), height - 1), min(max(x - 0.5, 0), width - 1)
    top, left = int(y), int(x)
    down, right = min(top + 1, height - 1), min(left + 1, width - 1)
    upper = grid[top, left] * (1 - x + left) + grid[top, right] * (x - left)
    lower = grid[down, left] * (1 - x + left) + grid[down, right] * (x - left)
    return upper * (1 - y + top) + lower * (y - top)


def slow_told(embedder, place, kinds):
    code = []
    for value in place:
        turns = [value * math.pi * 2**k for k in range(8)]
        code += [math.sin(turn) for turn in turns] + [math.cos(turn) for turn in turns]
    encoder = embedder.regions
    return encoder.place.weight.detach() @ torch.tensor(code) + torch.tensor(kinds).float() @ encoder.kind.detach()


def slow_area(embedder, grid, box, mask, size, cells=3):
    """A box or mask of a picture whose cells are 28 pixels."""
    under = torch.ones(*grid.shape[:2], 1)
    if mask is not None:
        for i in range(grid.shape[0]):
            for j in range(grid.shape[1]):
                under[i, j] = float(mask[28 * i : 28 * i + 28, 28 * j : 28 * j + 28].mean())
    (x0, y0, x1, y1), tokens = box, []
    wide, high = (x1 - x0) / cells, (y1 - y0) / cells
    assert max(wide, high) <= 56  # two samples to a cell's side are enough
    for i in range(cells):
        for j in range(cells):
            top, left = y0 + i * high, x0 + j * wide
            at = [
                ((top + (a + 0.5) * high / 2) / 28, (left + (b + 0.5) * wide / 2) / 28) for a in (0, 1) for b in (0, 1)
            ]
            weight = sum(bilinear(under, *one) for one in at)
            feature = sum(bilinear(grid * under, *one) for one in at) / weight
            if weight == 0:
                feature = sum(bilinear(grid, *one) for one in at) / 4
            covered = 1.0 if mask is None else slow_cover(mask, top, left, high, wide)
            place = ((left + wide / 2) / size[0], (top + high / 2) / size[1], wide / size[0], high / size[1])
            tokens.append(feature + slow_told(embedder, place, [covered, 0, 0, i == j == 0]))
    return tokens


def slow_cover(mask, top, left, high, wide):
    total = 0.0
    for y in range(mask.shape[0]):
        for x in range(mask.shape[1]):
            part_y = max(0.0, min(y + 1, top + high) - max(y, top))
            part_x = max(0.0, min(x + 1, left + wide) - max(x, left))
            total += mask[y, x] * part_y * part_x
    return total / (high * wide)


def test_a_flipped_map_under_the_flipped_box_is_the_flipped_tokens():
    embedder = silent(replaying(regions=RoiReplay(size=4)))
    size, box = (140, 84), (13, 20, 101, 67)
    there, mirrored = marked(size, Region(box=box)), marked(size, Region(box=(140 - 101, 20, 140 - 13, 67)))
    mask = random_mask(*size).mask

    def flipped(batch):
        return Features([random_features(batch).maps[0].view(3, 5, 64).flip(1).flatten(0, 1)])

    def cells(item, features):
        return tokens_of(embedder, item, features).view(4, 4, 64)

    assert torch.allclose(cells(there, random_features).flip(1), cells(mirrored, flipped), atol=1e-5)
    drawn, redrawn = marked(size, Region(mask=mask)), marked(size, Region(mask=mask[:, ::-1].copy()))
    assert torch.allclose(cells(drawn, random_features).flip(1), cells(redrawn, flipped), atol=1e-5)


@pytest.mark.parametrize("architecture", MAPPED)
def test_the_box_of_the_whole_picture_is_its_full_mask_whatever_the_aspect(architecture):
    embedder = told(replaying(architecture))

    for width, height in SIZES:
        box = tokens_of(embedder, marked((width, height), Region(box=(0, 0, width, height))))
        mask = tokens_of(embedder, marked((width, height), full_mask(width, height)))

        assert box.shape == (16, embedder.backbone.width)
        assert (box - mask).abs().max() <= 1e-6


def test_a_box_is_told_as_the_same_share_of_pictures_of_any_size():
    embedder = silent(replaying())
    constant = [
        tokens_of(embedder, marked(size, Region(box=(size[0] / 4, 0, size[0] / 2, size[1]))), ramp)
        for size in SIZES[:3]
    ]

    # the map reddens evenly from 0 to 1: a cell's mean is its middle
    for tokens in constant:
        assert torch.allclose(tokens[:4, 0], torch.tensor([9, 11, 13, 15]) / 32, atol=1e-3)


def ramp(batch):
    (_, rows, columns), *_ = (batch.grids // torch.tensor([1, 2, 2])).tolist()
    xs = (torch.arange(columns) + 0.5) / columns
    return Features([xs.expand(rows, -1).reshape(-1, 1).expand(-1, 64)])


def test_a_cell_without_mask_keeps_its_feature_and_is_not_told_as_part():
    embedder = replaying(regions=RoiReplay(size=2))
    with torch.no_grad():
        embedder.regions.kind.zero_()
        embedder.regions.kind[0] = 100
    mask = np.zeros((112, 112), dtype=bool)
    mask[:56, :56] = mask[56:, 84:] = True

    tokens = tokens_of(embedder, marked((112, 112), Region(mask=mask)), random_features)
    plain = tokens_of(embedder, marked((112, 112), Region(box=(0, 0, 112, 112))), random_features)

    # all, none, none, half of the cell
    shares = torch.tensor([1.0, 0.0, 0.0, 0.5])
    assert torch.allclose(tokens[1:3], plain[1:3] - 100, atol=1e-4)
    assert torch.allclose((tokens / 100).round(decimals=1).median(1).values, shares, atol=0.05)


def test_points_inside_and_outside_and_regions_are_told_apart():
    embedder = replaying()
    size, p, q = (84, 56), (20, 20), (60, 40)

    inside, outside, two = (
        tokens_of(embedder, marked(size, *regions))
        for regions in (
            (Region(points=((*p, 1), (*q, 1))),),
            (Region(points=((*p, 1), (*q, 0))),),
            (Region(points=((*p, 1),)), Region(points=((*q, 1),))),
        )
    )

    _, is_inside, is_outside, is_first = embedder.regions.kind.detach()
    nothing = torch.zeros_like(is_first)
    assert torch.allclose(outside - inside, torch.stack([nothing, is_outside - is_inside]), atol=1e-5)
    assert torch.allclose(two - inside, torch.stack([nothing, is_first]), atol=1e-5)


@pytest.mark.parametrize("architecture", MAPPED)
def test_moving_the_prompt_moves_the_embedding(architecture):
    embedder = replaying(architecture)
    boxes = [(60, 60, 80, 80), (64, 60, 84, 80), (90, 90, 110, 110)]
    points = [((60, 60, 1),), ((64, 60, 1),)]

    vectors = embedder.encode(
        [marked((168, 168), Region(box=box)) for box in boxes]
        + [marked((168, 168), Region(points=each)) for each in points]
    )

    apart = (vectors[:, None] - vectors).norm(dim=-1)[~torch.eye(5, dtype=torch.bool)]
    assert (apart > 1e-4).all()


@pytest.mark.parametrize("architecture", MAPPED)
def test_without_a_region_nothing_changes(architecture):
    plain = Embedder(family_settings(architecture), texts=WORDS).eval()
    items = FAMILIES[architecture].items

    found, expected = told(replaying(architecture)).encode(items), plain.encode(items)

    assert torch.equal(found, expected)


def test_sixteen_regions_of_a_picture_are_one_tower_forward():
    embedder = replaying()
    boxes = [(4 * i, 0, 4 * i + 20, 50) for i in range(16)]
    items = [marked((84, 56), Region(box=box)) for box in boxes]

    with counting() as work:
        apart = embedder.encode(items, batch_tokens=100)
    with counting() as joined:
        embedder.encode(marked((84, 56), *(Region(box=box) for box in boxes)))

    assert work["tower_forwards"] == joined["tower_forwards"] == 1
    assert work["language_rows"] == 16
    assert len({tuple(vector.tolist()) for vector in apart}) == 16


@pytest.mark.parametrize("architecture", MAPPED)
def test_a_mixed_batch_is_the_same_as_one_by_one(architecture):
    embedder = told(replaying(architecture))
    items = mixed_items(architecture)

    together = embedder.encode(items)

    apart = torch.cat([embedder.encode(item) for item in items])
    assert (together - apart).abs().max() <= 1e-5


@pytest.mark.parametrize("architecture", ["qwen3_vl", "llava_next", "phi3_v"])
def test_a_gradient_reaches_the_encoder_and_the_features_under_the_region(architecture):
    embedder = replaying(architecture).train()
    batch = collate(embedder.prepare([marked((168, 168), Region(box=(56, 56, 110, 110)))], "query"))
    features = embedder.vision(batch)
    maps = [one.detach().requires_grad_() for one in features.maps]

    tokens = embedder.regions.tokens(batch, replace(features, maps=maps), embedder.backbone)
    (tokens * torch.randn(tokens.shape)).sum().backward()

    touched = (maps[0].grad.abs().sum(1) > 0).float().mean()
    assert 0 < touched < 1
    vectors = embedder(batch)
    (vectors * torch.randn(vectors.shape)).sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in embedder.regions.parameters())


def test_it_is_saved_and_opened_to_the_same_bits(tmp_path):
    embedder = told(replaying(regions=RoiReplay(size=3, point_side=0.2)))
    items = [marked((84, 56), Region(box=(3, 4, 50, 40))), marked((84, 56), Region(points=((30, 30, 1),)))]
    before = embedder.encode(items)

    embedder.save(tmp_path / "model")
    opened = Embedder.from_pretrained(tmp_path / "model", device="cpu")

    assert opened.settings.regions == RoiReplay(size=3, point_side=0.2)
    assert torch.equal(opened.encode(items), before)


def test_it_runs_beside_a_backbone_in_bfloat16():
    whole, half = replaying(), replaying(dtype="bfloat16")
    items = [marked((84, 56), Region(box=(3, 4, 50, 40))), marked((84, 56), Region(box=(30, 4, 80, 40)))]

    a, b = whole.encode(items), half.encode(items)

    assert torch.nn.functional.cosine_similarity(a, b).min() > 0.98


def test_what_the_tower_did_not_see_has_no_features():
    # LLaVA's CLIP sees the square in the middle
    embedder = silent(replaying("llava"))

    beside, partly = (
        tokens_of(embedder, marked((280, 112), Region(box=box))).view(4, 4, -1)
        for box in ((0, 0, 60, 112), (0, 0, 280, 112))
    )

    assert beside.abs().max() == 0
    assert partly[:, 0].abs().max() == 0 and partly[:, 1].norm() > 0.1


@pytest.mark.parametrize("architecture", [name for name in FAMILIES if name not in MAPPED])
def test_a_family_without_a_map_is_refused_when_the_model_is_built(architecture):
    with pytest.raises(InputError, match="regions: expected"):
        replaying(architecture)


@pytest.mark.parametrize(
    ("region", "message"),
    [
        (Region(box=(0, 0, 90, 56)), r"regions\[0\]\.box: expected a box inside the picture of 84 x 56"),
        (Region(points=((10, 60, 1),)), r"regions\[0\]\.points: expected a point inside"),
        (full_mask(56, 84), r"regions\[0\]\.mask: expected a mask as large as the picture"),
    ],
)
def test_a_region_that_is_not_in_its_picture_is_refused(region, message):
    with pytest.raises(InputError, match=message):
        replaying().encode(marked((84, 56), region))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"size": 0}, r"regions\.size: expected at least 1"),
        ({"point_side": 0.0}, r"regions\.point_side: expected above"),
    ],
)
def test_settings_without_meaning_are_refused(fields, message):
    with pytest.raises(InputError, match=message):
        RoiReplay(**fields)
