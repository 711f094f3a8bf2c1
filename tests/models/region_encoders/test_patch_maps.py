"""Where features lie in their picture: every family's patch maps, its taps, and refusals of those that have none."""

from dataclasses import replace

import numpy as np
import PIL.Image
import pytest
import torch
from torch import nn

from mmembed import Embedder, Image, Item, Video
from mmembed.errors import InputError
from mmembed.models.sequence import collate
from mmembed.models.settings import Scratch
from mmembed.models.taps import check_taps
from tests.cases import WORDS, draw
from tests.families import FAMILIES, family_embedder, family_settings

MAPPED = ["qwen2_vl", "qwen2_5_vl", "qwen3_vl", "llava_next", "llava_onevision", "llava", "phi3_v"]
# wide, tall, square, of an odd aspect, small
SIZES = [(168, 112), (112, 280), (196, 196), (301, 97), (60, 84)]
# small patches, so that a map has cells enough to be measured, and pixels of a tile are rounded by little
FINE = {
    "llava_next": {"image_size": 112, "patch_size": 7},
    "llava_onevision": {"image_size": 112, "patch_size": 7},
    "llava": {"image_size": 112, "patch_size": 7},
    "phi3_v": {"image_size": 112, "patch_size": 7},
}


def fine_embedder(architecture, **backbone):
    settings = family_settings(architecture, **backbone)
    scratch = settings.backbone.scratch
    scratch = Scratch(architecture, text=scratch.text, vision=scratch.vision | FINE.get(architecture, {}))
    return Embedder(replace(settings, backbone=replace(settings.backbone, scratch=scratch)), texts=WORDS).eval()


def show_red(embedder):
    """Make the first number of a patch's first state how red the patch is, from 0 to 255."""
    backbone = embedder.backbone
    embed = backbone.patch_embedding().module
    conv = getattr(embed, "proj", embed)
    with torch.no_grad():
        conv.weight.zero_()
        conv.weight[0, 0] = 255 * backbone.std[0] / conv.weight[0, 0].numel()
        if conv.bias is not None:
            conv.bias.zero_()
        for name, module in backbone.tower.named_modules():
            if name.endswith("pre_layrnorm"):
                parent = backbone.tower.get_submodule(name.rpartition(".")[0])
                parent.pre_layrnorm = nn.Identity()
            if name.endswith(("position_embedding", "pos_embed")):
                module.weight.zero_()
    backbone.tap((0,))
    return lambda features: features[..., 0] + 255 * backbone.mean.flatten()[0]


def ramp(width, height, axis):
    """A picture that reddens evenly from left to right, or from top to bottom."""
    x, y = np.meshgrid((np.arange(width) + 0.5) / width, (np.arange(height) + 0.5) / height)
    red = np.uint8(np.round(255 * (x, y)[axis]))
    return PIL.Image.fromarray(np.stack([red, 0 * red, 0 * red], axis=-1))


def maps_of(embedder, *pictures, tap=None):
    batch = collate(embedder.prepare([Item((Image(picture),)) for picture in pictures], "query"))
    with torch.no_grad():
        features = embedder.vision(batch)
    return embedder.backbone.patch_maps(batch, features.maps if tap is None else features.taps[tap])


def places(patch_map):
    """Where in the picture the centres of a map's cells are, in shares ``[h]`` and ``[w]``."""
    height, width = patch_map.features.shape[:2]
    left, top, right, bottom = patch_map.frame
    return (torch.arange(height) + 0.5 - top) / (bottom - top), (torch.arange(width) + 0.5 - left) / (right - left)


@pytest.mark.parametrize("architecture", MAPPED)
def test_a_cell_of_the_map_is_where_the_frame_says_in_pictures_of_every_aspect(architecture):
    embedder = fine_embedder(architecture)
    red = show_red(embedder)

    for size in SIZES:
        wide, high = maps_of(embedder, ramp(*size, 0), ramp(*size, 1), tap=0)

        ys, xs = places(wide)
        cell_y, cell_x = 1 / (wide.frame[3] - wide.frame[1]), 1 / (wide.frame[2] - wide.frame[0])
        # whole cells of the picture, for a cell half in the padding is half of its colour
        rows = (ys > cell_y * 0.49) & (ys < 1 - cell_y * 0.49)
        columns = (xs > cell_x * 0.49) & (xs < 1 - cell_x * 0.49)
        assert rows.sum() >= 2 and columns.sum() >= 2
        across = red(wide.features)[rows][:, columns] / 255
        down = red(high.features)[rows][:, columns] / 255
        # a third of a cell: pictures are resized to whole pixels, and some families' tiles end within a patch
        assert ((across - xs[columns]).abs() < cell_x / 3).all(), size
        assert ((down - ys[rows, None]).abs() < cell_y / 3).all(), size


