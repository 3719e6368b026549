"""The surface of notebook 06 in a real browser: JupyterLab and `pcclip app`, driven through headless Chromium."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tarfile
import threading
import time
from pathlib import Path

import nbformat
import numpy as np
import psutil
import pytest
import torch
from helpers.drawn import write_balloons
from helpers.runs import ROOT
from nbconvert import HTMLExporter
from PIL import Image

from pcclip.config import Rank
from pcclip.encoders import load_model
from pcclip.ranking.app import App, export_page
from pcclip.ranking.rank import rank
from pcclip.ranking.votes import VoteFile
from pcclip.ranking.widget.photos import growing_photos
from pcclip.ranking.widget.ranker import Ranker

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine (apt-get install chromium)")
sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed (pip install -e '.[test]')")

HOSTILE = "<img src=x onerror=\"document.title='broken'\"> & co"
MORE, LESS = "something red", "something blue"
WAIT = 180_000  # milliseconds; a busy machine is slow
SETTINGS = {  # no question about news, and the state of widgets is saved, as a careful person would have it
    "@jupyterlab/apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
    "@jupyter-widgets/jupyterlab-manager/plugin": {"saveState": True},
}


@pytest.fixture(scope="module")
def work(tiny_model, tmp_path_factory) -> Path:
    """A folder with pictures and notebook 06 told to rank them with a tiny model; votes.jsonl comes there."""
    folder = tmp_path_factory.mktemp("browser")
    write_balloons(folder / "photos", 60)
    told = {
        "run": "browser",
        "model": tiny_model,
        "outputs": str(folder / "outputs"),
        "rank": {"photos": str(folder / "photos"), "more": MORE, "less": LESS, "votes": str(folder / "votes.jsonl")},
    }
    captions = folder / "photos" / "captions.csv"
    text = captions.read_text().replace("A small red balloon.", '"' + HOSTILE.replace('"', '""') + '"')
    captions.write_text(text)
    (folder / "photos" / "broken.jpg").write_bytes(b"no image")
    for name, settings in SETTINGS.items():
        file = folder / ".jupyter" / "JUPYTERLAB_SETTINGS_DIR" / f"{name}.jupyterlab-settings"
        file.parent.mkdir(parents=True)
        file.write_text(json.dumps(settings))
    write_notebook(folder / "06_rank_images.ipynb", told)
    return folder


def write_notebook(path: Path, told: dict) -> None:
    """Notebook 06 with the values in a cell after its own parameters, as papermill does it."""
    notebook = nbformat.read(ROOT / "notebooks" / "06_rank_images.ipynb", 4)
    at = next(k for k, cell in enumerate(notebook.cells) if "parameters" in cell.metadata.get("tags", []))
    lines = "\n".join(f"{name} = {value!r}" for name, value in told.items())
    notebook.cells.insert(at + 1, nbformat.v4.new_code_cell("# Parameters\n" + lines))
    nbformat.write(notebook, path)


class Server:
    """A server in a process group of its own, on a free port."""

    def __init__(self, work: Path, *command: str):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        own = (
            "JUPYTER_CONFIG_DIR",
            "JUPYTER_RUNTIME_DIR",
            "JUPYTER_DATA_DIR",
            "JUPYTERLAB_SETTINGS_DIR",
            "JUPYTERLAB_WORKSPACES_DIR",
            "IPYTHONDIR",
        )
        environment = {
            **os.environ,
            "PCCLIP_ROOT": str(ROOT),
            "OMP_NUM_THREADS": "1",
            "HF_HUB_OFFLINE": "1",
            "PCCLIP_CACHE": str(work / "cache"),
            "PCCLIP_DATA": str(work / "data"),
            **{name: str(work / ".jupyter" / name) for name in own},
        }
        self.log = work / f"{command[0]}.log"
        with open(self.log, "w") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", *(part.format(port=port) for part in command)],
                cwd=work,
                env=environment,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def wait(self) -> None:
        for _ in range(600):
            with socket.socket() as one:
                if one.connect_ex(("127.0.0.1", int(self.url.rpartition(":")[2]))) == 0:
                    return
            assert self.process.poll() is None, self.log.read_text()
            time.sleep(0.1)
        raise AssertionError(self.log.read_text())

    def kernels(self) -> list[psutil.Process]:
        return [
            child
            for child in psutil.Process(self.process.pid).children(recursive=True)
            if "ipykernel_launcher" in " ".join(child.cmdline())
        ]

    def stop(self) -> None:
        for child in psutil.Process(self.process.pid).children(recursive=True):
            child.kill()
        self.process.kill()
        self.process.wait()


@pytest.fixture(scope="module")
def servers(work, tiny_model):
    """JupyterLab and `pcclip app`, started at once: neither waits for the other."""
    quiet = ("--no-browser", "--ServerApp.ip=127.0.0.1")
    lab = Server(
        work,
        "jupyterlab",
        *quiet,
        "--ServerApp.port={port}",
        "--ServerApp.token=",
        "--allow-root",
        "--ServerApp.disable_check_xsrf=True",
        "--LabApp.expose_app_in_browser=True",
        f"--ServerApp.root_dir={work}",
    )
    app = Server(
        work, "pcclip.cli", "app", str(work / "photos"), "--model", tiny_model, "--port={port}", "--no-browser"
    )
    yield lab, app
    lab.stop()
    app.stop()


@pytest.fixture(scope="module")
def browser():
    with sync_api.sync_playwright() as play:
        chromium = play.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        yield chromium
        chromium.close()


@pytest.fixture(scope="module")
def lab(servers, browser):
    """The notebook in JupyterLab, run."""
    server = servers[0]
    server.wait()
    page = browser.new_page(viewport={"width": 1360, "height": 1000}, reduced_motion="reduce")
    page.set_default_timeout(WAIT)
    page.goto(f"{server.url}/lab/tree/06_rank_images.ipynb?reset")
    run_all(page)
    yield page
    page.close()


def run_all(page) -> None:
    """Run every cell, in a kernel that answers, and wait for the photos of a new surface."""
    page.wait_for_selector(".jp-NotebookPanel .jp-Notebook")
    page.evaluate("""async () => {
        const { commands, shell } = window.jupyterapp, context = shell.currentWidget.sessionContext;
        document.querySelectorAll('.pcclip-ranking').forEach(old => { old.dataset.old = ''; });
        await context.ready;
        const pause = time => new Promise(done => setTimeout(done, time));
        const info = () => context.session?.kernel?.requestKernelInfo().catch(() => null);
        while (!await Promise.race([info(), pause(3000)])) await pause(100);
        commands.execute('notebook:run-all-cells');
    }""")
    page.wait_for_selector(".pcclip-ranking:not([data-old]) .tile.ready")


def order(page) -> list[tuple[int, str]]:
    """Places and captions of the photos in sight, once they are there."""
    page.wait_for_function("""() => [...document.querySelectorAll('.pcclip-ranking .tile:not(.going) .caption')]
        .every(caption => caption.textContent)""")
    return page.eval_on_selector_all(
        ".pcclip-ranking .tile:not(.going)",
        """tiles => tiles
        .map(tile => [+tile.getAttribute('aria-posinset'), tile.querySelector('.caption').textContent])
        .sort((a, b) => a[0] - b[0])""",
    )


def votes(work: Path) -> list[dict]:
    """The votes and undos that are on disk, without the words that were typed."""
    path = work / "votes.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    return [line for line in lines if "choice" in line or "undo" in line]


def cells(page) -> list[str]:
    """The source of every cell of the notebook in JupyterLab."""
    return page.evaluate("window.jupyterapp.shell.currentWidget.content.model.toJSON().cells.map(cell => cell.source)")


def told(page) -> str:
    return page.locator(".pcclip-ranking .duel .told").last.text_content()


def eventually(truth, seconds: float = WAIT / 1000) -> None:
    end = time.monotonic() + seconds
    while not truth():
        assert time.monotonic() < end, "it never came"
        time.sleep(0.05)


def test_typing_an_attribute_changes_the_order(lab):
    before = order(lab)
    assert [place for place, _ in before] == list(range(1, len(before) + 1))
    assert len(before) < 60, "only the photos in sight are in the page"
    assert "1 cannot be read" in lab.locator(".bar .facts").text_content()
    lab.fill(".pcclip-ranking input[name=more]", "a large balloon")
    lab.fill(".pcclip-ranking input[name=less]", "a small balloon")
    eventually(lambda: order(lab) != before)
    assert "a large balloon" in lab.locator(".bar .facts").text_content()
    lab.wait_for_selector(".pcclip-ranking .tile.ready img[src^=blob]")


def test_an_empty_text_is_told_in_one_line(lab):
    before = order(lab)
    lab.fill(".pcclip-ranking input[name=more]", "  ")
    problem = lab.locator(".pcclip-ranking .problem")
    problem.wait_for()
    assert "text is empty" in problem.text_content()
    assert order(lab) == before
    lab.fill(".pcclip-ranking input[name=more]", MORE)
    lab.fill(".pcclip-ranking input[name=less]", LESS)
    problem.wait_for(state="hidden")


def test_captions_are_text(lab):
    found = walked(lab)
    assert [place for place, _ in sorted(found)] == list(range(1, 61))
    assert HOSTILE in [caption for _, caption in found]
    assert lab.locator("img[src=x]").count() == 0
    assert lab.title() != "broken"


def test_enter_opens_a_photo_and_escape_gives_the_focus_back(lab):
    lab.locator(".pcclip-ranking .photo[tabindex='0']").first.focus()
    for key in ("Home", "ArrowRight", "Enter"):
        lab.keyboard.press(key)
    viewer = lab.locator(".pcclip-ranking dialog.viewer[open]")
    viewer.locator("img[src^=blob]").wait_for()
    assert viewer.locator(".caption").text_content() == dict(order(lab))[2]
    assert ": 2 of 60, score" in viewer.locator(".facts").first.text_content()
    eventually(lambda: viewer.locator(".path").text_content().endswith(".jpg"))
    lab.keyboard.press("ArrowRight")
    assert ": 3 of 60, score" in viewer.locator(".facts").first.text_content()
    lab.keyboard.press("ArrowLeft")
    lab.keyboard.press("Escape")
    viewer.wait_for(state="detached")
    focused = "document.activeElement.closest('.tile').getAttribute('aria-posinset')"
    assert lab.evaluate(focused) == "2"
    lab.keyboard.press("ArrowRight")
    assert lab.evaluate(focused) == "3"


def test_plus_marks_a_photo_and_orders_by_it(lab):
    before = walked(lab)
    lab.keyboard.press("End")
    lab.keyboard.press("+")
    lab.wait_for_selector(".pcclip-ranking .tile.liked .mark[aria-pressed=true]", state="attached")
    assert "1 example" in lab.locator(".bar .facts").text_content()
    assert walked(lab) != before
    lab.click(".pcclip-ranking button[name=forget]")
    lab.locator(".pcclip-ranking .tile.liked").wait_for(state="detached")
    assert walked(lab) == before


def walked(page) -> list[tuple[int, str]]:
    """All photos, met with the keyboard alone."""
    page.locator(".pcclip-ranking .photo[tabindex='0']").first.focus()
    page.keyboard.press("Home")
    found = dict(order(page))
    for _ in range(20):
        page.keyboard.press("PageDown")
        found |= dict(order(page))
    return list(found.items())


def test_votes_by_keys_are_on_disk_at_once(lab, work):
    before = cells(lab)
    lab.locator(".pcclip-ranking button[name=compare]").focus()
    lab.keyboard.press("Enter")
    lab.wait_for_selector(".pcclip-ranking .duel .side img[src^=blob]")
    for count, (key, choice) in enumerate(
        [("ArrowLeft", "first"), ("ArrowRight", "second"), ("ArrowDown", "tie"), ("s", "skip"), ("ArrowLeft", "first")],
        start=1,
    ):
        lab.wait_for_selector(".pcclip-ranking .duel:not(.waiting)")
        lab.keyboard.press(key)
        eventually(lambda count=count: len(votes(work)) == count)
        assert votes(work)[-1]["choice"] == choice
        eventually(lambda: not lab.locator(".pcclip-ranking .duel.waiting").count())
    assert told(lab).startswith("4 answers")
    lab.keyboard.press("z")
    eventually(lambda: told(lab).startswith("3 answers"))
    assert votes(work)[-1]["undo"] is True
    assert {vote["attribute"] for vote in votes(work)} == {f"{MORE} / {LESS}"}
    for key in ("x", "a", "b", "d", "d"):  # JupyterLab's own, which would change the notebook
        lab.keyboard.press(key)
    assert cells(lab) == before


def test_votes_survive_a_killed_kernel(lab, servers, work):
    before = sorted(walked(lab))
    for kernel in servers[0].kernels():
        os.kill(kernel.pid, signal.SIGKILL)
    button = lab.locator(".jp-Dialog button.jp-mod-accept")
    button.wait_for()
    button.click()
    run_all(lab)
    lab.wait_for_selector(".pcclip-ranking .learn:not([hidden])")
    lab.click(".pcclip-ranking button[name=compare]")
    eventually(lambda: told(lab).startswith("3 answers"))
    assert sorted(walked(lab)) == before, "the same votes make the same order"


def test_the_notebooks_file_stays_small(lab, work):
    """Pictures and scores travel in messages: saved is only what a cell shows, and the surface's own code."""
    lab.evaluate("window.jupyterapp.commands.execute('docmanager:save')")
    path = work / "06_rank_images.ipynb"
    eventually(lambda: "widget-state" in path.read_text())
    state = json.dumps(json.loads(path.read_text())["metadata"]["widgets"])
    assert len(state) < 100_000
    assert "balloon" not in state.replace("large balloon", "")


