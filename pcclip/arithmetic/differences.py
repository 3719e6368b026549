"""What f does to the text of a difference: where it points, whether it turns with its images, whether it adds up.

Arguments are unit vectors, row by row of one table of pairs or triples; `shuffle` is a permutation of the rows, so that
a text is judged by the images of another pair. Every value has its controls beside it, as name -> value per item.
"""

import numpy as np
from jaxtyping import Float, Int

from pcclip.stats.vectors import cosines, unit

NONE = "none"  # the measure itself, no control


def alignment(
    target: Float[np.ndarray, "m d"],
    right: Float[np.ndarray, "m d"],
    reverse: Float[np.ndarray, "m d"],
    shuffle: Int[np.ndarray, " m"],
) -> dict[str, Float[np.ndarray, " m"]]:
    """Cosine of f(d) with a difference: 1 along it, 0 for a text that knows nothing.

    Controls: the reversed text, the text of another pair, and f(d) - f(d swapped), which is free: it cancels whatever
    constant f adds to every text, with no training.
    """
    return {
        NONE: cosines(right, target),
        "reversed": cosines(reverse, target),
        "shuffled": cosines(right[shuffle], target),
        "f(d) - f(swapped)": cosines(unit(right - reverse), target),
    }


def antisymmetry(
    right: Float[np.ndarray, "m d"], reverse: Float[np.ndarray, "m d"], shuffle: Int[np.ndarray, " m"]
) -> dict[str, Float[np.ndarray, " m"]]:
    """Cosine of f(d) with f(d swapped): -1 where exchanging the images turns it round, 1 where nothing changes.

    Controls: the swapped text of another pair, which keeps only what all texts share; and both with the mean text
    vector taken off.
    """
    mean = (right.mean(axis=0) + reverse.mean(axis=0)) / 2
    one, two = unit(right - mean), unit(reverse - mean)
    return {
        NONE: cosines(right, reverse),
        "shuffled": cosines(right, reverse[shuffle]),
        "centred": cosines(one, two),
        "centred, shuffled": cosines(one, two[shuffle]),
    }


def additivity(
    ab: Float[np.ndarray, "m d"],
    bc: Float[np.ndarray, "m d"],
    ac: Float[np.ndarray, "m d"],
    ba: Float[np.ndarray, "m d"],
    shuffle: Int[np.ndarray, " m"],
) -> dict[str, Float[np.ndarray, " m"]]:
    """Cosine of d(a, b) + d(b, c) with d(a, c).

    Controls: each leg alone, and the better of them, which share an image with d(a, c) (0.5 each where images are
    orthogonal; a leg near 1 means that f reads that image only); the first leg reversed; another triple's d(a, c).
    """
    total, first, second = unit(ab + bc), cosines(ab, ac), cosines(bc, ac)
    return {
        NONE: cosines(total, ac),
        "first leg alone": first,
        "second leg alone": second,
        "better leg alone": np.maximum(first, second),
        "first leg reversed": cosines(unit(ba + bc), ac),
        "shuffled": cosines(total, ac[shuffle]),
    }


def sides(
    right: Float[np.ndarray, "m d"],
    one: Float[np.ndarray, "m d"],
    two: Float[np.ndarray, "m d"],
    shuffle: Int[np.ndarray, " m"],
) -> dict[str, Float[np.ndarray, " m"]]:
    """Cosine of f(d) with what each side shows alone, `one` and `two` being centred vectors of images or captions.

    A difference puts the first there and takes the second away: the two are equal and opposite. 0 for the second side
    means that f(d) is about the first image only.
    """
    return {
        "the first": cosines(right, one),
        "the second": cosines(right, two),
        "another's first": cosines(right[shuffle], one),
    }


def shuffled(count: int, seed: int) -> Int[np.ndarray, " m"]:
    """A permutation that leaves no row in its place (for more than one row)."""
    order = np.random.default_rng(seed).permutation(count)
    result = np.empty(count, dtype=np.int64)
    result[order] = np.roll(order, 1)
    return result
