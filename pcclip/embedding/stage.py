"""Stage 02: images to vectors. Decoding, encoding and writing overlap; unreadable images are recorded and counted.

Vectors are stored with id, path and the fingerprint of the image tower that made them, in one Parquet table.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import torch
from jaxtyping import Float
from PIL import Image

from pcclip.benchmarks.benchmark import Benchmark
from pcclip.config import Config, Embed
from pcclip.data.image_set import ImageSet, load_images
from pcclip.embedding.vectors import TABLE, Vectors, fingerprints, load_vectors, vector_table
from pcclip.encoders import identify, load_model
from pcclip.encoders.dual_encoder import Encoder
from pcclip.errors import PcclipError
from pcclip.images import batches, decoded_batches
from pcclip.runs.files import names_in, read_parquet, write_parquet
from pcclip.runs.progress import Meter, say
from pcclip.runs.ray_cluster import over_shards
from pcclip.runs.stage import Stage, finished

FOLDER = "02_embed"
BAD = "bad_images.parquet"
TOWERS = "towers"  # below a stage of vectors: the same images by other image towers, a stage for each
_FORMAT = 1
DRAFT = 2  # see encode_by_all
_AT_ONCE = 4  # batches in the image tower on a CPU
_READERS = 16  # shards that are read at once, at the end


def stage(config: Config, images: ImageSet | None = None) -> Stage:
    draft, folder = {"draft": True} if config.embed.draft else {}, config.source_folder / FOLDER
    return Stage(folder, {"format": _FORMAT, **draft, **shared_inputs(config, images)}, config.stored(folder))


def shared_inputs(config: Config, images: ImageSet | None = None) -> dict:
    """What every stage from here on depends on and must have in common with the others of its run."""
    images = images or load_images(config)
    return {"images": images.identity(), "model": identify(config.model), "seed": config.seed}


def embed(config: Config, images: ImageSet, model: Encoder) -> tuple[Vectors, pd.DataFrame]:
    """Run the stage, or read it when done. Returns the vectors and the bad images (id, path, reason).

    With engine: ray the shards are encoded on a cluster, by the model of `config`, whose nodes see the images' paths.

    Raises:
        PcclipError: more than data.max_bad of the images cannot be read; or a shard failed for good.
    """
    given = _Given(
        images.table[["id", "path"]],
        list(images.table.path),
        config.data.max_bad,
        f"data.max_bad = {config.data.max_bad}; mend them or raise it",
    )
    settings = config.embed
    spread = partial(_on_ray, config) if config.engine == "ray" else None
    return _run(
        stage(config, images),
        given,
        model,
        settings.batch_size,
        settings.workers,
        settings.shard,
        settings.draft,
        spread,
    )


def embed_labelled(
    folder: Path, labelled: Benchmark, model: Encoder, batch_size: int, workers: int, shard: int
) -> tuple[Vectors, pd.DataFrame]:
    """The same for a labelled set, in `folder`: a stage of its own, done again when the set or the image tower changes.

    Vectors carry the table's ids, and paths where each image is a file of its own, else ids. Models that share their
    image tower share the stage.

    Returns:
        The vectors, in the table's order, and the bad images (id, path, reason), which have none.

    Raises:
        PcclipError: more than labelled.max_bad of the images cannot be read.
    """
    this = Stage(folder, {"format": _FORMAT, "images": labelled.identity(), "model": model.image_fingerprint()})
    table = labelled.images[["id", "path"]]
    given = _Given(table, labelled.pictures, labelled.max_bad, f"{labelled.max_bad:.0%}; unpack the set again")
    return _run(this, given, model, batch_size, workers, shard)


def embed_pictures(config: Config, folder: Path, given: Benchmark, models: Mapping[str, Encoder]) -> Vectors:
    """`embed_labelled` as a run's embed block says, by the image tower of every model ('base' is one of them).

    How many images cannot be read is told, and they have no vector. Raises PcclipError as there.
    """
    settings = config.embed
    vectors, bad = embed_labelled(folder, given, models["base"], settings.batch_size, settings.workers, settings.shard)
    if len(bad):
        say(f"{given.name}: {len(bad)} images cannot be read, e.g. {bad.path[0]}: {bad.reason[0]}")
    return with_towers(folder, vectors, models, settings, given)


def own_vectors(config: Config, models: Mapping[str, Encoder]) -> Vectors:
    """02's vectors, which are of models['base'], and of the same images those of the models with another image tower.

    The latter are made the first time they are asked for. Raises PcclipError when 02 is not there or of another base,
    and when an image that it read cannot be read any more.
    """
    folder = config.source_folder / FOLDER
    return with_towers(folder, load_vectors(folder, models["base"]), models, config.embed)


def with_towers(
    folder: Path,
    vectors: Vectors,
    models: Mapping[str, Encoder],
    settings: Embed,
    labelled: Benchmark | None = None,
) -> Vectors:
    """The vectors of the stage in `folder` with those of every image tower among the models that is not theirs.

    Args:
        vectors: as the stage left them, of models['base'].
        labelled: the set whose images they are; without it they are the files at their paths.
    """
    tuned = {which: model for which, model in models.items() if model.image_tower is not models["base"].image_tower}
    made, others = {vectors.fingerprint: vectors}, {}
    for which, fingerprint in fingerprints(tuned).items():
        if fingerprint not in made:
            made[fingerprint] = by_tower(folder, tuned[which], settings, labelled)
        if fingerprint != vectors.fingerprint:
            others[which] = made[fingerprint]
    return replace(vectors, others=others)


def by_tower(folder: Path, model: Encoder, settings: Embed, labelled: Benchmark | None = None) -> Vectors:
    """Vectors by this model's image tower of the images that the stage in `folder` has vectors of, row by row.

    They are a stage of their own. Arguments as in `with_towers`. Raises PcclipError when the stage in `folder` has not
    finished, or one of the images cannot be read any more.
    """
    this, table = tower_stage(folder, model), read_parquet(Path(folder) / TABLE, ["id", "path"]).to_pandas()
    images = list(table.path)
    if labelled is not None:
        row = {image: k for k, image in enumerate(labelled.images["id"])}
        images = labelled.rows([row[image] for image in table["id"]]).pictures
    given = _Given(table, images, 0.0, f"none, and {folder} has vectors of them all; mend them, or embed that set anew")
    if not this.done():
        say(f"{folder}: the same images by the image tower {this.folder.name} of {model.spec}")
    found, _ = _run(
        this,
        given,
        model,
        settings.batch_size,
        settings.workers,
        settings.shard,
        finished(folder)["inputs"].get("draft", False),
    )
    return found


def tower_stage(folder: Path, model: Encoder) -> Stage:
    """Vectors of the images of the stage in `folder` by this model's image tower: `folder`/towers/FINGERPRINT."""
    fingerprint = model.image_fingerprint()
    return Stage(
        Path(folder) / TOWERS / fingerprint,
        {"format": _FORMAT, "of": finished(folder)["outputs"][TABLE]["sha256"], "model": fingerprint},
    )