def test_a_saved_notebook_shows_its_order(lab, servers, browser, work):
    """In HTML, and opened again where nothing has run yet, the output is a picture of the order, no missing widget."""
    lab.evaluate("window.jupyterapp.commands.execute('docmanager:save')")
    saved = work / "saved.ipynb"
    shutil.copy(work / "06_rank_images.ipynb", saved)
    html, _ = HTMLExporter().from_filename(saved)
    (work / "saved.html").write_text(html)
    for address in (f"{servers[0].url}/lab/tree/saved.ipynb?reset", (work / "saved.html").as_uri()):
        page = browser.new_page()
        page.set_default_timeout(WAIT)
        page.goto(address)
        picture = page.locator(".pcclip-picture")
        picture.wait_for()
        captions = picture.locator("figcaption").all_text_contents()
        assert [caption.split(".")[0] for caption in captions] == [
            str(place) for place in (*range(1, 13), *range(49, 61))
        ]
        assert picture.locator("img").evaluate_all("images => images.every(image => image.naturalWidth)")
        assert (
            not page.get_by_text(re.compile("object at 0x|not found|Error displaying", re.I))
            .filter(visible=True)
            .count()
        )
        page.close()


@pytest.fixture
def app(servers, browser):
    """The page of `pcclip app`, and the addresses that it asked for."""
    server = servers[1]
    server.wait()
    eventually(lambda: "token=" in server.log.read_text())
    address = next(line for line in server.log.read_text().splitlines() if "token=" in line)
    page = browser.new_page(viewport={"width": 1200, "height": 900}, reduced_motion="reduce", accept_downloads=True)
    page.set_default_timeout(WAIT)
    page.requests = []
    page.on("request", lambda request: page.requests.append(request.url))
    page.goto(address)
    page.wait_for_selector(".pcclip-ranking .tile.ready")
    page.locator(".pcclip-ranking .coming").wait_for(state="hidden")
    yield page
    page.close()


