"""How near text axes come to the supervised one: the share of its Spearman correlation and of its pairwise accuracy.

The share of Spearman's correlation that a zero-shot axis reaches of a linear axis fitted to true values is how work on
rankability counts (On the rankability of visual embeddings, 2507.03683, fits such axes; Zero-Shot Rankability, ICML
2026, reports 61% for CLIP-like models and 90% for conditional embeddings of multimodal language models). With the
share of pairwise accuracy, what a random order gets, a half, is taken off both first.
"""

import numpy as np
import pandas as pd

from pcclip.stats.intervals import Estimate, estimate_table, ratio
from pcclip.stats.metrics import MEASURES, metrics_of

SUPERVISED = "supervised"  # the model, and the end of the data set's name, of a ceiling
CHANCE = {"spearman": 0.0, "pairwise_accuracy": 0.5, "accuracy": 0.5}
SHARES = {
    "ranking": ("spearman", "pairwise_accuracy"),
    "relative_values": ("spearman", "pairwise_accuracy"),
    "relative_pairs": ("accuracy",),
}  # task -> the metrics of which a share is taken
_KEYS, _SAME = ["task", "dataset", "protocol"], ["first", "second", "reference"]


def measured(predictions: pd.DataFrame, draws: int, seed: int) -> pd.DataFrame:
    """Every model's value on every task, data set and protocol, with its 95% interval, and the shares.

    Args:
        predictions: as predictions.Predictions collects them.
        draws, seed: of the bootstrap.

    Returns:
        task, dataset, protocol, model, metric, value, ci_low, ci_high, n. The metric METRIC_share is of the text axes
        of tasks that have a supervised one for the same items, where that is above chance with its whole interval: of
        a ceiling that may be no better than chance nothing has a share.
    """
    groups = dict(iter(predictions.groupby(_KEYS, sort=False)))
    estimates = {
        key: {
            (metric, model): MEASURES[metric](part, draws, seed)
            for metric in metrics_of(key[0])
            for model, part in items.groupby("model", sort=False)
        }
        for key, items in groups.items()
    }
    values = {
        (*key, model, metric): estimate
        for key in groups
        for (metric, model), estimate in (estimates[key] | _shares(key, groups, estimates)).items()
        if estimate.n
    }
    return estimate_table(values, [*_KEYS, "model", "metric"])


def share(axis: Estimate, ceiling: Estimate, chance: float = 0.0) -> Estimate:
    """The share of the supervised axis that another axis reaches: (axis - chance) / (ceiling - chance).

    Both are of one metric on the same items with the same resamples; `chance` is what a random axis gets (0 for
    Spearman's correlation, 0.5 for pairwise accuracy). NaN where the ceiling itself is not above chance.
    """
    shares = ratio(np.append(axis.draws, axis.value) - chance, np.append(ceiling.draws, ceiling.value) - chance)
    return Estimate(float(shares[-1]), shares[:-1], axis.n)


def _shares(
    key: tuple, groups: dict[tuple, pd.DataFrame], estimates: dict[tuple, dict[tuple[str, str], Estimate]]
) -> dict[tuple[str, str], Estimate]:
    """Shares by METRIC_share and model; {} where no supervised axis was scored on the items of `key`."""
    items, task = groups[key], key[0]
    models = [model for model in dict.fromkeys(items.model) if model != SUPERVISED]
    if task not in SHARES or not models:
        return {}
    own = items[items.model == models[0]][_SAME].reset_index(drop=True)
    shares: dict[tuple[str, str], Estimate] = {}
    for other, group in groups.items():
        supervised = group[group.model == SUPERVISED][_SAME].reset_index(drop=True)
        if other[0] == task and len(supervised) and supervised.equals(own):
            for metric in SHARES[task]:
                ceiling = estimates[other][metric, SUPERVISED]
                for model in models if ceiling.interval[0] > CHANCE[metric] else ():
                    shares[f"{metric}_share", model] = share(estimates[key][metric, model], ceiling, CHANCE[metric])
            break
    return shares
