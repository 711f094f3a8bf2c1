"""How far the fast ways to a picture lead from the exact one: recorded, and never further."""

import io

import numpy as np
import PIL.Image
import pytest

from mmembed import Image, Item
from mmembed.media.decode import decode
from mmembed.media.settings import MediaSettings
from mmembed.models.backbones.qwen_vl.pixels import resize, target_size

TORCHVISION_MOST, TORCHVISION_MEAN = 6, 0.033
"""Grey levels by which torchvision's bicubic resize differs from Pillow's: the most, and the mean of a picture."""
TORCHVISION_COSINE = 1e-6
"""Distance of embeddings that follows from it."""
DRAFT_MOST, DRAFT_MEAN = 5, 0.76
"""Grey levels by which a JPEG decoded smaller differs, where three times the pixels of the model are left."""


@pytest.fixture(scope="module")
def pictures(golden):
    paths = sorted((golden / "vlm2vec" / "inputs" / "images").iterdir())
    assert len(paths) > 10
    return paths


def photograph(width, height):
    """Three channels that vary together, with the spectrum of natural pictures (amplitudes fall with frequency)."""
    rng = np.random.default_rng(0)
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None])
    frequency[0, 0] = 1.0

    def field():
        waves = rng.normal(size=(2, *frequency.shape)) / frequency**1.2
        return np.fft.irfft2(waves[0] + 1j * waves[1], (height, width))

    light = field()
    channels = np.stack([light + 0.4 * field() for _ in range(3)], axis=-1)
    levels = channels / channels.std() * 50 + 128
    return PIL.Image.fromarray(levels.clip(0, 255).astype(np.uint8))


def difference(one, other):
    levels = np.abs(one.astype(int) - other.astype(int))
    return levels.max(), levels.mean()


@pytest.mark.parametrize("max_pixels", [1003520, 50176])
def test_torchvision_differs_from_pillow_by_the_recorded_grey_levels(pictures, max_pixels):
    found = []
    for path in pictures:
        picture = PIL.Image.open(path).convert("RGB")
        height, width = target_size(picture.height, picture.width, 28, 3136, max_pixels)
        found.append(difference(*(resize(picture, height, width, kind) for kind in ("pil", "torchvision"))))

    assert 0 < max(most for most, _ in found) <= TORCHVISION_MOST
    assert max(mean for _, mean in found) <= TORCHVISION_MEAN


def test_embeddings_under_torchvision_stay_within_the_recorded_distance(pictures, open_golden):
    items = [Item.of({"image": path}) for path in pictures]

    exact, fast = (open_golden("qwen2_vl", resize=kind).encode(items).double() for kind in ("pil", "torchvision"))

    assert 0 < (1 - (exact * fast).sum(dim=1)).max() <= TORCHVISION_COSINE


def test_a_draft_differs_by_the_recorded_grey_levels():
    stored, max_pixels = io.BytesIO(), 150_000
    photograph(1600, 1200).save(stored, "JPEG", quality=90)
    image = Image(stored.getvalue())
    whole = decode(image, MediaSettings()).pictures[0]
    draft = decode(image, MediaSettings(draft_pixels=3 * max_pixels)).pictures[0]
    height, width = target_size(whole.height, whole.width, 28, 3136, max_pixels)

    most, mean = difference(*(resize(picture, height, width, "pil") for picture in (whole, draft)))

    assert (whole.size, draft.size) == ((1600, 1200), (800, 600))
    assert 0 < most <= DRAFT_MOST
    assert mean <= DRAFT_MEAN
