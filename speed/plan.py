"""What the books cost: a simulated stage of a million shards, and memory by image and by comparison, for `pcclip plan`.

    python speed/plan.py [--shards 10000 100000 1000000] [--images 50000] [--pairs 20000] [--written 500] [--json]

No image is opened and no model works; seconds are core seconds. A simulated stage of vectors has one image in each
shard, whose files are empty: timed are reading the set's table into the stage's key, planning all shards, finding those
that are there (all but one are) and a manifest that names each of them. `ratio` is how much sooner one listing finds
them than asking for file by file; `growth` is the exponent of seconds by shards (1 is linear): over GROWTH the whole
fails. Then a stage of so many real shards is written and merged, a set of tar files is indexed, and comparisons are
made by template.
"""

import argparse
import math
import os
import tarfile
import tempfile
import time
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
from measure import show

from pcclip import config as params
from pcclip import load_model
from pcclip.comparisons import stage as generate
from pcclip.config import Embed
from pcclip.data.image_set import ImageSet, load_images
from pcclip.embedding import stage as embed
from pcclip.embedding import vectors as embed_vectors
from pcclip.images import batches
from pcclip.runs.files import names_in
from pcclip.runs.stage import Stage

GROWTH = 1.3  # n log n and the noise of a busy machine; a quadratic cost has 2
WIDTH = 768
CAPTION = "A {} {} on the grass near a tall old house with a red roof."
_THINGS = ["dog", "cat", "horse", "bird", "bus", "boat", "lamp", "chair", "apple", "tree"]


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--shards", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--images", type=int, default=50_000)
    parser.add_argument("--pairs", type=int, default=20_000)
    parser.add_argument("--written", type=int, default=500)
    parser.add_argument("--model", default="ViT-B-32:random", help="its tokenizer is what counts")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(arguments)

    with tempfile.TemporaryDirectory() as folder:
        os.environ["PCCLIP_CACHE"] = f"{folder}/cache"
        memory = of_memory(Path(folder), options)
        written = of_written(Path(folder) / "written", options.written)
        books = {n: of_books(Path(folder) / f"books-{n}", n) for n in sorted(options.shards)}
    few, many = min(books), max(books)
    spent = {
        n: sum(seconds for name, seconds in found.items() if name != "asking file by file")
        for n, found in books.items()
    }
    growth = math.log(spent[many] / spent[few]) / math.log(many / few) if many > few else 1.0
    if not growth <= GROWTH:
        raise SystemExit(
            f"the books of {many} shards take {spent[many]:.3g} s and those of {few} {spent[few]:.3g} s: "
            f"they grow with the power {growth:.2f}, over {GROWTH}"
        )
    show(
        {
            "benchmark": "plan",
            "shards": many,
            "ratio": books[many]["asking file by file"] / books[many]["finding those there"],
            "growth": growth,
            "seconds_a_shard": spent[many] / many,
            "seconds_by_shards": spent,
            "seconds_by_step": books[many],
            **written,
            **memory,
        },
        options.json,
    )


def core_seconds_of(run: Callable[[], object]) -> float:
    """Of this process, in Python and in the kernel: what else the machine does hardly counts."""
    started = time.process_time()
    run()
    return time.process_time() - started


def of_books(folder: Path, n: int) -> dict[str, float]:
    """Core seconds of each step of a stage of vectors of `n` shards."""
    images = ImageSet("simulated", table_of(n), pd.DataFrame(columns=["path", "reason"]))
    made, found = {}, {}

    def planned() -> None:
        made["stage"] = Stage(folder / "02_embed", {"images": images.identity()})

    def shards() -> None:
        made["shards"] = {f"1-{k:06d}.parquet": rows for k, rows in enumerate(batches(n, 1))}

    found["the set into the key"] = core_seconds_of(planned)
    stage = made["stage"]
    with stage.work():
        found["planning"] = core_seconds_of(shards)
        names = [f"vectors-{name}" for name in made["shards"]]
        for name in names[:-1]:
            os.close(os.open(stage.partial / name, os.O_CREAT))

        def listed() -> None:
            there = names_in(stage.shards)
            made["todo"] = [name for name in names if name not in there]

        found["finding those there"] = core_seconds_of(listed)
        found["asking file by file"] = core_seconds_of(lambda: [n for n in names if not (stage.partial / n).is_file()])
        if made["todo"] != names[-1:]:
            raise SystemExit(f"{len(made['todo'])} shards are thought missing, not one")
    found["beginning again"] = core_seconds_of(lambda: _enter(stage))
    outputs = [f"{stage.partial.name}/{name}" for name in names[:-1]]
    _keep_partial(stage)
    found["manifest"] = core_seconds_of(lambda: stage.finish(outputs, {"images": n}))
    found["done?"] = core_seconds_of(lambda: made.update(done=stage.done()))
    if not made["done"]:
        raise SystemExit("the manifest does not say that the stage is done")
    return found


