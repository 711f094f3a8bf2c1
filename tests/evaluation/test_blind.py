import io

import av
import numpy as np
import PIL.Image
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmembed.evaluation.benchmark import BLIND_NAMES
from mmembed.evaluation.blind import (
    BLINDS,
    Around,
    blank_page,
    coordinates,
    crop,
    grey_image,
    no_image,
    no_instruction,
    no_region,
    no_text,
    shuffle_frames,
    shuffle_words,
    shuffled_region,
    wrong_region,
)
from mmembed.items import Image, Item, Page, Region, Video
from mmembed.media.decode import decode
from mmembed.media.settings import MediaSettings, UniformFrames

MEDIA = MediaSettings()


def picture(seed, size=(17, 9)):
    pixels = np.random.default_rng(seed).integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)
    return PIL.Image.fromarray(pixels)


def clip(path, num_frames):
    """A clip whose frame i is uniform with brightness 20 i."""
    with av.open(path, "w") as container:
        stream = container.add_stream("libx264", rate=8)
        stream.width = stream.height = 32
        stream.pix_fmt = "yuv420p"
        for i in range(num_frames):
            pixels = np.full((32, 32, 3), 20 * i, dtype=np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, "rgb24")))
        container.mux(stream.encode())
    return path


def brightness(item):
    return [round(np.asarray(p).mean() / 20) for p in decode(item.media[0], MEDIA).pictures]


def test_the_table_has_the_names_that_rows_may_use():
    assert tuple(BLINDS) == BLIND_NAMES


@pytest.mark.parametrize("name", BLINDS)
def test_blinding_is_the_same_every_time(name, tmp_path):
    frames = tuple(picture(i) for i in range(5))
    page = document(tmp_path / "a.pdf")
    item = Item((picture_part(), "one two three four", Video(frames), page), instruction="Find it.")

    first, again = (BLINDS[name](item, "q1", Around(MEDIA)) for _ in range(2))

    assert first.fingerprint() == again.fingerprint() != item.fingerprint()


@pytest.mark.parametrize("name", [name for name in BLINDS if name != "no_text"])
def test_what_has_nothing_to_blind_stays_as_it_is(name):
    item = Item.of("red")

    assert BLINDS[name](item, "q1", Around(MEDIA)) == item


def document(path):
    """The second page of a PDF."""
    picture(0, (60, 40)).save(path, save_all=True, append_images=[picture(1, (20, 40))])
    return Page(path, page=2, dpi=72)


def picture_part():
    return Image(picture(0), (Region(box=(2, 1, 9, 6)),))


def test_grey_image_keeps_sizes_regions_words_and_order():
    item = Item((picture_part(), "red", Image(picture(1, (5, 8)))), instruction="Find it.")

    blinded = grey_image(item, "q1", Around(MEDIA))

    first, words, second = blinded.content
    assert (words, blinded.instruction, first.regions) == ("red", "Find it.", item.content[0].regions)
    for part, size in ((first, (17, 9)), (second, (5, 8))):
        opened = PIL.Image.open(io.BytesIO(part.source))
        assert opened.size == size
        assert opened.convert("RGB").getcolors() == [(size[0] * size[1], (128, 128, 128))]


def test_blank_page_turns_pages_white_and_nothing_else(tmp_path):
    page = document(tmp_path / "a.pdf")
    item = Item((picture_part(), "red", page), instruction="Find it.")

    blinded = blank_page(item, "d1", Around(MEDIA))

    *others, blank = blinded.content
    (shown,), (before,) = (decode(medium, MEDIA).pictures for medium in (blank, page))
    assert (tuple(others), blinded.instruction) == (item.content[:2], "Find it.")
    assert shown.size == before.size
    assert shown.getcolors() == [(shown.width * shown.height, (255, 255, 255))]


def test_grey_image_greys_pages_too(tmp_path):
    blinded = grey_image(Item((document(tmp_path / "a.pdf"),)), "d1", Around(MEDIA))

    (shown,) = decode(blinded.media[0], MEDIA).pictures
    assert shown.getcolors() == [(shown.width * shown.height, (128, 128, 128))]


def test_no_image_takes_every_medium_and_no_text_every_text():
    item = Item((picture_part(), "red", Video((picture(1),)), "round"), instruction="Find it.")

    assert no_image(item, "q1", Around(MEDIA)) == Item(("red", "round"), instruction="Find it.")
    assert no_text(item, "q1", Around(MEDIA)) == Item((item.content[0], item.content[2]), instruction="Find it.")


def test_an_item_from_which_everything_is_taken_is_a_blank_with_its_instruction():
    shown, said = Item.of({"image": picture(0)}, "Find it."), Item.of("red", "Find it.")

    for blinded in (no_image(shown, "q1", Around(MEDIA)), no_text(said, "q1", Around(MEDIA))):
        assert (blinded.text.strip(), blinded.media, blinded.instruction) == ("", (), "Find it.")


def test_no_region_takes_the_places_and_leaves_the_pictures():
    item = Item((picture_part(), "red"), instruction="Find it.", verbatim=False)

    blinded = no_region(item, "q1", Around(MEDIA))

    assert blinded == Item((Image(item.content[0].source), "red"), instruction="Find it.", verbatim=False)


def test_grey_image_blinds_the_frames_a_clip_would_have_shown(tmp_path):
    item = Item((Video(clip(tmp_path / "clip.mp4", 12), num_frames=3),))

    blinded = grey_image(item, "q1", Around(MEDIA))

    pictures = decode(blinded.media[0], MEDIA).pictures
    assert len(pictures) == 3
    assert all(p.getcolors() == [(32 * 32, (128, 128, 128))] for p in pictures)


