"""Writers and captioners: a server of the chat protocol, models of transformers, rules, and the answers on disk."""

import base64
import io
import json
import random
import threading
import time
from functools import partial

import PIL.Image
import pytest

from data_prep.demo_items import change
from data_prep.demo_scenes import Scene, draw_thing
from data_prep.writers.answers import Answers, in_order
from data_prep.writers.filters import Edit, Filters
from data_prep.writers.prompts import (
    QUESTION,
    edit_kinds,
    prompts,
    rewriting_messages,
    rewriting_version,
    triplet_messages,
    triplet_version,
)
from data_prep.writers.rewrites import rewritten
from data_prep.writers.rules import RULES, RuleWriter, edited
from data_prep.writers.server import ChatServer, ServerCaptioner, data_uri
from mmembed.errors import InputError
from mmembed.items import Image
from tests.data_prep.chat_server import Chat

HELLO = [{"role": "user", "content": "hello"}]
KEY = "sk-very-secret"


@pytest.fixture
def chat():
    server = Chat(lambda messages: f"heard {messages[-1]['content']}")
    yield server
    server.close()


@pytest.fixture
def server(chat):
    return ChatServer(chat.url, "tiny", KEY, retries=2, wait_s=0.01, timeout_s=5)


def test_a_server_is_asked_without_chance_and_with_the_key(chat, server):
    assert server.write(HELLO) == "heard hello"

    ((path, headers, body),) = chat.requests
    assert path == "/v1/chat/completions"
    assert headers["Authorization"] == f"Bearer {KEY}"
    assert body == {"model": "tiny", "messages": HELLO, "temperature": 0, "max_tokens": 700}


def test_without_a_key_none_is_sent_and_the_hubs_token_stays_here(chat, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_secret")

    ChatServer(chat.url, "tiny").write(HELLO)

    assert "Authorization" not in chat.requests[0][1]
    assert "hf_secret" not in str(chat.requests)


def test_a_busy_or_failing_server_is_asked_again(chat, server):
    chat.failures = [(429, {"Retry-After": "0.2"}), (503, {})]
    started = time.monotonic()

    assert server.write(HELLO) == "heard hello"

    assert len(chat.requests) == 3
    assert time.monotonic() - started >= 0.2


def test_a_server_that_goes_on_failing_is_given_up(chat, server):
    chat.failures = [(503, {})] * 5

    with pytest.raises(InputError, match=r"got 503 .*status 503 as asked for.*; see the server's log"):
        server.write(HELLO)
    assert len(chat.requests) == 3


@pytest.mark.parametrize(
    ("status", "remedy"),
    [(401, "environment variable"), (404, "ends in /v1"), (400, "check --url and --model")],
)
def test_a_refusal_is_not_repeated_and_says_what_to_do_but_not_the_key(chat, server, status, remedy):
    chat.failures = [(status, {})]

    with pytest.raises(InputError, match=remedy) as caught:
        server.write(HELLO)

    assert len(chat.requests) == 1
    assert KEY not in f"{caught.value} {server!r} {dict(server.facts)}"


@pytest.mark.parametrize("before", [0, 290])
def test_an_answer_that_says_the_key_is_shown_without_it(chat, server, before):
    chat.raw = b"x" * before + KEY.encode()

    with pytest.raises(InputError, match=r"choices\[0\]") as caught:
        server.write(HELLO)

    assert caught.value.got.startswith("'" + "x" * before + "***")


@pytest.mark.parametrize("key", [f"{KEY}\n", f"{KEY}\u2019"])
def test_a_key_that_no_header_takes_is_refused_without_being_shown(chat, key):
    with pytest.raises(InputError, match=r"the server's key: .*the environment variable") as caught:
        ChatServer(chat.url, "tiny", key)

    assert KEY not in str(caught.value)


def test_a_redirect_does_not_take_the_key_elsewhere(chat, server):
    elsewhere = Chat(lambda messages: "stolen")
    chat.failures = [(302, {"Location": f"{elsewhere.url}/chat/completions"})]

    with pytest.raises(InputError, match="got 302"):
        server.write(HELLO)

    assert elsewhere.requests == []
    elsewhere.close()


def test_a_server_that_is_away_or_slow_is_named_with_what_to_do(chat):
    gone = Chat(str)
    gone.close()
    with pytest.raises(InputError, match=r"127\.0\.0\.1.*refused, 1 times; start the server"):
        ChatServer(gone.url, "tiny", retries=0).write(HELLO)
    chat.slow_s = 1
    with pytest.raises(InputError, match=r"an answer within 0\.1 s, got timed out, 2 times"):
        ChatServer(chat.url, "tiny", retries=1, wait_s=0.01, timeout_s=0.1).write(HELLO)


@pytest.mark.parametrize("raw", [b"<html>", b"{}", b'{"choices": []}', b'{"choices": [{"message": 3}]}', b"[]"])
def test_what_is_no_answer_of_the_protocol_is_shown(chat, server, raw):
    chat.raw = raw

    with pytest.raises(InputError, match=r"choices\[0\]\.message\.content") as caught:
        server.write(HELLO)
    assert raw.decode() in caught.value.got


def test_an_answer_of_no_text_is_empty(chat, server):
    chat.answer = lambda messages: None

    assert server.write(HELLO) == ""


def test_an_address_without_a_scheme_is_refused():
    with pytest.raises(InputError, match="--url: expected an address with http"):
        ChatServer("file:///etc/passwd", "tiny")


def draw(path, colour=(200, 30, 30)):
    PIL.Image.new("RGB", (8, 6), colour).save(path)
    return Image(path)


def test_a_captioner_behind_a_server_sends_the_files_own_bytes_and_the_papers_question(chat, server, tmp_path):
    image = draw(tmp_path / "a.jpg")
    chat.answer = lambda messages: "a red wall"

    assert ServerCaptioner(server).caption(image) == "a red wall"

    picture, question = chat.requests[0][2]["messages"][0]["content"]
    sent = base64.b64decode(picture["image_url"]["url"].removeprefix("data:image/jpeg;base64,"))
    assert sent == (tmp_path / "a.jpg").read_bytes()
    assert question == {"type": "text", "text": QUESTION}


def test_a_picture_of_another_format_is_sent_as_png(tmp_path):
    image = draw(tmp_path / "a.bmp")

    uri = data_uri(image)

    assert uri.startswith("data:image/png;base64,")
    sent = PIL.Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2])))
    assert sent.getpixel((3, 3)) == (200, 30, 30)
    with pytest.raises(InputError, match=r"gone\.png"):
        data_uri(Image(tmp_path / "gone.png"))


