"""The video sets of MMEB-V2 from their miniatures: prompts to the character, candidates, names, and frames."""

import hashlib
import json
import shutil
import subprocess
from functools import cache
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import yaml

from data_prep.converters.clips_ranked.labels import read_labels
from data_prep.engine.preparation import prepare
from data_prep.miniatures.draw import COPIES, prepare_miniature
from data_prep.source import read_source, resolve
from mmembed.evaluation.benchmark import read_benchmark
from mmembed.evaluation.retrieval_set import read_retrieval_set
from mmembed.evaluation.vectors import asked
from mmembed.items import Image, frame_files
from mmembed.media.settings import MediaSettings
from mmembed.media.video import load_video
from mmembed.models.prompts import render
from mmembed.models.settings import RawPrompt

BENCHMARKS = Path(__file__).parents[2] / "eval/benchmarks"
V, IMAGE = "<|video_pad|>", "<|image_pad|>"
UNDERSTAND = f"{V} Understand the content of the provided video."
ASK = (
    f"{V} Given a video and a question, select the most accurate answer from the provided candidates. "
    "Return only the exact text of your chosen answer. Question:  "
)
ROLLS = "a red ball rolls away"

COUNTS = {"Breakfast": 10, "HMDB51": 51, "UCF101": 101, "K700": 700}
MVBENCH = [
    *("episodic_reasoning", "action_sequence", "action_prediction", "action_antonym", "fine_grained_action"),
    *("unexpected_action", "object_existence", "object_interaction", "object_shuffle", "moving_direction"),
    *("action_localization", "scene_transition", "action_count", "moving_count", "moving_attribute", "state_change"),
    *("fine_grained_pose", "character_order", "egocentric_navigation", "counterfactual_inference"),
]

# the first query and its right target as the published code writes them for Qwen2-VL
STRINGS = {
    "K700": (f"{V} Recognize the category of the video content.", "clay_pottery_making"),
    "HMDB51": (f"{V} What actions or objects interactions are the person in the video doing?", "fall_floor"),
    "UCF101": (f"{V} What activities or sports are being performed by the person in the video?", "Fencing"),
    "Breakfast": (f"{V} Recognize the breakfast type that the person is cooking in the video. ", "salad"),
    "SmthSmthV2": (
        f"{V} What actions or object interactions are being performed by the person in the video?",
        "holding pen",
    ),
    "MSR-VTT": (f"Find a video that contains the following visual content: {ROLLS} in MSR-VTT", UNDERSTAND),
    "MSVD": (f"Find the video snippet that corresponds to the given summary: {ROLLS} in MSVD", UNDERSTAND),
    "DiDeMo": (f"Find a video that includes the following described scenes: {ROLLS} in DiDeMo", UNDERSTAND),
    "YouCook2": (
        f"Find a video that demonstrates the following action while making a recipe: {ROLLS} in YouCook2",
        UNDERSTAND,
    ),
    "VATEX": (f"Select a video that fits the description provided: {ROLLS} in VATEX", UNDERSTAND),
    "QVHighlight": (
        f"{V} Find the clip that corresponds to the described scene in the given video: when {ROLLS}",
        UNDERSTAND,
    ),
    "Charades-STA": (
        f"{V} Find the clip that corresponds to the described scene in the given video: when {ROLLS}",
        UNDERSTAND,
    ),
    "MomentSeeker": (
        f"Find the clip that corresponds to the given text: {ROLLS}",
        f"{V} Understand the content of the provided video clip.",
    ),
    "MVBench": (f"{ASK}Is it episodic_reasoning?\nOptions:\n(A) yes\n(B) no", "(A) yes"),
    "Video-MME": (
        f"{ASK}What happens when {ROLLS}?\nA. Apples.\nB. 1.5 m.\nC. {ROLLS}.\nD. None of the above.",
        ROLLS,
    ),
    "NExTQA": (
        f"{ASK}why did {ROLLS}\nOptions:\n(A) to play\n(B) {ROLLS}\n(C) it was hungry\n(D) to rest \n(E) wind",
        "to play",
    ),
    "EgoSchema": (
        f"{ASK}Taking into account that {ROLLS}, what is c doing?A. C cooks. 0 B. C cleans. C. C reads. "
        "D. C rests. E. C runs.",
        "C cooks. 0",
    ),
    "ActivityNetQA": (f"{ASK}is it true that {ROLLS}? (A) yes; (B) no.", "yes"),
}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    root = tmp_path_factory.mktemp("clip_sets")
    prepare_miniature("mmeb_v2_video", root)
    return root


