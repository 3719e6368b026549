"""Values with intervals: bootstrap over images, paired between models by using the same resamples; and tests.

How images are drawn is said in bootstrap.py; measures of a ranking are in rank_measures.py. None of this says how much
another training seed would change; that is `over_seeds`, a source of variation of its own.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Float
from scipy import stats
from scipy.sparse import csr_array

from pcclip.errors import PcclipError
from pcclip.stats.intervals import Estimate, chunks, ratio, resamples
from pcclip.stats.rank_measures import (
    TOP,
    auc,
    clear_pairwise_accuracy,
    kendall,
    ndcg,
    pairwise_accuracy,
    precision_at_k,
    spearman,
)


class Discordant(NamedTuple):
    """Items that only one of two models has right, and McNemar's p value for both having the same accuracy."""

    only_a: int
    only_b: int
    p_value: float


class Seeds(NamedTuple):
    """Mean over training seeds, its standard error and 95% t interval, and how many seeds there are."""

    mean: float
    standard_error: float
    ci_low: float
    ci_high: float
    n: int


def accuracy(items: pd.DataFrame, draws: int, seed: int) -> Estimate:
    """Share of correct items."""
    first, second = items["first"].to_numpy(), items["second"].to_numpy()
    correct, alone = items.correct.to_numpy(dtype=float), first == second
    distinct, place = np.unique(first if alone.all() else np.concatenate([first, second]), return_inverse=True)
    n, one, two = len(distinct), place[: len(items)], place[-len(items) :]
    weights = [correct, np.ones(len(items))]
    single = np.stack([np.bincount(one[alone], weight[alone], n) for weight in weights])
    double = [csr_array((weight[~alone], (one[~alone], two[~alone])), shape=(n, n)) for weight in weights]
    sums = []
    for counts in resamples(n, draws, seed):
        found = single @ counts.T
        if not alone.all():
            found += np.stack([np.einsum("nk,kn->k", pairs @ counts.T, counts) for pairs in double])
        sums.append(found)
    right, total = np.concatenate(sums, axis=1)
    return Estimate(float(correct.mean()), ratio(right, total), len(items))


def mean(values: np.ndarray, first: np.ndarray, second: np.ndarray, draws: int, seed: int) -> Estimate:
    """Mean of a value per pair, images resampled as in `accuracy`."""
    return accuracy(pd.DataFrame({"first": first, "second": second, "correct": values}), draws, seed)


def mean_score(items: pd.DataFrame, draws: int, seed: int) -> Estimate:
    """Mean of the score, for what is neither right nor wrong, such as a distance."""
    return mean(items.score.to_numpy(), items["first"].to_numpy(), items["second"].to_numpy(), draws, seed)


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

    The released code prints the three worst classes. The worst of many noisy accuracies lies below the accuracy of the
    group that is truly worst, and in a resample, with noise added to noise, lower still: with few items a group take
    differences, not the value itself. Arguments and errors as in `group_accuracies`.
    """
    _, values, sampled, sizes = _resampled(items, draws, seed, groups)
    worst = min(worst, len(values))
    return Estimate(
        float(np.sort(values)[:worst].mean()), np.sort(sampled, axis=0)[:worst].mean(axis=0), int(sizes.sum())
    )


def macro_accuracy(items: pd.DataFrame, draws: int, seed: int) -> Estimate:
    """Mean over groups of the share of correct items, each group with the same weight; n counts the items.

    The reference is the number of an item's group; items without one (NaN) are left out. Of a resample in which a group
    was not drawn it is the mean of the others. n is 0 where no item has a group.
    """
    items = items[items.reference.notna()]
    if items.empty:
        return Estimate(float("nan"), np.full(draws, np.nan), 0)
    group = np.unique(items.reference, return_inverse=True)[1]
    image, n = pd.factorize(items["first"])[0], items["first"].nunique()
    correct, shape = items.correct.to_numpy(dtype=float), (group.max() + 1, n)
    right, total = (csr_array((weight, (group, image)), shape=shape) for weight in (correct, np.ones(len(items))))
    sampled = [np.nanmean(ratio(right @ counts.T, total @ counts.T), axis=0) for counts in resamples(n, draws, seed)]
    value = right.sum(axis=1) / total.sum(axis=1)
    return Estimate(float(value.mean()), np.concatenate(sampled), len(items))


MEASURES: dict[str, Callable[[pd.DataFrame, int, int], Estimate]] = {
    "accuracy": accuracy,
    "macro_accuracy": macro_accuracy,
    "spearman": spearman,
    "pairwise_accuracy": pairwise_accuracy,
    "clear_pairwise_accuracy": clear_pairwise_accuracy,
    "kendall": kendall,
    "auc": auc,
    f"ndcg_at_{TOP}": ndcg,
    f"precision_at_{TOP}": precision_at_k,
    "worst_group_accuracy": worst_group_accuracy,
    "mean_score": mean_score,
}
METRICS_OF = {
    "ranking": ("spearman", "pairwise_accuracy", "clear_pairwise_accuracy"),
    "relative_values": ("spearman", "pairwise_accuracy"),
    "worst_group": ("worst_group_accuracy",),
    "embedding_distance": ("mean_score",),
    **dict.fromkeys(
        ("vg_relation", "vg_attribution", "sugarcrepe", "sugarcrepe_pp_itt", "sugarcrepe_pp_tot", "vl_checklist"),
        ("macro_accuracy", "accuracy"),
    ),
}
FURTHER = ("kendall", "auc", f"ndcg_at_{TOP}", f"precision_at_{TOP}")  # of every ranking; no model is tested by them


def metrics_of(task: str) -> tuple[str, ...]:
    """The names in MEASURES by which two models are compared on a task: accuracy, unless METRICS_OF says otherwise."""
    return METRICS_OF.get(task, ("accuracy",))


def measured_by(task: str) -> tuple[str, ...]:
    """The names in MEASURES that a model's table has on a task: those of `metrics_of`, and further ones of rankings."""
    return metrics_of(task) + (FURTHER if "spearman" in metrics_of(task) else ())


