"""What the video sets of MMEB-V2 do where frames, answers or options are not as they should be."""

import shutil

import pytest

from data_prep.converters import Media
from data_prep.converters.clips_ranked import CONVERTERS
from data_prep.converters.clips_ranked.moments import SEVERAL_POSITIVE, UNKNOWN_INPUT
from data_prep.converters.clips_ranked.questions import MVBENCH_CLIPS, NO_LETTER
from data_prep.miniatures.studio import Studio
from data_prep.source import read_source
from mmembed.errors import InputError
from mmembed.items import frame_files


@pytest.fixture
def studio(tmp_path):
    return Studio(tmp_path)


@pytest.fixture
def convert(tmp_path):
    """Convert rows of a set; its media lie in the folder ``media``."""
    sets = read_source("mmeb_v2_video").sets

    def run(name, rows):
        media = Media(tmp_path / "media", tmp_path / "media/made" / name)
        parts = rows if isinstance(rows, dict) else {"rows": iter(rows)}
        return CONVERTERS[sets[name].converter].ranked(parts, sets[name], media)

    return run


LABELLED = {"video_id": "v1", "pos_text": "wave"}
MOMENT = {"query": "a wave", "video_path": "videos/v1.mp4"}


def draw_moment(studio, *folders):
    for folder in folders:
        studio.frames(studio.root / "media/video_mret/QVHighlight/v1" / folder, 2)


def test_a_missing_folder_of_frames_names_row_field_and_folder(convert, studio):
    studio.frames(studio.root / "media/video_cls/HMDB51/v1", 3)

    with pytest.raises(InputError, match=r"^row 1: video_id: .*'video_cls/HMDB51/v2' or the clip 'videos/.*/v2.mp4'"):
        convert("HMDB51", [LABELLED, LABELLED | {"video_id": "v2"}])


def test_where_no_clips_can_stand_in_the_missing_frames_are_named(convert, studio):
    draw_moment(studio, "positive_1")

    with pytest.raises(InputError, match=r"^row 0: video_path: .*in 'video_mret/QVHighlight/v1/query', got none"):
        convert("QVHighlight", [MOMENT])


def test_a_folder_without_pictures_is_no_folder_of_frames(convert, studio):
    draw_moment(studio, "query", "positive_1")
    shutil.rmtree(studio.root / "media/video_mret/QVHighlight/v1/query")
    (studio.root / "media/video_mret/QVHighlight/v1/query").mkdir()

    with pytest.raises(InputError, match=r"^row 0: .*pictures in 'video_mret/QVHighlight/v1/query', got none"):
        convert("QVHighlight", [MOMENT])


@pytest.mark.parametrize("name", ["../K700/v1", "/etc/v1", "a/../../v1"])
def test_a_path_that_climbs_out_of_the_media_is_refused(convert, studio, name):
    studio.frames(studio.root / "media/video_cls/K700/v1", 3)

    with pytest.raises(InputError, match=r"^row 0: video_id: expected a path below the media"):
        convert("HMDB51", [LABELLED | {"video_id": name}])


def test_a_clip_stands_in_for_frames_that_are_missing(convert, studio):
    studio.frames(studio.root / "media/video_cls/HMDB51/v1", 3)
    studio.clip(studio.root / "media/videos/video_cls/HMDB51/v2.mp4", frames=70)

    found = convert("HMDB51", [LABELLED, LABELLED | {"video_id": "v2"}, LABELLED | {"video_id": "v2"}])

    stored, taken, again = (item.media[0].source for item in found.queries.values())
    assert stored == studio.root / "media/video_cls/HMDB51/v1"
    assert taken == again == studio.root / "media/made/HMDB51/v2"
    assert [path.name for path in frame_files(taken)] == [f"frame_{i:04d}.jpg" for i in range(1, 65)]


def test_questions_take_frames_of_clips_by_their_own_rule(convert, studio):
    studio.clip(studio.root / "media/videos/video_qa/ActivityNetQA/v_a.mp4", frames=130)

    found = convert("ActivityNetQA", [{"video_name": "a", "question": "is it", "answer": "no"}])

    frames = frame_files(found.queries["q0"].media[0].source)
    assert [path.name for path in frames] == [f"{i:04d}.jpeg" for i in range(64)]


def test_a_clip_that_does_not_decode_is_named_with_its_row(convert, studio):
    studio.write(studio.root / "media/videos/video_cls/HMDB51/v1.mp4", b"no clip")

    with pytest.raises(InputError, match=r"^row 0: video_id: .*v1\.mp4"):
        convert("HMDB51", [LABELLED])


