"""Measures of a ranking: a score held against the true value of each image (columns score and reference), bootstrapped.

All of them are free of the scale of the score, as projections on axes of different models have none in common. Images
with the same score are in no order: they count half in pairs, and by the mean over all their orders in a list.

What is drawn are images, or classes with all their images, where a value is a class's: then columns first and second
both name the class, and items of one class come and go together (cluster bootstrap).
"""

from collections.abc import Callable, Iterator

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Int
from scipy import stats

from pcclip.stats.intervals import Estimate, chunks, ratio, resamples

CLEAR = 2.0  # references that differ by this factor differ clearly
TOP = 10  # the head of a list that is looked at


def spearman(items: pd.DataFrame, draws: int, seed: int) -> Estimate:
    """Spearman's rank correlation of score and reference over images."""
    return _of_rows(items, items.reference.to_numpy(), draws, seed, _rank_correlation)


def kendall(items: pd.DataFrame, draws: int, seed: int) -> Estimate:
    """Kendall's tau-b: (pairs of images in the right order - those in the wrong one) / the mean of pairs untied.

    The mean is the geometric one of the pairs untied in score and those untied in reference (Kendall 1945).
    """
    score, reference, n = items.score.to_numpy(), items.reference.to_numpy(), len(items)

    def pairs(rows: slice) -> tuple[np.ndarray, ...]:
        one, other = (np.sign(values[rows, None] - values[None]) for values in (score, reference))
        return one * other, np.abs(one), np.abs(other)

    def tau(sums: Float[np.ndarray, "3 k"]) -> Float[np.ndarray, " k"]:
        return ratio(sums[0], np.sqrt(sums[1] * sums[2]))

    sampled = np.concatenate([_pair_sums(pairs, counts) for counts in _resampled(items, draws, seed)], axis=1)
    return Estimate(float(tau(_pair_sums(pairs, np.ones((1, n))))[0]), tau(sampled), n)


def pairwise_accuracy(items: pd.DataFrame, draws: int, seed: int) -> Estimate:
    """Share of image pairs, unequal in reference, that the score puts in the right order; a tied score counts half.

    n is the number of images.
    """
    return _ordered(items, items.reference, draws, seed, lambda one, other: one != other)


def clear_pairwise_accuracy(items: pd.DataFrame, draws: int, seed: int) -> Estimate:
    """The same over pairs whose references differ by a factor of CLEAR or more, as facts about species are no surer.

    Only for positive references; for others n is 0.
    """
    if (items.reference <= 0).any():
        return _nothing(draws)
    return _ordered(
        items, items.reference, draws, seed, lambda one, other: (one >= CLEAR * other) | (other >= CLEAR * one)
    )


def auc(items: pd.DataFrame, draws: int, seed: int, threshold: float | None = None) -> Estimate:
    """Area under the ROC curve: the share of (positive, negative) pairs in which the positive has the larger score.

    Positive is a reference above `threshold`, by default as `positives` says. Where all are or none is, n is 0.
    """
    return _ordered(
        items, positives(items.reference, threshold).astype(float), draws, seed, lambda one, other: one != other
    )


def ndcg(items: pd.DataFrame, draws: int, seed: int, k: int = TOP) -> Estimate:
    """Normalised discounted cumulative gain of the k images with the largest scores (Järvelin and Kekäläinen 2002).

    The gain of an image is the share of the other images whose reference is smaller, those equal counting half: values
    that span orders of magnitude would else be a question of the largest alone. The discount of position p = 1, 2, ...
    is 1 / log2(p + 1). n is 0 where there are fewer than 2 k images, most of which would be in the list.
    """
    reference, discount = items.reference.to_numpy(), 1 / np.log2(np.arange(2, k + 2))
    if len(items) < 2 * k:
        return _nothing(draws)
    gain = (stats.rankdata(reference) - 1) / (len(items) - 1)

    def of(score: Float[np.ndarray, "b n"], gain: Float[np.ndarray, "b n"]) -> Float[np.ndarray, " b"]:
        head = discount[: score.shape[1]]  # a draw of small classes may have fewer than k images
        ideal = -np.sort(-gain, axis=1)[:, :k] @ head
        return ratio(_by_position(score, gain)[:, :k] @ head, ideal)

    return _of_rows(items, gain, draws, seed, of)


def precision_at_k(
    items: pd.DataFrame, draws: int, seed: int, k: int = TOP, threshold: float | None = None
) -> Estimate:
    """Share of positives, as in `auc`, among the k images with the largest scores.

    n is 0 for fewer than 2 k images, and where all are positive or none is. Chance is the share of positives, about a
    half with the default threshold.
    """
    positive = positives(items.reference, threshold).astype(float)
    if len(items) < 2 * k or np.ptp(positive) == 0:
        return _nothing(draws)
    return _of_rows(
        items, positive, draws, seed, lambda score, positive: _by_position(score, positive)[:, :k].mean(axis=1)
    )


