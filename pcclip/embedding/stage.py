"""Stage 02: encode a table of images, and store their vectors and the images that cannot be read.

One function encodes every table: the run's own images, a benchmark's, a folder's, and the same images again by another
image tower. Reading, encoding and writing overlap, and files of `embed.shard` images make the stage resumable.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
import torch
from jaxtyping import Float
from PIL import Image

from pcclip.benchmarks.benchmark import Benchmark
from pcclip.benchmarks.classification import FAMILY as CLASSIFICATION
from pcclip.benchmarks.registry import vectors_folder
from pcclip.config import Config, Embed
from pcclip.data.image_set import ImageSet, load_images
from pcclip.data.rows import counted
from pcclip.embedding.vectors import TABLE, Vectors, fingerprints, load_vectors, vector_table
from pcclip.encoders import identify, load_model
from pcclip.encoders.dual_encoder import Encoder
from pcclip.errors import PcclipError
from pcclip.images import batches, decoded_batches
from pcclip.runs.files import names_in, read_parquet, write_parquet
from pcclip.runs.progress import Meter, next_part, say
from pcclip.runs.ray_cluster import over_shards
from pcclip.runs.stage import Stage, finished, once

FOLDER = "02_embed"
BAD = "bad_images.parquet"
TOWERS = "towers"  # folder below a stage of vectors: a stage for each other image tower
DRAFT = 2  # with embed.draft a JPEG is decoded at no fewer than this many times the tower's pixels
_FORMAT = 1
_AT_ONCE = 4  # batches in the image tower at once on a CPU
_READERS = 16  # shards that are read at once, at the end
_BAD_SCHEMA = pa.schema([("id", pa.string()), ("path", pa.string()), ("reason", pa.string())])


@dataclass(frozen=True)
class ImageTable:
    """The images of one stage of vectors: all that an ImageSet, a Benchmark and a folder have in common.

    Attributes:
        table: columns id and path.
        images: row by row of `table`, paths or PIL images.
        max_bad: a larger share of unreadable images fails.
        advice: the end of the message then, after "more than".
    """

    table: pd.DataFrame
    images: Sequence
    max_bad: float = 1.0
    advice: str = ""


class Encoded(NamedTuple):
    """Images encoded by one or several image towers: a matrix for each, and the rows that could be read or not."""

    matrices: list[Float[np.ndarray, "n d"]]
    rows: list[int]
    bad: list[tuple[int, str]]


def stage(config: Config, images: ImageSet | None = None) -> Stage:
    """Stage 02 of a run, with everything that its vectors depend on."""
    folder = config.source_folder / FOLDER
    draft = {"draft": True} if config.embed.draft else {}
    return Stage(folder, {"format": _FORMAT, **draft, **shared_inputs(config, images)}, config.stored(folder))


def shared_inputs(config: Config, images: ImageSet | None = None) -> dict[str, Any]:
    """The inputs that every stage from 02 on has in common with the other stages of its run."""
    images = images or load_images(config)
    return {"images": images.identity(), "model": identify(config.model), "seed": config.seed}


def embed(config: Config, images: ImageSet, model: Encoder) -> tuple[Vectors, pd.DataFrame]:
    """Run the stage, or read it when it is done. Returns the vectors and the bad images (id, path, reason).

    With engine: ray a cluster encodes the shards, with the model that the config names; its nodes must see the images.

    Raises:
        PcclipError: more than data.max_bad of the images cannot be read, or a shard failed for good.
    """
    max_bad = config.data.max_bad
    table = images.table[["id", "path"]]
    source = ImageTable(table, list(table.path), max_bad, f"data.max_bad = {max_bad}; mend them or raise it")
    return _run(stage(config, images), source, model, config.embed, config if config.engine == "ray" else None)


def embed_benchmark(
    folder: Path, benchmark: Benchmark, model: Encoder, settings: Embed
) -> tuple[Vectors, pd.DataFrame]:
    """The vectors of a benchmark's images, in a stage of their own in `folder`.

    The stage is done again when the benchmark or the image tower changes; models that share an image tower share it.

    Returns:
        The vectors, in the order of the benchmark's images, and the bad images (id, path, reason), which have none. A
        vector's path is the image's id where one file holds many images.

    Raises:
        PcclipError: more than benchmark.max_bad of the images cannot be read.
    """
    run = Stage(folder, {"format": _FORMAT, "images": benchmark.identity(), "model": model.image_fingerprint()})
    advice = f"{benchmark.max_bad:.0%}; unpack the set again"
    source = ImageTable(benchmark.images[["id", "path"]], benchmark.pictures, benchmark.max_bad, advice)
    return _run(run, source, model, settings.model_copy(update={"draft": False}))


def embedded_sets(
    config: Config, benchmarks: Mapping[str, Benchmark], models: Mapping[str, Encoder]
) -> Iterator[tuple[str, Benchmark, Vectors]]:
    """Name, set, and vectors of its images by the image tower of every model, set by set; models['base'] must be there.

    Prints how many images cannot be read; they have no vector. Raises PcclipError as `embed_benchmark`.
    """
    for name, benchmark in benchmarks.items():
        next_part(name)
        folder = vectors_folder(config, benchmark.family) / name
        images = benchmark if benchmark.family == CLASSIFICATION else benchmark.only_images(benchmark.max_bad)
        vectors, bad = embed_benchmark(folder, images, models["base"], config.embed)
        if len(bad):
            say(f"{benchmark.name}: {len(bad)} images cannot be read, e.g. {bad.path[0]}: {bad.reason[0]}")
        yield name, benchmark, with_towers(folder, vectors, models, config.embed, images)


def left_out(config: Config, benchmarks: Mapping[str, Benchmark]) -> pd.DataFrame:
    """The rows that the readers of `embedded_sets` left out and the images that cannot be read, as data.rows.counted."""
    parts = [pd.DataFrame({"dataset": [], "path": [], "reason": []}, dtype=str)]
    for name, benchmark in benchmarks.items():
        bad = read_parquet(vectors_folder(config, benchmark.family) / name / BAD).to_pandas()[["path", "reason"]]
        parts += [rows.assign(dataset=name) for rows in (benchmark.left_out, bad)]
    return counted(pd.concat(parts))


def own_vectors(config: Config, models: Mapping[str, Encoder]) -> Vectors:
    """The vectors of the run's own images by the image tower of every model; models['base'] must be there.

    Stage 02 has the base's; another tower's are made at the first call. Raises PcclipError when stage 02 has not
    finished or has another base, or an image can no longer be read.
    """
    folder = config.source_folder / FOLDER
    return with_towers(folder, load_vectors(folder, models["base"]), models, config.embed)


def with_towers(
    folder: Path,
    vectors: Vectors,
    models: Mapping[str, Encoder],
    settings: Embed,
    benchmark: Benchmark | None = None,
) -> Vectors:
    """Return `vectors`, extended with vectors from every other image tower in `models`.

    Args:
        folder: the stage that made `vectors`, which are models['base']'s.
        vectors: what to extend.
        models: by name.
        settings: how images are encoded.
        benchmark: the set whose images they are; without one the images are the files at the vectors' paths.
    """
    tuned = {name: model for name, model in models.items() if model.image_tower is not models["base"].image_tower}
    by_fingerprint, others = {vectors.fingerprint: vectors}, {}
    for name, fingerprint in fingerprints(tuned).items():
        if fingerprint not in by_fingerprint:
            by_fingerprint[fingerprint] = embed_with_tower(folder, tuned[name], settings, benchmark)
        if fingerprint != vectors.fingerprint:
            others[name] = by_fingerprint[fingerprint]
    return replace(vectors, others=others)


def embed_with_tower(folder: Path, model: Encoder, settings: Embed, benchmark: Benchmark | None = None) -> Vectors:
    """Encode the images of the stage in `folder` again, with this model's image tower, in a stage of their own.

    Arguments as in `with_towers`. Raises PcclipError when the stage in `folder` has not finished, or one of its images
    can no longer be read.
    """
    run, table = tower_stage(folder, model), read_parquet(Path(folder) / TABLE, ["id", "path"]).to_pandas()
    images: Sequence = list(table.path)
    if benchmark is not None:
        row = {image: k for k, image in enumerate(benchmark.images["id"])}
        images = benchmark.rows([row[image] for image in table["id"]]).pictures
    if not run.done():
        say(f"{folder}: the same images by the image tower {run.folder.name} of {model.spec}")
    advice = f"none, and {folder} has vectors of them all; mend them, or embed that set anew"
    draft = finished(folder)["inputs"].get("draft", False)
    vectors, _ = _run(run, ImageTable(table, images, 0.0, advice), model, settings.model_copy(update={"draft": draft}))
    return vectors


def tower_stage(folder: Path, model: Encoder) -> Stage:
    """The stage in `folder`/towers/FINGERPRINT: the images of the stage in `folder` by this model's image tower."""
    fingerprint = model.image_fingerprint()
    return Stage(
        Path(folder) / TOWERS / fingerprint,
        {"format": _FORMAT, "of": finished(folder)["outputs"][TABLE]["sha256"], "model": fingerprint},
    )


