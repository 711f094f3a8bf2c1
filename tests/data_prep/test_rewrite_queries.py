"""CIReVL's queries: captions, answers and fallbacks, kept on disk, and read back as the set they are for."""

import json

import PIL.Image
import pytest

from data_prep.rewrite_queries import main
from data_prep.writers.captioners import NearestCaptioner
from data_prep.writers.prompts import QUESTION, rewriting_version
from data_prep.writers.rewriting import description, reference_and_change
from mmembed.data.tables import write_items
from mmembed.errors import InputError
from mmembed.evaluation.retrieval_set import read_retrieval_set
from mmembed.evaluation.rewritten import read_rewritten
from mmembed.files import file_fingerprint
from mmembed.items import Image, Item, Region, Video
from tests.data_prep.chat_server import Chat
from tests.families import family_embedder

COLOURS = {"red": (220, 40, 40), "green": (40, 180, 60), "blue": (50, 80, 220)}


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        ("Edited Description: A red dog.", "A red dog."),
        ("edited description:\n  A red dog\non a mat. ", "A red dog on a mat."),
        ('Sure!\nEdited Description: "A sign: two cats."', "A sign: two cats."),
        ("Edited Description: A dog.\n\nImage Content: a cat", "A dog."),
        ("Edited Description: A dog.\nImage Content: a cat\nInstruction: add", "A dog."),
        ("Edited Description: A dog.\nInstruction: next", "A dog."),
        ("Edited Description: A dog. Edited Description: A cat.", "A dog. Edited Description: A cat."),
        ("A red dog.", None),
        ("Edited Description:", None),
        ("Edited Description:  \n\nA dog", "A dog"),
        ("", None),
    ],
)
def test_the_description_is_what_stands_behind_its_name_once(answer, text):
    assert description(answer) == text


def picture(tmp_path, name="a.png", colour="red"):
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    PIL.Image.new("RGB", (8, 6), COLOURS[colour]).save(path)
    return path


def test_several_texts_are_joined_and_one_is_taken_as_it_is(tmp_path):
    image = Image(picture(tmp_path))

    assert reference_and_change(Item((image, "is blue")), None) == (image, "is blue")
    assert reference_and_change(Item((image, "is blue.", "has dots ")), "cirevl") == (image, "is blue and has dots")
    assert reference_and_change(Item((image, "is blue", "a car")), "change") == (image, "is blue")
    with pytest.raises(InputError, match=r"expected one change, got 2 texts; name a --join"):
        reference_and_change(Item((image, "is blue", "has dots")), None)
    with pytest.raises(InputError, match=r"expected one change, got 2 texts; name a --join"):
        reference_and_change(Item((image, "is blue", "has dots")), "searle")
    with pytest.raises(InputError, match="expected one change, got 0 texts"):
        reference_and_change(Item((image,)), None)


def test_only_whole_pictures_are_described(tmp_path):
    path = picture(tmp_path)
    for content, got in (
        (("words",), "no media"),
        ((Video(path), "words"), "Video"),
        ((Image(path), Image(path), "words"), "Image, Image"),
        ((Image(path, (Region(box=(0, 0, 2, 2)),)), "words"), "Image"),
    ):
        with pytest.raises(InputError, match=f"expected one picture without regions, got {got};"):
            reference_and_change(Item(content), None)


