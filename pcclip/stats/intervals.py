"""Estimates with 95% intervals: the bootstrap over units, and the jackknife for figures of a whole set of images.

A unit is what carries the truth: a concept with all its photos where photos of one concept share one truth, else an
image (data.image_set.units). Pairs share units, so pairs are not independent: every bootstrap here draws units with
replacement, and a pair counts as often as both its units were drawn (pigeonhole bootstrap, Owen 2007). An item of one
unit, a single image or a pair of images of one concept, counts as often as its unit was drawn. Intervals are the 2.5%
and 97.5% percentiles.

A figure of the whole set (its effective rank, its mean vector) would be biased in a resample, where images come twice.
Its interval is from the delete-a-group jackknife (Shao and Tu, 1995), which leaves out GROUPS groups of units in turn.
"""

from collections.abc import Callable, Hashable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Shaped
from scipy import stats

from pcclip.errors import PcclipError
from pcclip.stats.random_streams import stream

FEW = 2000  # up to this many images a multinomial draws the counts; beyond, where it is slow, drawn indices are counted
CELLS = 2**22  # values held at once, whatever the number of images and draws
Key = TypeVar("Key", bound=Hashable)
GROUPS = 20  # of units, for the jackknife
POWER = 2.8  # standard errors: an effect of this size is found at 5% in 80% of samples (1.96 + 0.84)


@dataclass(frozen=True)
class Estimate:
    """A value with what its interval is computed from.

    Attributes:
        value: on all items.
        draws: the value in each bootstrap resample or, with `jackknife`, without each group of images.
        n: number of items.
        jackknife: whether `draws` are from the jackknife.
    """

    value: float
    draws: Float[np.ndarray, " b"]
    n: int
    jackknife: bool = False

    @property
    def interval(self) -> tuple[float, float]:
        """The 95% interval: percentiles of the draws, or value +- t * standard error for the jackknife.

        (nan, nan) with fewer than two known draws.
        """
        known = self.draws[~np.isnan(self.draws)]
        if len(known) < 2:
            return float("nan"), float("nan")
        if not self.jackknife:
            low, high = np.percentile(known, [2.5, 97.5])
            return float(low), float(high)
        half = stats.t.ppf(0.975, len(known) - 1) * self.standard_error
        return float(self.value - half), float(self.value + half)

    @property
    def standard_error(self) -> float:
        """Of the value, from the draws; NaN with fewer than two known draws."""
        known = self.draws[~np.isnan(self.draws)]
        if len(known) < 2:
            return float("nan")
        return float(known.std() * np.sqrt(len(known) - 1) if self.jackknife else known.std(ddof=1))

    @property
    def detectable(self) -> float:
        """The smallest effect that items like these show: POWER standard errors."""
        return POWER * self.standard_error

    def __sub__(self, other: "Estimate") -> "Estimate":
        """The paired difference of two estimates on the same images, resampled with the same seed.

        Raises PcclipError when the two have different numbers of draws.
        """
        if len(self.draws) != len(other.draws):
            raise PcclipError(
                f"a paired difference needs the same items and draws; these are {self.n} and {other.n} "
                f"items, {len(self.draws)} and {len(other.draws)} draws: score both models on one set"
            )
        return Estimate(self.value - other.value, self.draws - other.draws, min(self.n, other.n), self.jackknife)


def estimate_table(estimates: Mapping[Any, Estimate], keys: list[str]) -> pd.DataFrame:
    """A row for each estimate: the parts of its key in columns `keys`, then value, ci_low, ci_high, n, detectable."""
    rows = [[*key, own.value, *own.interval, own.n, own.detectable] for key, own in estimates.items()]
    return pd.DataFrame(rows, columns=[*keys, "value", "ci_low", "ci_high", "n", "detectable"])


def no_estimate(draws: int) -> Estimate:
    """The estimate of a measure that has no items to be taken on."""
    return Estimate(float("nan"), np.full(draws, np.nan), 0)


def resamples(n: int, draws: int, seed: int) -> Iterator[Float[np.ndarray, "k n"]]:
    """How often each of n units is drawn in each resample, some resamples at a time, (draws, n) in all.

    Depends on n, draws and seed alone: models scored on the same units see the same resamples.
    """
    rng = stream("bootstrap", seed)
    for size in map(len, in_parts(np.empty(draws), n)):
        if n <= FEW:
            counts = rng.multinomial(n, np.full(n, 1 / n), size)
        else:
            counts = np.stack([np.bincount(rng.integers(0, n, n), minlength=n) for _ in range(size)])
        yield counts.astype(np.float64)


def in_parts(rows: np.ndarray, width: int) -> list[np.ndarray]:
    """The rows in parts of about equal size, each small enough for at most CELLS values where a row makes `width`."""
    return np.array_split(rows, max(1, -(-len(rows) * width // CELLS)))


def ratio(numerator: Float[np.ndarray, "*b"], denominator: Float[np.ndarray, "*b"]) -> Float[np.ndarray, "*b"]:
    """numerator / denominator; NaN where the denominator is not positive, as in a resample that drew no item."""
    return np.divide(numerator, denominator, out=np.full(numerator.shape, np.nan), where=denominator > 0)


def bootstrap_means(
    values: Mapping[Key, np.ndarray], members: Shaped[np.ndarray, "m k"], draws: int, seed: int
) -> dict[Key, Estimate]:
    """Mean of each of several values per item, all with the same resamples.

    Args:
        values: name -> a value per item (m,).
        members: the k units of each item, as names or numbers; a unit that an item has twice counts once.
        draws, seed: of the bootstrap.
    """
    if not len(members):
        return {name: no_estimate(draws) for name in values}
    matrix = np.stack([np.asarray(column, dtype=float) for column in values.values()])
    distinct, inverse = np.unique(members, return_inverse=True)
    place: np.ndarray = inverse.reshape(members.shape)
    sums, totals = [], []
    again = np.array([(place[:, :k] == place[:, k : k + 1]).any(axis=1) for k in range(place.shape[1])])
    for counts in resamples(len(distinct), draws, seed):
        for part in in_parts(counts, len(members)):
            weights = np.prod(
                [np.where(twice, 1, part[:, column]) for column, twice in zip(place.T, again, strict=True)], axis=0
            )
            sums.append(matrix @ weights.T)
            totals.append(weights.sum(axis=1))
    total = np.concatenate(totals)
    sampled = ratio(np.concatenate(sums, axis=1), np.broadcast_to(total, (len(matrix), len(total))))
    return {
        name: Estimate(float(row.mean()), row_draws, len(members))
        for name, row, row_draws in zip(values, matrix, sampled, strict=True)
    }


def jackknife(
    figure: Callable[[Bool[np.ndarray, " m"]], float], members: Shaped[np.ndarray, "m k"], seed: int
) -> Estimate:
    """A figure of a set of m items as a whole.

    Args:
        figure: the value for the items where its argument is True.
        members: the k units of each item; an item is left out with any of its units.
        seed: of the partition of the units into groups.
    """
    distinct, place = np.unique(members, return_inverse=True)
    place = place.reshape(len(members), -1)
    group = stream("jackknife groups", seed).permutation(len(distinct)) % min(GROUPS, len(distinct))
    kept = [~(group[place] == g).any(axis=1) for g in range(group.max(initial=-1) + 1)]
    left_out = np.array([figure(rows) if rows.sum() > 2 else np.nan for rows in kept])
    return Estimate(float(figure(np.ones(len(members), dtype=bool))), left_out, len(members), jackknife=True)