def test_the_app(app, servers):
    before = order(app)
    app.fill(".pcclip-ranking input[name=more]", "a green balloon")
    eventually(lambda: order(app) != before)
    lines = taken(app, "csv").splitlines()
    assert lines[0] == "rank,path,id,caption,score,more,less,model,estimator"
    assert [line.split(",")[0] for line in lines[1:]] == [str(k) for k in range(1, 61)]
    assert all(url.startswith((servers[1].url, "blob:", "data:")) for url in app.requests)
    assert len(app.requests) > 2


def test_the_page_says_when_words_separate_nothing(app):
    doubt = app.locator(".pcclip-ranking .doubt")
    app.fill(".pcclip-ranking input[name=less]", "")
    app.fill(".pcclip-ranking input[name=more]", "not a red balloon")
    eventually(lambda: "hardly hears the negation" in doubt.text_content())
    assert doubt.is_visible()
    app.fill(".pcclip-ranking input[name=more]", "a red balloon")
    eventually(lambda: "negation" not in doubt.text_content())


def taken(page, kind: str) -> str:
    """The text of the file that the page gives away."""
    page.select_option(".pcclip-ranking select[name=kind]", kind)
    with page.expect_download() as download:
        page.click(".pcclip-ranking button[name=take]")
    assert "is in this browser's downloads" in page.locator(".pcclip-ranking .placed").text_content()
    return Path(download.value.path()).read_text()


