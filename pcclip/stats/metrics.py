"""Metrics of predictions with bootstrap intervals, and tests between two models on the same items.

Models are compared on the same resamples. None of this says how much another training seed would change a metric: that is
a separate source of variation, see `t_interval`.

Items are tables with a row for each image or pair: first and second (equal for a single image), score, reference,
correct. The bootstrap draws what first and second name; `in_units` puts the units of draw in their place.
"""

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
from jaxtyping import Float
from numpy.typing import ArrayLike
from scipy import stats
from scipy.sparse import csr_array

from pcclip.errors import PcclipError
from pcclip.stats.intervals import Estimate, in_parts, no_estimate, ratio, resamples
from pcclip.stats.random_streams import stream
from pcclip.stats.rank_measures import clear_pairwise_accuracy, pairwise_accuracy, spearman


def in_units(items: pd.DataFrame) -> pd.DataFrame:
    """The items with first_unit and second_unit, where they have these columns, as first and second."""
    return items.assign(first=items.first_unit, second=items.second_unit) if "first_unit" in items else items


def accuracy(items: pd.DataFrame, draws: int, seed: int) -> Estimate:
    """Share of correct items."""
    first, second = items["first"].to_numpy(), items["second"].to_numpy()
    correct, alone = items.correct.to_numpy(dtype=float), first == second
    distinct, place = np.unique(first if alone.all() else np.concatenate([first, second]), return_inverse=True)
    n, row, column = len(distinct), place[: len(items)], place[-len(items) :]
    weights = [correct, np.ones(len(items))]
    singles = np.stack([np.bincount(row[alone], weight[alone], n) for weight in weights])
    pairs = [csr_array((weight[~alone], (row[~alone], column[~alone])), shape=(n, n)) for weight in weights]
    sums = []
    for counts in resamples(n, draws, seed):
        weighted = singles @ counts.T
        if not alone.all():
            weighted += np.stack([np.einsum("nk,kn->k", table @ counts.T, counts) for table in pairs])
        sums.append(weighted)
    right, total = np.concatenate(sums, axis=1)
    return Estimate(float(correct.mean()), ratio(right, total), len(items))


def mean(values: np.ndarray, first: np.ndarray, second: np.ndarray, draws: int, seed: int) -> Estimate:
    """Mean of a value per pair, images resampled as in `accuracy`."""
    return accuracy(pd.DataFrame({"first": first, "second": second, "correct": values}), draws, seed)


def mean_score(items: pd.DataFrame, draws: int, seed: int) -> Estimate:
    """Mean of the score, for scores that are neither right nor wrong, such as distances."""
    return mean(items.score.to_numpy(), items["first"].to_numpy(), items["second"].to_numpy(), draws, seed)


def worst_group_accuracy(items: pd.DataFrame, draws: int, seed: int) -> Estimate:
    """Accuracy of the class (the item's reference) with the lowest accuracy, chosen anew in each resample.

    n counts items. The worst of many noisy accuracies lies below the accuracy of the class that is truly worst, and in
    a resample, with noise added to noise, lower still: with few items a class, read differences, not the value itself.
    Each class's items are resampled among themselves.

    Raises:
        PcclipError: there are no items, or items without a class.
    """
    codes, _ = pd.factorize(items.reference, sort=True)
    if not len(items) or (codes < 0).any():
        raise PcclipError(f"{len(items)} items, {int((codes >= 0).sum())} with a group; give every item a group")
    correct, rng = items.correct.to_numpy(dtype=float), stream("bootstrap", seed)
    members = np.split(np.argsort(codes, kind="stable"), np.cumsum(np.bincount(codes))[:-1])
    sampled = [
        correct[rows][rng.integers(0, len(rows), (len(part), len(rows)))].mean(axis=1)
        for rows in members
        for part in in_parts(np.empty(draws), len(rows))
    ]
    worst = float(min(correct[rows].mean() for rows in members))
    return Estimate(worst, np.concatenate(sampled).reshape(-1, draws).min(axis=0), len(items))


def macro_accuracy(items: pd.DataFrame, draws: int, seed: int) -> Estimate:
    """Mean over groups of the share of correct items, each group with the same weight; n counts the items.

    The reference is the number of an item's group; items without a group (NaN) are left out. In a resample that drew no
    item of some group, the mean is over the other groups. n is 0 where no item has a group.
    """
    items = items[items.reference.notna()]
    if items.empty:
        return no_estimate(draws)
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


def metrics_of(task: str) -> tuple[str, ...]:
    """The names in MEASURES that a task is scored and compared by: accuracy, unless METRICS_OF says otherwise."""
    return METRICS_OF.get(task, ("accuracy",))


def p_value(change: Estimate) -> float:
    """Two-sided p value of no change. Of a bootstrap it is twice the smaller share of draws on one side of 0, 0 included.

    One draw is added to either side, so b draws say no more than p <= 2 / (b + 1). Where all lie on one side, the tail
    is that of the normal distribution with their mean and standard deviation, if that is smaller: Holm's method could
    reject nothing in a table of b / 40 rows otherwise. A jackknifed `change` has a t test, and NaN without draws.
    """
    if change.jackknife:
        error, groups = change.standard_error, int((~np.isnan(change.draws)).sum())
        return float(2 * stats.t.sf(abs(change.value) / error, groups - 1)) if error else float(not change.value)
    draws = change.draws[~np.isnan(change.draws)]
    tail = min((draws <= 0).sum(), (draws >= 0).sum())
    share = float(min(1.0, 2 * (tail + 1) / (len(draws) + 1)))
    if tail or len(draws) < 2 or not draws.std():
        return share
    return min(share, float(2 * stats.norm.sf(abs(draws.mean()) / draws.std(ddof=1))))


