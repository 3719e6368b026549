"""Draw docs/ranking.webp, the page of `pcclip app` at work, and write docs/ranked.html: .venv/bin/python docs/ranking.py

Both show the demo's animals (Tux Paint's stamps, GPL-2), ranked by the embedded default model before any finetuning. Needs
the demo's photos, chromium and the package's extra test.
"""

import os
import re
import shutil
import tempfile
import threading
from io import BytesIO
from pathlib import Path

from PIL import Image
from playwright.sync_api import Page, sync_playwright

from pcclip import config
from pcclip.config import Rank
from pcclip.data.image_set import load_images
from pcclip.ranking.app import App, export_page, photos_at
from pcclip.ranking.widget.ranker import Ranker

DOCS = Path(__file__).parent
FIRST = Rank(more="a bird", less="a mammal")
THEN = Rank(more="a sea animal", less="a land animal")
SEA = re.compile("fish|shrimp|trout|dolphin|wrasse|groper|whale|mussel|lobster|abalone|sea|penguin|pelican|[Gg]ull")


def write_animals(folder: Path) -> Path:
    """The demo's photos of animals, with captions.csv."""
    table = load_images(config.read(DOCS.parent / "params" / "demo.yaml")).table
    animals = table[table.label == "animal"]
    names = animals["id"].str.replace("/", "-") + ".png"
    folder.mkdir()
    for path, name in zip(animals.path, names, strict=True):
        shutil.copyfile(path, folder / name)
    animals.assign(path=names)[["path", "caption"]].to_csv(folder / "captions.csv", index=False)
    return folder


def frames(page: Page) -> list[tuple[Image.Image, int]]:
    """Pictures of the page and how many milliseconds each is shown."""
    shots: list[tuple[Image.Image, int]] = []

    def shoot(milliseconds: int) -> None:
        shots.append((Image.open(BytesIO(page.screenshot())).convert("RGB"), milliseconds))

    shoot(1200)
    page.fill("input[name=more]", THEN.more)
    page.fill("input[name=less]", THEN.less)
    shoot(500)
    page.press("input[name=less]", "Enter")
    for _ in range(8):  # the photos flow
        page.wait_for_timeout(40)
        shoot(110)
    page.wait_for_timeout(900)
    shoot(1300)
    page.click("button[name=compare]")
    page.wait_for_selector(".duel .side img[src^=blob]")
    for _ in range(3):
        page.wait_for_timeout(700)
        shoot(800)
        left, right = (bool(SEA.search(page.locator(".side .caption").nth(k).text_content())) for k in (0, 1))
        page.locator(".duel").press("ArrowDown" if left == right else "ArrowLeft" if left else "ArrowRight")
    page.wait_for_timeout(900)
    shoot(800)
    page.locator(".duel").press("Escape")
    box = page.locator(".histogram").bounding_box()
    page.mouse.move(box["x"] + 1, box["y"] + 30)
    page.mouse.down()
    for step in range(1, 4):  # a drag from the edge selects the top
        page.mouse.move(box["x"] + box["width"] * 0.09 * step, box["y"] + 30)
        page.wait_for_timeout(700)
        shoot(350)
    page.mouse.up()
    shoot(2000)
    return shots


def main() -> None:
    """Both files."""
    with tempfile.TemporaryDirectory() as folder:
        os.environ |= {"PCCLIP_DATA": f"{folder}/data"}
        photos = write_animals(Path(folder) / "photos")
        growing, settings, answers = photos_at(str(photos), FIRST, "minilm-efficientnet")
        *_, (album, _) = growing
        ranker = Ranker(album, settings, answers)
        ranker.save("birds")
        export_page("birds", DOCS / "ranked.html")
        app = App(ranker)
        threading.Thread(target=app.serve_forever, daemon=True).start()
        with sync_playwright() as play:
            chromium = play.chromium.launch(
                executable_path=shutil.which("chromium"), args=["--no-sandbox", "--disable-gpu"]
            )
            page = chromium.new_page(viewport={"width": 960, "height": 720})
            page.goto(app.address)
            page.wait_for_selector(".tile.ready")
            page.wait_for_timeout(1500)
            pictures, times = zip(*frames(page), strict=True)
        first, *others = (picture.resize((800, 600), Image.Resampling.LANCZOS) for picture in pictures)
        first.save(
            DOCS / "ranking.webp",
            save_all=True,
            append_images=others,
            duration=list(times),
            loop=0,
            quality=60,
            method=4,
        )


if __name__ == "__main__":
    main()