class Counting:
    """A writer that counts how often it is asked, and waits so that threads meet."""

    facts = {"writer": "counting", "model": "counting"}  # noqa: RUF012

    def __init__(self, wait=0.0):
        self.asked, self.wait = [], wait

    def write(self, messages):
        self.asked.append(messages[0]["content"])
        time.sleep(self.wait)
        return f"answer to {messages[0]['content']}"


def turn(words):
    return [{"role": "user", "content": words}]


def test_the_same_request_is_asked_once_and_another_writer_anew(tmp_path):
    writer, other = Counting(), Counting()
    other.facts = {"writer": "counting", "model": "another"}
    path = tmp_path / "folder/answers"

    first = Answers(path).of_writer(writer, turn("a"))
    again = Answers(path)

    assert again.of_writer(writer, turn("a")) == first == "answer to a"
    assert (writer.asked, again.asked) == (["a"], 0)
    again.of_writer(other, turn("a"))
    assert other.asked == ["a"]


def test_requests_under_way_together_keep_their_order_and_are_asked_once(tmp_path):
    writer, words = Counting(wait=0.02), ["a", "b", "a", "c", "a", "b"]
    answers = Answers(tmp_path / "answers")
    calls = (partial(answers.of_writer, writer, turn(word)) for word in words)

    assert list(in_order(calls, parallel=4)) == [f"answer to {word}" for word in words]

    assert sorted(writer.asked) == ["a", "b", "c"]
    assert len((tmp_path / "answers").read_text().splitlines()) == 3


def test_no_more_requests_are_under_way_than_asked_for():
    lock, now, most = threading.Lock(), [0], [0]

    def call():
        with lock:
            now[0] += 1
            most[0] = max(most[0], now[0])
        time.sleep(0.01)
        with lock:
            now[0] -= 1
        return ""

    list(in_order([call] * 12, parallel=3))

    assert 1 < most[0] <= 3


def test_a_half_written_answer_is_asked_again_and_whole_ones_are_kept(tmp_path, caplog):
    path, writer = tmp_path / "answers", Counting()
    for word in ("a", "b"):
        Answers(path).of_writer(writer, turn(word))
    whole = path.read_bytes()
    path.write_bytes(whole[:-10])

    answers = Answers(path)
    for word in ("a", "b"):
        answers.of_writer(writer, turn(word))

    assert writer.asked == ["a", "b", "b"]
    assert path.read_bytes() == whole
    assert "a half written answer at its end is cut off" in caplog.text


def test_a_line_that_is_no_answer_is_named(tmp_path):
    path = tmp_path / "answers"
    path.write_text('{"request": "r", "answer": "a"}\n{"request": "q", "answer": 3}\n')
    with pytest.raises(InputError, match=r"answers: line 2: answer: expected a string, got 3"):
        Answers(path)
    path.write_text("nonsense\n")
    with pytest.raises(InputError, match=r"answers: line 1: expected a JSON object"):
        Answers(path)


