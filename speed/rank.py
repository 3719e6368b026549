"""Rank a million vectors, best and worst 100, against one bare pass over the same memory.

    python speed/rank.py [--images 1000000] [--width 768] [--top 100] [--rounds 5] [--shards] [--bytes] [--photos 200]
                         [--model minilm-efficientnet] [--json]

Both run in turn on the same matrix. The bare pass is the faster of numpy's and torch's sum of it; the result must be
that of sorting everything, or the benchmark fails. A naive loop over the rows is timed on a part of them. --shards also
ranks the vectors from Parquet files in bounded memory; --bytes also finds the same table by one byte a number.
`seconds_photos_*` are of a folder of drawn photos, in which each attribute is new: the model's loading, the first
ranking with all photos to encode, a further one (`known`), which takes no longer than the model from the shell, and one
on the open page (`page`). `seconds_large_*` are of a page of --large photos (vectors alone): other words, an answer
after 40 others, and typed words in a real browser, where playwright and chromium are; `megabytes_large` is by how much
the process grew meanwhile.
"""

import argparse
import os
import shutil
import sys
import tempfile
import threading
import time
from concurrent.futures import ProcessPoolExecutor
from contextlib import redirect_stdout
from importlib.util import find_spec
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from unittest.mock import patch

import numpy as np
import pandas as pd
import pyarrow as pa
import torch
from measure import in_status, in_turn, ratio, seconds_of, show
from PIL import Image
from shortlist import byte_vectors, ranked_by_bytes

from pcclip.config import Rank
from pcclip.embedding.vectors import Vectors
from pcclip.encoders import load_model
from pcclip.ranking.app import App
from pcclip.ranking.rank import rank as rank_photos
from pcclip.ranking.topk import ranked, ranked_shards
from pcclip.ranking.votes import Vote
from pcclip.ranking.widget.photos import Photos, growing_photos
from pcclip.ranking.widget.ranker import Ranker
from pcclip.ranking.widget.surface import Conversation
from pcclip.runs.files import write_parquet
from pcclip.stats.vectors import project

CHUNK = 2**16
PAGE = ".pcclip-ranking"
TYPE = """([page, text]) => new Promise(done => {
    const start = performance.now(), words = document.querySelector(`${page} input[name=more]`);
    const seen = () => requestAnimationFrame(() => done((performance.now() - start) / 1000));
    const ranked = new MutationObserver(() => (ranked.disconnect(), seen()));
    ranked.observe(document.querySelector(page), { subtree: true, attributeFilter: ["aria-posinset"] });
    setTimeout(() => done(-1), 60000);
    words.value = text;
    words.dispatchEvent(new Event("input", { bubbles: true }));
})"""


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--images", type=int, default=1_000_000)
    parser.add_argument("--width", type=int, default=768)
    parser.add_argument("--top", type=int, default=100, help="how many of the best and of the worst")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--shards", action="store_true", help="also from Parquet files in a temporary folder")
    parser.add_argument("--bytes", action="store_true", help="also by a shortlist of int8 codes (shortlist.py)")
    parser.add_argument("--photos", type=int, default=200, help="of the folder that is ranked twice")
    parser.add_argument("--large", type=int, default=100_000, help="of the large page")
    parser.add_argument("--model", default="minilm-efficientnet", help="that ranks it")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(arguments)

    rng = np.random.default_rng(0)
    matrix = np.empty((options.images, options.width), dtype=np.float32)
    for start in range(0, options.images, CHUNK):
        part = matrix[start : start + CHUNK]
        rng.standard_normal(out=part, dtype=np.float32)
        part /= np.linalg.norm(part, axis=1, keepdims=True)
    axis = matrix[:2].sum(axis=0)
    axis /= np.linalg.norm(axis)

    def rank():
        return ranked(project(matrix, axis), options.top, options.top)

    whole = torch.from_numpy(matrix)
    check(rank(), project(matrix, axis), options.top)
    passes = {"numpy": matrix.sum, "torch": whole.sum}
    ways = {"rank": rank, **passes}
    if options.bytes:
        short = byte_vectors(matrix)
        ways["bytes"] = lambda: ranked_by_bytes(matrix, short, axis, options.top, options.top)
        if list(ways["bytes"]().row) != list(rank().row):
            raise SystemExit("the shortlist has another table")
    times = in_turn(options.rounds, **ways)
    bare = min(passes, key=lambda name: median(times[name]))
    took = median(times["rank"])
    few = matrix[: min(options.images, 20_000)]
    naive = seconds_of(lambda: sorted(((float(np.dot(row, axis)), i) for i, row in enumerate(few)), reverse=True))
    slower = ratio(times["rank"], times[bare])
    result = {
        "benchmark": "rank",
        "images": options.images,
        "width": options.width,
        "top": options.top,
        "threads": torch.get_num_threads(),
        "bare_pass": bare,
        "ratio": slower,
        "peak_fraction": 1 / slower,
        "seconds_rank": took,
        "seconds_bare": median(times[bare]),
        "gigabytes": matrix.nbytes / 1e9,
        "gigabytes_per_second": matrix.nbytes / 1e9 / took,
        "naive_ratio": naive * options.images / len(few) / took,
    }
    if options.bytes:
        result |= {f"bytes_to_{name}": ratio(times["bytes"], times[name]) for name in ("rank", bare)}
        result |= {"seconds_bytes": median(times["bytes"]), "gigabytes_bytes": short.codes.nbytes / 1e9}
    if options.shards:
        result |= from_shards(matrix, axis, options.top)
    show(result | known_folder(options.model, options.photos) | large_page(options.model, options.large), options.json)