def mcnemar(items_a: pd.DataFrame, items_b: pd.DataFrame) -> float:
    """P value of McNemar's exact two-sided test that two models have the same accuracy on the same items.

    It is a binomial test on the items that only one model has right. It takes items as independent, so where pairs
    share images its p value is too small.

    Raises:
        PcclipError: the items are not the same, row by row.
    """
    _check_same_items(items_a, items_b)
    a, b = (items.correct.to_numpy(dtype=bool) for items in (items_a, items_b))
    only_a, only_b = int((a & ~b).sum()), int((b & ~a).sum())
    return float(stats.binomtest(only_a, only_a + only_b).pvalue) if only_a + only_b else 1.0


def holm(p_values: ArrayLike) -> Float[np.ndarray, " n"]:
    """Holm's step-down adjusted p values, in the same order; a NaN stays NaN and counts as no test.

    Rejecting where the adjusted value is below 0.05 keeps the chance of any false rejection in the family below 0.05.
    """
    raw = np.asarray(p_values, dtype=float)
    adjusted, order = np.full(len(raw), np.nan), np.argsort(raw, kind="stable")
    order = order[~np.isnan(raw[order])]
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(raw[order] * np.arange(len(order), 0, -1)))
    return adjusted


def t_interval(values: Sequence[float]) -> tuple[float, float]:
    """95% t interval of the mean over training seeds, a value each; (nan, nan) for fewer than two, or equal, values.

    It measures the spread of training, an interval from `accuracy` that of the test images; neither includes the other.
    """
    if len(values) < 2 or np.ptp(values) < 1e-9:
        return float("nan"), float("nan")
    low, high = stats.t.interval(0.95, len(values) - 1, np.mean(values), stats.sem(values))
    return float(low), float(high)


def compare(predictions: pd.DataFrame, after: str, before: str, draws: int, seed: int) -> pd.DataFrame:
    """Two models on the same items: a row for each task, dataset, protocol where there is one, and metric.

    Args:
        predictions: per-item predictions, columns task, dataset, model, the items' columns, and, where they have
            them, protocol and the units of draw, first_unit and second_unit.
        after, before: names of models; the difference is after - before.
        draws, seed: of the bootstrap.

    Returns:
        The keys, then after, before (names), difference, ci_low, ci_high, n, detectable; p_mcnemar (accuracies alone),
        p_bootstrap; test, which of the two counts: 'mcnemar' where every item has a unit of its own, else 'bootstrap',
        as McNemar's test is too sure where items share units; and p_holm, that p value adjusted by Holm's method for
        what one table claims: all data sets and protocols of a task and metric.

    Raises:
        PcclipError: no predictions of a model, or the two were scored on different items.
    """
    models = list(dict.fromkeys(predictions.model))
    for name in (after, before):
        if name not in models:
            raise PcclipError(f"no predictions of the model {name!r}; there are: {', '.join(models) or 'none'}")
    keys = [key for key in ("task", "dataset", "protocol") if key in predictions]
    rows = []
    for group, items in predictions.groupby(keys, sort=False):
        new, old = (items[items.model == name] for name in (after, before))
        if not len(new) or not len(old):
            continue
        _check_same_items(new, old, f"{', '.join(map(str, group))}: ")
        new, old = in_units(new), in_units(old)
        own_unit = (new["first"] == new["second"]).all() and new["first"].is_unique
        for metric in metrics_of(group[0]):
            change = MEASURES[metric](new, draws, seed) - MEASURES[metric](old, draws, seed)
            if not change.n:
                continue
            low, high = change.interval
            right_or_wrong = metric == "accuracy"
            rows.append(
                {
                    **dict(zip(keys, group, strict=True)),
                    "metric": metric,
                    "after": after,
                    "before": before,
                    "difference": change.value,
                    "ci_low": low,
                    "ci_high": high,
                    "n": change.n,
                    "detectable": change.detectable,
                    "p_mcnemar": mcnemar(new, old) if right_or_wrong else np.nan,
                    "p_bootstrap": p_value(change),
                    "test": "mcnemar" if right_or_wrong and own_unit else "bootstrap",
                }
            )
    columns = "metric after before difference ci_low ci_high n detectable p_mcnemar p_bootstrap test"
    table = pd.DataFrame(rows, columns=[*keys, *columns.split()])
    return table.assign(
        p_holm=deciding(table).groupby([table.task, table.metric]).transform(lambda p: holm(p.to_numpy()))
    )


def deciding(table: pd.DataFrame) -> pd.Series:
    """The p value that counts, of each row of `compare`."""
    return table.p_mcnemar.where(table.test == "mcnemar", table.p_bootstrap)


def _check_same_items(a: pd.DataFrame, b: pd.DataFrame, where: str = "") -> None:
    columns = [name for name in ("item", "first", "second") if name in a and name in b]
    if len(a) != len(b) or any((a[name].to_numpy() != b[name].to_numpy()).any() for name in columns):
        raise PcclipError(
            f"{where}the two models were not scored on the same items in the same order; score both on "
            "one set of images"
        )
