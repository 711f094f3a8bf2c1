"""What the converters of training rows refuse, and the rows that no miniature has."""

from dataclasses import replace

import pytest

from data_prep.converters import Media
from data_prep.converters.registry import CONVERTERS
from data_prep.miniatures.studio import Studio, encoded
from data_prep.source import SourceSet, read_source
from mmembed.errors import InputError
from mmembed.items import Image, Item, Pair, frame_files

TOKEN = "<|image_1|>"


@pytest.fixture
def media(tmp_path):
    return Media(tmp_path / "media", tmp_path / "media" / "made" / "set", ("", "videos"))


@pytest.fixture
def studio(tmp_path):
    return Studio(tmp_path)


def only_set(source, name=None) -> SourceSet:
    sets = read_source(source).sets
    return sets[name] if name else next(iter(sets.values()))


def convert(row_set, rows, media):
    return list(CONVERTERS[row_set.converter].pairs(iter(rows), row_set, media))


def mmeb(media, **row):
    blank = {"qry": "words", "qry_image_path": "", "pos_text": "more", "pos_image_path": ""}
    (made,) = convert(only_set("mmeb_train"), [blank | row], media)
    return made


@pytest.mark.parametrize(
    "row", [{"qry": ""}, {"qry": None}, {"pos_text": ""}, {"pos_text": None, "pos_image_path": None}]
)
def test_a_row_with_an_empty_side_is_put_aside_and_the_others_go_on(media, row):
    good = {"qry": "words", "qry_image_path": None, "pos_text": "more", "pos_image_path": ""}

    made = convert(only_set("mmeb_train"), [good, good | row, good], media)

    assert [type(one) for one in made] == [Pair, InputError, Pair]
    assert made[1].where in ("row 1: qry", "row 1: pos_text")
    assert made[0] == Pair(Item(("words",)), (Item(("more",)),))


def test_negatives_need_not_be_columns_and_an_empty_one_is_none(media):
    assert mmeb(media).negatives == ()
    assert mmeb(media, neg_text="", neg_image_path=None).negatives == ()
    assert [negative.item for negative in mmeb(media, neg_text="wrong").negatives] == [Item(("wrong",))]


def test_a_picture_goes_where_its_word_stands(media, studio):
    studio.picture(media.folder / "a.jpg")
    picture = Image(media.folder / "a.jpg")

    assert mmeb(media, qry=f"{TOKEN}\nlook\n", qry_image_path="a.jpg").query == Item((picture, "\nlook\n"))
    assert mmeb(media, qry=f"Use {TOKEN}.", qry_image_path="a.jpg").query == Item(("Use ", picture, "."))
    assert mmeb(media, qry=f"look at {TOKEN}", qry_image_path="a.jpg").query == Item(("look at ", picture))


@pytest.mark.parametrize("text", ["no word for it", f"{TOKEN} and {TOKEN}"])
def test_a_text_with_another_number_of_words_than_pictures_is_put_aside(media, studio, text):
    studio.picture(media.folder / "a.jpg")

    made = mmeb(media, qry=text, qry_image_path="a.jpg")

    assert isinstance(made, InputError)
    assert made.where == "row 0: qry"
    assert made.expected == f"'{TOKEN}' once for each of 1 media"


@pytest.mark.parametrize(
    ("text", "item"),
    [
        (f"{TOKEN}\nfind\n", Item(("\nfind\n",), layout="{image_token}{text}")),
        (f"Using {TOKEN}, find", Item((", find",), instruction="Using ", layout="{instruction}{image_token}{text}")),
        (f"find {TOKEN}", Item(("find ",), layout="{text}{image_token}")),
    ],
)
def test_a_word_for_a_picture_without_a_picture_stays_where_it_is(media, text, item):
    assert mmeb(media, qry=text).query == item


@pytest.mark.parametrize("text", [TOKEN, f"{TOKEN} or {TOKEN}"])
def test_stray_words_alone_or_several_are_put_aside(media, text):
    assert isinstance(mmeb(media, qry=text), InputError)


@pytest.mark.parametrize("path", ["gone.jpg", "../outside.jpg", "/etc/hostname"])
def test_a_picture_that_is_not_below_the_media_is_put_aside(media, path):
    made = mmeb(media, qry=f"{TOKEN} a", qry_image_path=path)

    assert isinstance(made, InputError)
    assert made.where == "row 0: qry_image_path"
    assert path in made.got