def test_mvbench_takes_published_frames_as_they_are_where_its_clips_are_frames(convert, studio):
    clips = studio.root / "media/videos/video_qa/MVBench"
    studio.frames(clips / "tvqa/frames_fps3_hq/castle", 4, "{:05d}.jpg")
    studio.clip(clips / "ssv2_video/9.mp4", frames=5)
    parts = {name: iter(()) for name in MVBENCH_CLIPS}
    question = {"question": "What?", "candidates": ["yes", "no"], "answer": "no"}
    parts["episodic_reasoning"] = iter([question | {"video": "castle"}])
    parts["action_antonym"] = iter([question | {"video": "9.mp4"}])

    frames, clip = (item.media[0].source for item in convert("MVBench", parts).queries.values())

    assert frames == clips / "tvqa/frames_fps3_hq/castle"
    assert [path.name for path in frame_files(clip)] == [f"{i:04d}.jpeg" for i in range(5)]


def test_a_row_without_a_positive_is_refused_instead_of_taking_that_of_the_row_before(convert, studio):
    draw_moment(studio, "query", "positive_1", "negative_1")
    for folder in ("query", "negative_1", "negative_2"):
        studio.frames(studio.root / "media/video_mret/QVHighlight/v2" / folder, 2)

    with pytest.raises(
        InputError,
        match=r"^row 1: video_path: .*'positive...', got negative_1, negative_2, query in '.*v2'",
    ):
        convert("QVHighlight", [MOMENT, MOMENT | {"video_path": "videos/v2.mp4"}])


def test_candidates_of_a_moment_come_in_natural_order_and_files_beside_them_are_none(convert, studio):
    draw_moment(studio, "query", "negative_10", "negative_9", "positive_2", "positive_1")
    studio.write(studio.root / "media/video_mret/QVHighlight/v1/notes.txt", b"no clip")

    found = convert("QVHighlight", [MOMENT])

    assert found.candidates["q0"] == ["v1/negative_9", "v1/negative_10", "v1/positive_1", "v1/positive_2"]
    assert found.relevance["q0"] == {"v1/positive_1": 1, "v1/positive_2": 1}
    assert found.notes == {SEVERAL_POSITIVE: 1}


def test_an_input_of_another_kind_is_taken_for_none_and_counted(convert, studio):
    frames = studio.root / "media/video_mret/MomentSeeker/video_frames"
    studio.frames(frames / "a_b_1.00_2.00", 2)
    studio.frames(frames / "a_c", 3)
    row = {"query": "a wave", "positive_frames": [{"output_path": "a/b_1.00_2.00.mp4"}], "negative_frames": []}
    row["negative_frames"] = [{"output_path": "a/c.mp4.mp4"}]

    found = convert("MomentSeeker", [row | {"input_frames": given} for given in ("", None, "a.gif")])

    assert found.notes == {UNKNOWN_INPUT: 1}
    assert {item.instruction for item in found.queries.values()} == {
        "Find the clip that corresponds to the given text:"
    }
    assert not any(item.media for item in found.queries.values())
    assert list(found.corpus) == ["a_b_1.00_2.00", "a_c"]


def test_a_picture_beside_the_frames_that_is_missing_is_named(convert, studio):
    studio.frames(studio.root / "media/video_mret/MomentSeeker/video_frames/a", 2)
    row = {"query": "a wave", "positive_frames": [{"output_path": "a.mp4"}], "negative_frames": []}

    with pytest.raises(InputError, match=r"row 0: .*no 'video_mret/MomentSeeker/query_b.jpg'"):
        convert("MomentSeeker", [row | {"input_frames": "b.jpg"}])


def test_of_something_something_only_the_first_thousand_rows_are_used(convert, studio):
    studio.frames(studio.root / "media/video_cls/SSv2/1", 2)
    row = {"video_id": 1, "pos_text": "a", "neg_text": ["a", "b", "a"]}

    found = convert("SmthSmthV2", (row for _ in range(1200)))

    assert len(found.queries) == 1000
    assert found.candidates["q999"] == ["a", "b"]


VIDEOMME = {"question": "What?", "videoID": "1", "options": ["A. one.", "B. two."], "answer": "B"}
NEXTQA = {"video": 1, "question": "why", "answer": 4, "a0": "a", "a1": "b", "a2": "a", "a3": "c", "a4": "b"}
EGOSCHEMA = {"video_idx": "1", "question": "what", "answer": "1", "option": ["A. one", "B. two"]}
ACTIVITY = {"video_name": "1", "question": "is it", "answer": "no"}


@pytest.mark.parametrize(
    ("name", "row", "got"),
    [
        ("SmthSmthV2", {"video_id": "1", "pos_text": "c", "neg_text": ["a", "b"]}, "row 0: pos_text: .*'c'"),
        ("Video-MME", VIDEOMME | {"answer": "C"}, "row 0: answer: .*'C'"),
        ("Video-MME", VIDEOMME | {"answer": "AB"}, "row 0: answer: .*'AB'"),
        ("NExTQA", NEXTQA | {"answer": 5}, "row 0: answer: .*'5'"),
        ("NExTQA", NEXTQA | {"answer": -1}, "row 0: answer: .*'-1'"),
        ("NExTQA", NEXTQA | {"a3": ""}, "row 0: a3: expected a text, got an empty one"),
        ("EgoSchema", EGOSCHEMA | {"answer": "2"}, "row 0: answer: .*'2'"),
        ("ActivityNetQA", ACTIVITY | {"answer": "maybe"}, "row 0: answer: .*'maybe'"),
    ],
)
def test_an_answer_that_is_no_option_is_refused(convert, name, row, got):
    with pytest.raises(InputError, match=f"^{got}"):
        convert(name, [row])


