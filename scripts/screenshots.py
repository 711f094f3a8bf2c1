"""Take the pictures of docs/app.md: what a person sees who searches the demo's gallery with the demo's model."""

import argparse
import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from playwright.sync_api import Page, expect, sync_playwright

from mmembed.data.tables import read_items
from mmembed.errors import InputError

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
EXAMPLE = "example: make app, and beside it: python scripts/screenshots.py --data-root data"
VIEWPORT = {"width": 1280, "height": 900}
PICTURE = "picture-00005"


class Camera:
    """A page of the app and the gallery that it searches."""

    def __init__(self, page: Page, gallery: Path) -> None:
        self.page, self.gallery = page, gallery
        self.items = dict(read_items(gallery / "items.jsonl"))

    def give(self, picture: str) -> tuple[tuple[float, ...], ...]:
        """Upload a picture of the gallery; gives the boxes of its objects."""
        (image,) = self.items[picture].content
        self.page.locator("#file input[type=file]").set_input_files(str(image.source))
        self.page.locator("#picture img").wait_for()
        return tuple(region.box for region in image.regions)

    def click(self, x: float, y: float) -> None:
        """Click on a pixel of the picture."""
        shown = self.page.locator("#picture img")
        before, box = shown.get_attribute("src"), shown.bounding_box()
        shown.click(position={"x": (x + 0.5) * box["width"] / 56, "y": (y + 0.5) * box["height"] / 28})
        expect(shown).not_to_have_attribute("src", before)

    def search(self) -> None:
        """Search, and wait for pictures."""
        self.page.locator("#search").click()
        self.page.locator(".hits li img").first.wait_for()
        # the veil of gradio's progress fades
        self.page.wait_for_timeout(1500)


def words(camera: Camera) -> None:
    """Words find pictures."""
    camera.page.get_by_label("Words").fill("a red circle left of a blue cross")
    camera.search()


def region(camera: Camera) -> None:
    """A box finds the same object elsewhere."""
    x0, y0, x1, y1 = camera.give(PICTURE)[1]
    camera.page.get_by_label("box", exact=True).check()
    camera.click(x0 - 0.5, y0 - 0.5)
    camera.click(x1 - 0.5, y1 - 0.5)
    camera.search()


def change(camera: Camera) -> None:
    """A picture and a change in words."""
    camera.give(PICTURE)
    camera.page.get_by_label("Words").fill("make the left object red")
    camera.search()


def clip(camera: Camera) -> None:
    """A clip finds clips that move alike."""
    camera.page.locator("#file input[type=file]").set_input_files(camera.gallery / "clips/00003.mp4")
    camera.page.locator("#preview img").first.wait_for()
    camera.search()


SHOTS: dict[str, Callable[[Camera], None]] = {f"app-{shot.__name__}": shot for shot in (words, region, change, clip)}


def take(options: argparse.Namespace) -> None:
    """Take every picture."""
    browser_path = next((found for name in BROWSERS if (found := shutil.which(name))), None)
    if browser_path is None:
        raise InputError("browser", expected="Chromium", got="none", remedy="install it with make browser")
    options.output.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=browser_path, args=["--no-sandbox"])
        for name, shot in SHOTS.items():
            page = browser.new_page(viewport=VIEWPORT)
            page.goto(options.address)
            page.locator("#search").wait_for()
            shot(Camera(page, options.data_root / "demo-gallery"))
            page.evaluate("window.scrollTo(0, 0)")
            page.screenshot(path=options.output / f"{name}.png")
            page.close()
            print(options.output / f"{name}.png")
        browser.close()


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; 0 is success, 2 something in the input."""
    parser = argparse.ArgumentParser(description=__doc__, epilog=EXAMPLE)
    parser.add_argument("--address", default="http://127.0.0.1:7860", help="of the running page (default: %(default)s)")
    parser.add_argument("--data-root", type=Path, default=Path("data"), help="where demo-gallery lies (default: data)")
    parser.add_argument("--output", type=Path, default=Path("docs/img"), metavar="DIR", help="default: docs/img")
    try:
        take(parser.parse_args(argv))
    except InputError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
