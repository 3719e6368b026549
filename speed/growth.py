"""How time and memory of each stage grow with its size: seconds, peak memory and exponent at doubled sizes.

    python speed/growth.py [--images 100000] [--doublings 3] [--classes 1000] [--pairs 1000] [--only STAGE ...] [--json]

Everything is drawn, no weights are needed. The exponent is the slope of log seconds over log images, of all sizes; of a
stage that takes a tenth of a second it is mostly noise. Memory is by how much the process outgrows itself in the call,
at the largest size. What a model computes is left out (it is so much an item): 02 has an image tower of one matrix, 01
the template, and 03 the order of an epoch's batches.
"""

import argparse
import gc
import json
import tempfile
from collections.abc import Callable
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import torch
from finetune import peak_memory
from measure import seconds_of, show
from PIL import Image
from torch import nn

from pcclip.arithmetic import geometry, retrieval
from pcclip.arithmetic.differences import HeldOut, draw_triples
from pcclip.arithmetic.texts import TextMemory
from pcclip.comparisons.llm import Question, Reply
from pcclip.comparisons.llm.backend import Template
from pcclip.comparisons.pairs import choose_pairs
from pcclip.comparisons.stage import template_pairs
from pcclip.config import Config
from pcclip.embedding.stage import Embed, ImageTable, _encode_shards
from pcclip.embedding.vectors import Vectors, vector_table
from pcclip.encoders.dual_encoder import Encoder
from pcclip.evaluation import report, stage as evaluation
from pcclip.evaluation.predictions import Predictions, summarise
from pcclip.evaluation.zero_shot import classify
from pcclip.finetuning.loop import batch_rows, steps
from pcclip.images import batches
from pcclip.ranking.topk import ranked_shards
from pcclip.ranking.votes import VoteFile
from pcclip.runs.files import write_parquet
from pcclip.runs.log import AnswerLog
from pcclip.runs.stage import Stage
from pcclip.stats.vectors import unit

WIDTH, DRAWS = 64, 100


class Drawn(Encoder):
    """An image tower of one matrix; a text's vector is drawn by its characters."""

    spec, width, context_length, architecture = "drawn", WIDTH, 32, {"family": "drawn"}

    def __init__(self) -> None:
        super().__init__()
        self.image_tower, self.text_tower = nn.Linear(192, WIDTH), nn.Linear(1, 1)

    def preprocess(self, image):
        return torch.from_numpy(np.asarray(image, dtype=np.float32) / 255).permute(2, 0, 1)

    def image_features(self, pixels):
        return self.image_tower(pixels.flatten(1))

    def encode_texts(self, texts):
        return drawn(len(texts), sum(map(len, texts)))


def drawn(n: int, seed: int = 0) -> np.ndarray:
    """(n, WIDTH) unit vectors."""
    return unit(np.random.default_rng(seed).standard_normal((n, WIDTH), dtype=np.float32))


def images(n: int, classes: int) -> pd.DataFrame:
    """id, path, caption and concept of n images."""
    rows = range(n)
    columns = {"id": [f"image {k}" for k in rows], "path": [f"/absent/{k}.jpg" for k in rows]}
    return pd.DataFrame(
        columns | {"caption": [f"a photo {k}" for k in rows], "concept": [f"kind {k % classes}" for k in rows]}
    )


# ---- the stages: each makes its input and returns the call that is measured


def comparisons(n: int, folder: Path, options: argparse.Namespace) -> Callable:
    log, backend = AnswerLog(folder / "answers.jsonl", Reply, "questions"), Template()
    captions = images(n, options.classes).caption

    def run() -> None:
        pairs = choose_pairs(captions, n, "balanced", 0)
        log.answer_all([Question(f"{i} {j}", captions[i], captions[j]) for i, j in pairs], backend.answers)

    return run


def embedding(n: int, folder: Path, options: argparse.Namespace) -> Callable:
    picture, settings = Image.new("RGB", (8, 8)), Embed(batch_size=256, shard=1024)
    shards = {f"{k:06d}": rows for k, rows in enumerate(batches(n, settings.shard))}
    source = ImageTable(images(n, options.classes)[["id", "path"]], [picture] * n)
    return lambda: _encode_shards(folder, source, shards, Drawn(), settings)


def finetuning(n: int, folder: Path, options: argparse.Namespace) -> Callable:
    config = Config()
    return lambda: [batch_rows(config, step, n) for step in range(steps(config.finetune, n)[0])]


def zero_shot_items(n: int, options: argparse.Namespace) -> pd.DataFrame:
    """Both models' items of all images."""
    predictions, labels = Predictions(), np.arange(n) % options.classes
    names = [f"image {k}" for k in range(n)]
    for seed, model in enumerate(("base", "finetuned")):
        items = classify(drawn(n), drawn(options.classes, seed + 1), np.arange(n), labels)
        predictions.add(("zero_shot", Config().data.source, ""), model, items, names)
    return predictions.table()