@pytest.mark.parametrize("picture", [None, {"bytes": None, "path": "a.png"}, {"bytes": b"", "path": None}])
def test_a_page_without_bytes_is_put_aside(media, picture):
    for source in ("colpali_train", "visrag_train"):
        row = {"query": "q", "image": picture, "answer": "a", "source": "PlotQA"}
        (made,) = convert(only_set(source), [row], media)
        assert isinstance(made, InputError)
        assert made.where == "row 0: image"


def test_a_question_or_an_answer_that_is_missing_is_put_aside(media):
    page = {"bytes": encoded("page"), "path": "page.png"}
    rows = [{"query": None, "image": page, "answer": "a"}, {"query": "q", "image": page, "answer": None}]

    made = convert(only_set("colpali_train"), rows, media)

    assert [one.where for one in made] == ["row 0: query", "row 1: answer"]


def test_the_question_about_a_document_depends_on_the_row_alone(media):
    page = {"bytes": encoded("page"), "path": "page.png"}
    row = {"images": [page], "texts": [{"user": f"turn {i}"} for i in range(4)]}
    row_set = only_set("docmatix")

    first, second = (convert(row_set, [row] * 20, media) for _ in range(2))

    assert first == second
    assert {pair.query.text[-6:] for pair in first} == {f"turn {i}" for i in range(4)}


@pytest.mark.parametrize(("column", "value"), [("images", []), ("images", None), ("texts", []), ("texts", None)])
def test_a_document_without_pages_or_questions_is_put_aside(media, column, value):
    page = {"bytes": encoded("page"), "path": "page.png"}

    (made,) = convert(only_set("docmatix"), [{"images": [page], "texts": [{"user": "q"}], column: value}], media)

    assert isinstance(made, InputError)
    assert made.where == f"row 0: {column}"


@pytest.mark.parametrize("documents", [[], ["gone"], ["../doc"]])
def test_a_question_whose_document_is_not_there_is_put_aside(media, documents):
    (made,) = convert(only_set("pixmo_docs"), [{"query_text": "q", "positive_document_ids": documents}], media)

    assert isinstance(made, InputError)
    assert made.where == "row 0: positive_document_ids"


def hound(asked="<video>\nWhat?", video="clip"):
    return {"id": video, "video": video, "conversations": [{"from": "human", "value": asked}, {"value": "a"}]}


def test_the_questions_of_llava_hound_are_the_first_of_their_file(media, studio):
    studio.frames(media.folder / "clip", 8)
    row_set = only_set("llava_hound", "video_qa_240k")
    assert row_set.options["first"] == row_set.rows == 240_000

    made = convert(replace(row_set, options=row_set.options | {"first": 3}), [hound()] * 5, media)

    assert len(made) == 3


@pytest.mark.parametrize("asked", ["What?", "<video> or <video>?"])
def test_a_turn_with_another_number_of_videos_than_one_is_put_aside(media, studio, asked):
    studio.frames(media.folder / "clip", 8)

    (made,) = convert(only_set("llava_hound"), [hound(asked)], media)

    assert isinstance(made, InputError)
    assert "'<video>' once" in made.expected


@pytest.mark.parametrize("name", ["video_caption_300k", "video_caption_300k_video", "video_qa_240k"])
def test_a_video_without_frames_is_put_aside(media, name):
    (media.folder / "empty").mkdir(parents=True)
    (media.folder / "file").write_text("no folder")

    made = convert(only_set("llava_hound", name), [hound(video=video) for video in ("gone", "empty", "file")], media)

    assert [one.where for one in made] == [f"row {i}: video" for i in range(3)]


@pytest.mark.parametrize("turns", [None, [], [{"value": "<video> alone"}]])
def test_a_conversation_without_an_answer_is_put_aside(media, studio, turns):
    studio.frames(media.folder / "clip", 8)

    (made,) = convert(only_set("llava_hound"), [hound() | {"conversations": turns}], media)

    assert isinstance(made, InputError)
    assert made.where == "row 0: conversations"


def test_stored_frames_go_before_the_clip_and_a_clip_is_found_under_another_suffix(media, studio):
    row_set = only_set("msrvtt_train")
    studio.frames(media.folder / "stored", 9)
    studio.clip(media.folder / "videos" / "stored.mp4")
    studio.clip(media.folder / "videos" / "clip.mp4", frames=70)
    rows = [{"video_id": name, "video": f"{name}.webm", "caption": ["first", "second"]} for name in ("stored", "clip")]

    stored, extracted = convert(row_set, rows, media)

    assert stored.positives[0].media[0].source == media.folder / "stored"
    assert extracted.positives[0].media[0].source == media.made / "clip"
    assert len(frame_files(media.made / "clip")) == 64
    assert stored.query.content == ("first",)


