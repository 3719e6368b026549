"""The top and the bottom of a ranking without sorting all scores, from a matrix or streamed from Parquet files."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Float, Int

from pcclip.embedding.vectors import vector_matrix
from pcclip.errors import PcclipError, one_line

BATCH = 2**13  # rows of vectors held at once: 24 MiB at a width of 768


def best_rows(
    scores: Float[np.ndarray, " n"], top: int | None = None, bottom: int | None = None
) -> Int[np.ndarray, " k"]:
    """Rows of the `top` largest and the `bottom` smallest scores, best first, in the order of a stable sort.

    Without either number all rows. No row is returned twice.
    """
    n, everything = len(scores), top is None and bottom is None
    top, bottom = top or 0, bottom or 0
    if everything or top + bottom >= n:
        return np.argsort(-scores, kind="stable")
    return np.concatenate([_largest(scores, top), n - 1 - _largest(-scores[::-1], bottom)[::-1]])


def ranked(scores: Float[np.ndarray, " n"], top: int | None = None, bottom: int | None = None) -> pd.DataFrame:
    """Columns position (1 is the best), row and score of `best_rows`."""
    rows, n = best_rows(scores, top, bottom), len(scores)
    return pd.DataFrame({"position": _positions(n, len(rows), bottom), "row": rows, "score": scores[rows]})


def ranked_shards(
    files: Sequence[str | Path],
    axis: Float[np.ndarray, " d"],
    fingerprint: str | None = None,
    top: int | None = None,
    bottom: int | None = None,
) -> pd.DataFrame:
    """`ranked` for vectors in Parquet files with the columns path, vector and, where it is checked, fingerprint.

    BATCH vectors are in memory at a time, however large the files and their row groups are; paths and scores are kept
    only of photos that may still be in the top or the bottom.

    Args:
        files: read in this order.
        axis: unit direction.
        fingerprint: of the image tower that must have made the vectors.

    Returns:
        Columns position, path and score, best first.

    Raises:
        PcclipError: a file that is missing, truncated, of another width or by another image tower; no vectors.
    """
    kept, n = [], 0
    for names, matrix in batches(files, len(axis), fingerprint):
        kept.append((matrix @ axis, names))
        n += len(matrix)
        if top is not None or bottom is not None:
            scores, paths = map(np.concatenate, zip(*kept, strict=True))
            rows = np.sort(best_rows(scores, top, bottom))  # in file order, so that ties stay in it
            kept = [(scores[rows], paths[rows])]
    if not n:
        raise PcclipError(f"{', '.join(map(str, files[:3]))}: no vectors there; embed photos first (notebook 02)")
    scores, paths = map(np.concatenate, zip(*kept, strict=True))
    rows = best_rows(scores, top, bottom)
    return pd.DataFrame({"position": _positions(n, len(rows), bottom), "path": paths[rows], "score": scores[rows]})


def _largest(scores: Float[np.ndarray, " n"], k: int) -> Int[np.ndarray, " k"]:
    """Rows of the k largest scores, best first; of equal scores the earlier rows.

    The k-th largest of the maxima of parts is at most the k-th largest score, so that only scores above it are sorted.
    """
    width = max(len(scores) // (4 * max(k, 1)), 1)
    maxima = scores[: len(scores) // width * width].reshape(-1, width).max(axis=1)
    rows = np.flatnonzero(scores >= np.sort(maxima)[-max(k, 1)])
    return rows[np.argsort(-scores[rows], kind="stable")[:k]]


def _positions(n: int, shown: int, bottom: int | None) -> Int[np.ndarray, " k"]:
    """Positions among n photos of `shown` rows, the last `bottom` of which are from the bottom."""
    last = min(bottom or 0, shown)
    return np.concatenate([np.arange(1, shown - last + 1), np.arange(n - last + 1, n + 1)])


def batches(
    files: Iterable[str | Path], width: int, fingerprint: str | None
) -> Iterator[tuple[np.ndarray, Float[np.ndarray, "n d"]]]:
    """Paths and vectors of the files, BATCH rows at a time. Raises PcclipError as `ranked_shards`."""
    columns = ["path", "vector"] + (["fingerprint"] if fingerprint else [])
    for path in files:
        try:
            with pq.ParquetFile(path, pre_buffer=False, buffer_size=2**20, page_checksum_verification=True) as file:
                if missing := {*columns} - {*file.schema_arrow.names}:
                    raise PcclipError(f"{path}: no column {min(missing)!r}; give vectors as notebook 02 writes them")
                for batch in file.iter_batches(BATCH, columns=columns):
                    batch.validate(full=True)  # paths are UTF-8
                    if batch["path"].null_count:
                        raise PcclipError(f"{path}: has a row without a path; run notebook 02 again")
                    yield batch["path"].to_numpy(zero_copy_only=False), _matrix(batch, path, width, fingerprint)
        except FileNotFoundError:
            raise PcclipError(f"{path}: not there; run the notebook that writes it first") from None
        except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
            raise PcclipError(
                f"{path}: not a whole Parquet file ({one_line(error)}); delete it and run its notebook again"
            ) from None


def _matrix(batch: pa.RecordBatch, path: str | Path, width: int, fingerprint: str | None) -> Float[np.ndarray, "n d"]:
    if fingerprint and {*batch["fingerprint"].unique().to_pylist()} != {fingerprint}:
        raise PcclipError(
            f"{path}: vectors of another model than {fingerprint}; run notebook 02 with "
            "this model, or give the run's folder, if finetuning changed the image tower"
        )
    return vector_matrix(batch["vector"], path, width)
