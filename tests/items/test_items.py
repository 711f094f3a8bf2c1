"""Items: what people write, what is refused, and names of contents."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

import mmembed
from mmembed.errors import InputError
from mmembed.items import Image, Item, Negative, Page, Pair, Region, Video, frame_files, natural_key

RED = PIL.Image.new("RGB", (4, 3), "red")
PICTURE, CLIP = Image("a.png"), Video("v.mp4")
BOX = Region(box=(1.0, 2.0, 3.0, 4.0))


@pytest.mark.parametrize(
    ("value", "content"),
    [
        ("words", ("words",)),
        (RED, (Image(RED),)),
        (Image("a.png"), (Image("a.png"),)),
        (Video("v.mp4"), (Video("v.mp4"),)),
        (Page("d.pdf", 2), (Page("d.pdf", 2),)),
        ({"text": "words"}, ("words",)),
        ({"text": "words", "image": "a.png"}, (Image("a.png"), "words")),
        ({"text": "", "image": "a.png"}, (Image("a.png"),)),
        ({"text": "t", "pdf": "d.pdf", "image": "a.png", "video": "v.mp4"}, (CLIP, PICTURE, Page("d.pdf"), "t")),
        ({"image": ["a.png", b"bytes", Image("c.png", (BOX,))]}, (PICTURE, Image(b"bytes"), Image("c.png", (BOX,)))),
        ({"image": "a.png", "regions": [{"box": [1, 2, 3, 4]}]}, (Image("a.png", (BOX,)),)),
        ({"image": Image("a.png"), "regions": [BOX]}, (Image("a.png", (BOX,)),)),
        ({"image": Path("a.png"), "text": None, "video": None}, (Image(Path("a.png")),)),
        ({"video": "v.mp4", "num_frames": 8, "start_s": 1.5, "end_s": 3.0}, (Video("v.mp4", 8, None, 1.5, 3.0),)),
        ({"video": "v.mp4", "fps": 2.0}, (Video("v.mp4", fps=2.0),)),
        ({"video": ["0.png", "1.png"]}, (Video(("0.png", "1.png")),)),
        ({"video": Video(b"bytes")}, (Video(b"bytes"),)),
        ({"pdf": "d.pdf", "page": 3, "dpi": 72}, (Page("d.pdf", 3, 72),)),
        ({"pdf": Page("d.pdf", 3)}, (Page("d.pdf", 3),)),
        ({"content": ["before ", {"image": "a.png"}, CLIP, " after"]}, ("before ", PICTURE, CLIP, " after")),
    ],
)  # fmt: skip
def test_what_people_write_becomes_an_item(value, content):
    item = Item.of(value)

    assert item.content == content
    assert item.instruction is None
    assert item.verbatim == (isinstance(value, dict) and "content" in value)


def test_arrays_are_pictures():
    pixels = np.arange(36, dtype=np.uint8).reshape(3, 4, 3)

    (image,) = Item.of(pixels).content

    assert np.array_equal(np.asarray(image.source), pixels)
    assert Item.of({"image": pixels}).fingerprint() == Item.of(pixels).fingerprint()


def test_an_own_instruction_goes_before_the_shared_one():
    assert Item.of("x", "shared").instruction == "shared"
    assert Item.of({"text": "x", "instruction": "own"}, "shared").instruction == "own"
    assert Item.of({"text": "x", "instruction": ""}, "shared").instruction == ""
    assert Item.of({"content": ["x"], "instruction": "own"}).instruction == "own"
    assert Item.of(Item(("x",), "own"), "shared").instruction == "own"
    assert Item.of(Item(("x",)), "shared").verbatim


def test_text_and_media_are_read_in_order():
    item = Item(("before", Image("a.png"), "after", Page("d.pdf")))

    assert item.text == "before after"
    assert item.media == (Image("a.png"), Page("d.pdf"))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Item(["x"]), "item.content: expected a tuple of parts, got list; use tuple(...)"),
        (lambda: Item((3,)), "item.content: expected str, Image, Video or Page, got int; wrap it, or use Item.of"),
        (lambda: Item(("", "")),
         "item: expected some text or media, got empty text; leave the row out or give it words"),
        (lambda: Item.of(""), "item: expected some text or media, got empty text"),
        (lambda: Item.of({}), "item: expected some text or media"),
        (lambda: Item.of({"txt": "x"}), "item.txt: expected a known field, got 'txt'; did you mean 'text'?"),
        (lambda: Item.of({"text": 3}), "item.text: expected a string, got int; quote it"),
        (lambda: Item.of(3), "item: expected a path, bytes, PIL picture or array, got int; convert it"),
        (lambda: Item.of({"image": 3}),
         "item.image: expected a path, bytes, PIL picture or array, got int; convert it"),
        (lambda: Item.of({"video": 3}), "item.video: expected a path, bytes or a list of frames, got int; convert it"),
        (lambda: Item.of({"video": []}), "item.video: expected at least one frame, got an empty list"),
        (lambda: Item.of({"video": [3]}), "item.video: expected a path, bytes, PIL picture or array, got int"),
        (lambda: Item.of({"image": ["a", "b"], "regions": [BOX]}),
         "item.regions: expected one image beside regions, got 2 images"),
        (lambda: Item.of({"content": [{"image": "a", "text": "b"}]}),
         "item.content: expected one medium or text a part, got {'image'"),
        (lambda: Region(), "region: expected exactly one of box, points, mask, got none; give one kind a region"),
        (lambda: Region(box=(1, 2, 3, 4), points=((1, 1, 1),)),
         "region: expected exactly one of box, points, mask, got ['box', 'points']"),
        (lambda: Region(box=(1, 2, 3)),
         "region.box: expected 4 numbers x0 y0 x1 y1, got (1, 2, 3); give the two corners"),
        (lambda: Region(box=(3, 2, 1, 4)),
         "region.box: expected x0 < x1 and y0 < y1, got (3, 2, 1, 4); order the corners"),
        (lambda: Region(box=(1, 2, float("nan"), 4)), "region.box: expected finite numbers, got (1, 2, nan, 4)"),
        (lambda: Item.of({"content": "words"}), "item.content: expected a list of parts, got str; use [...]"),
        (lambda: Region(box=(1, 4, 3, 4)), "region.box: expected x0 < x1 and y0 < y1, got (1, 4, 3, 4)"),
        (lambda: Region(points=((1, 2, 2),)), "region.points: expected (x, y, label) with label 0 or 1, got (1, 2, 2)"),
        (lambda: Region.of({"points": [[1, 2]]}),
         "region.points: expected (x, y, label) with label 0 or 1, got (1, 2)"),
        (lambda: Region.of({"bbox": [1, 2, 3, 4]}),
         "region.bbox: expected a known field, got 'bbox'; did you mean 'box'?"),
        (lambda: Video("v", num_frames=0),
         "video.num_frames: expected at least 1, got 0; leave it out for the default"),
        (lambda: Video("v", 4, 2.0), "video: expected num_frames or fps, got num_frames 4 and fps 2.0; drop one"),
        (lambda: Video("v", start_s=2.0, end_s=1.0),
         "video.end_s: expected more than start_s 2.0, got 1.0; order the two"),
        (lambda: Page("d", 0), "page.page: expected 1 or more, got 0; pages are counted from 1"),
        (lambda: Pair(Item.of("q"), ()), "pair.positives: expected at least one, got none"),
        (lambda: Pair(Item.of("q"), (Item.of("p"),), (Negative(Item.of("n")),), (0.5,)),
         "pair.teacher_scores: expected 2 scores, one for each positive then negative, got 1"),
    ],
)  # fmt: skip
def test_what_cannot_be_used_is_refused_in_words(make, message):
    with pytest.raises(InputError) as error:
        make()

    assert message in str(error.value)


def test_regions_have_dict_forms():
    mask = np.eye(3, dtype=bool)

    assert Region.of({"points": [[1, 2, 1], (3.5, 4, 0)]}).points == ((1.0, 2.0, 1), (3.5, 4.0, 0))
    assert Region.of({"mask": mask}).mask is mask
    assert Region.of(BOX) is BOX


def test_equal_contents_have_equal_names_and_others_other_names(tmp_path):
    RED.save(tmp_path / "red.png")
    (tmp_path / "copy.png").write_bytes((tmp_path / "red.png").read_bytes())
    blue = PIL.Image.new("RGB", (4, 3), "blue")
    mask = np.eye(3, dtype=bool)
    different = [
        Item.of("x"),
        Item.of("y"),
        Item.of("x", ""),
        Item.of("x", "task"),
        Item(("x",)),
        Item(("x", "y")),
        Item(("xy",)),
        Item((Image(RED),)),
        Item((Image(blue),)),
        Item((Image(RED.resize((3, 4))),)),
        Item((Image(RED.convert("L").convert("RGB")),)),
        Item((Image(tmp_path / "red.png"),)),
        Item((Image(b"bytes"),)),
        Item((Image(RED, (BOX,)),)),
        Item((Image(RED, (Region(points=((1, 2, 1),)),)),)),
        Item((Image(RED, (Region(mask=mask),)),)),
        Item((Image(RED, (Region(mask=~mask),)),)),
        Item((Video((RED,)),)),
        Item((Video((RED, RED)),)),
        Item((Video((RED, RED), num_frames=1),)),
        Item((Video((RED, RED), end_s=1.0),)),
        Item((Page(b"bytes"),)),
        Item((Page(b"bytes", 2),)),
        Item((Page(b"bytes", dpi=72),)),
    ]

    assert len({item.fingerprint() for item in different}) == len(different)
    assert Item((Image(RED.copy()),)).fingerprint() == Item((Image(RED),)).fingerprint()
    same_bytes = Item((Image(str(tmp_path / "copy.png")),)).fingerprint()
    assert same_bytes == Item((Image(tmp_path / "red.png"),)).fingerprint()


def test_the_name_of_the_content_leaves_out_the_instruction():
    assert Item.of("x", "task").content_fingerprint() == Item.of("x").content_fingerprint()
    assert Item.of("x").content_fingerprint() != Item.of("y").content_fingerprint()


def test_a_changed_file_gets_another_name(tmp_path):
    file = tmp_path / "a.bin"
    file.write_bytes(b"first")
    before = Image(file).fingerprint()

    file.write_bytes(b"other")
    os.utime(file, ns=(1, 1))

    assert Image(file).fingerprint() != before


def test_a_folder_of_frames_is_named_by_its_frames_in_natural_order(tmp_path):
    for folder, order in (("a", (2, 10)), ("b", (10, 2))):
        (tmp_path / folder).mkdir()
        for name, content in zip(order, (b"two", b"ten"), strict=True):
            (tmp_path / folder / f"frame_{name}.png").write_bytes(content)
    (tmp_path / "a/notes.txt").write_text("not a frame")

    assert [f.name for f in frame_files(tmp_path / "a")] == ["frame_2.png", "frame_10.png"]
    assert Video(tmp_path / "a").fingerprint() == Video((b"two", b"ten")).fingerprint()
    assert Video(tmp_path / "a").fingerprint() != Video(tmp_path / "b").fingerprint()


def test_a_missing_file_has_no_name(tmp_path):
    with pytest.raises(InputError, match=r"missing\.png: expected a readable file, got No such file.*--data-root"):
        Image(tmp_path / "missing.png").fingerprint()


def test_natural_order_reads_digits_as_numbers_and_ignores_case():
    names = ["b1", "A10", "a2", "a2b", "1", "a", "10", "2"]

    assert sorted(names, key=natural_key) == ["1", "2", "10", "a", "a2", "a2b", "A10", "b1"]


def test_the_package_offers_its_names_and_no_others():
    for name in mmembed.__all__:
        assert getattr(mmembed, name) is not None
    with pytest.raises(AttributeError, match="module 'mmembed' has no attribute 'Embeder'"):
        mmembed.Embeder  # noqa: B018


def test_items_and_settings_import_without_torch():
    root = Path(mmembed.__file__).parent
    settings = [".".join(("mmembed", *f.relative_to(root).with_suffix("").parts)) for f in root.rglob("settings.py")]
    modules = ["mmembed", "mmembed.items", *settings]
    heavy = ("torch", "transformers", "lightning", "datasets", "av")
    code = f"import sys, {', '.join(modules)}; print([m for m in {heavy} if m in sys.modules])"

    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=root.parent)

    assert len(settings) >= 5
    assert found.stdout.strip() == "[]"


def test_pictures_of_another_palette_are_other_pictures():
    red, blue = (PIL.Image.new("P", (4, 4)) for _ in range(2))
    red.putpalette([255, 0, 0])
    blue.putpalette([0, 0, 255])
    see_through = red.copy()
    see_through.info["transparency"] = 0

    assert red.tobytes() == blue.tobytes()
    assert len({Image(picture).fingerprint() for picture in (red, blue, see_through)}) == 3