def test_an_answer_of_mvbench_that_is_no_option_names_configuration_and_row(convert):
    parts = {name: iter(()) for name in MVBENCH_CLIPS}
    parts["state_change"] = iter([{"question": "What?", "video": "1.mp4", "candidates": ["a", "b"], "answer": "A"}])

    with pytest.raises(InputError, match=r"^state_change: row 0: answer: .*'A'"):
        convert("MVBench", parts)


def test_of_equal_options_of_mvbench_the_last_one_is_right(convert, studio):
    studio.frames(studio.root / "media/video_qa/MVBench/state_change/1.mp4", 2)
    parts = {name: iter(()) for name in MVBENCH_CLIPS}
    options = ["a", "b", "a"]
    parts["state_change"] = iter([{"question": "What?", "video": "1.mp4", "candidates": options, "answer": "a"}])

    assert convert("MVBench", parts).relevance["q0"] == {"(C) a": 1}


def test_equal_options_of_a_question_are_one_candidate(convert, studio):
    studio.frames(studio.root / "media/video_qa/NExTQA/1", 2)

    found = convert("NExTQA", [NEXTQA])

    assert found.candidates["q0"] == ["a", "b", "c"]
    assert found.relevance["q0"] == {"b": 1}
    assert found.queries["q0"].text == "why\nOptions:\n(A) a\n(B) b\n(C) a\n(D) c\n(E) b"


def test_an_option_without_a_letter_keeps_its_last_character_as_published_and_is_counted(convert, studio):
    studio.frames(studio.root / "media/video_qa/Video-MME/1", 2)

    found = convert("Video-MME", [VIDEOMME | {"options": ["A. one.", "B. a. b .", "C.5"]}])

    assert [item.text for item in found.corpus.values()] == ["one", "a. b", "5"]
    assert found.notes == {NO_LETTER: 1}


CLIP = {"caption": ["a wave", "another"]}


def draw_clips(studio, *names):
    for name in names:
        studio.clip(studio.root / f"media/videos/video_ret/MSVD/{name}.mp4", frames=3)


def test_clips_without_ids_are_refused_instead_of_being_one_clip(convert, studio):
    draw_clips(studio, "a", "b")

    with pytest.raises(InputError, match=r"^row 0: video_id: expected a number or a name, got None"):
        convert("MSVD_clips", [CLIP | {"video_id": None, "video": f"{name}.mp4"} for name in "ab"])

    assert not (studio.root / "media/made").exists()


def test_a_second_clip_by_the_name_of_a_first_is_refused(convert, studio):
    draw_clips(studio, "a", "b")
    rows = [CLIP | {"video_id": "a", "video": f"{name}.mp4"} for name in "aab"]

    assert list(convert("MSVD_clips", rows[:2]).corpus) == ["a"]
    with pytest.raises(InputError, match=r"^row 2: video_id: expected a name that one clip has, got 'a' for '.*b.mp4'"):
        convert("MSVD_clips", rows)


@pytest.mark.parametrize("name", ["{root}/escaped", "../../../escaped", "."])
def test_frames_are_not_written_outside_the_folder_made_for_them(convert, studio, name):
    draw_clips(studio, "a")
    name = name.format(root=studio.root)

    with pytest.raises(InputError, match=r"^row 0: video_id: expected a path below the media"):
        convert("MSVD_clips", [CLIP | {"video_id": name, "video": "a.mp4"}])

    assert not (studio.root / "escaped").exists()
    assert not list(studio.root.rglob("*.jpg"))


def test_a_climbing_path_is_refused_also_where_a_clip_could_stand_in(convert, studio):
    studio.clip(studio.root / "media/videos/video_cls/v1.mp4")

    with pytest.raises(InputError, match=r"^row 0: video_id: expected a path below the media"):
        convert("HMDB51", [LABELLED | {"video_id": "../v1"}])


def test_letters_of_equal_options_are_those_of_their_places(convert, studio):
    studio.frames(studio.root / "media/video_qa/Video-MME/1", 2)

    found = convert("Video-MME", [VIDEOMME | {"options": ["A. one.", "A. one.", "C. three."], "answer": "C"}])

    assert found.relevance["q0"] == {"C. three.": 1}


def test_an_option_of_a_letter_alone_is_refused(convert):
    with pytest.raises(InputError, match=r"^row 0: option: expected words behind each letter"):
        convert("EgoSchema", [EGOSCHEMA | {"option": ["A. one", "B. ."]}])
