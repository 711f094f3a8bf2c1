"""Regions drawn into their picture: which pixels change, to what, and that every family sees it."""

from dataclasses import replace

import numpy as np
import PIL.Image
import pytest
import torch

from mmembed import Embedder, Image, Item, Region
from mmembed.errors import InputError
from mmembed.models.region_encoders.overlay import OverlayPreparer
from mmembed.models.settings.regions import Overlay
from tests.cases import WORDS, draw
from tests.families import READS_PICTURES, family_embedder, family_settings

GREY, RED = (90, 90, 90), (255, 0, 0)
SIZE = (80, 60)


def drawn(*regions, size=SIZE, **settings):
    """A grey picture with its regions drawn, as an array ``[H, W, 3]``; lines are two pixels wide unless asked."""
    preparer = OverlayPreparer(Overlay(**({"line": 2 / max(size)} | settings)))
    return np.asarray(preparer.redraw(Image("grey.png", regions), PIL.Image.new("RGB", size, GREY)))


def changed(pixels):
    return (pixels != GREY).any(-1)


def square(left, top, right, bottom, size=SIZE):
    mask = np.zeros(size[::-1], dtype=bool)
    mask[top:bottom, left:right] = True
    return mask


def test_a_box_is_outlined_in_red_within_its_edges():
    pixels = drawn(Region(box=(10, 20, 30, 50)))

    ring = square(10, 20, 30, 50) & ~square(12, 22, 28, 48)
    assert (changed(pixels) == ring).all()
    assert (pixels[ring] == RED).all()


def test_a_box_as_large_as_the_picture_is_drawn_on_its_edge():
    assert (changed(drawn(Region(box=(0, 0, *SIZE)))) == ~square(2, 2, 78, 58)).all()


@pytest.mark.parametrize("box", [(79.6, 59.6, 80.4, 60.4), (0, 0, 0.2, 0.2), (7.2, 7.2, 7.4, 7.4)])
def test_a_box_smaller_than_a_pixel_is_a_pixel(box):
    assert changed(drawn(Region(box=box))).sum() == 1


def test_an_ellipse_touches_the_middle_of_each_side_and_no_corner():
    pixels = changed(drawn(Region(box=(10, 20, 30, 50)), shape="ellipse"))

    assert pixels[20, 20] and pixels[49, 20] and pixels[35, 10] and pixels[35, 29]
    assert not (pixels[20, 10] or pixels[49, 29] or pixels[35, 20])
    assert not (pixels & ~square(10, 20, 30, 50)).any()


def test_a_point_is_a_disc_around_it_and_hollow_where_it_is_outside():
    inside, outside = (changed(drawn(Region(points=((40.5, 30.5, label),)))) for label in (1, 0))

    assert inside[30, 40] and not outside[30, 40]
    assert inside.sum() > outside.sum() > 0
    assert not (outside & ~inside).any()
    assert np.argwhere(inside).mean(0).tolist() == [30, 40]


def test_a_mask_is_tinted_by_half_and_has_a_full_contour():
    mask = square(10, 10, 40, 40) & ~square(20, 20, 22, 22)
    pixels = drawn(Region(mask=mask))

    assert (changed(pixels) == mask).all()
    assert pixels[11, 25].tolist() == [*RED]
    # the hole has a contour, too
    assert pixels[18, 20].tolist() == [*RED]
    assert pixels[30, 30].tolist() == pytest.approx([(90 + 255) / 2, 45, 45], abs=1)


def test_a_mask_at_the_edge_of_the_picture_has_a_contour_there():
    pixels = drawn(Region(mask=square(0, 0, 20, 20)))

    assert pixels[0, 10].tolist() == [*RED]
    assert pixels[10, 10].tolist() != [*RED]


def test_alpha_says_how_much_a_line_covers():
    pixels = drawn(Region(box=(10, 20, 30, 50)), alpha=0.5)

    assert pixels[20, 10].tolist() == pytest.approx([(90 + 255) / 2, 45, 45], abs=1)


def test_a_line_grows_with_the_picture_and_has_a_pixel_at_least():
    widths = [changed(drawn(Region(box=(0, 0, *size)), size=size, line=0.01))[size[1] // 2].sum() / 2
              for size in ((20, 10), (300, 100))]  # fmt: skip

    assert widths == [1, 3]


def test_regions_have_colours_of_their_own():
    boxes = [Region(box=(8 * i, 0, 8 * i + 8, 8)) for i in range(10)]
    pixels = drawn(*boxes)

    colours = [tuple(pixels[0, 8 * i].tolist()) for i in range(10)]
    assert colours[0] == RED
    assert min(np.abs(np.subtract(a, b)).max() for i, a in enumerate(colours) for b in colours[:i]) > 40


def test_the_given_picture_is_not_written_to():
    picture = PIL.Image.new("RGB", SIZE, GREY)

    OverlayPreparer(Overlay()).redraw(Image(picture, (Region(box=(0, 0, 9, 9)),)), picture)

    assert picture.getcolors() == [(SIZE[0] * SIZE[1], GREY)]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"line": 0}, "regions.line: expected above 0 and at most 1, got 0"),
        ({"alpha": 1.5}, "regions.alpha: expected above 0 and at most 1, got 1.5"),
    ],
)
def test_settings_that_draw_nothing_or_too_much_are_refused(settings, message):
    with pytest.raises(InputError, match=message):
        Overlay(**settings)


@pytest.mark.parametrize("name", READS_PICTURES)
def test_every_family_sees_which_region_is_meant_and_none_as_without_an_encoder(name):
    embedder = Embedder(replace(family_settings(name), regions=Overlay(line=0.1)), texts=WORDS)
    picture = draw(84, 56)
    places = [(), (Region(box=(0, 0, 40, 40)),), (Region(box=(40, 10, 84, 56)),), (Region(points=((20, 20, 1),)),)]
    items = [Item((Image(picture, regions), "a red circle")) for regions in places]

    found = embedder.encode(items)

    assert torch.pdist(found).min() > 1e-3
    assert torch.equal(embedder.encode(items[:1]), family_embedder(name).encode(items[:1]))
    one_by_one = torch.cat([embedder.encode([item]) for item in items])
    assert torch.allclose(found, one_by_one, atol=1e-5, rtol=0)


def test_pictures_are_drawn_on_before_they_are_made_square():
    settings = family_settings("qwen2_vl")
    backbone = replace(settings.backbone, media=replace(settings.backbone.media, square=56))
    embedder = Embedder(replace(settings, backbone=backbone, regions=Overlay(line=0.05)), texts=WORDS)
    picture, region = draw(200, 100), Region(box=(100, 50, 200, 100))

    drawn_on = OverlayPreparer(Overlay(line=0.05)).redraw(Image(picture, (region,)), picture)

    found = embedder.encode([Image(picture, (region,)), Image(drawn_on)])
    assert torch.equal(found[0], found[1])