@pytest.fixture(scope="module")
def read(place):
    return lambda name: read_retrieval_set(place / "mmeb_v2_video" / name)


def written(item):
    words = [IMAGE if isinstance(medium, Image) else V for medium in item.media]
    return "".join(segment.text for segment in render(item, RawPrompt(), words, image_word=IMAGE))


@cache
def tasks():
    return {
        **read_benchmark(BENCHMARKS / "mmeb_v2_extra.yaml").tasks,
        **read_benchmark(BENCHMARKS / "mmeb_v2.yaml").of_modality("video").tasks,
    }


# num_data of the published scores; MomentSeeker's before 2025-07-31 was 1800
QUERIES = {
    "K700": 1000, "HMDB51": 1000, "UCF101": 1000, "Breakfast": 433, "SmthSmthV2": 1000, "MSR-VTT": 1000, "MSVD": 670,
    "DiDeMo": 1004, "YouCook2": 3179, "VATEX": 4478, "QVHighlight": 1083, "Charades-STA": 727, "MomentSeeker": 1602,
    "MVBench": 4000, "Video-MME": 2700, "NExTQA": 8564, "EgoSchema": 500, "ActivityNetQA": 1000,
    "MomentSeeker_1k8": 1800,
}  # fmt: skip


def test_the_source_expects_the_published_number_of_queries():
    rows = {name: row.rows for name, row in read_source("mmeb_v2_video").sets.items()}

    assert rows == QUERIES | {"MSVD_clips": QUERIES["MSVD"]}


def test_the_group_of_the_benchmark_is_the_data_of_its_78_tasks():
    sets = [f"{source.name}/{name}" for source in resolve("mmeb_v2") for name in source.sets]

    wanted = [row.data for row in read_benchmark(BENCHMARKS / "mmeb_v2.yaml").tasks.values()]
    assert len(sets) == 78
    assert sorted(sets) == sorted(wanted)


def test_copies_whose_archives_the_published_script_unpacked_are_taken_as_they_are(place, tmp_path):
    copies = shutil.copytree(place / COPIES, tmp_path / "copies")
    frames = copies / "TIGER-Lab/MMEB-V2/video-tasks/frames"
    # the script makes a folder for the archives that bring none
    subprocess.run(
        "mkdir video_cls && tar xzf video_cls.tar.gz -C video_cls && tar xzf video_mret.tar.gz && "
        "cat video_qa.tar.gz-0* | tar xz && rm *.tar.gz*",
        shell=True, cwd=frames, check=True,
    )  # fmt: skip
    names = ["SmthSmthV2", "MomentSeeker", "NExTQA"]

    prepare(read_source("mmeb_v2_video").only(names), tmp_path / "data", copies=copies)

    for name in names:
        ours, other = (read_retrieval_set(root / "mmeb_v2_video" / name) for root in (tmp_path / "data", place))
        assert ours.fingerprint() == other.fingerprint()


def folder_of(video):
    return Path(video.source)


def stored(video):
    """How many frames lie there."""
    return len(frame_files(folder_of(video)))


def prompts(name, found):
    """Queries and targets as they are written under the benchmark's row."""
    row = tasks()[name]
    assert row.data == f"mmeb_v2_video/{name}"
    assert (row.candidates == "local") == (found.candidates is not None)
    sides = (("query", found.queries), ("target", found.corpus))
    return [{key: written(item) for key, item in asked(row, side, items).items()} for side, items in sides]


@pytest.mark.parametrize("name", STRINGS)
def test_the_first_query_and_its_target_are_the_published_strings(name, read):
    found = read(name)
    queries, targets = prompts(name, found)

    (right,) = found.relevance["q0"]
    assert (queries["q0"], targets[right]) == STRINGS[name]


