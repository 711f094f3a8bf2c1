"""The picture cut to its one region: the embedding is that of the crop."""

import io
from dataclasses import replace

import numpy as np
import PIL.Image
import pytest
import torch

from mmembed import Embedder, Image, Item, Region
from mmembed.errors import InputError
from mmembed.models.region_encoders.crop import CropPreparer
from mmembed.models.settings.regions import Crop
from tests.cases import WORDS, draw
from tests.families import READS_PICTURES, family_embedder, family_settings

SIZE = (80, 60)
PICTURE = draw(*SIZE)


def mask_of(left, top, right, bottom):
    mask = np.zeros(SIZE[::-1], dtype=bool)
    mask[top, left] = mask[bottom - 1, right - 1] = True
    return mask


def cut(region, **settings):
    return CropPreparer(Crop(**settings)).redraw(Image(PICTURE, (region,)), PICTURE)


def same(picture, corners):
    return picture.size == PICTURE.crop(corners).size and picture.tobytes() == PICTURE.crop(corners).tobytes()


@pytest.mark.parametrize(
    ("region", "corners"),
    [
        (Region(box=(10, 20, 33, 47)), (10, 20, 33, 47)),
        (Region(box=(10.4, 20.6, 32.1, 46.9)), (10, 20, 33, 47)),
        (Region(box=(-1, -1, 81, 61)), (0, 0, *SIZE)),
        (Region(box=(7.2, 7.2, 7.4, 7.4)), (7, 7, 8, 8)),
        (Region(box=(79.5, 59.5, 81, 61)), (79, 59, 80, 60)),
        (Region(mask=mask_of(10, 20, 33, 47)), (10, 20, 33, 47)),
        # the square around a point is 0.3 of the shorter side, 18 pixels
        (Region(points=((40, 30, 1),)), (31, 21, 49, 39)),
        (Region(points=((40, 30, 1), (20, 50, 1))), (11, 21, 49, 59)),
        (Region(points=((80, 60, 1),)), (71, 51, 80, 60)),
    ],
)
def test_a_picture_is_cut_to_its_region(region, corners):
    assert same(cut(region), corners)


def test_every_box_of_whole_pixels_is_cut_to_these():
    for x0 in range(0, 80, 7):
        for width in (1, 3, 80 - x0):
            assert same(cut(Region(box=(x0, 3, min(x0 + width, 80), 59))), (x0, 3, min(x0 + width, 80), 59))


def test_a_margin_is_kept_within_the_picture():
    assert same(cut(Region(box=(20, 20, 40, 30)), margin=0.5), (10, 15, 50, 35))
    assert same(cut(Region(box=(0, 20, 40, 60)), margin=0.5), (0, 0, 60, 60))
    assert same(cut(Region(points=((40, 30, 1),)), point_side=0.2, margin=1.0), (22, 12, 58, 48))


@pytest.mark.parametrize(
    ("regions", "message"),
    [
        ((Region(box=(0, 0, 9, 9)), Region(box=(9, 9, 19, 19))),
         "cat.png: regions: expected one region, which the picture is cut to, got 2; give the picture once for each"),
        ((Region(points=((1, 1, 1), (2, 2, 0))),),
         r"cat.png: regions\[0\].points: expected points inside, which a crop can tell, got a point with label 0"),
        ((Region(box=(0, 0, 99, 9)),), r"cat.png: regions\[0\].box: expected a box inside the picture of 80 x 60"),
    ],
)  # fmt: skip
def test_what_a_crop_cannot_tell_is_refused(regions, message):
    with pytest.raises(InputError, match=message):
        CropPreparer(Crop()).redraw(Image("cat.png", regions), PICTURE)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"margin": -0.1}, "regions.margin: expected at least 0, got -0.1"),
        ({"point_side": 0}, "regions.point_side: expected above 0 and at most 1, got 0"),
    ],
)
def test_settings_that_would_cut_everything_are_refused(settings, message):
    with pytest.raises(InputError, match=message):
        Crop(**settings)


@pytest.mark.parametrize("name", READS_PICTURES)
def test_every_family_embeds_the_crop_and_a_picture_without_a_region_as_without_an_encoder(name):
    embedder, plain = Embedder(replace(family_settings(name), regions=Crop()), texts=WORDS), family_embedder(name)
    region = Region(box=(5, 10, 61, 52))
    marked, whole = Item((Image(PICTURE, (region,)), "a red circle")), Item((Image(PICTURE), "a red circle"))

    expected = plain.encode([Item((Image(PICTURE.crop((5, 10, 61, 52))), "a red circle")), whole])

    assert torch.equal(embedder.encode([marked, whole]), expected)


def test_regions_of_a_turned_picture_are_in_pixels_of_the_upright_one():
    exif, file = PIL.Image.Exif(), io.BytesIO()
    exif[0x0112] = 6
    PICTURE.save(file, "png", exif=exif)
    settings = family_settings("qwen2_vl")
    backbone = replace(settings.backbone, media=replace(settings.backbone.media, exif=True))
    embedder = Embedder(replace(settings, backbone=backbone, regions=Crop()), texts=WORDS)
    upright = PICTURE.rotate(-90, expand=True)

    found = embedder.encode(
        [Image(file.getvalue(), (Region(box=(0, 30, 60, 80)),)), Image(upright.crop((0, 30, 60, 80)))]
    )

    assert torch.equal(found[0], found[1])