def test_tiles_that_end_within_a_patch_are_off_by_less_than_half_a_cell():
    # as the released LLaVA-OneVision's of 384 pixels and patches of 14 do
    settings = family_settings("llava_onevision")
    scratch = replace(settings.backbone.scratch, vision=settings.backbone.scratch.vision | {"image_size": 108})
    embedder = Embedder(replace(settings, backbone=replace(settings.backbone, scratch=scratch)), texts=WORDS).eval()
    red = show_red(embedder)

    (found,) = maps_of(embedder, ramp(216, 108, 0), tap=0)

    _, xs = places(found)
    assert found.features.shape[:2] == (15, 30)
    assert (red(found.features)[5] / 255 - xs).abs().max() < 0.5 / 30


@pytest.mark.parametrize("architecture", MAPPED)
def test_the_frame_is_the_map_unless_the_family_pads_or_crops(architecture):
    embedder = fine_embedder(architecture)

    (found,) = maps_of(embedder, draw(336, 112))

    height, width = found.features.shape[:2]
    left, top, right, bottom = found.frame
    whole = (0, 0, width, height)
    if architecture.startswith("qwen"):
        assert found.frame == whole
    elif architecture == "llava":
        # cropped to the square in the middle: two thirds of the width lie beyond the map
        assert (top, bottom) == (0, height)
        assert left == pytest.approx(-width) and right == pytest.approx(2 * width)
    else:
        assert found.frame == pytest.approx(whole, abs=1)
        assert left <= 0.5 and right >= width - 0.5


def test_what_phi_pads_is_on_the_map_and_not_in_the_frame():
    embedder = fine_embedder("phi3_v")

    wide, tall = maps_of(embedder, draw(300, 120), draw(120, 300))

    # two tiles of 112 by one: 224 x 89 pixels of picture, 11 of white above and 12 below, in cells of 14
    assert wide.features.shape[:2] == (8, 16)
    assert wide.frame == pytest.approx((0, 11 / 14, 16, 100 / 14))
    assert tall.frame == pytest.approx((11 / 14, 0, 100 / 14, 16))


def test_a_picture_among_others_of_llava_onevision_is_padded_to_a_square():
    embedder = fine_embedder("llava_onevision")
    red = show_red(embedder)
    item = Item((Image(ramp(200, 100, 0)), Image(ramp(200, 100, 1)), Image(draw(50, 50))))
    batch = collate(embedder.prepare([item], "query"))

    with torch.no_grad():
        wide, high, _ = embedder.backbone.patch_maps(batch, embedder.vision(batch).taps[0])

    assert wide.frame == pytest.approx((0, 4, 16, 12))
    ys, xs = places(wide)
    assert torch.allclose(red(wide.features)[5:11] / 255, xs.expand(6, -1), atol=0.02)
    assert torch.allclose(red(high.features)[5:11] / 255, ys[5:11, None].expand(-1, 16), atol=0.02)


@pytest.mark.parametrize("architecture", MAPPED)
def test_a_changed_place_changes_its_own_cell_of_the_map_most(architecture):
    # the tower's own map, which taps need not be in the order of
    embedder = fine_embedder(architecture, loud=False)
    plain = draw(224, 112)
    for x, y in ((84, 56), (70, 30), (150, 80)):
        changed = plain.copy()
        changed.paste((255, 255, 255), (x - 10, y - 10, x + 10, y + 10))

        before, after = maps_of(embedder, plain, changed)

        change = (after.features - before.features).norm(dim=-1)
        row, column = divmod(int(change.argmax()), change.shape[1])
        x0, y0, x1, y1 = before.cells(((x - 10) / 224, (y - 10) / 112, (x + 10) / 224, (y + 10) / 112))
        assert x0 - 1 < column < x1 and y0 - 1 < row < y1


@pytest.mark.parametrize("architecture", ["qwen2_vl", "llava_onevision"])
def test_a_clip_has_no_map(architecture):
    embedder = family_embedder(architecture).eval()
    batch = collate(embedder.prepare([Item((Video((draw(56, 56), draw(56, 56, 1)) * 2),))], "query"))

    assert embedder.backbone.patch_maps(batch, embedder.vision(batch).maps) == [None]


