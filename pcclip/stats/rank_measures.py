"""Measures of a ranking: a score compared with each image's true value (columns score and reference), bootstrapped.

All are independent of the score's scale, because projections on axes of different models have no scale in common.

The bootstrap draws images. Where a value belongs to a class, columns first and second both name the class, and it draws
classes with all their images (cluster bootstrap).
"""

from collections.abc import Callable, Iterator

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float
from scipy.sparse import csr_array

from pcclip.stats.intervals import Estimate, in_parts, no_estimate, ratio, resamples

CLEAR = 2.0  # two references differ clearly when they differ by this factor


def spearman(items: pd.DataFrame, draws: int, seed: int) -> Estimate:
    """Spearman's rank correlation of score and reference over images."""
    score, reference, n = items.score.to_numpy(), items.reference.to_numpy(), len(items)
    sampled = [_rank_correlation(score, reference, counts) for counts in _item_counts(items, draws, seed)]
    return Estimate(float(_rank_correlation(score, reference, np.ones((1, n)))[0]), np.concatenate(sampled), n)


def pairwise_accuracy(items: pd.DataFrame, draws: int, seed: int) -> Estimate:
    """Share of image pairs, unequal in reference, that the score puts in the right order; a tied score counts half.

    n is the number of images.
    """
    return _pairs_in_order(items, lambda first, second: first != second, draws, seed)


def clear_pairwise_accuracy(items: pd.DataFrame, draws: int, seed: int) -> Estimate:
    """Pairwise accuracy over pairs whose references differ by a factor of CLEAR or more.

    Facts about species are not more accurate than that. Only for positive references; for others n is 0.
    """
    if (items.reference <= 0).any():
        return no_estimate(draws)
    return _pairs_in_order(
        items, lambda first, second: (first >= CLEAR * second) | (second >= CLEAR * first), draws, seed
    )


def _item_counts(items: pd.DataFrame, draws: int, seed: int) -> Iterator[Float[np.ndarray, "k n"]]:
    """How often each item is drawn in each resample; items whose columns first and second name one class come together."""
    by_class = "first" in items and (items["first"] == items["second"]).all()
    unit_of_draw = pd.factorize(items["first"])[0] if by_class else np.arange(len(items))
    for counts in resamples(int(unit_of_draw.max(initial=-1)) + 1, draws, seed):
        yield from (part[:, unit_of_draw] for part in in_parts(counts, len(items)))


def _pairs_in_order(
    items: pd.DataFrame, counted: Callable[[np.ndarray, np.ndarray], Bool[np.ndarray, "r n"]], draws: int, seed: int
) -> Estimate:
    """Share of pairs in the right order among the pairs whose two references pass `counted`."""
    score, reference, n = items.score.to_numpy(), items.reference.to_numpy(), len(items)

    def pair_sums(counts: Float[np.ndarray, "k n"]) -> Float[np.ndarray, "2 k"]:
        """Pairs in the right order and pairs counted, each pair weighted by how often both images were drawn."""
        sums = np.zeros((2, len(counts)))
        for rows in in_parts(np.arange(n), n):
            first, second = reference[rows, None], reference[None]
            known = counted(first, second)
            order = np.sign(score[rows, None] - score[None]) * np.sign(first - second)
            tables = np.where(known, (order + 1) / 2, 0.0), known.astype(float)
            sums = sums + np.stack([np.einsum("kr,kr->k", counts @ table.T, counts[:, rows]) for table in tables])
        return sums

    right, total = np.concatenate([pair_sums(counts) for counts in _item_counts(items, draws, seed)], axis=1)
    right_pairs, all_pairs = pair_sums(np.ones((1, n)))[:, 0]
    value = float(right_pairs / all_pairs) if all_pairs else float("nan")
    return Estimate(value, ratio(right, total), n if all_pairs else 0)


def _rank_correlation(
    a: Float[np.ndarray, " n"], b: Float[np.ndarray, " n"], counts: Float[np.ndarray, "k n"]
) -> Float[np.ndarray, " k"]:
    """Correlation of the ranks in each resample, where an item counts as often as it was drawn."""
    a, b = _centred_ranks(a, counts), _centred_ranks(b, counts)
    products = [(counts * left * right).sum(axis=1) for left, right in ((a, b), (a, a), (b, b))]
    return ratio(products[0], np.sqrt(products[1] * products[2]))


def _centred_ranks(values: Float[np.ndarray, " n"], counts: Float[np.ndarray, "k n"]) -> Float[np.ndarray, "k n"]:
    """Mean ranks of tied values less the mean of all ranks, in each resample."""
    code = np.unique(values, return_inverse=True)[1]
    tied = counts @ csr_array((np.ones(len(code)), (np.arange(len(code)), code)))
    ranks = (tied.cumsum(axis=1) - tied / 2)[:, code]
    return ranks - ((counts * ranks).sum(axis=1) / counts.sum(axis=1))[:, None]