def test_every_video_task_of_the_benchmark_has_its_strings_here():
    assert set(STRINGS) == {name for name, row in tasks().items() if row.modality == "video"}
    assert len(STRINGS) == 18


@pytest.mark.parametrize("name", ["MomentSeeker", "MomentSeeker_1k8"])
def test_a_moment_is_sought_by_words_by_a_picture_or_by_a_clip(name, read):
    found = read(name)
    queries, _ = prompts(name, found)

    shown = "Select the video clip that aligns with the given text and image:"
    assert queries["q1"] == f"{IMAGE} {shown} two boxes are stacked"
    sought = "Find the clip that corresponds to the given sentence and video segment:"
    assert queries["q2"] == f"{V} {sought} a door opens slowly"
    assert folder_of(found.queries["q1"].media[0]).name == "query_movie_17.jpg"
    assert folder_of(found.queries["q2"].media[0]).name == "movie101_77"
    assert found.relevance["q1"] == {"videos_movie_1_334.00_338.00": 1, "videos_sports_2_334.00_338.00": 1}


def test_every_word_of_a_list_of_labels_is_as_published():
    lists = {name: read_labels(name) for name in COUNTS}

    assert {name: len(labels) for name, labels in lists.items()} == COUNTS
    assert all(len(set(labels)) == len(labels) for labels in lists.values())
    assert all(label == label.strip() != "" for labels in lists.values() for label in labels)
    found = {name: hashlib.sha256("\n".join(labels).encode()).hexdigest()[:16] for name, labels in lists.items()}
    # of the lists in the published code, in their order
    assert found == {
        "K700": "f86e6c34187b6301",
        "UCF101": "acf087eb9a8e5140",
        "HMDB51": "d5d503903cc4fe69",
        "Breakfast": "bc78c1ae402dc8cc",
    }


# ---- candidates and names, against the published loops written down as they are


def published(name, rows):
    """Names of the candidates of each row, and its labels, as the published parsers list them."""
    return [CANDIDATES[name](row) for row in rows]


def own(column):
    return lambda row: ([row[column]], [row[column]])


def stem_of_clip(row):
    stem = row["video"].split("/")[-1].split(".")[0]
    return [stem], [stem]


def siblings(row):
    stem = row["video_path"].split("/")[-1].removesuffix(".mp4")
    # folders numbered by one and two digits, the smaller number first; the published order is that of the disk
    return [f"{stem}/{folder}" for folder in ("negative_2", "negative_10", "positive_1")], [f"{stem}/positive_1"]


def moments(row):
    good, bad = (
        [entry["output_path"].replace("/", "_").split(".mp4")[0] for entry in row[f"{kind}_frames"]]
        for kind in ("positive", "negative")
    )
    return good + bad, good


def mvbench(row):
    names = [f"({'ABCDE'[i]}) {option}" for i, option in enumerate(row["candidates"])]
    return names, [names[row["candidates"].index(row["answer"])]]


CANDIDATES = {
    **dict.fromkeys(COUNTS, own("pos_text")),
    "SmthSmthV2": lambda row: (row["neg_text"], [row["pos_text"]]),
    **dict.fromkeys(("MSR-VTT", "MSVD", "MSVD_clips"), own("video_id")),
    "DiDeMo": stem_of_clip,
    "YouCook2": own("id"),
    "VATEX": own("videoID"),
    **dict.fromkeys(("QVHighlight", "Charades-STA"), siblings),
    **dict.fromkeys(("MomentSeeker", "MomentSeeker_1k8"), moments),
    "MVBench": mvbench,
    "Video-MME": lambda row: (row["options"], [row["options"]["ABCD".index(row["answer"])]]),
    "NExTQA": lambda row: ([row[f"a{i}"] for i in range(5)], [row[f"a{row['answer']}"]]),
    "EgoSchema": lambda row: (row["option"], [row["option"][int(row["answer"])]]),
    "ActivityNetQA": lambda row: (["yes", "no"], [row["answer"]]),
}