@pytest.mark.parametrize("architecture", MAPPED)
def test_taps_are_as_long_as_maps_and_leave_them_alone(architecture):
    embedder = family_embedder(architecture).eval()
    batch = collate(embedder.prepare([Item((Image(draw(84, 56)),)), Item((Image(draw(56, 112)),))], "query"))
    plain = embedder.vision(batch)
    depth = len(taps_blocks(embedder.backbone))

    widths = embedder.backbone.tap((0, 1, -1))
    found = embedder.vision(batch)

    assert embedder.backbone.taps == (0, 1, depth)
    assert plain.taps == []
    assert all(torch.equal(a, b) for a, b in zip(plain.maps, found.maps, strict=True))
    for width, layer in zip(widths, found.taps, strict=True):
        assert [tap.shape for tap in layer] == [(len(one), width) for one in plain.maps]
    first, second, last = found.taps
    assert not torch.equal(first[0], second[0]) and not torch.equal(second[0], last[0])


def taps_blocks(backbone):
    tower = backbone.tower
    blocks = next(m for name, m in tower.named_modules() if name.endswith(("blocks", "encoder.layers")))
    assert isinstance(blocks, nn.ModuleList)
    return blocks


def test_the_last_tap_of_qwen2_5_is_what_the_merger_is_given_in_the_order_of_the_map():
    # several windows of four by four tokens, which the tower orders one after another
    embedder = family_embedder("qwen2_5_vl").eval()
    visual = embedder.backbone.model.visual
    batch = collate(embedder.prepare([Item((Image(draw(308, 196)),)), Item((Image(draw(56, 336)),))], "query"))
    embedder.backbone.tap((-1,))
    given = []
    hook = visual.merger.register_forward_pre_hook(lambda _, args: given.append(args[0]))

    with torch.no_grad():
        features = embedder.vision(batch)
    hook.remove()

    merged = visual.merger(given[0])
    means = given[0].view(len(merged), 4, -1).mean(1)
    maps, taps = torch.cat(features.maps), torch.cat(features.taps[0])
    # which token of the tower's order each of the map is
    order = torch.cdist(maps, merged).argmin(1)
    assert not torch.equal(order, torch.arange(len(order)))
    assert torch.allclose(taps, means[order])


@pytest.mark.parametrize("architecture", MAPPED)
def test_a_tap_has_a_gradient_also_where_activations_are_recomputed(architecture):
    batches = []
    for recompute in (False, True):
        embedder = family_embedder(architecture, gradient_checkpointing=recompute).train()
        embedder.backbone.tap((1,))
        batch = collate(embedder.prepare([Item((Image(draw(84, 56)),))], "query"))
        embedder.vision(batch).taps[0][0].square().sum().backward()
        block = taps_blocks(embedder.backbone)[0]
        batches.append([p.grad for p in block.parameters() if p.grad is not None])

    plain, recomputed = batches
    assert len(plain) == len(recomputed) > 4
    assert all(torch.allclose(a, b, rtol=1e-4, atol=1e-6) for a, b in zip(plain, recomputed, strict=True))


@pytest.mark.parametrize("architecture", MAPPED)
def test_a_layer_that_the_tower_has_not_is_refused(architecture):
    backbone = family_embedder(architecture).backbone
    depth = len(taps_blocks(backbone))

    with pytest.raises(InputError, match=rf"regions\.layers: expected layers -{depth + 1} to {depth} .* got \[9\]"):
        backbone.tap((0, 9))


@pytest.mark.parametrize("architecture", ["llava", "llava_next", "phi3_v"])
def test_the_last_layer_trains_only_where_it_is_tapped(architecture):
    backbone = family_embedder(architecture).backbone
    last = f"layers.{len(taps_blocks(backbone)) - 1}."
    assert any(last in name for name in backbone.unused)

    backbone.tap((-1,))

    assert not any(last in name for name in backbone.unused)


def test_layers_are_counted_from_either_end():
    assert check_taps((0, 3, -1, -4), 3) == (0, 3, 3, 0)


@pytest.mark.parametrize("architecture", [name for name in FAMILIES if name not in MAPPED])
def test_other_families_say_that_they_have_no_map_and_no_taps(architecture):
    backbone = family_embedder(architecture).backbone

    with pytest.raises(InputError, match="regions: expected a backbone whose tower gives features of patches"):
        backbone.patch_maps(None, [])
    with pytest.raises(InputError, match=r"regions\.layers: expected a backbone that gives the states"):
        backbone.tap((0,))
