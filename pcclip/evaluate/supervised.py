"""The ceiling of attribute axes: the axis that ridge regression finds when it is told the attribute's values.

With enough tune images, of the kind that is tested on, no text axis should beat it. A text axis is given as the share
of it that it reaches, too, as work on rankability does (e.g. 2507.03683, linear axes of frozen image vectors).
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from pcclip.errors import PcclipError
from pcclip.scores import unit
from pcclip.statistics import Estimate

_PENALTIES = np.logspace(-6, 3, 19)  # of the largest variance of the vectors


def ridge_axis(
    matrix: Float[np.ndarray, "n d"], rows: Int[np.ndarray, " m"], values: Float[np.ndarray, " m"],
    groups: Sequence | None = None,
) -> tuple[Float[np.ndarray, " d"], float]:
    """The axis of length one whose projections follow the values best, and the penalty that was chosen for it.

    The penalty is the one of the smallest leave-one-out error (in closed form) on the given images, which are to be
    tune images. Where images share one value because they share a class, give the classes as `groups`: each counts
    once, by the mean of its images, so that a whole class is left out at a time; else the values of a class left out
    would be known from its other images and the penalty chosen far too small. Images without a value (NaN) are left
    out.

    Raises:
        PcclipError: fewer than three images (or groups) with a value, or all values or all vectors equal.
    """
    x, y = _known(matrix, rows, values, groups)
    if len(y) < 3 or np.ptp(y) == 0:
        raise PcclipError(f"a supervised axis needs three different things with values that differ; {len(y)} have "
                          "one; leave this attribute out")
    x, y = x - x.mean(axis=0), y - y.mean()
    power, directions = np.linalg.eigh(x.T @ x)
    power, x = np.maximum(power, 0), x @ directions
    if power.max() == 0:
        raise PcclipError("a supervised axis needs image vectors that differ; these are all the same: embed them again")
    best = (np.inf, 0.0, np.zeros(len(power)))
    for penalty in _PENALTIES * power.max():
        weights = (x.T @ y) / (power + penalty)
        own = 1 / len(y) + np.einsum("nd,d,nd->n", x, 1 / (power + penalty), x)  # each value's share in its estimate
        error = float((((y - x @ weights) / (1 - own)) ** 2).mean())
        if error < best[0]:
            best = (error, float(penalty), weights)
    return unit((directions @ best[2])[None])[0].astype(matrix.dtype), best[1]


def share(axis: Estimate, ceiling: Estimate, chance: float = 0.0) -> Estimate:
    """The share of the supervised axis that another axis reaches: (axis - chance) / (ceiling - chance).

    Both are of one metric on the same items with the same resamples; `chance` is what a random axis gets (0 for
    Spearman's correlation, 0.5 for pairwise accuracy). NaN where the ceiling itself is not above chance.
    Raises PcclipError when the resamples are not the same in number.
    """
    if len(axis.draws) != len(ceiling.draws):
        raise PcclipError(f"an axis with {len(axis.draws)} resamples and its ceiling with {len(ceiling.draws)}; "
                          "use the same draws and seed for both")
    above = np.append(ceiling.draws, ceiling.value) - chance
    ratio = np.full(len(above), np.nan)
    np.divide(np.append(axis.draws, axis.value) - chance, above, out=ratio, where=above > 0)
    return Estimate(float(ratio[-1]), ratio[:-1], axis.n)


def _known(matrix, rows, values, groups) -> tuple[Float[np.ndarray, "k d"], Float[np.ndarray, " k"]]:
    """Vectors and values of the images that have one, or their means by group, in float64."""
    values = np.asarray(values, dtype=np.float64)
    has = np.isfinite(values)
    x, y = matrix[np.asarray(rows)[has]].astype(np.float64), values[has]
    if groups is None:
        return x, y
    codes, names = pd.factorize(np.asarray(groups)[has])
    counts = np.bincount(codes, minlength=len(names))
    sums = np.zeros((len(names), x.shape[1]))
    np.add.at(sums, codes, x)
    return sums / counts[:, None], np.bincount(codes, y, minlength=len(names)) / counts