def test_a_drag_from_the_edge_selects_the_top_and_takes_it_away(app, work):
    histogram = app.locator(".pcclip-ranking .histogram")
    box = histogram.bounding_box()
    x, y = box["x"], box["y"] + box["height"] / 2
    app.mouse.move(x + 1, y)
    app.mouse.down()
    app.mouse.move(x + box["width"] * 0.3, y, steps=4)
    app.mouse.up()
    count = app.locator(".pcclip-ranking .count").text_content()
    shown = [place for place, _ in walked(app)]
    assert 0 < len(shown) < 60
    assert sorted(shown) == list(range(1, len(shown) + 1)), "the top, not what is below it"
    assert count.startswith(f"{len(shown)} of 60 photos, scores ")
    assert len(taken(app, "jsonl").splitlines()) == len(shown)
    app.fill(".pcclip-ranking input[name=top]", "7")
    assert app.locator(".pcclip-ranking .chosen").text_content() == "the 7 shown photos"
    app.select_option(".pcclip-ranking select[name=kind]", "copy")
    app.fill(".pcclip-ranking input[name=to]", str(work / "taken"))
    app.click(".pcclip-ranking button[name=take]")
    eventually(lambda: f"7 of 7 photos copied to {work / 'taken'}" in app.locator(".placed").text_content())
    assert len([*(work / "taken").glob("*.jpg")]) == 7