@dataclass(frozen=True)
class _Given:
    """The images of a stage: a table of id and path, the images row by row, which share may be bad, and what then."""

    table: pd.DataFrame
    images: Sequence
    max_bad: float
    advice: str

    def check_share(self, bad: pa.Table, stage: Stage) -> None:
        if bad.num_rows > self.max_bad * len(self.table) or bad.num_rows == len(self.table):
            first = bad.slice(0, 1).to_pylist()[0]
            raise PcclipError(
                f"{stage.folder.name}: {bad.num_rows} of {len(self.table)} images cannot be read (e.g. "
                f"{first['path']}: {first['reason']}), more than {self.advice}"
            )


def _run(
    this: Stage,
    given: _Given,
    model: Encoder,
    batch_size: int,
    workers: int,
    shard: int,
    draft: bool = False,
    spread: Callable[[Path, _Given, dict[str, range], str], None] | None = None,
) -> tuple[Vectors, pd.DataFrame]:
    """Do a stage of vectors, or read it when done. `spread` has shards encoded elsewhere."""
    if this.done_or_fetched():
        say(f"{this.folder.name}: done already, read from {this.folder}")
        bad = read_parquet(this.folder / BAD)
        given.check_share(bad, this)
        return load_vectors(this.folder, model), bad.to_pandas()
    fingerprint = model.image_fingerprint()
    with this.work():
        shards = {f"{shard}-{k:06d}.parquet": rows for k, rows in enumerate(batches(len(given.table), shard))}
        there = names_in(this.shards)
        todo = {name: rows for name, rows in shards.items() if f"vectors-{name}" not in there}
        if len(todo) < len(shards):
            say(f"{this.folder.name}: {len(shards) - len(todo)} of {len(shards)} shards found, encoding the rest")
        if spread and todo:
            spread(this.shards, given, todo, fingerprint)
        else:
            _encode_shards(this.shards, given, todo, model, batch_size, workers, draft)
        with ThreadPoolExecutor(_READERS) as pool:
            files = {kind: [this.shards / f"{kind}-{name}" for name in shards] for kind in ("vectors", "bad")}
            vectors, bad = (pa.concat_tables(pool.map(read_parquet, of_kind)) for of_kind in files.values())
        given.check_share(bad, this)
        vectors = vectors.append_column("fingerprint", pa.array([fingerprint] * vectors.num_rows).dictionary_encode())
        write_parquet(this.folder / TABLE, vectors)
        write_parquet(this.folder / BAD, bad)
        this.finish([TABLE, BAD], {"images": vectors.num_rows, "bad": bad.num_rows, "width": model.width}, fingerprint)
    return load_vectors(this.folder, model), bad.to_pandas()