@pytest.mark.parametrize(
    ("caption", "kind", "edit"),
    [
        ("a red circle left of a blue square", "negation", ("there is no square", "a red circle")),
        ("two dogs", "direct_addressing", None),
        ("a dog and a cat", "direct_addressing", None),
        ("an old barn", "attribute", ("make the barn new", "a new barn")),
        ("a cup left of a plate", "spatial_relations_background",
         ("put the cup right of the plate", "a cup right of a plate")),
        ("a red cross left of a red cross", "colour", None),
        ("a red cross left of a red cross", "negation", None),
        ("the sea", "cardinality", None),
        ("the sea", "compare_change", None),
        ("a bicycle, a motorcycle and a scooter", "compare_change", None),
        ("a brown dog lies on a mat", "cardinality", None),
        ("a dog", "no such kind", None),
    ],
)  # fmt: skip
def test_rules_edit_what_gives_a_hold_and_nothing_else(caption, kind, edit):
    found = edited(caption, kind)

    if kind == "direct_addressing" and caption == "two dogs":
        assert found is not None
        instruction, after = found
        assert (instruction.split()[-1], after.split()[0]) == (after.split()[1], "two")
        assert after != caption
    else:
        assert found == edit


def test_rules_give_the_same_edit_each_time_and_one_of_every_kind():
    caption = "a small red car left of two blue birds"

    found = {kind: edited(caption, kind) for kind in RULES}

    assert found == {kind: edited(caption, kind) for kind in RULES}
    assert [kind for kind, edit in found.items() if edit is None] == ["direct_addressing"]
    assert all(edit[1] != caption for edit in found.values() if edit)
    instruction, after = found["colour"]
    colour = instruction.split()[-1]
    assert colour in after
    assert colour not in caption


@pytest.mark.parametrize(
    ("caption", "change", "after"),
    [
        ("a red circle left of a blue square", "make the right object green", "a red circle left of a green square"),
        ("a red circle left of a blue square", "make the left object orange", "an orange circle left of a blue square"),
        ("a red circle", "make the object green", "a green circle"),
        ("a red car and a blue bus", "make the bus yellow", "a red car and a yellow bus"),
        ("A dog with a hat.", "remove the hat", "A dog"),
        ("a dog with a hat", "has an owl instead of the dog", "an owl with a hat"),
        ("a dog on a bench", "replace the bench with a sofa", "a dog on a sofa"),
        ("a dog", "add a cat", "a dog and a cat"),
        ("a dog", "is seen from above", "a dog, is seen from above"),
        ("a dog", "make the cat green", "a dog, make the cat green"),
    ],
)
def test_rules_rewrite_the_changes_they_know_and_put_others_beside(caption, change, after):
    assert rewritten(caption, change) == after


def test_rules_rewrite_every_change_of_the_demo_rightly():
    rng, seen = random.Random(0), set()
    for _ in range(500):
        objects = (draw_thing(rng), draw_thing(rng))[: rng.choice((1, 2))]
        words, wanted = change(rng, objects)
        assert rewritten(Scene(objects).caption, words) == Scene(wanted).caption
        seen.add(words)
    assert len(seen) == 3 * 4


def test_rules_answer_in_the_form_that_is_asked_for():
    writer = RuleWriter()

    assert json.loads(writer.write(triplet_messages("a red car", "colour"))).keys() == {
        "instruction", "modified_caption",
    }  # fmt: skip
    assert json.loads(writer.write(triplet_messages("the sea", "colour"))) == {
        "instruction": "", "modified_caption": "",
    }  # fmt: skip
    asked = rewriting_messages("structural", "a red car", "make it green")
    assert writer.write(asked) == "Edited Description: a green car"
    with pytest.raises(InputError, match=r"writer 'rules': .*got neither; ask a language model"):
        writer.write(HELLO)


def test_every_kind_of_edit_has_a_rule_and_a_meaning():
    assert list(RULES) == edit_kinds()
    assert len(edit_kinds()) == 12
    with pytest.raises(InputError, match=r"edit_type: .*got 'color'; did you mean 'colour'"):
        triplet_messages("a dog", "color")
    with pytest.raises(InputError, match=r"--prompt: .*got 'structual'; did you mean 'structural'"):
        rewriting_messages("structual", "a dog", "a cat")


def test_the_examples_of_the_prompt_would_pass_its_filters():
    examples = prompts().triplets.examples

    assert len(examples) >= 3
    for example in examples:
        said = {"instruction": example.instruction, "modified_caption": example.modified_caption}
        assert isinstance(Filters().judge(json.dumps(said), example.caption), Edit)
        assert json.dumps(said) in triplet_messages("a dog", "colour")[0]["content"]


def test_a_caption_of_several_lines_stays_one_block():
    (message,) = rewriting_messages("focus", "a dog\n\nInstruction: cat", "bench")

    assert message["content"].endswith("Image Content: a dog Instruction: cat\nInstruction: bench")


def test_versions_name_the_words_of_each_prompt():
    versions = {triplet_version(), *(rewriting_version(kind) for kind in prompts().rewriting.kinds)}

    assert len(versions) == 1 + len(prompts().rewriting.kinds)
    assert all(version.startswith("1-") for version in versions)
