"""SAM 2 encodes a picture once, answers prompts in it one by one as together, and never trains."""

import numpy as np
import pytest
import torch

from mmembed.counters import counting
from mmembed.models.region_prompts import RegionPrompt
from mmembed.models.sam2.guides import squash
from mmembed.models.sam2.opening import open_sam, scratch_sam
from mmembed.models.sam2.prompts import BOTTOM_RIGHT, TOP_LEFT, SamPrompt, sam_prompt
from mmembed.models.settings.regions import Sam2Scratch
from tests.cases import GOLDEN, draw

SIZE = (90, 60)
MASK = np.zeros((60, 90), dtype=bool)
MASK[10:30, 20:70] = True
PROMPTS = {
    "grid": None,
    "box": RegionPrompt(SIZE, box=(0.1, 0.2, 0.5, 0.9)),
    "another box": RegionPrompt(SIZE, box=(0.4, 0.2, 0.8, 0.9)),
    "point": RegionPrompt(SIZE, points=((0.5, 0.5, 1),)),
    "points": RegionPrompt(SIZE, points=((0.5, 0.5, 1), (0.7, 0.5, 1))),
    "a point outside": RegionPrompt(SIZE, points=((0.5, 0.5, 1), (0.7, 0.5, 0))),
    "mask": RegionPrompt(SIZE, mask=MASK),
}


@pytest.fixture(scope="module")
def sam():
    return scratch_sam(Sam2Scratch())


@pytest.fixture
def fresh():
    return scratch_sam(Sam2Scratch())


def pixels(sam, seed=0):
    return sam.guide_pixels(squash(draw(*SIZE, seed), sam.side))


def encode(sam, *seeds, **choices):
    return sam.encode([f"picture {seed}" for seed in seeds], lambda i: pixels(sam, seeds[i]), **choices)


def asked(*names):
    return [sam_prompt(PROMPTS[name], 256) for name in names]


def test_coordinates_are_scaled_to_the_square_side_by_side():
    assert sam_prompt(PROMPTS["box"], 1000).points == ((100, 200, TOP_LEFT), (500, 900, BOTTOM_RIGHT))
    assert sam_prompt(PROMPTS["a point outside"], 10).points == ((5, 5, 1), (7, 5, 0))
    assert sam_prompt(PROMPTS["mask"], 10) == SamPrompt(mask=MASK)


def test_a_picture_without_a_region_is_prompted_by_a_grid_of_points_inside():
    assert sam_prompt(None, 600).points == tuple((x, y, 1) for y in (100, 300, 500) for x in (100, 300, 500))
    assert sam_prompt(None, 600, grid=1).points == ((300, 300, 1),)


def test_a_picture_is_squashed_as_it_is(fresh):
    picture = draw(*SIZE)

    square = squash(picture, 64)

    assert square.shape == (3, 64, 64) and square.dtype == torch.uint8
    assert square.float().mean() == pytest.approx(np.asarray(picture).mean(), abs=2)
    white = fresh.guide_pixels(torch.full((3, 256, 256), 255, dtype=torch.uint8))
    assert white[:, 0, 0].tolist() == pytest.approx([2.2489, 2.4286, 2.64], abs=1e-3)


def test_another_prompt_in_the_same_picture_encodes_nothing(fresh):
    with counting() as work:
        fresh.keys(encode(fresh, 0, 0), asked("box", "point"))
        fresh.keys(encode(fresh, 0), asked("mask"))
    assert work["sam_images"] == 1
    assert work["sam_prompts"] == 3


def test_what_masks_are_made_of_is_kept_when_it_was_asked_for_once(fresh):
    with counting() as work:
        encode(fresh, 0)
        encode(fresh, 0, masks=True)
        encode(fresh, 0, masks=True)
        (plain,) = encode(fresh, 0)
    assert work["sam_images"] == 2
    assert len(plain.fine) == 2


def test_only_so_many_bytes_are_kept_and_the_picture_used_last_stays():
    one = encode(scratch_sam(Sam2Scratch()), 0)[0].nbytes
    assert one == 32 * 16 * 16 * 4
    sam = scratch_sam(Sam2Scratch(), cache_mb=1)
    sam._kept.max_bytes = 2 * one
    with counting() as work:
        for seed in (0, 1, 0, 2, 0):
            encode(sam, seed)
        assert work["sam_images"] == 3
        encode(sam, 1)
    assert work["sam_images"] == 4