def test_photos_are_searched_and_seen_at_full_size(app):
    """By the keyboard alone."""
    app.locator(".pcclip-ranking input[name=search]").focus()
    app.keyboard.type("LARGE blue")
    eventually(lambda: "found" in app.locator(".bar .facts").text_content())
    shown = [caption for _, caption in walked(app)]
    assert 0 < len(shown) < 60
    assert all("large blue" in caption for caption in shown)
    app.keyboard.press("Home")
    app.keyboard.press("Enter")
    viewer = app.locator(".pcclip-ranking dialog.viewer[open]")
    image = viewer.locator("img[src^=blob]")
    image.wait_for()
    scaled = (
        "(image, scale) => image.complete && (!scale || Math.round(image.clientWidth / image.naturalWidth) === scale)"
    )
    for key, scale in (("z", 1), ("z", 2), ("z", 0)):
        app.keyboard.press(key)
        eventually(lambda scale=scale: image.evaluate(scaled, scale))
        assert viewer.evaluate("viewer => viewer.classList.contains('full')") == (scale > 0)
    app.keyboard.press("Escape")
    app.fill(".pcclip-ranking input[name=search]", "")
    eventually(lambda: len(walked(app)) == 60)


def test_photos_are_filtered_by_one_attribute_and_ranked_by_another(app):
    app.fill(".pcclip-ranking input[name=more]", "something big")
    eventually(lambda: "something big" in app.locator(".bar .facts").text_content())
    app.fill(".pcclip-ranking input[name=top]", "20")
    app.locator(".pcclip-ranking button[name=keep]").focus()
    app.keyboard.press("Enter")
    first = {caption for _, caption in walked(app)}
    assert "among 20 kept photos" in app.locator(".bar .facts").text_content()
    app.click(".pcclip-ranking button[name=hold]")
    before = order(app)
    app.fill(".pcclip-ranking input[name=more]", "2:a green balloon - a small balloon")
    eventually(lambda: order(app) != before)
    assert {caption for _, caption in walked(app)} == first, "the same photos in another order"
    assert len(walked(app)) == 20
    app.click(".pcclip-ranking button[name=keep]")
    assert "kept" not in app.locator(".bar .facts").text_content()
    scatter = app.locator(".pcclip-ranking .scatter canvas")
    assert scatter.get_attribute("aria-label").startswith("60 photos by something big and 2:a green")
    scatter.scroll_into_view_if_needed()
    box = scatter.bounding_box()
    app.mouse.move(box["x"] + box["width"] / 2, box["y"] + 1)
    app.mouse.down()
    app.mouse.move(box["x"] + box["width"] - 1, box["y"] + box["height"] - 1, steps=3)
    app.mouse.up()
    eventually(lambda: "kept photo" in app.locator(".bar .facts").text_content())
    assert 0 < len(walked(app)) < 60
    app.click(".pcclip-ranking button[name=hold]")
    scatter.wait_for(state="hidden")


@pytest.fixture
def served(browser):
    """served(ranker) is the page of an app in this process."""
    opened = []

    def open_page(ranker):
        server = App(ranker)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        page = browser.new_page(viewport={"width": 1200, "height": 900}, reduced_motion="reduce")
        opened.append((page, server))
        page.set_default_timeout(WAIT)
        page.goto(server.address)
        page.wait_for_selector(".pcclip-ranking .tile.ready")
        return page

    yield open_page
    for page, server in opened:
        page.close()
        server.shutdown()


def test_two_models_by_change_of_rank(served, work, tiny_model, monkeypatch):
    """Both panels show the photos that rise most first, and scroll as one."""
    monkeypatch.setenv("PCCLIP_CACHE", str(work / "cache"))
    models = {name: load_model(tiny_model) for name in ("base", "finetuned")}
    torch.manual_seed(1)
    with torch.no_grad():
        for weights in models["finetuned"].transformer().parameters():
            weights.add_(0.3 * torch.randn_like(weights))
    *_, (photos, _) = growing_photos(str(work / "photos"), models)
    ranker = Ranker(photos, Rank(more=MORE, less=LESS), work / "two.jsonl")
    page = served(ranker)
    assert page.locator(".gallery").count() == 1
    page.check("input[value='side by side']")
    page.check(".pcclip-ranking input[name=change]")
    assert page.locator(".gallery h3").all_text_contents() == ["base", "finetuned"]
    ranks = {name: {row: place for place, row in enumerate(ranker.standing(name).order)} for name in models}
    rises = sorted(range(60), key=lambda row: (ranks["finetuned"][row] - ranks["base"][row], ranks["finetuned"][row]))
    first = page.locator(".gallery").last.locator(f".tile[aria-posinset='{ranks['finetuned'][rises[0]] + 1}'] .place")
    rise = ranks["base"][rises[0]] - ranks["finetuned"][rises[0]]
    assert rise > 0
    assert first.text_content() == f"{ranks['finetuned'][rises[0]] + 1} ▲{rise}"
    scrollers = page.locator(".gallery .scroller")
    scrollers.first.evaluate("scroller => { scroller.scrollTop = 300; }")
    eventually(lambda: scrollers.last.evaluate("scroller => scroller.scrollTop") == 300)
    page.check("input[value=finetuned]")
    eventually(lambda: page.locator(".gallery").count() == 1)
    places = [place for place, _ in order(page)]
    assert places == list(range(places[0], places[0] + len(places))), "one model's photos are in its own order again"