def encode_readable(
    paths: Sequence, model: Encoder, meter: Meter, batch_size: int, workers: int
) -> tuple[Float[np.ndarray, "n d"], list[int], list[tuple[int, str]]]:
    """Unit vectors of the images that can be read, their rows in `paths`, and (row, reason) of the others."""
    [matrix], good, bad = encode_by_all(paths, [model], meter, batch_size, workers)
    return matrix, good, bad


def encode_by_all(
    paths: Sequence, models: Sequence[Encoder], meter: Meter, batch_size: int, workers: int, draft: bool = False
) -> tuple[list[Float[np.ndarray, "n d"]], list[int], list[tuple[int, str]]]:
    """The same by several image towers in one pass, each image opened once: one matrix per model.

    With `draft` large JPEG files are decoded at a fraction of their size (`DRAFT` times the largest model's pixels or
    more), and their vectors differ a little.
    """
    wanted = batches(len(paths), batch_size)
    return _gathered(_encoded(paths, models, wanted, meter, workers, draft), models)


def _encoded(
    images: Sequence, models: Sequence[Encoder], wanted: Iterable[range], meter: Meter, workers: int, draft: bool
) -> Iterator[tuple[list[int], list[np.ndarray], list[tuple[int, str]]]]:
    """(rows, one matrix per model, bad) of each batch."""

    def encode(batch: tuple) -> tuple:
        rows, pixels, bad = batch
        return rows, [model.encode_pixels(of_one) for model, of_one in zip(models, pixels, strict=bool(rows))], bad

    at_least = DRAFT * max(map(_side, models)) if draft else None
    decoded = decoded_batches(images, [model.preprocess for model in models], wanted, workers, at_least)
    on_cpu = all(model.device.type == "cpu" for model in models)
    for rows, found, bad in _side_by_side(encode, decoded) if on_cpu else map(encode, decoded):
        meter.add(len(rows) + len(bad))
        yield rows, found, bad