@pytest.fixture
def folder(tmp_path):
    """Three pictures of one colour, each with a change, and captions of them."""
    where = tmp_path / "set"
    pictures = {colour: picture(where, f"{colour}.png", colour) for colour in COLOURS}
    changes = zip(pictures.values(), ("green", "blue", "red"), strict=True)
    queries = [Item.of({"image": path, "text": f"make it {new}", "instruction": "find"}) for path, new in changes]
    write_items(where / "queries.jsonl", ((f"q{i}", query) for i, query in enumerate(queries)))
    write_items(where / "corpus.jsonl", ((f"d{colour}", Item.of({"image": pictures[colour]})) for colour in COLOURS))
    targets = {"q0": "dgreen", "q1": "dblue", "q2": "dred"}
    (where / "relevance.jsonl").write_text(
        "".join(json.dumps({"query_id": q, "targets": {d: 1}}) + "\n" for q, d in targets.items())
    )
    rows = [{"id": c, "image": f"set/{c}.png", "caption": f"a {c} wall"} for c in COLOURS]
    (tmp_path / "captions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return where


FROM_FILE = ("--captioner", "file")
RULES = ("--writer", "rules", "--prompt", "structural")


def rewrite(folder, *options, captioner=FROM_FILE, writer=RULES):
    captions = ["--captions", str(folder.parent / "captions.jsonl")] if captioner == FROM_FILE else []
    output = folder.parent / "out"
    return main(
        ["--set", str(folder), "--output", str(output), "--task", "walls", *captioner, *captions, *writer, *options]
    )


def rows_of(folder):
    return [json.loads(line) for line in (folder.parent / "out/walls.jsonl").read_text().splitlines()]


def test_queries_are_rewritten_by_captions_of_a_file_and_read_back(folder, capsys):
    assert rewrite(folder) == 0

    assert rows_of(folder) == [
        {"query_id": f"q{i}", "caption": f"a {old} wall", "change": f"make it {new}", "text": f"a {new} wall",
         "fallback": False}
        for i, (old, new) in enumerate((("red", "green"), ("green", "blue"), ("blue", "red")))
    ]  # fmt: skip
    assert "3 queries rewritten, 0 of them fallbacks" in capsys.readouterr().out
    manifest = json.loads((folder.parent / "out/walls.json").read_text())
    assert manifest["outputs"] == file_fingerprint(folder.parent / "out/walls.jsonl")
    assert manifest["prompt_version"] == rewriting_version("structural")
    assert (manifest["queries"], manifest["fallbacks"], manifest["keep_reference"]) == (3, 0, False)
    found = read_rewritten(folder.parent / "out", "walls")
    asked = found.applied(read_retrieval_set(folder))
    assert [item.content for item in asked.queries.values()] == [(f"a {c} wall",) for c in ("green", "blue", "red")]
    assert found.about()["writer"]["model"] == "rules-1"


def test_the_reference_may_stay_beside_the_text(folder):
    rewrite(folder, "--keep-reference")

    asked = read_rewritten(folder.parent / "out", "walls").applied(read_retrieval_set(folder))

    item = asked.queries["q0"]
    assert (len(item.media), item.text) == (1, "a green wall")
    assert [part for part in item.content if isinstance(part, str)] == ["a green wall"]


@pytest.fixture
def chat():
    server = Chat(None)
    yield server
    server.close()


def served(chat):
    def answer(messages):
        content = messages[0]["content"]
        if isinstance(content, list):
            assert content[1]["text"] == QUESTION
            return f"picture {len(content[0]['image_url']['url'])}"
        return "I cannot." if "make it blue" in content.rpartition("Image Content")[2] else "Edited Description: x: y"

    chat.answer = answer
    server = ["--url", chat.url, "--model", "llm", "--retries", "0"]
    captioner = ["--captioner", "openai", "--captioner-url", chat.url, "--captioner-model", "vlm"]
    return {"captioner": captioner, "writer": ["--writer", "openai", *server, "--prompt", "contextual"]}


def test_an_answer_without_a_description_falls_back_to_the_change_and_is_counted(folder, chat, capsys):
    assert rewrite(folder, "--parallel", "3", **served(chat)) == 0

    rows = rows_of(folder)
    assert [(row["text"], row["fallback"]) for row in rows] == [
        ("x: y", False), ("make it blue", True), ("x: y", False),
    ]  # fmt: skip
    assert "3 queries rewritten, 1 of them fallbacks" in capsys.readouterr().out
    assert read_rewritten(folder.parent / "out", "walls").about()["fallbacks"] == 1
    assert [body["model"] for _, _, body in chat.requests] == ["vlm"] * 3 + ["llm"] * 3


def test_captions_and_answers_are_asked_for_once(folder, chat):
    arguments = served(chat)
    chat.failures = [(200, {})] * 4 + [(401, {})]
    assert rewrite(folder, **arguments) == 2
    assert len(chat.requests) == 5
    assert not (folder.parent / "out/walls.jsonl").exists()

    assert rewrite(folder, **arguments) == 0
    assert len(chat.requests) == 5 + 2
    assert rewrite(folder, **arguments) == 0
    assert len(chat.requests) == 7
    lines = (folder.parent / "out/captions.jsonl").read_text().splitlines()
    pictures = [json.loads(line)["picture"] for line in lines]
    assert pictures == [Image(folder / f"{colour}.png").fingerprint() for colour in COLOURS]


def test_a_caption_that_is_missing_or_there_twice_is_named(folder, capsys):
    path = folder.parent / "captions.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:2]))
    assert rewrite(folder) == 2
    assert "captions.jsonl: expected a caption of" in capsys.readouterr().err
    path.write_text("".join([*lines, json.dumps({"id": "x", "image": "set/red.png", "caption": "a wall"}) + "\n"]))
    assert rewrite(folder) == 2
    assert "captions.jsonl: x: expected one caption of a picture, got two of 'set/red.png'" in capsys.readouterr().err


def test_the_nearest_caption_is_the_one_that_the_embedder_ranks_first(folder, tmp_path):
    embedder = family_embedder("clip")
    embedder.save(tmp_path / "clip")
    captioner = NearestCaptioner(folder.parent / "captions.jsonl", str(tmp_path / "clip"))
    captions = [f"a {colour} wall" for colour in COLOURS]
    images = [Image(folder / f"{colour}.png") for colour in COLOURS]

    found = [captioner.caption(image) for image in images]

    best = (embedder.encode(images) @ embedder.encode(captions, side="target").T).argmax(1).tolist()
    assert found == [captions[i] for i in best]
    assert rewrite(folder, captioner=("--captioner", "nearest", "--captioner-model", str(tmp_path / "clip"),
                                      "--captions", str(folder.parent / "captions.jsonl"))) == 0  # fmt: skip
    assert [row["caption"] for row in rows_of(folder)] == found


def test_captions_of_ones_own_in_the_output_folder_are_not_written_over(folder, capsys):
    mine = folder.parent / "out/captions.jsonl"
    mine.parent.mkdir()
    mine.write_text((folder.parent / "captions.jsonl").read_text().rstrip())
    before = mine.read_bytes()

    assert rewrite(folder, captioner=("--captioner", "file", "--captions", str(mine))) == 2

    assert "--captions: expected another file than captions.jsonl of --output" in capsys.readouterr().err
    assert mine.read_bytes() == before


def test_a_dry_run_shows_a_request_and_writes_nothing(folder, capsys):
    assert rewrite(folder, "--dry-run") == 0

    assert capsys.readouterr().out.endswith("Image Content: (its caption)\nInstruction: make it green\n")
    assert not (folder.parent / "out").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--captioner", "file"], "--captions: expected a value with --captioner file, got none"),
        (["--captioner", "transformers"], "--captioner-model: expected a value with --captioner transformers"),
        (["--captioner", "openai", "--captioner-model", "m"], "--captioner-url: expected a value"),
        (
            ["--captioner", "file", "--captions", "x.jsonl", "--captioner-model", "m"],
            "--captioner-model: expected none",
        ),
        (
            ["--captioner", "file", "--captions", "x.jsonl", "--captioner-instruction", "say it"],
            "--captioner-instruction: expected --captioner nearest beside it, got file",
        ),
    ],
)
def test_a_captioner_that_lacks_something_is_refused(folder, capsys, options, message):
    assert rewrite(folder, captioner=options) == 2
    assert message in capsys.readouterr().err


def test_an_empty_caption_is_an_error_and_is_not_kept(folder, chat, capsys):
    arguments = served(chat)
    chat.answer = lambda messages: " "

    assert rewrite(folder, **arguments) == 2

    assert "red.png: expected a caption, got an empty one; take another captioner" in capsys.readouterr().err
    assert (folder.parent / "out/captions.jsonl").read_text() == ""


def test_a_task_may_not_be_called_as_the_files_of_answers_are(folder, capsys):
    assert rewrite(folder, "--task", "captions") == 2
    assert "--task: expected a row's name, got 'captions'" in capsys.readouterr().err


def test_a_query_that_is_not_composed_and_a_folder_without_queries_are_named(folder, tmp_path, capsys):
    write_items(folder / "queries.jsonl", [("q0", Item.of("words alone"))])
    assert rewrite(folder) == 2
    assert "queries.jsonl: query q0: item: expected one picture without regions" in capsys.readouterr().err
    assert rewrite(tmp_path / "nowhere") == 2
    assert "nowhere: expected a retrieval set with queries.jsonl" in capsys.readouterr().err