def test_small_photos_are_enlarged_and_squares_can_be_whole(served, tmp_path, tiny_model, monkeypatch):
    monkeypatch.setenv("PCCLIP_CACHE", str(tmp_path / "cache"))
    (tmp_path / "photos").mkdir()
    for k, noise in enumerate(np.random.default_rng(0).integers(256, size=(3, 20, 32, 3), dtype=np.uint8)):
        Image.fromarray(noise).save(tmp_path / "photos" / f"{k}.png")
    *_, (photos, _) = growing_photos(str(tmp_path / "photos"), {"base": load_model(tiny_model)})
    page = served(Ranker(photos, Rank(more=MORE, less=LESS), tmp_path / "small.jsonl"))
    page.click(".pcclip-ranking button[name=compare]")
    side = page.locator(".pcclip-ranking .duel .side img[src^=blob]").first
    eventually(lambda: side.evaluate("image => image.complete && image.naturalWidth") == 32)
    assert min(side.evaluate("image => [image.clientWidth, image.clientHeight]")) > 150
    tile, fit = page.locator(".tile.ready .photo img").first, "image => getComputedStyle(image).objectFit"
    assert (side.evaluate(fit), tile.evaluate(fit)) == ("contain", "cover")
    page.check(".pcclip-ranking input[name=whole]")
    assert tile.evaluate(fit) == "contain"


def test_photos_are_ticked_by_keys_and_by_shift_click(app):
    app.locator(".pcclip-ranking .photo[tabindex='0']").first.focus()
    for key in ("Home", "x", "ArrowRight", "ArrowRight", "Shift+X"):
        app.keyboard.press(key)
    chosen = app.locator(".pcclip-ranking .chosen")
    assert chosen.text_content() == "3 ticked photos"
    app.locator(".tile[aria-posinset='2'] .tick").click()
    assert chosen.text_content() == "2 ticked photos"
    app.locator(".tile[aria-posinset='6'] .photo").click(modifiers=["Shift"])
    assert chosen.text_content() == "6 ticked photos"
    assert [json.loads(line)["rank"] for line in taken(app, "jsonl").splitlines()] == [1, 2, 3, 4, 5, 6]
    app.click(".pcclip-ranking button[name=untick]")
    assert chosen.text_content() == "all 60 photos"


def test_an_exported_page_needs_no_server(browser, work, tiny_model, monkeypatch):
    """By keys: votes re-rank the photos of the file, and go back into a ranking."""
    monkeypatch.setenv("PCCLIP_DATA", str(work / "data"))
    monkeypatch.setenv("PCCLIP_CACHE", str(work / "cache"))
    *_, (photos, _) = growing_photos(str(work / "photos"), {"base": load_model(tiny_model)})
    ranker = Ranker(photos, Rank(more=MORE, less=LESS), work / "offline.jsonl")
    ranker.vote(0, 1, "first")
    ranker.example(2, 1)
    ranker.save("for the web")
    export_page("for the web", work / "ranked.html")
    page = browser.new_page(viewport={"width": 1200, "height": 900}, reduced_motion="reduce", accept_downloads=True)
    page.set_default_timeout(WAIT)
    requests = []
    page.on("request", lambda request: requests.append(request.url))
    text = (work / "ranked.html").read_text()
    assert 0 < text.index('<img src="data:image/jpeg') < text.index('id="data"'), "pictures before all data are read"
    page.goto((work / "ranked.html").as_uri())
    page.wait_for_selector(".pcclip-ranking .tile.ready")
    page.locator("#first").wait_for(state="detached")
    before = taken(page, "jsonl")
    assert told(page) == "No answers yet: the saved order has 1 answer and 1 example in it."
    page.locator(".pcclip-ranking button[name=compare]").focus()
    for key in ("Enter", "ArrowLeft", "ArrowLeft", "ArrowRight", "z"):
        page.keyboard.press(key)
        page.wait_for_selector(".pcclip-ranking .duel:not(.waiting) .side img[src^=blob]")
    assert told(page).startswith("2 answers")
    assert taken(page, "jsonl") != before, "the answers move the scores"
    with page.expect_event("dialog") as asked:
        page.evaluate("setTimeout(() => location.reload())")
    assert asked.value.type == "beforeunload", "the answers are in this page alone"
    asked.value.dismiss()
    assert told(page).startswith("2 answers")
    assert HOSTILE in [caption for _, caption in walked(page)]
    lines = taken(page, "votes").splitlines()
    (work / "back.jsonl").write_text("\n".join(lines))
    assert [vote.choice for vote in VoteFile(work / "back.jsonl").read(f"{MORE} / {LESS}")] == ["first", "first"]
    assert len(rank(work / "photos", MORE, LESS, photos.models["base"], votes=work / "back.jsonl")) == 61
    assert all(url.startswith(("file:", "blob:", "data:")) for url in requests)
    page.reload()
    page.wait_for_selector(".pcclip-ranking .tile.ready")  # the answers were downloaded, so nothing was asked
    page.close()