def encode_by_all(images: Sequence, models: Sequence[Encoder], meter: Meter, settings: Embed) -> Encoded:
    """Encode images by one or several image towers, in one pass that opens each image once.

    With settings.draft large JPEG files are decoded at a fraction of their size, and their vectors differ a little.
    """
    ranges = batches(len(images), settings.batch_size)
    return _joined(_encoded_batches(images, models, ranges, meter, settings), models)


@once
def _run(
    run: Stage, source: ImageTable, model: Encoder, settings: Embed, cluster: Config | None = None
) -> tuple[Vectors, pd.DataFrame]:
    """Do a stage of vectors, or read it when it is done. With `cluster`, the config, its Ray workers encode."""
    if run.done_or_fetched():
        say(f"{run.folder.name}: done already, read from {run.folder}")
        bad = read_parquet(run.folder / BAD)
        _check_bad(run, source, bad)
        return load_vectors(run.folder, model), bad.to_pandas()
    fingerprint = model.image_fingerprint()
    with run.work():
        ranges = batches(len(source.table), settings.shard)
        shards = {f"{fingerprint}-{settings.shard}-{k:06d}.parquet": rows for k, rows in enumerate(ranges)}
        written = names_in(run.shards)
        todo = {name: rows for name, rows in shards.items() if f"vectors-{name}" not in written}
        if len(todo) < len(shards):
            say(f"{run.folder.name}: {len(shards) - len(todo)} of {len(shards)} shards found, encoding the rest")
        if cluster and todo:
            _encode_on_cluster(cluster, run.shards, source, todo, fingerprint)
        else:
            _encode_shards(run.shards, source, todo, model, settings)
        with ThreadPoolExecutor(_READERS) as pool:
            vectors, bad = (
                pa.concat_tables(pool.map(read_parquet, [run.shards / f"{kind}-{name}" for name in shards]))
                for kind in ("vectors", "bad")
            )
        _check_bad(run, source, bad)
        vectors = vectors.append_column("fingerprint", pa.array([fingerprint] * vectors.num_rows).dictionary_encode())
        write_parquet(run.folder / TABLE, vectors)
        write_parquet(run.folder / BAD, bad)
        reasons = bad["reason"].to_pandas().value_counts().to_dict()
        counts = {"images": vectors.num_rows, "bad": bad.num_rows, "width": model.width, "left_out": reasons}
        run.finish([TABLE, BAD], counts, fingerprint)
    return load_vectors(run.folder, model), bad.to_pandas()