@pytest.mark.parametrize(("name", "file"), [("../up", "a.mp4"), ("a", "../a.mp4"), ("a", "/a.mp4"), ("a", "gone.mp4")])
def test_a_clip_that_is_not_below_the_media_is_put_aside(media, studio, name, file):
    studio.clip(media.folder.parent / "a.mp4")

    (made,) = convert(only_set("msrvtt_train"), [{"video_id": name, "video": file, "caption": ["c"]}], media)

    assert isinstance(made, InputError)
    assert made.where == "row 0: video"


def test_a_clip_that_does_not_decode_is_put_aside_and_leaves_no_frames(media, studio):
    studio.write(media.folder / "7.mp4", b"no clip at all")
    row = {"video_id": 7, "video_path": "7.mp4", "pos_text": "falling", "neg_text": []}

    (made,) = convert(only_set("ssv2_train"), [row], media)

    assert isinstance(made, InputError)
    assert not (media.made / "7").exists()


def captioned(*rows):
    return [{"caption": ["c"], **row} for row in rows]


def test_a_clip_without_an_id_is_put_aside_and_does_not_take_the_frames_of_another(media, studio):
    for name in "ab":
        studio.clip(media.folder / f"{name}.mp4")
    rows = [{"video_id": None, "video_path": f"{name}.mp4", "pos_text": "falling"} for name in "ab"]

    made = convert(only_set("ssv2_train"), rows, media)

    assert [one.where for one in made] == ["row 0: video_id", "row 1: video_id"]
    assert not media.made.exists()


def test_a_second_clip_by_the_name_of_a_first_is_put_aside(media, studio):
    for path in ("x/a.mp4", "y/a.mp4"):
        studio.clip(media.folder / path)

    first, second, again = convert(
        only_set("didemo_train"), captioned({"video": "x/a.mp4"}, {"video": "y/a.mp4"}, {"video": "x/a.mp4"}), media
    )

    assert first == again
    assert isinstance(second, InputError)
    assert second.where == "row 1: video"
    assert "'a' for" in second.got


def test_frames_are_not_written_over_the_folder_around_those_of_other_clips(media, studio):
    for name in ("a/b", "a"):
        studio.clip(media.folder / f"{name}.mp4")
    rows = captioned(*({"video_id": name, "video": f"{name}.mp4"} for name in ("a/b", "a")))

    inner, outer = convert(only_set("msrvtt_train"), rows, media)

    assert isinstance(inner, Pair)
    assert isinstance(outer, InputError)
    assert frame_files(media.made / "a" / "b")


@pytest.mark.parametrize("name", ["../escaped", "a/../../escaped", ".", "./"])
@pytest.mark.parametrize("absolute", [False, True])
def test_frames_are_written_below_their_folder_alone(media, studio, tmp_path, name, absolute):
    studio.clip(media.folder / "a.mp4")
    name = str(tmp_path / name) if absolute else name

    (made,) = convert(only_set("msrvtt_train"), captioned({"video_id": name, "video": "a.mp4"}), media)

    assert isinstance(made, InputError)
    assert made.expected == "a path below the media"
    assert not list(tmp_path.rglob("*.jpg"))


def test_a_clip_under_any_suffix_of_clips_is_found(media, studio):
    studio.clip(media.folder / "a.mp4")
    (media.folder / "a.mp4").rename(media.folder / "a.3g2")

    (made,) = convert(only_set("msrvtt_train"), captioned({"video_id": "a", "video": "a.mp4"}), media)

    assert len(frame_files(made.positives[0].media[0].source)) == 12


@pytest.mark.parametrize("name", ["", ".", "..", "../a", "a/../../b", "/a"])
def test_media_are_found_and_made_below_their_folders_alone(media, name):
    for ask in (media.find, media.look, media.make):
        with pytest.raises(InputError, match=r"^column: expected a path below the media"):
            ask(name, "column")


def test_a_name_too_long_for_a_file_is_one_that_is_not_there(media):
    assert media.look("a" * 5000, "column") is None


def test_texts_that_a_pair_needs_beside_its_picture_are_not_made_up(media, studio):
    studio.picture(media.folder / "a.jpg")

    for row in ({"qry": None, "qry_image_path": "a.jpg"}, {"pos_text": "", "pos_image_path": "a.jpg"}):
        assert isinstance(mmeb(media, **row), InputError)
    (negative,) = mmeb(media, neg_text="", neg_image_path="a.jpg").negatives
    assert negative.item == Item((Image(media.folder / "a.jpg"),))