def test_examples_lie_in_a_tray_and_a_ranking_keeps_them(app, work):
    """By the keyboard alone: mark two photos, take one back, save, type other words, and open the ranking again."""
    keys = app.keyboard
    app.locator(".pcclip-ranking .photo[tabindex='0']").first.focus()
    for key in ("Home", "+", "ArrowRight", "-"):
        keys.press(key)
    tray = app.locator(".pcclip-ranking .tray li")
    eventually(lambda: tray.count() == 2)
    app.locator(".pcclip-ranking .tray button").last.focus()
    keys.press("Enter")
    eventually(lambda: tray.count() == 1)
    app.locator(".pcclip-ranking .rankings summary").focus()
    keys.press("Enter")
    app.locator(".pcclip-ranking input[name=name]").focus()
    keys.type("my balloons")
    app.locator(".pcclip-ranking button[name=save]").focus()
    keys.press("Enter")
    eventually(lambda: "ranking: my balloons" in app.locator(".pcclip-ranking .rankings summary").text_content())
    kept = order(app)
    app.locator(".pcclip-ranking input[name=less]").focus()
    keys.type(" and round")
    eventually(lambda: tray.count() == 0)
    assert app.locator(".pcclip-ranking .rankings summary").text_content() == "saved rankings"
    app.select_option(".pcclip-ranking select[name=rankings]", "my balloons")
    eventually(lambda: tray.count() == 1)
    eventually(lambda: order(app) == kept)
    assert (work / "data" / "rankings" / "my balloons.jsonl").is_file()


def type_words(page) -> None:
    """The words that the page began with, whatever earlier tests typed."""
    page.fill(".pcclip-ranking input[name=less]", LESS)
    for words in ("a balloon", MORE):  # the second are new to the page
        page.fill(".pcclip-ranking input[name=more]", words)
        with page.expect_response(lambda answer, words=words: words in (answer.request.post_data or "")):
            page.press(".pcclip-ranking input[name=more]", "Enter")