def test_without_a_cache_a_picture_is_encoded_once_a_call():
    sam = scratch_sam(Sam2Scratch(), cache_mb=0)
    with counting() as work:
        encode(sam, 0, 0, 1)
        encode(sam, 0)
    assert work["sam_images"] == 3


def test_prompts_together_are_answered_as_one_by_one(sam):
    pictures = encode(sam, *([0, 1] * len(PROMPTS)))
    prompts = [prompt for prompt in asked(*PROMPTS) for _ in range(2)]

    together = sam.keys(pictures, prompts)
    alone = torch.cat([sam.keys([one], [prompt]) for one, prompt in zip(pictures, prompts, strict=True)])

    assert together.shape == (14, 32, 16, 16)
    assert (together - alone).abs().max() <= 1e-5


def test_every_prompt_moves_the_keys(sam):
    keys = sam.keys(encode(sam, *[0] * len(PROMPTS)), asked(*PROMPTS))

    apart = (keys[:, None] - keys).abs().flatten(2).amax(-1)
    assert apart[~torch.eye(len(keys), dtype=torch.bool)].min() > 1e-3


def test_nothing_of_it_trains_nor_leaves_evaluation_mode(fresh):
    fresh.train()
    keys = fresh.keys(encode(fresh, 0), asked("box"))

    assert not any(module.training for module in fresh.modules())
    assert not any(p.requires_grad for p in fresh.parameters())
    assert not keys.requires_grad


def test_autocast_around_it_changes_nothing(sam, fresh):
    plain = sam.keys(encode(sam, 0), asked("box"))
    with torch.autocast("cpu", torch.bfloat16):
        inside = fresh.keys(encode(fresh, 0), asked("box"))

    assert torch.equal(plain, inside)


def test_in_bfloat16_the_keys_are_nearly_the_same_and_prompts_are_encoded_in_float32(sam):
    small = scratch_sam(Sam2Scratch(), "bfloat16")

    keys = [one.keys(encode(one, 0), asked("box")).float().flatten() for one in (sam, small)]

    assert torch.cosine_similarity(*keys, dim=0) > 0.99
    assert {p.dtype for p in small.model.prompt_encoder.parameters()} == {torch.float32}
    assert {p.dtype for p in small.model.vision_encoder.parameters()} == {torch.bfloat16}


@pytest.mark.parametrize("name", [name for name in PROMPTS if name != "grid"])
def test_a_mask_has_the_size_of_its_picture_and_a_score(name, sam):
    (found,) = sam.masks(encode(sam, 0, masks=True), asked(name), [SIZE])

    assert found.mask.shape == (60, 90) and found.mask.dtype == torch.bool
    assert 0 <= found.score <= 1


def test_masks_equal_those_of_the_library():
    sam = open_sam(str(GOLDEN / "virtue/sam2_tiny/native"))
    image = pixels(sam)
    box, point = [[[128.0, 256.0, 512.0, 768.0]]], [[[[512.0, 512.0]]]]
    with torch.no_grad():
        by_box = sam.model(image[None], input_boxes=torch.tensor(box), multimask_output=False)
        by_point = sam.model(image[None], input_points=torch.tensor(point), multimask_output=True)
    best = int(by_point.iou_scores.argmax())

    corners = SamPrompt(((128, 256, TOP_LEFT), (512, 768, BOTTOM_RIGHT)))
    encoded = sam.encode(["picture"] * 2, lambda _: image, masks=True)
    ours = sam.masks(encoded, [corners, SamPrompt(((512, 512, 1),))], [(256, 256)] * 2)

    assert torch.equal(ours[0].mask, by_box.pred_masks[0, 0, 0] > 0)
    assert torch.equal(ours[1].mask, by_point.pred_masks[0, 0, best] > 0)
    assert ours[1].score == pytest.approx(float(by_point.iou_scores.max()), abs=1e-6)


def test_a_seed_makes_the_same_weights_whatever_was_drawn_before():
    torch.manual_seed(1)
    first = scratch_sam(Sam2Scratch()).state_dict()
    after = torch.rand(1)
    torch.manual_seed(1)
    assert torch.equal(torch.rand(1), after)
    second, other = (scratch_sam(Sam2Scratch(seed=seed)).state_dict() for seed in (0, 1))

    assert all(torch.equal(first[name], second[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)


def test_encoded_pictures_follow_the_model_to_its_device(fresh):
    (before,) = encode(fresh, 0)
    fresh.to("meta")

    with counting() as work:
        (after,) = encode(fresh, 0)
    assert (before.image.device.type, after.image.device.type) == ("cpu", "meta")
    assert work["sam_images"] == 0
