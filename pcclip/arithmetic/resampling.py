"""Values with 95% intervals: means over items that hang on several images, and figures of a whole set of vectors.

A mean is bootstrapped over images as in pcclip.stats.intervals: an item counts as often as all its images were drawn. What a
set has as a whole (its effective rank, its mean) would be biased in a resample, where images come twice; its interval
is that of the delete-a-group jackknife (Shao and Tu, 1995): 20 groups of images left out in turn.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float
from scipy import stats

from pcclip.stats.intervals import CELLS, resamples

GROUPS = 20


@dataclass(frozen=True)
class Measured:
    """A value, its replicates, and how many items are behind it.

    Attributes:
        value: on all items.
        replicates: bootstrap draws, or the values with a group of images left out.
        n: items.
        jackknife: which of the two.
    """

    value: float
    replicates: Float[np.ndarray, " b"]
    n: int
    jackknife: bool = False

    @property
    def interval(self) -> tuple[float, float]:
        """95%: percentiles of the draws, or value +- t * standard error; (nan, nan) where too little is known."""
        known = self.replicates[~np.isnan(self.replicates)]
        if len(known) < 2:
            return float("nan"), float("nan")
        if not self.jackknife:
            low, high = np.percentile(known, [2.5, 97.5])
            return float(low), float(high)
        error = np.sqrt((len(known) - 1) / len(known) * ((known - known.mean()) ** 2).sum())
        half = stats.t.ppf(0.975, len(known) - 1) * error
        return float(self.value - half), float(self.value + half)

    def __sub__(self, other: "Measured") -> "Measured":
        """The paired difference: both are of the same images and were resampled with the same seed."""
        return Measured(
            self.value - other.value, self.replicates - other.replicates, min(self.n, other.n), self.jackknife
        )


def means(values: dict, members: np.ndarray, draws: int, seed: int) -> dict:
    """Mean of each of several values per item, all with the same resamples.

    Args:
        values: name -> a value per item (m,).
        members: images of each item, (m, k): names or numbers.
        draws, seed: of the bootstrap.

    Returns:
        name -> Measured, in the same order.
    """
    if not len(members):
        return {name: Measured(float("nan"), np.full(draws, np.nan), 0) for name in values}
    matrix = np.stack([np.asarray(column, dtype=float) for column in values.values()])
    distinct, place = np.unique(members, return_inverse=True)
    place, sums, totals = place.reshape(members.shape), [], []
    for counts in resamples(len(distinct), draws, seed):
        for some in np.array_split(counts, -(-len(counts) * len(members) // CELLS)):
            weights = np.prod([some[:, column] for column in place.T], axis=0)
            sums.append(matrix @ weights.T)
            totals.append(weights.sum(axis=1))
    total = np.concatenate(totals)
    drawn = np.divide(
        np.concatenate(sums, axis=1), total, where=total > 0, out=np.full((len(matrix), len(total)), np.nan)
    )
    return {
        name: Measured(float(row.mean()), replicates, len(members))
        for name, row, replicates in zip(values, matrix, drawn, strict=True)
    }


def of_set(figure: Callable[[Bool[np.ndarray, " m"]], float], members: np.ndarray, seed: int) -> Measured:
    """A figure of the set as a whole. `figure` takes which of the m items are in; `members` is as in `means`."""
    distinct, place = np.unique(members, return_inverse=True)
    place = place.reshape(len(members), -1)
    group = np.random.default_rng(seed).permutation(len(distinct)) % min(GROUPS, len(distinct))
    kept = [~(group[place] == g).any(axis=1) for g in range(group.max(initial=-1) + 1)]
    left_out = np.array([figure(rows) if rows.sum() > 2 else np.nan for rows in kept])
    return Measured(float(figure(np.ones(len(members), dtype=bool))), left_out, len(members), jackknife=True)
