"""Every training source converts from its miniature, to the strings that the published parsers write."""

from pathlib import Path

import pytest
import yaml

from data_prep.check import main as check
from data_prep.converters.registry import CONVERTERS
from data_prep.engine.preparation import Wishes, prepare
from data_prep.miniatures.draw import COPIES, draw_source, prepare_miniature
from data_prep.miniatures.studio import ROWS
from data_prep.source import read_source, resolve
from mmembed.data.tables import open_table
from mmembed.errors import InputError
from mmembed.items import Image, Video, frame_files
from mmembed.models.prompts import render
from mmembed.models.settings import RawPrompt

SOURCES = (
    *("mmeb_train", "mmeb_train_diverse", "colpali_train", "visrag_train", "docmatix", "pixmo_docs", "llava_hound"),
    *("msrvtt_train", "msvd_train", "didemo_train", "ssv2_train"),
)
SETS = [f"{source}/{name}" for source in SOURCES for name in read_source(source).sets]
GOLDEN = yaml.safe_load((Path(__file__).parents[1] / "golden" / "mmeb" / "train_strings.yaml").read_text())
IMAGE, VIDEO = "<|image_pad|>", "<|video_pad|>"


def written(item):
    """The raw prompt of an item, with the words of Qwen2-VL."""
    words = [VIDEO if isinstance(medium, Video) else IMAGE for medium in item.media]
    return "".join(segment.text for segment in render(item, RawPrompt(), words, image_word=IMAGE))


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    manifests = {}
    for source in SOURCES:
        manifests |= prepare_miniature(source, root)
    return root, manifests


def test_the_group_is_the_published_mixture():
    everything = resolve("mmeb_v2_train")

    assert {source.name: len(source.sets) for source in everything} == {
        "mmeb_train": 20,
        "colpali_train": 1,
        "visrag_train": 1,
        "llava_hound": 3,
    }


def test_every_set_has_a_converter_and_a_golden_string_of_its_kind():
    rows = {name: read_source(name.partition("/")[0]).sets[name.partition("/")[2]] for name in SETS}

    assert len(SETS) == 51
    assert {row.converter for row in rows.values()} <= CONVERTERS.keys()
    assert set(GOLDEN) == {name for name in SETS if not name.startswith("mmeb_train_diverse/")} | {
        f"mmeb_train_diverse/{name}" for name in ("ImageNet_1K", "OK-VQA", "WebQA")
    }


@pytest.mark.parametrize("name", SETS)
def test_every_row_of_a_miniature_becomes_a_pair_with_media_that_decode(prepared, capsys, name):
    root, manifests = prepared
    source, _, row = name.partition("/")

    entry = manifests[source]["sets"][row]
    assert (entry["rows"], entry["put_aside"]["count"]) == (ROWS, 0)
    assert check([str(root / f"{name}.parquet")]) == 0, capsys.readouterr().out


@pytest.mark.parametrize("name", GOLDEN)
def test_the_strings_are_those_of_the_published_parser(prepared, name):
    table = open_table(prepared[0] / f"{name}.parquet")

    for row, strings in GOLDEN[name].items():
        pair = table[row]
        assert written(pair.query) == strings["query"]
        assert [written(target) for target in pair.positives] == [strings["target"]]
        if "negative" in strings:
            assert [written(negative.item) for negative in pair.negatives] == [strings["negative"]]


def test_each_source_of_visrag_has_a_prompt_of_its_own():
    queries = [strings["query"] for row, strings in GOLDEN["visrag_train/visrag_indomain"].items() if row < 10]

    assert len({query.partition(":")[0] for query in queries}) == 10


@pytest.mark.parametrize("name", SETS)
def test_a_prompt_has_a_word_for_each_medium_and_no_other(prepared, name):
    for pair in open_table(prepared[0] / f"{name}.parquet"):
        for item in (pair.query, *pair.positives, *(negative.item for negative in pair.negatives)):
            words = written(item).count(IMAGE) + written(item).count(VIDEO)
            strays = 1 if item is pair.query and name.endswith("/WebQA") else 0
            assert words == len(item.media) + strays
            assert "<|image_1|>" not in written(item)
            assert "<video>" not in written(item)