def rows_of(place, name):
    """The rows as they were published, found by hand."""
    sets = yaml.safe_load((Path(__file__).parents[2] / "data_prep/sources/mmeb_v2_video.yaml").read_text())["sets"]
    repo = place / COPIES / sets[name]["repo"]
    files = sorted(f for f in repo.rglob("*") if f.suffix in (".parquet", ".json", ".jsonl"))
    if name == "MVBench":
        files.sort(key=lambda f: MVBENCH.index(f.stem))
    rows = []
    for file in files:
        if file.suffix == ".parquet":
            rows += pq.read_table(file).to_pylist()
        elif file.suffix == ".jsonl":
            rows += [json.loads(line) for line in file.read_text().splitlines()]
        else:
            rows += json.loads(file.read_text())
    return rows


@pytest.mark.parametrize("name", [*STRINGS, "MomentSeeker_1k8", "MSVD_clips"])
def test_candidates_and_labels_are_those_of_the_published_loops(name, read, place):
    found, rows = read(name), rows_of(place, name)
    wanted = published(name, rows)

    assert list(found.queries) == [f"q{i}" for i in range(len(rows))]
    listed = [candidate for candidates, _ in wanted for candidate in candidates]
    if name in COUNTS:
        listed += read_labels(name)
    assert list(found.corpus) == list(dict.fromkeys(listed))
    for query, (candidates, labels) in zip(found.queries, wanted, strict=True):
        assert found.relevance[query] == dict.fromkeys(labels, 1.0)
        if found.candidates is not None:
            assert found.candidates[query] == candidates


def test_mvbench_asks_the_twenty_configurations_in_the_published_order(read):
    found = read("MVBench")

    assert [item.text.split("?")[0] for item in found.queries.values()] == [f"Is it {name}" for name in MVBENCH]
    # published as frames under a name without a suffix
    assert folder_of(found.queries["q0"].media[0]).parts[-2:] == ("episodic_reasoning", "castle_s01e02_seg02_clip_09")
    assert folder_of(found.queries["q1"].media[0]).parts[-2:] == ("action_sequence", "action_sequence_1.mp4")


# ---- frames


@pytest.mark.parametrize(
    ("query", "there", "used"),
    [("q0", 64, [0, 9, 18, 27, 36, 45, 54, 63]), ("q1", 10, [0, 1, 2, 3, 5, 6, 7, 9]), ("q2", 5, [0, 1, 2, 3, 4])],
)
@pytest.mark.parametrize("name", ["K700", "VATEX"])
def test_eight_frames_are_taken_of_those_stored_and_fewer_are_not_repeated(name, query, there, used, read):
    found = read(name)
    (target,) = found.relevance[query]
    video = (found.queries[query].media or found.corpus[target].media)[0]

    assert stored(video) == there
    assert list(load_video(video, MediaSettings()).indices) == used


@pytest.mark.parametrize("name", ["QVHighlight", "Charades-STA"])
def test_the_whole_video_and_each_clip_of_it_give_eight_frames(name, read):
    found = read(name)

    assert list(load_video(found.queries["q0"].media[0], MediaSettings()).indices) == [0, 9, 18, 27, 36, 45, 54, 63]
    names = found.candidates["q0"]
    counts = [len(load_video(found.corpus[name].media[0], MediaSettings()).indices) for name in names]
    assert counts == [8, 5, 8]


def test_moment_seeker_takes_all_stored_frames_under_any_sampling(read):
    found = read("MomentSeeker")
    videos = [item.media[0] for item in found.corpus.values()]

    assert [video.num_frames for video in videos] == [stored(video) for video in videos]
    assert [len(load_video(video, MediaSettings()).indices) for video in videos] == [8, 7, 6, 5]


def test_names_of_clips_do_not_say_where_they_lie(read, place):
    for name in STRINGS:
        found = read(name)
        assert not any(str(place) in target or target.startswith("/") for target in found.corpus), name


def test_a_set_without_frames_has_them_taken_of_its_clips(read, place):
    videos = [item.media[0] for item in read("MSVD_clips").corpus.values()]

    # 70 frames of a clip: frame i of 64 is i * 70 / 64
    assert [stored(video) for video in videos] == [64] * 3
    made = place / "mmeb_v2_video/media/made/MSVD_clips"
    assert all(folder_of(video).resolve().is_relative_to(made.resolve()) for video in videos)
    assert frame_files(folder_of(videos[0]))[0].name == "frame_0001.jpg"
