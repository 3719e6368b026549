"""Accuracy by group, and of the worst groups, from per-item predictions of any task with right answers.

Intervals are percentiles over resamples of the items within each group, the same for every model that was given the
same items and the same seed, so that two models can be compared with statistics.paired_difference. The worst of many
noisy accuracies lies below the accuracy of the group that is truly worst, and in a resample, with noise added to
noise, lower still: with few items per group take differences between models, not the value itself.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from jaxtyping import Float

from pcclip.errors import PcclipError
from pcclip.statistics import Estimate

_AT_ONCE = 2_000_000  # items drawn at once


def group_accuracies(items: pd.DataFrame, draws: int, seed: int, groups: Sequence | None = None) -> pd.DataFrame:
    """Accuracy of each group, worst first: group, accuracy, ci_low, ci_high, n.

    `groups` names the group of each item; without it a group is a class (the item's reference).
    Raises PcclipError when there are no items, or items without a group.
    """
    names, values, sampled, sizes = _resampled(items, draws, seed, groups)
    low, high = np.percentile(sampled, [2.5, 97.5], axis=1)
    table = pd.DataFrame({"group": names, "accuracy": values, "ci_low": low, "ci_high": high, "n": sizes})
    return table.sort_values("accuracy", kind="stable", ignore_index=True)


def worst_group_accuracy(
    items: pd.DataFrame, draws: int, seed: int, groups: Sequence | None = None, worst: int = 1
) -> Estimate:
    """Mean accuracy of the `worst` groups with the lowest accuracies, found anew in each resample; n counts items.

    The released code prints the three worst classes. Arguments and errors as in `group_accuracies`.
    """
    _, values, sampled, sizes = _resampled(items, draws, seed, groups)
    worst = min(worst, len(values))
    return Estimate(float(np.sort(values)[:worst].mean()), np.sort(sampled, axis=0)[:worst].mean(axis=0),
                    int(sizes.sum()))


def _resampled(
    items: pd.DataFrame, draws: int, seed: int, groups: Sequence | None
) -> tuple[list, Float[np.ndarray, " g"], Float[np.ndarray, "g b"], np.ndarray]:
    """Names of the groups, their accuracies, those of the resamples, and how many items each has."""
    codes, names = pd.factorize(items.reference if groups is None else pd.Series(list(groups)), sort=True)
    if not len(items) or len(codes) != len(items) or (codes < 0).any():
        raise PcclipError(f"{len(items)} items, {int((codes >= 0).sum())} with a group; give every item a group")
    correct, rng = items.correct.to_numpy(dtype=float), np.random.default_rng(seed)
    members = np.split(np.argsort(codes, kind="stable"), np.cumsum(np.bincount(codes))[:-1])
    sampled = np.empty((len(names), draws))
    for group, rows in enumerate(members):
        step = max(1, _AT_ONCE // len(rows))
        for k in range(0, draws, step):
            drawn = rng.integers(0, len(rows), (min(step, draws - k), len(rows)))
            sampled[group, k:k + step] = correct[rows][drawn].mean(axis=1)
    return list(names), np.array([correct[rows].mean() for rows in members]), sampled, np.bincount(codes)
