"""The few formulas that training, evaluation and ranking share, on unit vectors in float32 numpy."""

import numpy as np
from jaxtyping import Bool, Float, Int


def unit(vectors: Float[np.ndarray, "n d"]) -> Float[np.ndarray, "n d"]:
    """Rows scaled to length one; a zero row stays zero."""
    length = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return vectors / np.maximum(length, 1e-12)


def image_differences(
    matrix: Float[np.ndarray, "n d"], first: Int[np.ndarray, " m"], second: Int[np.ndarray, " m"]
) -> Float[np.ndarray, "m d"]:
    """v = normalise(u1 - u2) of unit image vectors (papers' equation 1, released form)."""
    return unit(matrix[first] - matrix[second])


def cosines(a: Float[np.ndarray, "m d"], b: Float[np.ndarray, "m d"]) -> Float[np.ndarray, " m"]:
    """Row by row inner products of unit vectors."""
    return np.einsum("md,md->m", a, b)


def zero_shot(
    images: Float[np.ndarray, "n d"], classes: Float[np.ndarray, "c d"]
) -> Int[np.ndarray, " n"]:
    """The nearest class text of each image."""
    return (images @ classes.T).argmax(axis=1)


def beats(scores: Float[np.ndarray, " m"], others: Float[np.ndarray, " m"] | float) -> Bool[np.ndarray, " m"]:
    """Strictly greater: a tie is not a win."""
    return scores > others
