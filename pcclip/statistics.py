"""Values with intervals: bootstrap over images, paired between models by using the same resamples.

Pairs share images, so pairs are not independent: every bootstrap here draws images with replacement, and a pair counts
as often as both its images were drawn (pigeonhole bootstrap, Owen 2007). A single-image item counts as often as its
image was drawn. Intervals are the 2.5% and 97.5% percentiles.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Float
from scipy.stats import rankdata


@dataclass(frozen=True)
class Estimate:
    """A value, its bootstrap draws (for paired differences), and the number of items behind it."""

    value: float
    draws: Float[np.ndarray, " b"]
    n: int

    @property
    def interval(self) -> tuple[float, float]:
        low, high = np.nanpercentile(self.draws, [2.5, 97.5])
        return float(low), float(high)


def resamples(images: np.ndarray, draws: int, seed: int) -> tuple[np.ndarray, Float[np.ndarray, "b n"]]:
    """How often each distinct image is drawn in each resample: (distinct images, (draws, n) counts)."""
    distinct = np.unique(images)
    counts = np.random.default_rng(seed).multinomial(len(distinct), np.full(len(distinct), 1 / len(distinct)), draws)
    return distinct, counts.astype(np.float64)


def accuracy(items: pd.DataFrame, draws: int, seed: int) -> Estimate:
    """Share of correct items."""
    first, second = items["first"].to_numpy(), items["second"].to_numpy()
    distinct, counts = resamples(np.concatenate([first, second]), draws, seed)
    one, two = np.searchsorted(distinct, first), np.searchsorted(distinct, second)
    correct = items.correct.to_numpy(dtype=float)
    values = np.empty(draws)
    for k, count in enumerate(counts):
        weights = np.where(one == two, count[one], count[one] * count[two])
        total = weights.sum()
        values[k] = weights @ correct / total if total else np.nan
    return Estimate(float(correct.mean()), values, len(items))


def spearman(items: pd.DataFrame, draws: int, seed: int) -> Estimate:
    """Spearman's rank correlation of score and reference over images."""
    score, reference = items.score.to_numpy(), items.reference.to_numpy()
    rng = np.random.default_rng(seed)
    rows = rng.integers(0, len(items), (draws, len(items)))
    return Estimate(float(_rank_correlation(score[None], reference[None])[0]),
                    _rank_correlation(score[rows], reference[rows]), len(items))


def pairwise_accuracy(items: pd.DataFrame, draws: int, seed: int) -> Estimate:
    """Share of image pairs, unequal in reference, that the score puts in the right order; a tied score counts half.

    n is the number of images.
    """
    score, reference = items.score.to_numpy(), items.reference.to_numpy()
    truth = np.sign(reference[:, None] - reference[None])
    agree = np.where(truth != 0, (np.sign(score[:, None] - score[None]) * truth + 1) / 2, 0.0)
    known = (truth != 0).astype(float)
    rng = np.random.default_rng(seed)
    counts = rng.multinomial(len(items), np.full(len(items), 1 / len(items)), draws).astype(float)
    right = np.einsum("bi,bi->b", counts @ agree, counts)
    total = np.einsum("bi,bi->b", counts @ known, counts)
    values = np.divide(right, total, out=np.full(draws, np.nan), where=total > 0)
    return Estimate(float(agree.sum() / known.sum()), values, len(items))


def mean(values: np.ndarray, first: np.ndarray, second: np.ndarray, draws: int, seed: int) -> Estimate:
    """Mean of a value per pair, images resampled as in `accuracy`."""
    return accuracy(pd.DataFrame({"first": first, "second": second, "correct": values}), draws, seed)


def paired_difference(after: Estimate, before: Estimate) -> tuple[float, float, float]:
    """(after - before, ci_low, ci_high) from draws that used the same resamples."""
    low, high = np.nanpercentile(after.draws - before.draws, [2.5, 97.5])
    return after.value - before.value, float(low), float(high)


def _rank_correlation(a: Float[np.ndarray, "b n"], b: Float[np.ndarray, "b n"]) -> Float[np.ndarray, " b"]:
    a, b = rankdata(a, axis=1), rankdata(b, axis=1)
    a, b = a - a.mean(axis=1, keepdims=True), b - b.mean(axis=1, keepdims=True)
    scale = np.sqrt((a**2).sum(axis=1) * (b**2).sum(axis=1))
    return np.divide((a * b).sum(axis=1), scale, out=np.full(len(a), np.nan), where=scale > 0)