WORDS = st.lists(st.sampled_from(["a", "b", "cd", "e"]), min_size=1, max_size=6)


@given(WORDS, st.integers(0, 10))
@settings(max_examples=80, deadline=None)
def test_shuffled_words_are_the_same_words_in_another_order_if_there_is_one(words, seed):
    item = Item.of(" ".join(words))

    shuffled = shuffle_words(item, f"q{seed}", Around(MEDIA)).text.split()

    assert sorted(shuffled) == sorted(words)
    assert (shuffled != words) == (len(set(words)) > 1)


def test_shuffle_words_leaves_instruction_and_pictures():
    item = Item((picture_part(), "left of right"), instruction="Find the one.")

    blinded = shuffle_words(item, "q1", Around(MEDIA))

    assert (blinded.content[0], blinded.instruction) == (item.content[0], "Find the one.")


def test_queries_are_shuffled_independently():
    text = Item.of(" ".join("abcdefghij"))

    assert shuffle_words(text, "q1", Around(MEDIA)).text != shuffle_words(text, "q2", Around(MEDIA)).text


def test_no_instruction_takes_only_the_instruction():
    item = Item.of("red", instruction="Find it.")

    assert no_instruction(item, "q1", Around(MEDIA)) == Item.of("red")


@pytest.mark.parametrize("num_frames", [2, 3, 8])
@pytest.mark.parametrize("seed", range(4))
def test_shuffled_frames_are_the_sampled_frames_in_another_order(tmp_path, num_frames, seed):
    item = Item((Video(clip(tmp_path / "clip.mp4", 12), num_frames=num_frames), "what happens"))

    blinded = shuffle_frames(item, f"q{seed}", Around(MEDIA))

    assert sorted(brightness(blinded)) == sorted(brightness(item))
    assert brightness(blinded) != brightness(item)
    assert blinded.text == "what happens"


def test_shuffled_frames_are_not_thinned_again(tmp_path):
    item = Item((Video(clip(tmp_path / "clip.mp4", 12)),))
    twelve = MediaSettings(sampling=UniformFrames(12))

    blinded = shuffle_frames(item, "q1", Around(twelve))

    assert len(decode(blinded.media[0], MEDIA).pictures) == 12


def pointing(*boxes, seed=0):
    """Queries into one picture, a box each."""
    drawn = picture(seed)
    return {
        f"q{i}": Item((Image(drawn, (Region(box=box),)),), "Find it.", verbatim=False) for i, box in enumerate(boxes)
    }


def box_of(item):
    (region,) = item.media[0].regions
    return region.box


def test_a_wrong_region_is_what_another_query_points_at_in_the_picture():
    queries = pointing((1, 1, 4, 4), (8, 2, 12, 7), (1, 1, 4, 4)) | {
        f"other {name}": item for name, item in pointing((2, 2, 6, 6), seed=1).items()
    }
    around = Around(MEDIA, queries)

    # an equal region is no wrong one
    assert [box_of(wrong_region(queries[f"q{i}"], f"q{i}", around)) for i in range(3)] == [
        (8, 2, 12, 7), (1, 1, 4, 4), (8, 2, 12, 7),
    ]  # fmt: skip


@pytest.mark.parametrize("near", [(1, 1, 5, 4), (1.0, 1.0, 4.0, 4.0), (0.5, 1, 4, 4.5)])
def test_nearly_the_same_place_is_no_wrong_region(near):
    queries = pointing((1, 1, 4, 4), near)
    around = Around(MEDIA, queries)

    assert wrong_region(queries["q0"], "q0", around) == shuffled_region(queries["q0"], "q0", around)
    queries |= {"far": next(iter(pointing((3, 1, 9, 6)).values()))}
    assert box_of(wrong_region(queries["q0"], "q0", Around(MEDIA, queries))) == (3, 1, 9, 6)


def test_a_region_alone_in_its_picture_is_moved_in_it():
    queries = pointing((1, 1, 4, 4))
    around = Around(MEDIA, queries)

    blinded = wrong_region(queries["q0"], "q0", around)

    assert blinded == shuffled_region(queries["q0"], "q0", around)
    x0, y0, x1, y1 = box_of(blinded)
    assert (x1 - x0, y1 - y0) == (3, 3)
    assert x0 >= 4 or y0 >= 4


def test_of_several_wrong_regions_queries_draw_their_own():
    queries = pointing(*((x, 1, x + 2, 4) for x in range(8)))
    around = Around(MEDIA, queries)

    drawn = [box_of(wrong_region(queries["q0"], f"seed {i}", around)) for i in range(20)]

    assert queries["q0"].media[0].regions[0].box not in drawn
    assert len(set(drawn)) > 3


def test_a_crop_and_coordinates_leave_no_region():
    (query,) = pointing((2, 1, 9, 6)).values()

    cut = crop(query, "q0", Around(MEDIA))
    told = coordinates(query, "q0", Around(MEDIA, region_words="{x0} {y0} {x1} {y1}"))

    assert decode(cut.media[0], MEDIA).size == (7, 5)
    assert told == Item((Image(query.media[0].source), "2 1 9 6"), "Find it.", verbatim=False)


def test_regions_stay_in_place_where_pictures_are_made_squares():
    (query,) = pointing((2, 1, 16, 8)).values()
    squares = MediaSettings(square=4)

    grey = grey_image(query, "q0", Around(squares))

    assert PIL.Image.open(io.BytesIO(grey.media[0].source)).size == (17, 9)
    assert decode(grey.media[0], squares).pictures[0].size == (4, 4)