def test_rankings_are_renamed_and_deleted_and_files_placed(app, work):
    """What cannot be undone is asked about once; a save that fails leaves no earlier success on the page."""
    press, by, placed = app.click, ".pcclip-ranking {}[name={}]".format, app.locator(".pcclip-ranking .placed")
    problem, summary = app.locator(".pcclip-ranking .problem"), app.locator(".pcclip-ranking .rankings summary")
    folder = work / "data" / "rankings"
    type_words(app)
    summary.click()
    for name, button in (("first name", "save"), ("second name", "rename")):
        app.fill(by("input", "name"), name)
        press(by("button", button))
        eventually(lambda name=name: summary.text_content() == f"saved ranking: {name}")
    assert (folder / "second name.jsonl").is_file()
    assert not (folder / "first name.jsonl").exists()
    delete = app.locator(by("button", "delete"))
    delete.focus()
    app.keyboard.press("Enter")
    assert (
        delete.text_content() == app.locator(".pcclip-ranking > [role=status]").last.text_content() == "really delete?"
    )
    app.keyboard.press("Tab")
    assert delete.text_content() == "delete"
    delete.focus()
    app.keyboard.press("Enter")
    app.wait_for_timeout(400)  # longer than between the clicks of a double click
    assert (folder / "second name.jsonl").is_file()
    app.keyboard.press("Enter")
    eventually(lambda: summary.text_content() == "saved rankings")
    assert not (folder / "second name.jsonl").exists()

    app.fill(by("input", "top"), "3")
    labels = taken(app, "labels").splitlines()
    assert labels[0] == "path,caption,something_red"
    assert sum(line.endswith(",1") for line in labels[1:]) == 3
    assert len(labels) == 61
    press_take = by("button", "take")
    app.select_option(by("select", "kind"), "png")
    with app.expect_download() as download:
        press(press_take)
    with Image.open(download.value.path()) as sheet:
        assert (sheet.format, sheet.width > 300) == ("PNG", True)

    app.select_option(by("select", "kind"), "link")
    app.fill(by("input", "to"), str(work / "linked"))
    press(press_take)
    eventually(lambda: placed.text_content() == f"3 of 3 photos linked in {work / 'linked'}, with order.csv")
    assert sum(path.is_symlink() for path in (work / "linked").iterdir()) == 3
    app.fill(by("input", "to"), "/proc/chosen")
    press(press_take)
    eventually(lambda: problem.text_content().startswith("/proc/chosen: cannot be made ("))
    assert placed.text_content() == ""

    before = {path.name for path in (work / "photos").iterdir()}
    app.select_option(by("select", "kind"), "move")
    for to, gone in (("moved", 3), ("photos", 0)):  # away, and back again
        app.fill(by("input", "to"), str(work / to))
        press(press_take)
        assert app.locator(press_take).text_content() == "really move 3 photos?"
        app.wait_for_timeout(400)
        press(press_take)
        eventually(lambda to=to: placed.text_content() == f"3 of 3 photos moved to {work / to}, with order.csv")
        assert len(before - {path.name for path in (work / "photos").iterdir()}) == gone
    (work / "photos" / "order.csv").unlink()

    app.fill(by("input", "search"), "no such caption")
    eventually(lambda: "0 photos found" in app.locator(".bar .facts").text_content())
    app.select_option(by("select", "kind"), "png")
    press(press_take)
    eventually(lambda: problem.text_content().startswith("no photo is shown"))
    assert placed.text_content() == ""


def test_the_mark_of_a_deviation_ends_with_it_and_in_the_histogram(app):
    type_words(app)
    app.locator(".pcclip-ranking .photo[tabindex='0']").first.focus()
    app.keyboard.press("Home")
    app.keyboard.press("+")
    spread, histogram = app.locator(".pcclip-ranking .histogram .spread"), app.locator(".pcclip-ranking .histogram")
    eventually(lambda: spread.get_attribute("visibility") == "visible")
    inner, outer = spread.bounding_box(), histogram.bounding_box()
    assert inner["width"] > 0
    assert outer["x"] <= inner["x"] + 1
    assert inner["x"] + inner["width"] <= outer["x"] + outer["width"] + 1
    app.locator(".pcclip-ranking input[name=more]").focus()
    app.keyboard.type(" and large")
    eventually(lambda: spread.get_attribute("visibility") == "hidden")


@pytest.fixture(scope="module")
def axe(tmp_path_factory) -> str:
    """axe-core's code, out of the npm package."""
    folder = tmp_path_factory.mktemp("axe")
    if not shutil.which("npm"):
        pytest.skip("no npm on this machine (apt-get install npm)")
    packed = subprocess.run(["npm", "pack", "--silent", "axe-core@4.10.3"], cwd=folder, capture_output=True, text=True)
    if packed.returncode:
        pytest.skip(f"npm cannot fetch axe-core: {packed.stderr.strip()[-200:]}")
    with tarfile.open(folder / packed.stdout.strip()) as archive:
        return archive.extractfile("package/axe.min.js").read().decode()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_is_accessible(app, axe, scheme):
    """No violation of WCAG A and AA with every part of the page open, and no two buttons of one name."""
    app.emulate_media(color_scheme=scheme)
    app.click(".pcclip-ranking button[name=compare]")
    app.wait_for_selector(".pcclip-ranking .duel .side img[src^=blob]")
    app.click(".pcclip-ranking .rankings summary")
    app.select_option(".pcclip-ranking select[name=kind]", "copy")
    app.evaluate(axe)
    result = app.evaluate("axe.run('.pcclip-ranking', {runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa']})")
    found = [f"{rule['id']}: {node['html'][:120]}" for rule in result["violations"] for node in rule["nodes"]]
    assert not found
    assert len(result["passes"]) > 10
    names = app.eval_on_selector_all(
        ".pcclip-ranking button:not([hidden])",
        """buttons => buttons.filter(button => button.checkVisibility())
        .map(button => button.getAttribute('aria-label') ?? button.textContent)""",
    )
    assert len(names) == len(set(names)), sorted(name for name in names if names.count(name) > 1)
    assert all(names)
    assert (
        app.locator(".pcclip-ranking [role=status]").last.text_content().startswith(("Left: ", "0 answers", "1 answer"))
    )