def positives(reference: pd.Series | np.ndarray, threshold: float | None = None) -> Bool[np.ndarray, " n"]:
    """References above the threshold; without one above the median, or, of two values, the larger.

    Without one they are the largest, where half or more have it and nothing is above the median.
    """
    reference = np.asarray(reference, dtype=float)
    if threshold is None:
        distinct = np.unique(reference)
        threshold = distinct[0] if len(distinct) == 2 else float(np.median(reference))
        if len(distinct) > 1 and threshold == distinct[-1]:
            return reference == distinct[-1]
    return reference > threshold


def _of_rows(items: pd.DataFrame, reference: np.ndarray, draws: int, seed: int, measure: Callable) -> Estimate:
    """A measure of (b, n) scores and references, on the images and on resamples of them."""
    score, n = items.score.to_numpy(), len(items)
    values = [measure(score[rows], reference[rows]) for rows in _drawn_rows(items, draws, seed)]
    return Estimate(float(measure(score[None], reference[None])[0]), np.concatenate(values), n)


def _drawn_rows(items: pd.DataFrame, draws: int, seed: int) -> Iterator[Int[np.ndarray, "b n"]]:
    """Rows of the items, drawn with replacement; by whole classes one draw at a time, as classes differ in size."""
    n = len(items)
    if len(np.unique(_drawn_as(items))) == n:
        rng = np.random.default_rng(seed)
        yield from (rng.integers(0, n, (size, n)) for size in chunks(draws, n))
    else:
        yield from (
            np.repeat(np.arange(n), count)[None]
            for counts in _resampled(items, draws, seed)
            for count in counts.astype(np.int64)
        )


def _resampled(items: pd.DataFrame, draws: int, seed: int) -> Iterator[Float[np.ndarray, "k n"]]:
    """How often each item is drawn in each resample, items of one class together."""
    drawn_as = _drawn_as(items)
    for counts in resamples(drawn_as.max(initial=-1) + 1, draws, seed):
        start = 0
        for size in chunks(len(counts), len(items)):
            yield counts[start : (start := start + size)][:, drawn_as]


def _drawn_as(items: pd.DataFrame) -> Int[np.ndarray, " n"]:
    """The number of the class of each item, where both its columns name one; else its own."""
    if "first" in items and (items["first"] == items["second"]).all():
        return pd.factorize(items["first"])[0]
    return np.arange(len(items))


def _ordered(items: pd.DataFrame, reference, draws: int, seed: int, counts_if: Callable) -> Estimate:
    """Share of the pairs of images whose two references pass `counts_if` that the score puts in the right order."""
    score, reference, n = items.score.to_numpy(), np.asarray(reference), len(items)

    def pairs(rows: slice) -> tuple[np.ndarray, ...]:
        one, other = reference[rows, None], reference[None]
        known = counts_if(one, other)
        agree = np.where(known, (np.sign(score[rows, None] - score[None]) * np.sign(one - other) + 1) / 2, 0.0)
        return agree, known.astype(float)

    right, total = np.concatenate([_pair_sums(pairs, counts) for counts in _resampled(items, draws, seed)], axis=1)
    found, known = _pair_sums(pairs, np.ones((1, n)))[:, 0]
    return Estimate(float(found / known) if known else float("nan"), ratio(right, total), n if known else 0)


def _pair_sums(
    pairs: Callable[[slice], tuple[np.ndarray, ...]], counts: Float[np.ndarray, "k n"]
) -> Float[np.ndarray, "m k"]:
    """Sums over all pairs of images, each as often as both its images; `pairs` gives m tables (r, n) of some rows."""
    n, start, found = counts.shape[1], 0, 0
    for size in chunks(n, n):
        rows = slice(start, start := start + size)
        found = found + np.stack([np.einsum("kr,kr->k", counts @ table.T, counts[:, rows]) for table in pairs(rows)])
    return found


def _by_position(score: Float[np.ndarray, "b n"], gain: Float[np.ndarray, "b n"]) -> Float[np.ndarray, "b n"]:
    """The gains from the largest score to the smallest; where scores are tied, their mean over all orders."""
    order = np.argsort(-score, axis=1, kind="stable")
    score, gain = np.take_along_axis(score, order, axis=1), np.take_along_axis(gain, order, axis=1)
    begins = np.ones(score.shape, dtype=bool)
    begins[:, 1:] = score[:, 1:] != score[:, :-1]
    tied = np.cumsum(begins.ravel()) - 1
    return (np.bincount(tied, gain.ravel()) / np.bincount(tied))[tied].reshape(score.shape)


def _rank_correlation(a: Float[np.ndarray, "b n"], b: Float[np.ndarray, "b n"]) -> Float[np.ndarray, " b"]:
    a, b = stats.rankdata(a, axis=1), stats.rankdata(b, axis=1)
    a, b = a - a.mean(axis=1, keepdims=True), b - b.mean(axis=1, keepdims=True)
    return ratio((a * b).sum(axis=1), np.sqrt((a**2).sum(axis=1) * (b**2).sum(axis=1)))


def _nothing(draws: int) -> Estimate:
    return Estimate(float("nan"), np.full(draws, np.nan), 0)