def paired_difference(after: Estimate, before: Estimate) -> tuple[float, float, float]:
    """(after - before, ci_low, ci_high) from draws that used the same resamples. PcclipError when they cannot have."""
    low, high = np.nanpercentile(_paired(after, before), [2.5, 97.5])
    return after.value - before.value, float(low), float(high)


def p_value(after: Estimate, before: Estimate) -> float:
    """Two-sided bootstrap p value of after = before: twice the smaller share of draws on one side of 0, 0 included.

    One draw is added to either side, so with b draws nothing is below 2 / (b + 1). Raises PcclipError as above.
    """
    change = _paired(after, before)
    change = change[~np.isnan(change)]
    tail = min((change <= 0).sum(), (change >= 0).sum())
    return float(min(1.0, 2 * (tail + 1) / (len(change) + 1)))


def mcnemar(items_a: pd.DataFrame, items_b: pd.DataFrame) -> Discordant:
    """McNemar's exact two-sided test of two models on the same items: a binomial on those that only one has right.

    The test takes items as independent. Pairs that share images are not, and then it is too sure of itself.

    Raises:
        PcclipError: the items are not the same, row by row.
    """
    _same_items(items_a, items_b)
    a, b = (items.correct.to_numpy(dtype=bool) for items in (items_a, items_b))
    only_a, only_b = int((a & ~b).sum()), int((b & ~a).sum())
    differ = only_a + only_b
    return Discordant(only_a, only_b, float(stats.binomtest(only_a, differ).pvalue) if differ else 1.0)


def holm(p_values: Sequence[float]) -> Float[np.ndarray, " n"]:
    """Holm's step-down adjusted p values, in the order given; a NaN stays one and counts as no test.

    Rejecting what is below 0.05 keeps the chance of any false rejection in the family below 0.05.
    """
    given = np.asarray(p_values, dtype=float)
    adjusted, order = np.full(len(given), np.nan), np.argsort(given, kind="stable")
    order = order[~np.isnan(given[order])]
    steps = given[order] * np.arange(len(order), 0, -1)
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(steps))
    return adjusted


def t_interval(values: Sequence[float]) -> tuple[float, float]:
    """95% t interval of the mean; without a second value there is none, (nan, nan)."""
    values = np.asarray(values, dtype=float)
    if len(values) < 2:
        return float("nan"), float("nan")
    half = stats.t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values))
    return float(values.mean() - half), float(values.mean() + half)