def _check_bad(run: Stage, source: ImageTable, bad: pa.Table) -> None:
    """Raise PcclipError when too many of the images, or all, are bad."""
    if source.max_bad * len(source.table) < bad.num_rows or bad.num_rows == len(source.table):
        first = bad.slice(0, 1).to_pylist()[0]
        raise PcclipError(
            f"{run.folder.name}: {bad.num_rows} of {len(source.table)} images cannot be read (e.g. "
            f"{first['path']}: {first['reason']}), more than {source.advice}"
        )


def _encoded_batches(
    images: Sequence, models: Sequence[Encoder], ranges: Iterable[range], meter: Meter, settings: Embed
) -> Iterator[Encoded]:
    """The images of each range, decoded by threads while the batch before is encoded."""

    def encode(batch: tuple[list[int], list, list[tuple[int, str]]]) -> Encoded:
        rows, pixels, bad = batch
        matrices = [model.encode_pixels(batch) for model, batch in zip(models, pixels, strict=bool(rows))]
        return Encoded(matrices, rows, bad)

    longer_sides = [  # of a frozen peer, which takes any size, more than any photo's
        max(model.preprocess(Image.new("RGB", (8, 8))).shape[1:], default=100_000) for model in models
    ]
    at_least = DRAFT * max(longer_sides) if settings.draft else None
    decoded = decoded_batches(images, [model.preprocess for model in models], ranges, settings.workers, at_least)
    on_cpu = all(model.device.type == "cpu" for model in models)
    for encoded in _side_by_side(encode, decoded) if on_cpu else map(encode, decoded):
        meter.add(len(encoded.rows) + len(encoded.bad))
        yield encoded