def _enter(stage: Stage) -> None:
    """What a run that was killed does first: take the lock and look for what is stale."""
    with stage.work():
        pass


def _keep_partial(stage: Stage) -> None:
    """The simulated shards stay: they stand for files of the stage itself."""
    stage.partial = stage.shards = stage.folder / "none"


def of_written(folder: Path, n: int) -> dict:
    """Core seconds a shard of writing real shards, one image each, and of putting them together."""
    model = SimpleNamespace(width=WIDTH, spec="simulated", image_fingerprint=lambda: "simulated", tuned_from="")
    table = table_of(n)
    labelled = SimpleNamespace(images=table, pictures=list(table.path), max_bad=0.0, identity=lambda: "simulated")

    vectors, writing = np.random.default_rng(0).standard_normal((n, WIDTH), np.float32), []

    def write(folder: Path, source, todo: dict, *how) -> None:
        writing.append(
            core_seconds_of(
                lambda: [
                    embed.write_shard(
                        folder, name, source.table, embed.Encoded([vectors[rows.start : rows.stop]], list(rows), [])
                    )
                    for name, rows in todo.items()
                ]
            )
        )

    encode, embed._encode_shards = embed._encode_shards, write
    try:
        seconds = core_seconds_of(
            lambda: embed.embed_benchmark(folder / "02_embed", labelled, model, Embed(batch_size=1, workers=1, shard=1))
        )
    finally:
        embed._encode_shards = encode
    size = (folder / "02_embed" / embed_vectors.TABLE).stat().st_size
    return {
        "seconds_to_write_a_shard": writing[0] / n,
        "seconds_to_merge_a_shard": (seconds - writing[0]) / n,
        "bytes_on_disk_an_image": size / n,
    }


def of_memory(folder: Path, options: argparse.Namespace) -> dict[str, float]:
    """Most bytes held at once: by image of a set in tar files, and by comparison on top of that."""
    tars(folder / "tars", options.images)
    model, made = load_model(options.model), {}

    def of(pairs: int) -> params.Config:
        return params.check(
            {
                "run": f"of_{pairs}",
                "outputs": str(folder / "outputs"),
                "data": {"source": "webdataset", "path": str(folder / "tars")},
                "generate": {
                    "backend": "template",
                    "pairs": pairs,
                    "held_out_pairs": 1,
                    "sampling": "random",
                    "filters": "none",
                    "min_yield": 0.0,
                },
            }
        )

    by_image = (
        most_bytes(lambda: made.update(seconds=core_seconds_of(lambda: made.update(images=load_images(of(1))))))
        / options.images
    )
    generate.generate(of(1), made["images"], model)  # what is imported and loaded once
    by_pair = most_bytes(lambda: generate.generate(of(options.pairs), made["images"], model)) / options.pairs
    return {
        "images": options.images,
        "bytes_an_image": by_image,
        "seconds_to_index_an_image": made["seconds"] / options.images,
        "pairs": options.pairs,
        "bytes_a_comparison": by_pair,
    }


def most_bytes(run: Callable[[], object]) -> float:
    """By how much the memory of this process grew at its largest (Linux)."""
    Path("/proc/self/clear_refs").write_text("5")
    before = _status("VmRSS")
    run()
    return max(0, _status("VmHWM") - before)


def _status(name: str) -> int:
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(f"{name}:"))
    return 1024 * int(line.split()[1])


def tars(folder: Path, n: int) -> None:
    """Shards of 1000 samples of a caption and a byte."""
    folder.mkdir(parents=True)
    captions = table_of(n).caption
    for rows in batches(n, 1000):
        with tarfile.open(folder / f"{rows.start // 1000:05d}.tar", "w", format=tarfile.USTAR_FORMAT) as archive:
            for row in rows:
                for kind, content in (("jpg", b"\0"), ("txt", captions[row].encode())):
                    member = tarfile.TarInfo(f"{row:09d}.{kind}")
                    member.size = len(content)
                    archive.addfile(member, BytesIO(content))


def table_of(n: int) -> pd.DataFrame:
    """An image table of a web-scale set: ids, places in tar files, captions."""
    ids = [f"{k // 1000:05d}/{k:09d}" for k in range(n)]
    return pd.DataFrame(
        {
            "id": ids,
            "path": [f"/data/{i[:5]}.tar#{512 * k}+20000#{i[6:]}.jpg" for k, i in enumerate(ids)],
            "caption": [CAPTION.format(k, _THINGS[k % len(_THINGS)]) for k in range(n)],
            "concept": [_THINGS[k % len(_THINGS)] for k in range(n)],
            "label": None,
            "split": "train",
        }
    )


if __name__ == "__main__":
    main()
