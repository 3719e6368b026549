"""The few formulas that training, evaluation and ranking share, on unit vectors in float32 numpy."""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped

from pcclip.stats.intervals import in_parts

_BLOCK = 2**14  # rows a thread takes at a time
_THREADS = min(os.cpu_count() or 1, 8)  # more do not make memory faster


def unit(vectors: Float[np.ndarray, "*n d"]) -> Float[np.ndarray, "*n d"]:
    """Rows, or one vector, scaled to length one; a zero vector stays zero."""
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-12)


def image_differences(
    matrix: Float[np.ndarray, "n d"], first: Int[np.ndarray, " m"], second: Int[np.ndarray, " m"]
) -> Float[np.ndarray, "m d"]:
    """v = normalise(u1 - u2) of unit image vectors (papers' equation 1, released form)."""
    return unit(matrix[first] - matrix[second])


def project(matrix: Float[np.ndarray, "n d"], axis: Float[np.ndarray, " d"]) -> Float[np.ndarray, " n"]:
    """matrix @ axis. Of many rows at the pace of memory, which BLAS's matrix-vector product does not reach."""
    if len(matrix) <= 2 * _BLOCK:
        return matrix @ axis
    starts = range(0, len(matrix), _BLOCK)
    with ThreadPoolExecutor(_THREADS) as threads:
        return np.concatenate([*threads.map(lambda row: np.vecdot(matrix[row : row + _BLOCK], axis), starts)])


def by_rows(
    function: Callable[..., Shaped[np.ndarray, "*k m"]], width: int, *columns: Shaped[np.ndarray, "m ..."]
) -> Shaped[np.ndarray, "*k m"]:
    """function(*columns), whose last axis is the rows, of some rows at a time, as one row makes `width` values."""
    return np.concatenate(
        [function(*part) for part in zip(*(in_parts(c, width) for c in columns), strict=True)], axis=-1
    )


def cosines(a: Float[np.ndarray, "m d"], b: Float[np.ndarray, "m d"]) -> Float[np.ndarray, " m"]:
    """Row by row inner products of unit vectors."""
    return np.einsum("md,md->m", a, b)


def zero_shot(images: Float[np.ndarray, "n d"], classes: Float[np.ndarray, "c d"]) -> Int[np.ndarray, " n"]:
    """The nearest class text of each image."""
    return (images @ classes.T).argmax(axis=1)


def beats(scores: Float[np.ndarray, " m"], others: Float[np.ndarray, " m"] | float) -> Bool[np.ndarray, " m"]:
    """Strictly greater: a tie is not a win."""
    return scores > others