def evaluate(n: int, folder: Path, options: argparse.Namespace) -> Callable:
    return lambda: summarise(zero_shot_items(n, options), DRAWS, 0)


def arithmetic(n: int, folder: Path, options: argparse.Namespace) -> Callable:
    table, models = images(n, options.classes), {"base": TextMemory(Drawn()), "finetuned": TextMemory(Drawn())}
    pairs = template_pairs(table, options.pairs, 0)
    vectors = Vectors(list(table["id"]), list(table.path), drawn(n))
    unit_of = dict(zip(table["id"], table.concept, strict=True))
    held_out = HeldOut(vectors, table, pairs, draw_triples(table, pairs, 100, 0), 200, DRAWS, 0, unit_of)

    def run() -> None:
        geometry.table(geometry.measure(held_out, models))
        geometry.item_table(held_out, models, 1.0)
        retrieval.table(retrieval.sweeps(held_out, models, [0.0, 1.0, float("inf")]))

    return run


def page(n: int, folder: Path, options: argparse.Namespace) -> Callable:
    """The report, with every image's prediction by both models."""
    items, names = (
        zero_shot_items(n, options),
        [evaluation.PREDICTIONS, f"../{evaluation.METRICS}", evaluation.DIFFERENCES],
    )
    with Stage(folder / evaluation.FOLDER, {}).work() as stage:
        write_parquet(stage.folder / names[0], items)
        for name, table in zip(names[1:], summarise(items, DRAWS, 0), strict=True):
            table.to_csv(stage.folder / name, index=False)
        stage.finish(names, {})
    with Stage(folder / "02_embed", {}).work() as stage:
        write_parquet(stage.folder / "vectors.parquet", vector_table(images(n, options.classes), drawn(n)))
        stage.finish(["vectors.parquet"], {})
    config = Config(data={"path": str(folder / "absent"), "source": "folder"})
    return lambda: report.write(config, folder)


def ranking(n: int, folder: Path, options: argparse.Namespace) -> Callable:
    pq.write_table(vector_table(images(n, options.classes), drawn(n)), folder / "vectors.parquet")
    return lambda: ranked_shards([folder / "vectors.parquet"], drawn(1)[0])


def files(n: int, folder: Path, options: argparse.Namespace) -> Callable:
    """The ranking of so many images in files of 16."""
    table, names = vector_table(images(n, options.classes), drawn(n)), [folder / f"{k}.parquet" for k in range(n // 16)]
    for k, name in enumerate(names):
        pq.write_table(table.slice(16 * k, 16), name)
    return lambda: ranked_shards(names, drawn(1)[0])


def undo(n: int, folder: Path, options: argparse.Namespace) -> Callable:
    """Reading a file of so many votes, every second of which was taken back."""
    votes = VoteFile(folder / "votes.jsonl")
    undone = ("", '{"undo": true, "attribute": "a"}\n', "", '{"undo": true}\n')
    with votes.path.open("w") as file:
        for k in range(n):
            vote = {"first": f"{k}", "second": "x", "choice": "first", "attribute": "a"}
            file.write(f"{json.dumps(vote)}\n{undone[k % 4]}")
    return votes.read


STAGES = {
    "01 comparisons": comparisons,
    "02 embedding": embedding,
    "03 batches of an epoch": finetuning,
    "04 zero-shot": evaluate,
    "05 arithmetic": arithmetic,
    "report": page,
    "ranking": ranking,
    "ranking, files of 16": files,
    "votes, half of them undone": undo,
}


def grown_mib(run: Callable) -> tuple[float, float]:
    """Seconds of a call, and by how many MiB the process outgrew itself in it (0 where the system does not say)."""
    gc.collect()
    seconds: list[float] = []
    grown = peak_memory(torch.device("cpu"), lambda: seconds.append(seconds_of(run)))
    return (seconds or [seconds_of(run)])[0], max(0, grown or 0) / 2**20


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--images", type=int, default=100_000, help="the largest size")
    parser.add_argument("--doublings", type=int, default=3)
    parser.add_argument("--classes", type=int, default=1000)
    parser.add_argument("--pairs", type=int, default=1000, help="of stage 05")
    parser.add_argument("--only", nargs="*", choices=STAGES, default=list(STAGES))
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(arguments)

    sizes = [options.images // 2**k for k in reversed(range(options.doublings + 1))]
    result: dict = {"benchmark": "growth", "images": sizes}
    for name in options.only:
        measured = []
        for n in sizes:
            with tempfile.TemporaryDirectory() as folder, redirect_stdout(StringIO()):
                measured.append(grown_mib(STAGES[name](n, Path(folder), options)))
        seconds, mib = zip(*measured, strict=True)
        exponent = float(np.polyfit(np.log(sizes), np.log(seconds), 1)[0])
        result[name] = {"exponent": exponent, "mib": mib[-1], "seconds": [float(f"{s:.3g}") for s in seconds]}
    show(result, options.json)


if __name__ == "__main__":
    main()
