"""Stage 02: images to vectors. Decoding, encoding and writing overlap; unreadable images are recorded and counted.

Vectors are stored with id, path and the fingerprint of the image tower that made them, in one Parquet table.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import torch
from jaxtyping import Float
from PIL import Image

from pcclip.data import ImageSet, load_images
from pcclip.data.labelled import LabelledSet
from pcclip.errors import PcclipError
from pcclip.images import batches, decoded_batches
from pcclip.models import identify
from pcclip.models.encoder import DualEncoder
from pcclip.params import Config
from pcclip.progress import Meter, say
from pcclip.stage import Stage, read_parquet, write_parquet

FOLDER, TABLE, BAD = "02_embed", "vectors.parquet", "bad_images.parquet"
_FORMAT = 1
DRAFT = 2  # see encode_by_all
_AT_ONCE = 4  # batches in the image tower on a CPU


@dataclass(frozen=True)
class Vectors:
    """Unit image vectors with the ids and paths they belong to, row by row."""

    ids: list[str]
    paths: list[str]
    matrix: Float[np.ndarray, "n d"]

    def __post_init__(self):
        if not len(self.ids) == len(self.paths) == len(self.matrix):
            raise PcclipError("ids, paths and vectors are out of step")
        object.__setattr__(self, "row", {image: i for i, image in enumerate(self.ids)})

    def rows(self, ids) -> np.ndarray:
        """Row numbers of `ids`. Raises PcclipError for an id without a vector."""
        missing = [image for image in ids if image not in self.row]
        if missing:
            raise PcclipError(f"{len(missing)} images have no vector, e.g. {missing[0]!r}")
        return np.array([self.row[image] for image in ids], dtype=np.int64)

    def of(self, table: pd.DataFrame) -> pd.DataFrame:
        """The rows of an image table that have a vector, numbered anew."""
        return table[self.has(table["id"])].reset_index(drop=True)

    def has(self, *columns) -> np.ndarray:
        """True where every one of the parallel id columns has a vector."""
        return np.array([all(image in self.row for image in ids) for ids in zip(*columns, strict=True)], dtype=bool)


def stage(config: Config, images: ImageSet | None = None) -> Stage:
    draft = {"draft": True} if config.embed.draft else {}
    return Stage(config.source_folder / FOLDER, {"format": _FORMAT, **draft, **shared_inputs(config, images)})


def shared_inputs(config: Config, images: ImageSet | None = None) -> dict:
    """What every stage from here on depends on and must have in common with the others of its run."""
    images = images or load_images(config)
    return {"images": images.identity(), "model": identify(config.model), "seed": config.seed}


def embed(config: Config, images: ImageSet, model: DualEncoder) -> tuple[Vectors, pd.DataFrame]:
    """Run the stage, or read it when done. Returns the vectors and the bad images (id, path, reason).

    Raises PcclipError when more than data.max_bad of the images cannot be read.
    """
    given = _Given(images.table[["id", "path"]], list(images.table.path), config.data.max_bad,
                   f"data.max_bad = {config.data.max_bad}; mend them or raise it")
    settings = config.embed
    return _run(stage(config, images), given, model, settings.batch_size, settings.workers, settings.shard,
                settings.draft)


def embed_labelled(
    folder: Path, labelled: LabelledSet, model: DualEncoder, batch_size: int, workers: int, shard: int
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
    table = pd.DataFrame({"id": labelled.table["id"].to_numpy(), "path": labelled.paths})
    given = _Given(table, labelled.images, labelled.max_bad, f"{labelled.max_bad:.0%}; unpack the set again")
    return _run(this, given, model, batch_size, workers, shard)


def embed_pictures(config: Config, folder: Path, given: LabelledSet, model: DualEncoder) -> Vectors:
    """`embed_labelled` as a run's embed block says; how many images cannot be read is told, and they have no vector.

    Raises PcclipError as there.
    """
    settings = config.embed
    vectors, bad = embed_labelled(folder, given, model, settings.batch_size, settings.workers, settings.shard)
    if len(bad):
        say(f"{given.name}: {len(bad)} images cannot be read, e.g. {bad.path[0]}: {bad.reason[0]}")
    return vectors


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
            raise PcclipError(f"{stage.folder.name}: {bad.num_rows} of {len(self.table)} images cannot be read (e.g. "
                              f"{first['path']}: {first['reason']}), more than {self.advice}")


def _run(
    this: Stage, given: _Given, model: DualEncoder, batch_size: int, workers: int, shard: int, draft: bool = False
) -> tuple[Vectors, pd.DataFrame]:
    """Do a stage of vectors, or read it when done."""
    if this.done():
        say(f"{this.folder.name}: done already, read from {this.folder}")
        bad = read_parquet(this.folder / BAD)
        given.check_share(bad, this)
        return load_vectors(this.folder, model), bad.to_pandas()
    fingerprint = model.image_fingerprint()
    with this.work():
        shards = _encode_shards(this, given, model, batch_size, workers, shard, draft)
        vectors = pa.concat_tables([read_parquet(vector) for vector, _ in shards])
        bad = pa.concat_tables([read_parquet(bad) for _, bad in shards])
        given.check_share(bad, this)
        vectors = vectors.append_column("fingerprint", pa.array([fingerprint] * vectors.num_rows).dictionary_encode())
        write_parquet(this.folder / TABLE, vectors)
        write_parquet(this.folder / BAD, bad)
        this.finish([TABLE, BAD], {"images": vectors.num_rows, "bad": bad.num_rows, "width": model.width}, fingerprint)
    return load_vectors(this.folder, model), bad.to_pandas()


def encode_readable(
    paths: Sequence, model: DualEncoder, meter: Meter, batch_size: int, workers: int
) -> tuple[Float[np.ndarray, "n d"], list[int], list[tuple[int, str]]]:
    """Unit vectors of the images that can be read, their rows in `paths`, and (row, reason) of the others."""
    [matrix], good, bad = encode_by_all(paths, [model], meter, batch_size, workers)
    return matrix, good, bad


def encode_by_all(
    paths: Sequence, models: Sequence[DualEncoder], meter: Meter, batch_size: int, workers: int, draft: bool = False
) -> tuple[list[Float[np.ndarray, "n d"]], list[int], list[tuple[int, str]]]:
    """The same by several image towers in one pass, each image opened once: one matrix per model.

    With `draft` large JPEG files are decoded at a fraction of their size (`DRAFT` times the largest model's pixels or
    more), and their vectors differ a little.
    """
    wanted = batches(len(paths), batch_size)
    return _gathered(_encoded(paths, models, wanted, meter, workers, draft), models)


def _encoded(
    images: Sequence, models: Sequence[DualEncoder], wanted: Iterable[range], meter: Meter, workers: int, draft: bool
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


def _side(model: DualEncoder) -> int:
    """The longer side of what the image tower sees, in pixels."""
    return max(model.preprocess(Image.new("RGB", (8, 8))).shape[1:])


def _gathered(
    encoded: Iterable[tuple], models: Sequence[DualEncoder]
) -> tuple[list[Float[np.ndarray, "n d"]], list[int], list[tuple[int, str]]]:
    """Batches of `_encoded` as one."""
    parts = list(encoded)
    matrices = [np.concatenate([np.empty((0, model.width), np.float32), *(found[k] for _, found, _ in parts if found)])
                for k, model in enumerate(models)]
    return matrices, [row for rows, _, _ in parts for row in rows], [one for _, _, bad in parts for one in bad]


def load_vectors(folder: Path, model: DualEncoder) -> Vectors:
    """Read vectors of this very model. Raises PcclipError when another image tower made them."""
    table = read_parquet(Path(folder) / TABLE)
    made_by = set(table["fingerprint"].to_pylist())
    if made_by != {model.image_fingerprint()}:
        raise PcclipError(f"{folder}: vectors of another model ({', '.join(sorted(made_by))}, not "
                          f"{model.image_fingerprint()} of {model.spec}); run notebook 02 with this model")
    flat = table["vector"].combine_chunks().flatten().to_numpy()
    return Vectors(table["id"].to_pylist(), table["path"].to_pylist(), flat.reshape(table.num_rows, -1).copy())


def _encode_shards(
    this: Stage, given: _Given, model: DualEncoder, batch_size: int, workers: int, size: int, draft: bool
) -> list[tuple[Path, Path]]:
    """Encode what is not there yet, one pair of files per shard; returns all of them in order.

    The images of the next shard are decoded while this one is encoded and the last one is written.
    """
    shards = batches(len(given.table), size)
    files = [(this.partial / f"vectors-{size}-{k:06d}.parquet", this.partial / f"bad-{size}-{k:06d}.parquet")
             for k in range(len(shards))]
    todo = [k for k, (vectors, _) in enumerate(files) if not vectors.is_file()]
    if len(todo) < len(files):
        say(f"{this.folder.name}: {len(files) - len(todo)} of {len(files)} shards found, encoding the rest")
    wanted = {k: batches(len(shards[k]), batch_size, shards[k].start) for k in todo}
    meter = Meter(sum(len(shards[k]) for k in todo), "images")
    encoded = _encoded(given.images, [model], [rows for k in todo for rows in wanted[k]], meter, workers, draft)
    with ThreadPoolExecutor(1) as writer:
        writing = []
        for k in todo:
            [matrix], good, bad = _gathered(islice(encoded, len(wanted[k])), [model])
            for before in writing:
                before.result()  # a full disk ends the run here
            writing = [writer.submit(_write_shard, *files[k], given.table, matrix, good, bad)]
        for last in writing:
            last.result()
    return files


def _write_shard(
    vectors: Path, unreadable: Path, table: pd.DataFrame, matrix: np.ndarray, good: list[int], bad: list[tuple]
) -> None:
    kinds = pa.schema([("id", pa.string()), ("path", pa.string()), ("reason", pa.string())])
    rows = [{"id": table.id.iloc[row], "path": table.path.iloc[row], "reason": why} for row, why in bad]
    write_parquet(unreadable, pa.Table.from_pylist(rows, schema=kinds))
    write_parquet(vectors, _vector_table(table.iloc[good], matrix))


def _vector_table(part: pd.DataFrame, matrix: np.ndarray) -> pa.Table:
    vectors = pa.FixedSizeListArray.from_arrays(pa.array(matrix.ravel()), matrix.shape[1])
    return pa.table({"id": pa.array(part.id.astype(str)), "path": pa.array(part.path.astype(str)), "vector": vectors})