def large_page(spec: str, photos: int) -> dict:
    """Seconds until the page of so many photos has a new order, and by how much memory grew."""
    rng, names = np.random.default_rng(0), [f"{k}.jpg" for k in range(photos)]
    model = load_model(spec)
    matrix = rng.standard_normal((photos, model.width), dtype=np.float32)
    matrix /= np.linalg.norm(matrix, axis=1, keepdims=True)
    bad = pd.DataFrame(columns=["id", "path", "reason"])
    with tempfile.TemporaryDirectory() as folder, patch.dict(os.environ, PCCLIP_CACHE=f"{folder}/cache"):
        ranker = Ranker(Photos(Vectors(names, names, matrix), names, {"base": model}, bad), Rank(), f"{folder}/a.jsonl")
        answers: list[dict] = []
        page = Conversation(ranker, lambda answer, buffers=(): answers.append(answer))
        ranker.votes = [Vote(names[k], names[k + 50], "first") for k in range(40)]
        page.receive({"do": "hello"})
        before = in_status("VmHWM")
        words = {"more": "green", "less": "grey", "estimator": "two_prompt", "show": "base"}
        vote = {"do": "vote", "first": 1, "second": 7, "choice": "first"}
        times = {"words": seconds_of(lambda: page.receive({"do": "rank", **words}))}
        ranker.votes = [Vote(names[k], names[k + 50], "first") for k in range(40)]
        times["vote"] = seconds_of(lambda: page.receive(vote))
        grew, ranker.votes = in_status("VmHWM") - before, []
        if find_spec("playwright") and (chromium := shutil.which("chromium")):
            times["browser"] = in_browser(ranker, chromium)
    if problems := [answer["text"] for answer in answers if answer["is"] == "problem"]:
        raise SystemExit(problems[0])
    return {f"seconds_large_{name}": seconds for name, seconds in times.items()} | {"megabytes_large": grew / 2**20}


def in_browser(ranker: Ranker, chromium: str) -> float:
    """Seconds from the last letter typed until the page shows the new order: the median of five words."""
    from playwright.sync_api import sync_playwright

    server, times = App(ranker), []
    threading.Thread(target=server.serve_forever, daemon=True).start()
    with sync_playwright() as play:
        page = play.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"]).new_page()
        page.goto(server.address)
        page.locator(f"{PAGE} .tile .caption:not(:empty)").first.wait_for(timeout=120_000)
        for text in ("red", "a dog", "an insect", "a car", "a flower"):
            page.wait_for_timeout(1000)  # the pictures of the last order have come
            times.append(page.evaluate(TYPE, [PAGE, text]))
    server.shutdown()
    if min(times) < 0:
        raise SystemExit("the page did not show another order")
    return median(times)


def known_folder(spec: str, photos: int) -> dict:
    """Seconds of a folder's first ranking, of further ones from the shell (less the model) and on the page."""
    with (
        tempfile.TemporaryDirectory() as folder,
        redirect_stdout(sys.stderr),
        patch.dict(os.environ, PCCLIP_CACHE=f"{folder}/cache"),
    ):
        place = Path(folder) / "photos"
        place.mkdir()
        noise = np.random.default_rng(0).integers(256, size=(photos, 8, 8, 3), dtype=np.uint8)
        for k, picture in enumerate(noise):
            Image.fromarray(picture).resize((640, 480)).save(place / f"{k}.jpg")
        started = time.perf_counter()
        model = load_model(spec)
        loaded = time.perf_counter() - started
        first, known = (seconds_of(lambda text=text: rank_photos(place, text, model=model)) for text in ("red", "blue"))
        *_, (album, _) = growing_photos(str(place), {"base": model})
        ranker = Ranker(album, Rank(), Path(folder) / "answers.jsonl")

        def type_words() -> None:
            ranker.ask("green", "grey", "ensemble", "base")
            ranker.standing("base")

        times = {"model": loaded, "first": first, "known": known, "page": seconds_of(type_words)}
    return {"photos": photos} | {f"seconds_photos_{name}": seconds for name, seconds in times.items()}


def check(table, scores: np.ndarray, top: int) -> None:
    """The result is that of sorting everything."""
    order = np.argsort(-scores, kind="stable")
    ends = order if 2 * top >= len(order) else np.concatenate([order[:top], order[-top:]])
    if not np.allclose(scores[table.row], scores[ends], atol=1e-5):  # sums in another order differ in the last bits
        raise SystemExit("the first and last are not those of the full sort")


def from_shards(matrix: np.ndarray, axis: np.ndarray, top: int) -> dict:
    """Seconds to rank the same vectors from Parquet files, and by how much memory grew."""
    with tempfile.TemporaryDirectory() as folder:
        files = []
        for start in range(0, len(matrix), 4 * CHUNK):
            part = matrix[start : start + 4 * CHUNK]
            files.append(Path(folder) / f"{start:09d}.parquet")
            vectors = pa.FixedSizeListArray.from_arrays(pa.array(part.ravel()), part.shape[1])
            write_parquet(files[-1], pa.table({"path": [str(start + i) for i in range(len(part))], "vector": vectors}))
        with ProcessPoolExecutor(1, get_context("spawn")) as fresh:  # whose memory has held nothing else
            table, took, grew = fresh.submit(stream, files, axis, top).result()
    check(table.assign(row=table.path.astype(int)), project(matrix, axis), top)
    return {"seconds_shards": took, "megabytes_grown": grew / 2**20}


def stream(files: list[Path], axis: np.ndarray, top: int) -> tuple:
    """The table, seconds, and bytes by which the process grew."""
    before, started = in_status("VmHWM"), time.perf_counter()
    table = ranked_shards(files, axis, top=top, bottom=top)
    return table, time.perf_counter() - started, in_status("VmHWM") - before


if __name__ == "__main__":
    main()