def _side_by_side(encode: Callable[[tuple], tuple], decoded: Iterable[tuple]) -> Iterator[tuple]:
    """What `encode` makes of each batch, in order; some batches at once, each on its share of the cores.

    Cores that share a layer wait for the slowest of them, which is often one that decodes.
    """
    cores = torch.get_num_threads()
    at_once = min(cores, _AT_ONCE)
    if at_once == 1:
        yield from map(encode, decoded)
        return
    pool, waiting = ThreadPoolExecutor(at_once, initializer=torch.set_num_threads, initargs=[cores // at_once]), deque()
    try:
        for batch in decoded:
            waiting.append(pool.submit(encode, batch))
            if len(waiting) > at_once:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(cores)  # what a thread sets holds for those that are started later


def _side(model: Encoder) -> int:
    """The longer side of what the image tower sees, in pixels."""
    return max(model.preprocess(Image.new("RGB", (8, 8))).shape[1:])


def _gathered(
    encoded: Iterable[tuple], models: Sequence[Encoder]
) -> tuple[list[Float[np.ndarray, "n d"]], list[int], list[tuple[int, str]]]:
    """Batches of `_encoded` as one."""
    parts = list(encoded)
    matrices = [
        np.concatenate([np.empty((0, model.width), np.float32), *(found[k] for _, found, _ in parts if found)])
        for k, model in enumerate(models)
    ]
    return matrices, [row for rows, _, _ in parts for row in rows], [one for _, _, bad in parts for one in bad]


def _encode_shards(
    folder: Path,
    given: _Given,
    todo: Mapping[str, range],
    model: Encoder,
    batch_size: int,
    workers: int,
    draft: bool,
) -> None:
    """Encode the named rows, one pair of files in `folder` per shard, that of the vectors last.

    The images of the next shard are decoded while this one is encoded and the last one is written.
    """
    wanted = (rows for shard in todo.values() for rows in batches(len(shard), batch_size, shard.start))
    encoded = _encoded(given.images, [model], wanted, Meter(sum(map(len, todo.values())), "images"), workers, draft)
    with ThreadPoolExecutor(1) as writer:
        writing = []
        for name, rows in todo.items():
            [matrix], good, bad = _gathered(islice(encoded, -(-len(rows) // batch_size)), [model])
            for before in writing:
                before.result()  # a full disk ends the run here
            writing = [writer.submit(_write_shard, folder, name, given.table, matrix, good, bad)]
        for last in writing:
            last.result()


def _write_shard(
    folder: Path, name: str, table: pd.DataFrame, matrix: np.ndarray, good: list[int], bad: list[tuple]
) -> None:
    kinds = pa.schema([("id", pa.string()), ("path", pa.string()), ("reason", pa.string())])
    rows = [{"id": table.id.iloc[row], "path": table.path.iloc[row], "reason": why} for row, why in bad]
    write_parquet(folder / f"bad-{name}", pa.Table.from_pylist(rows, schema=kinds))
    write_parquet(folder / f"vectors-{name}", vector_table(table.iloc[good], matrix))


def _on_ray(config: Config, folder: Path, given: _Given, todo: Mapping[str, range], fingerprint: str) -> None:
    """Have the named rows encoded on a cluster. Raises PcclipError when a shard failed or did not arrive."""

    def rows_of(name: str) -> dict[str, list]:
        return {
            column: given.table[column].iloc[todo[name].start : todo[name].stop].tolist() for column in ("id", "path")
        }

    over_shards(list(todo), rows_of, partial(_Worker, config, folder, fingerprint), config.ray, "images")
    lost = {f"vectors-{name}" for name in todo} - names_in(folder)
    if lost:
        raise PcclipError(
            f"{folder}: {len(lost)} of {len(todo)} shards are not here, though workers wrote them; set "
            "storage to a folder or URL that every node sees"
        )


class _Worker:
    """What `_encode_shards` does, in a process of a cluster, with as many threads as it has cores there."""

    def __init__(self, config: Config, folder: Path, fingerprint: str):
        torch.set_num_threads(config.ray.cpus)
        self._settings, self._folder, self._model = config.embed, folder, load_model(config.model)
        if self._model.image_fingerprint() != fingerprint:
            raise PcclipError(
                f"{config.model}: a worker's weights are others than those of this process; bring the "
                "same to every node"
            )

    def __call__(self, name: str, rows: dict[str, list]) -> None:
        settings, given = self._settings, _Given(pd.DataFrame(rows), rows["path"], 1.0, "")
        _encode_shards(
            self._folder,
            given,
            {name: range(len(rows["id"]))},
            self._model,
            settings.batch_size,
            settings.workers,
            settings.draft,
        )