def _side_by_side(encode: Callable[[tuple], Encoded], decoded: Iterable[tuple]) -> Iterator[Encoded]:
    """Encode several batches at once, each on its share of the cores, and yield them in order.

    Cores that share a layer would wait for the slowest core, which often decodes.
    """
    cores = torch.get_num_threads()
    at_once = min(cores, _AT_ONCE)
    if at_once == 1:
        yield from map(encode, decoded)
        return
    pool = ThreadPoolExecutor(at_once, initializer=torch.set_num_threads, initargs=(cores // at_once,))
    waiting: deque = deque()
    try:
        for batch in decoded:
            waiting.append(pool.submit(encode, batch))
            if len(waiting) > at_once:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(cores)  # a thread's own number holds for all threads that start later


def _joined(parts: Iterable[Encoded], models: Sequence[Encoder]) -> Encoded:
    """Several batches as one."""
    parts = list(parts)
    matrices = [
        np.concatenate([np.empty((0, model.width), np.float32), *(part.matrices[k] for part in parts if part.matrices)])
        for k, model in enumerate(models)
    ]
    rows, bad = [row for part in parts for row in part.rows], [image for part in parts for image in part.bad]
    return Encoded(matrices, rows, bad)


def _encode_shards(
    folder: Path, source: ImageTable, shards: Mapping[str, range], model: Encoder, settings: Embed
) -> None:
    """Encode the rows of each shard into two files of `folder`: bad-NAME, and then vectors-NAME.

    A shard's name begins with the image tower's fingerprint, so that a run takes no other tower's shards for its own.
    The images of the next shard are decoded while this one is encoded and the last one is written.
    """
    size = settings.batch_size
    ranges = (rows for shard in shards.values() for rows in batches(len(shard), size, shard.start))
    meter = Meter(sum(map(len, shards.values())), "images")
    encoded = _encoded_batches(source.images, [model], ranges, meter, settings)
    with ThreadPoolExecutor(1) as writer:
        writing = None
        for name, rows in shards.items():
            shard = _joined(islice(encoded, -(-len(rows) // size)), [model])
            if writing:
                writing.result()  # a full disk ends the run here
            writing = writer.submit(write_shard, folder, name, source.table, shard)
        if writing:
            writing.result()


def write_shard(folder: Path, name: str, table: pd.DataFrame, encoded: Encoded) -> None:
    """Write one shard's bad images and vectors; `encoded` has the rows of `table` and one matrix."""
    bad = table.iloc[[row for row, _ in encoded.bad]]
    columns = {"id": list(bad["id"]), "path": list(bad["path"]), "reason": [reason for _, reason in encoded.bad]}
    write_parquet(folder / f"bad-{name}", pa.table(columns, _BAD_SCHEMA))
    write_parquet(folder / f"vectors-{name}", vector_table(table.iloc[encoded.rows], encoded.matrices[0]))


def _encode_on_cluster(
    config: Config, folder: Path, source: ImageTable, shards: Mapping[str, range], fingerprint: str
) -> None:
    """Have a cluster encode the shards. Raises PcclipError when a shard failed or did not arrive."""

    def rows_of(name: str) -> dict[str, list]:
        return source.table.iloc[shards[name].start : shards[name].stop][["id", "path"]].to_dict("list")

    over_shards(list(shards), rows_of, partial(ShardWorker, config, folder, fingerprint), config.ray, "images")
    if lost := {f"vectors-{name}" for name in shards} - names_in(folder):
        raise PcclipError(
            f"{folder}: {len(lost)} of {len(shards)} shards are not here, though workers wrote them; set "
            "storage to a folder or URL that every node sees"
        )


class ShardWorker:
    """Encodes shards in a process of a cluster, with as many threads as the process has cores."""

    def __init__(self, config: Config, folder: Path, fingerprint: str):
        torch.set_num_threads(config.ray.cpus)
        self._settings, self._folder, self._model = config.embed, folder, load_model(config.model)
        if self._model.image_fingerprint() != fingerprint:
            raise PcclipError(
                f"{config.model}: a worker's weights are others than those of this process; bring the "
                "same to every node"
            )

    def __call__(self, name: str, rows: dict[str, list]) -> None:
        source, shards = ImageTable(pd.DataFrame(rows), rows["path"]), {name: range(len(rows["id"]))}
        _encode_shards(self._folder, source, shards, self._model, self._settings)
