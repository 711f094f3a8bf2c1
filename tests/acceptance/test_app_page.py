"""The page as a person uses it: in a browser, by mouse and keyboard, over a small index and a model not trained.

The query is a picture of the index with an object of it marked: whatever the weights, its own vector is the nearest.
"""

import base64
import os
import re
import socket
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from playwright.sync_api import expect

from data_prep.demo_gallery import make_gallery
from mmembed.data.tables import read_items
from mmembed.models.settings import RawPrompt, RoiReplay
from scripts.embed import main as embed
from tests.cases import small_embedder

ROOT = Path(__file__).resolve().parents[2]
PICTURE = "picture-00003"

pytestmark = pytest.mark.acceptance
expect.set_options(timeout=20_000)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A model, a gallery and their index."""
    root = tmp_path_factory.mktemp("app")
    small_embedder(regions=RoiReplay(), prompt=RawPrompt()).save(root / "model")
    make_gallery(root / "gallery", 1, pictures=12, clips=3, pages=3)
    table = ["--model", str(root / "model"), "--input", str(root / "gallery/items.jsonl")]
    assert embed([*table, "--output", str(root / "index"), "--regions", "--region-instruction", "what is here ?"]) == 0
    return root


def command(folder, model, index, port):
    instructions = ["--instructions", str(folder / "gallery/instructions.yaml")]
    places = ["--model", str(folder / model), "--index", str(folder / index), "--port", str(port), "--device", "cpu"]
    return [sys.executable, str(ROOT / "scripts/app.py"), *places, *instructions]


def free_port():
    with closing(socket.socket()) as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]


@pytest.fixture(scope="module")
def serve(folder):
    """Start the command; gives the address that it prints."""
    started = []

    def start(model="model", index="index"):
        log = (folder / f"{model}.log").open("w")
        environment = os.environ | {"PYTHONPATH": str(ROOT), "TMPDIR": str(folder / "tmp")}
        (folder / "tmp").mkdir(exist_ok=True)
        done = subprocess.Popen(
            command(folder, model, index, free_port()), env=environment, stdout=subprocess.PIPE, stderr=log, text=True
        )
        started.append((done, log))
        said = done.stdout.readline()
        found = re.search(r"open (http://127\.0\.0\.1:\d+/)", said)
        assert found, f"{said}{(folder / f'{model}.log').read_text()[-3000:]}"
        return found[1]

    yield start
    for done, log in started:
        done.terminate()
        done.wait(timeout=30)
        done.stdout.close()
        log.close()
    assert list((folder / "tmp").glob("**/*.*")) == [], "uploads are left behind"


@pytest.fixture(scope="module")
def address(serve):
    return serve()


@pytest.fixture
def open_page(browser):
    """Open an address; the page may ask nobody else for anything, and no script of it may fail."""
    asked, failed, contexts = [], [], []

    def open_it(address, width=1280):
        contexts.append(browser.new_context(viewport={"width": width, "height": 1000}))
        page = contexts[-1].new_page()
        page.set_default_timeout(20_000)
        page.on("request", lambda request: asked.append((address, request.url)))
        page.on("pageerror", lambda error: failed.append(str(error)))
        page.goto(address)
        page.locator("#search").wait_for()
        return page

    yield open_it
    for context in contexts:
        context.close()
    assert {url for own, url in asked if not url.startswith((own, "data:", "blob:"))} == set()
    assert failed == []


@pytest.fixture
def page(open_page, address):
    return open_page(address)


@pytest.fixture(scope="module")
def items(folder):
    return dict(read_items(folder / "gallery/items.jsonl"))


def upload(page, path):
    page.locator("#file input[type=file]").set_input_files(path)


def upload_picture(page, items):
    upload(page, items[PICTURE].content[0].source)
    page.locator("#picture img").wait_for()


def choose(page, tool):
    page.get_by_label(tool, exact=True).check()


def click(page, x, y):
    """Click on a pixel of the picture, and wait until the mark is drawn."""
    shown = page.locator("#picture img")
    before, box = shown.get_attribute("src"), shown.bounding_box()
    shown.click(position={"x": (x + 0.5) * box["width"] / 56, "y": (y + 0.5) * box["height"] / 28})
    expect(shown).not_to_have_attribute("src", before)


def drag(page, *corners):
    """Drag on the picture from one of its pixels to another, and wait until the box is drawn."""
    shown = page.locator("#picture img")
    before, box = shown.get_attribute("src"), shown.bounding_box()
    (x0, y0), (x1, y1) = (
        (box["x"] + (x + 0.5) * box["width"] / 56, box["y"] + (y + 0.5) * box["height"] / 28) for x, y in corners
    )
    page.mouse.move(x0, y0)
    page.mouse.down()
    page.mouse.move(x1, y1, steps=4)
    expect(page.locator("#drag-frame")).to_have_count(1)
    page.mouse.up()
    expect(page.locator("#drag-frame")).to_have_count(0)
    expect(shown).not_to_have_attribute("src", before)


def paint(page):
    """Paint a stroke through the middle of the picture."""
    canvas = page.locator("#editor canvas").first
    canvas.wait_for()
    # the editor says neither when it can be painted on nor when its server knows
    page.wait_for_timeout(2000)
    box = canvas.bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(x - 30, y)
    page.mouse.down()
    page.mouse.move(x + 30, y, steps=6)
    page.mouse.up()
    page.wait_for_timeout(1000)


def send(page, event, path):
    """Drop a file on the page, or paste it."""
    page.evaluate(
        """([event, name, data]) => {
            const files = new DataTransfer();
            const bytes = Uint8Array.from(atob(data), (letter) => letter.charCodeAt(0));
            files.items.add(new File([bytes], name, { type: "image/png" }));
            const common = { bubbles: true, cancelable: true };
            document.querySelector("#results").dispatchEvent(
                event === "drop"
                    ? new DragEvent("drop", { ...common, dataTransfer: files })
                    : new ClipboardEvent("paste", { ...common, clipboardData: files }));
        }""",
        [event, path.name, base64.b64encode(path.read_bytes()).decode()],
    )


def search(page):
    page.locator("#search").click()


def instruction(page):
    return page.get_by_label("Instruction")


def first_hit(page, name):
    """The first hit, once it is this one."""
    hit = page.locator(".hits li").first
    expect(hit).to_have_attribute("data-id", name)
    return hit


def warned(page, words):
    expect(page.locator("#message [role=alert]")).to_contain_text(words)


@pytest.mark.parametrize("number", [1, 2])
def test_a_box_around_an_object_finds_its_picture_first_and_says_which_object(page, items, number):
    x0, y0, x1, y1 = items[PICTURE].content[0].regions[number - 1].box
    upload_picture(page, items)
    expect(instruction(page)).to_have_value("represent the image")
    choose(page, "box")

    click(page, x1 - 1, y0)
    click(page, x0, y1 - 1)
    expect(instruction(page)).to_have_value("what is here ?")
    search(page)

    hit = first_hit(page, PICTURE)
    expect(hit.locator(".object")).to_have_text(f"object {number}")
    assert float(hit.locator(".score").inner_text()) > 0.99
    assert hit.locator("img").get_attribute("alt") == "picture, 1 box"
    assert page.locator(".hits li").count() == 12
    scores = [float(score) for score in page.locator(".hits .score").all_inner_texts()]
    assert scores == sorted(scores, reverse=True)


def test_a_box_is_dragged_and_taken_back_in_one_go(page, items):
    x0, y0, x1, y1 = items[PICTURE].content[0].regions[0].box
    upload_picture(page, items)
    bare = page.locator("#picture img").get_attribute("src")
    choose(page, "box")

    # a corner that was clicked before is none of the dragged box
    click(page, 50, 2)
    drag(page, (x0, y1 - 1), (x1 - 1, y0))
    search(page)

    expect(first_hit(page, PICTURE).locator(".object")).to_have_text("object 1")
    expect(page.locator(".asked")).to_have_text(f"12 of 18 items for a box in {PICTURE.removeprefix('picture-')}.png")
    page.keyboard.press("Control+z")
    page.keyboard.press("Control+z")
    expect(page.locator("#picture img")).to_have_attribute("src", bare)


def test_a_place_is_marked_with_the_keyboard_alone(page, items):
    upload_picture(page, items)
    bare = page.locator("#picture img").get_attribute("src")

    page.locator("#picture button").focus()
    for key in ("ArrowLeft", "ArrowLeft", "ArrowUp", "Enter"):
        page.keyboard.press(key)

    expect(page.locator("#picture img")).not_to_have_attribute("src", bare)
    expect(instruction(page)).to_have_value("what is here ?")


@pytest.mark.parametrize("event", ["drop", "paste"])
def test_a_file_dropped_anywhere_or_pasted_takes_the_place_of_the_one_before(page, items, event):
    upload_picture(page, items)
    click(page, 10, 10)
    marked = page.locator("#picture img").get_attribute("src")

    send(page, event, Path(items["picture-00004"].content[0].source))

    expect(page.locator("#file")).to_contain_text("00004")
    expect(page.locator("#picture img")).not_to_have_attribute("src", marked)
    expect(instruction(page)).to_have_value("represent the image")
    search(page)
    first_hit(page, "picture-00004")


def test_a_picture_a_clip_and_a_page_find_themselves_and_are_shown(page, folder, items):
    upload_picture(page, items)
    search(page)
    expect(first_hit(page, PICTURE).locator(".score")).to_have_text("1.000")
    page.keyboard.press("Escape")

    upload(page, folder / "gallery/clips/00001.mp4")
    expect(page.locator("#preview img")).to_have_count(4)
    expect(instruction(page)).to_have_value("represent the video")
    search(page)
    expect(first_hit(page, "clip-00001").locator("img")).to_have_count(4)
    page.keyboard.press("Escape")

    upload(page, folder / "gallery/pages/00000.pdf")
    expect(page.locator("#preview img")).to_have_count(1)
    page.get_by_label("Page of the PDF").fill("2")
    page.keyboard.press("Enter")
    expect(instruction(page)).to_have_value("represent the page")
    for number, words in (("0", "Pages are counted from 1."), ("99", "Expected a page from 1 to 3, got 99.")):
        page.get_by_label("Page of the PDF").fill(number)
        warned(page, words)
    page.get_by_label("Page of the PDF").fill("2")
    expect(page.locator("#message [role=alert]")).to_have_count(0)
    search(page)
    # the page that the model sees is drawn at more dots an inch than those of the gallery
    expect(page.locator(".hits li")).to_have_count(12)


def test_enter_searches_escape_clears_and_control_z_takes_back_a_click(page, items):
    words = page.get_by_label("Words")
    words.fill("a red circle")
    words.press("Enter")
    expect(page.locator(".hits li")).to_have_count(12)

    upload_picture(page, items)
    bare = page.locator("#picture img").get_attribute("src")
    click(page, 10, 10)
    choose(page, "point not on it")
    click(page, 40, 10)
    two = page.locator("#picture img").get_attribute("src")
    page.keyboard.press("Control+z")
    expect(page.locator("#picture img")).not_to_have_attribute("src", two)
    page.keyboard.press("Control+z")
    # pictures are named by their bytes
    expect(page.locator("#picture img")).to_have_attribute("src", bare)
    expect(instruction(page)).to_have_value("find the changed image :")

    page.keyboard.press("Escape")
    expect(words).to_have_value("")
    expect(page.locator("#picture img")).to_have_count(0)
    expect(page.locator("#results")).to_contain_text("Nothing asked yet.")


def test_a_mask_that_is_painted_is_searched_with(page, items):
    upload_picture(page, items)
    choose(page, "draw over it")
    paint(page)
    search(page)

    expect(page.locator(".hits li")).to_have_count(12)
    expect(instruction(page)).to_have_value("what is here ?")
    choose(page, "point on it")
    marked = page.locator("#picture img").get_attribute("src")
    choose(page, "draw over it")
    paint(page)
    page.keyboard.press("Escape")
    expect(instruction(page)).to_have_value("represent the image")
    choose(page, "point on it")
    expect(page.locator("#picture img")).not_to_have_attribute("src", marked)


def test_what_is_wrong_is_said_in_words(page, tmp_path, items):
    search(page)
    warned(page, "Expected words, a picture, a clip or a page, got nothing.")

    (tmp_path / "broken.png").write_text("no picture")
    upload(page, tmp_path / "broken.png")
    warned(page, "broken.png")
    expect(page.locator("#message")).not_to_contain_text("/tmp")
    page.keyboard.press("Escape")

    (tmp_path / "notes.txt").write_text("no clip")
    upload(page, tmp_path / "notes.txt")
    warned(page, "notes.txt")
    page.keyboard.press("Escape")

    upload_picture(page, items)
    choose(page, "box")
    click(page, 5, 5)
    search(page)
    warned(page, "Expected two corners, got one.")
    expect(page.locator("body")).not_to_contain_text("Traceback")

    click(page, 20, 20)
    search(page)
    first_hit(page, PICTURE)
    expect(page.locator("#message [role=alert]")).to_have_count(0)


def test_an_instruction_of_ones_own_is_kept_and_the_number_of_results_is_chosen(page, items):
    upload_picture(page, items)
    instruction(page).fill("name the animal")
    instruction(page).blur()
    click(page, 10, 10)
    expect(instruction(page)).to_have_value("name the animal")

    page.locator("#count input[type=number]").fill("3")
    page.locator("#count input[type=number]").blur()
    search(page)

    expect(page.locator(".hits li")).to_have_count(3)
    expect(instruction(page)).to_have_value("name the animal")


def test_an_instruction_that_was_emptied_stays_empty(page):
    page.get_by_label("Words").fill("a red circle")
    expect(instruction(page)).to_have_value("find the image :")

    instruction(page).fill("")
    search(page)

    expect(page.locator(".hits li")).to_have_count(12)
    expect(instruction(page)).to_have_value("")


def test_facts_of_model_and_index_are_there(page, folder):
    page.get_by_text("Model and index").click()

    facts = page.locator("#facts")
    expect(facts).to_contain_text("RoiReplay")
    expect(facts).to_contain_text("yes, 24 regions")
    expect(facts).to_contain_text(str(folder / "index"))


def test_every_control_has_a_name(page, items):
    upload_picture(page, items)

    for role, name in [
        ("textbox", "Words"),
        *(("button", name) for name in ("Search", "Clear query", "Undo mark")),
        *(("radio", name) for name in ("point on it", "point not on it", "box", "draw over it")),
    ]:
        expect(page.get_by_role(role, name=name, exact=True)).to_have_count(1)
    expect(page.get_by_role("textbox", name=re.compile("^Instruction"))).to_have_count(1)
    assert page.locator("#picture img").get_attribute("alt")


def test_in_a_narrow_window_nothing_is_wider_and_the_answer_comes_into_sight(open_page, address, items):
    page = open_page(address, width=420)
    upload_picture(page, items)
    search(page)
    expect(first_hit(page, PICTURE).locator("img")).to_be_in_viewport()

    assert page.evaluate("document.documentElement.scrollWidth") <= 420


def test_two_people_do_not_see_each_others_query(open_page, address, items):
    one, other = open_page(address), open_page(address)
    upload_picture(one, items)
    click(one, 10, 10)

    search(other)

    warned(other, "got nothing")
    expect(other.locator("#picture img")).to_have_count(0)


def test_a_model_without_a_region_encoder_says_why_nothing_can_be_marked(serve, open_page, folder, items):
    small_embedder(prompt=RawPrompt()).save(folder / "plain")
    (folder / "texts.jsonl").write_text('{"id": "a", "text": "red"}\n{"id": "b", "text": "blue <i>"}\n')
    table = ["--model", str(folder / "plain"), "--input", str(folder / "texts.jsonl")]
    assert embed([*table, "--output", str(folder / "texts")]) == 0

    page = open_page(serve("plain", "texts"))
    upload_picture(page, items)

    expect(page.locator("#no-regions")).to_contain_text("has no region encoder")
    expect(page.locator("#tool")).to_have_count(0)
    page.locator("#picture img").click()
    search(page)
    expect(page.locator(".hits blockquote")).to_have_count(2)


def test_a_port_that_is_taken_is_named(folder):
    with closing(socket.socket()) as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]

        done = subprocess.run(
            command(folder, "model", "index", port), env=os.environ | {"PYTHONPATH": str(ROOT)},
            capture_output=True, text=True, timeout=120,
        )  # fmt: skip

    assert done.returncode == 2
    assert f"port: expected a free port, got {port}: " in done.stderr