def test_a_stray_word_stands_beside_rows_with_pictures(prepared):
    pair = open_table(prepared[0] / "mmeb_train" / "WebQA.parquet")[0]

    assert pair.query.media == ()
    assert pair.query.layout == "{image_token}{text}"
    assert isinstance(pair.positives[0].media[0], Image)


def test_a_negative_of_visdial_is_a_picture_without_words(prepared):
    (negative,) = open_table(prepared[0] / "mmeb_train" / "VisDial.parquet")[0].negatives

    assert written(negative.item) == IMAGE
    assert negative.item.media[0].source.endswith("VisDial_negative_0.jpg")


@pytest.mark.parametrize("name", ["llava_hound/video_caption_300k", "llava_hound/video_qa_240k", "ssv2_train/ssv2"])
def test_a_video_is_its_folder_of_frames_of_which_eight_are_used(prepared, name):
    (video,) = open_table(prepared[0] / f"{name}.parquet")[0].query.media

    assert isinstance(video, Video)
    assert video.num_frames == 8
    assert Path(video.source).is_dir()


def test_frames_of_a_clip_without_frames_are_extracted_once(prepared):
    root, manifests = prepared
    made = manifests["msrvtt_train"]["sets"]["msrvtt_9k"]["made"]
    (video,) = open_table(root / "msrvtt_train" / "msrvtt_9k.parquet")[0].positives[0].media

    assert len(list((root / "msrvtt_train" / made["folder"]).rglob("*.jpg"))) == ROWS * 12
    assert [path.name for path in frame_files(Path(video.source))][:2] == ["frame_0001.jpg", "frame_0002.jpg"]


def test_a_row_whose_frames_are_missing_is_put_aside_by_name(tmp_path):
    source = read_source("llava_hound").only(["video_caption_300k"])
    draw_source(source, tmp_path / COPIES)
    annotations = (
        tmp_path / COPIES / source.sets["video_caption_300k"].repo / source.sets["video_caption_300k"].files[0]
    )
    annotations.write_text(annotations.read_text().replace("cap004", "gone004"))

    with pytest.raises(InputError, match=r"at most 1\.00% of the rows put aside, got 1 of 12"):
        prepare(source, tmp_path, copies=tmp_path / COPIES, wishes=Wishes(compare=False))
    manifest = prepare(source, tmp_path, copies=tmp_path / COPIES, wishes=Wishes(compare=False, max_bad=0.1))

    entry = manifest["sets"]["video_caption_300k"]
    assert (entry["rows"], entry["put_aside"]["count"]) == (ROWS - 1, 1)
    assert "row 4: video" in entry["put_aside"]["first"][0]
    assert "v_gone004-Scene-001" in entry["put_aside"]["first"][0]


def test_a_clone_that_was_unpacked_as_its_publisher_says_is_taken_as_it_is(tmp_path):
    source = read_source("mmeb_train").only(["OK-VQA"])
    draw_source(source, tmp_path / "copies")
    clone = tmp_path / "copies" / "TIGER-Lab" / "MMEB-train"
    (clone / "images").mkdir()
    (tmp_path / "copies" / ".drawn" / "TIGER-Lab" / "MMEB-train" / "OK-VQA" / "OK-VQA").rename(
        clone / "images" / "OK-VQA"
    )
    (clone / "images_zip" / "OK-VQA.zip").unlink()

    manifest = prepare(source, tmp_path / "data", copies=tmp_path / "copies", wishes=Wishes(compare=False))

    assert manifest["sets"]["OK-VQA"]["rows"] == ROWS
    assert check([str(tmp_path / "data" / "mmeb_train" / "OK-VQA.parquet")]) == 0