def over_seeds(values: Sequence[float]) -> Seeds:
    """What one metric does over training seeds, each value from a run with a seed of its own.

    This is the spread of training; an interval from `accuracy` is that of the test images. Neither holds the other.
    Raises PcclipError without a value.
    """
    values = np.asarray(values, dtype=float)
    if not len(values):
        raise PcclipError("no run to take a mean over: give one value for each training seed")
    error = float(values.std(ddof=1) / np.sqrt(len(values))) if len(values) > 1 else float("nan")
    return Seeds(float(values.mean()), error, *t_interval(values), len(values))


def compare(predictions: pd.DataFrame, after: str, before: str, draws: int, seed: int) -> pd.DataFrame:
    """Two models on the same items: a row for each task, dataset, protocol where there is one, and metric.

    Args:
        predictions: per-item predictions, columns task, dataset, model and those of a task; protocol if known.
        after, before: names of models; the difference is after - before.
        draws, seed: of the bootstrap.

    Returns:
        The keys, then after, before (names), difference, ci_low, ci_high, n; p_mcnemar (accuracies alone), p_bootstrap;
        test, which of the two counts: 'mcnemar' where every item has an image of its own, else 'bootstrap', as pairs
        that share images make McNemar's test too sure of itself; and p_holm, that p value adjusted by Holm's method
        for all data sets of the same task (and protocol) and metric.

    Raises:
        PcclipError: no predictions of a model, or the two were scored on different items.
    """
    known = list(dict.fromkeys(predictions.model))
    for name in (after, before):
        if name not in known:
            raise PcclipError(f"no predictions of the model {name!r}; there are: {', '.join(known) or 'none'}")
    keys = [key for key in ("task", "dataset", "protocol") if key in predictions]
    rows = []
    for group, items in predictions.groupby(keys, sort=False):
        new, old = (items[items.model == name] for name in (after, before))
        if not len(new) or not len(old):
            continue
        _same_items(new, old, f"{', '.join(map(str, group))}: ")
        own_image = (new["first"] == new["second"]).all() and new["first"].is_unique
        for metric in metrics_of(group[0]):
            pair = [MEASURES[metric](side, draws, seed) for side in (new, old)]
            if not pair[0].n:
                continue
            value, low, high = paired_difference(*pair)
            right_or_wrong = metric == "accuracy"
            rows.append(
                {
                    **dict(zip(keys, group, strict=True)),
                    "metric": metric,
                    "after": after,
                    "before": before,
                    "difference": value,
                    "ci_low": low,
                    "ci_high": high,
                    "n": pair[0].n,
                    "p_mcnemar": mcnemar(new, old).p_value if right_or_wrong else np.nan,
                    "p_bootstrap": p_value(*pair),
                    "test": "mcnemar" if right_or_wrong and own_image else "bootstrap",
                }
            )
    table = pd.DataFrame(
        rows,
        columns=[
            *keys,
            "metric",
            "after",
            "before",
            "difference",
            "ci_low",
            "ci_high",
            "n",
            "p_mcnemar",
            "p_bootstrap",
            "test",
        ],
    )
    counts = table.p_mcnemar.where(table.test == "mcnemar", table.p_bootstrap)
    family = [table[key] for key in keys if key != "dataset"] + [table.metric]
    return table.assign(p_holm=counts.groupby(family).transform(lambda p: holm(p.to_numpy())))


def _paired(after: Estimate, before: Estimate) -> Float[np.ndarray, " b"]:
    if after.n != before.n or len(after.draws) != len(before.draws):
        raise PcclipError(
            f"a paired difference needs the same items and draws; these are {after.n} and {before.n} "
            f"items, {len(after.draws)} and {len(before.draws)} draws: score both models on one set"
        )
    return after.draws - before.draws


def _same_items(a: pd.DataFrame, b: pd.DataFrame, where: str = "") -> None:
    columns = [name for name in ("item", "first", "second") if name in a and name in b]
    if len(a) != len(b) or any((a[name].to_numpy() != b[name].to_numpy()).any() for name in columns):
        raise PcclipError(
            f"{where}the two models were not scored on the same items in the same order; score both on "
            "one set of images"
        )


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
        sampled[group] = np.concatenate(
            [
                correct[rows][rng.integers(0, len(rows), (size, len(rows)))].mean(axis=1)
                for size in chunks(draws, len(rows))
            ]
        )
    return list(names), np.array([correct[rows].mean() for rows in members]), sampled, np.bincount(codes)
