"""Per-item predictions of every task in one tidy table, and the metrics that summarise them.

Beside each text axis there is the share of the supervised axis's Spearman correlation and pairwise accuracy that it
reaches. The first is how work on rankability counts (On the rankability of visual embeddings, 2507.03683, fits such
axes; Zero-Shot Rankability, ICML 2026, reports 61% for CLIP-like models and 90% for conditional embeddings of
multimodal language models). From pairwise accuracies a half, which a random order gets, is subtracted first.

Intervals draw units: first_unit and second_unit name what carries the truth of an item, a concept or class with all its
photos, or the photo itself (stats.intervals).
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from jaxtyping import Bool, Shaped

from pcclip.stats.intervals import Estimate, estimate_table, ratio
from pcclip.stats.metrics import MEASURES, compare, holm, in_units, metrics_of, p_value

FOLDER = "04_evaluate"  # the stage's folder
COLUMNS = [
    *("task", "dataset", "protocol", "model", "item", "first", "second", "score", "reference", "correct"),
    *("first_unit", "second_unit"),
]
SUPERVISED = "supervised"  # the model, and the end of the data set's name, of a ceiling
CHANCE = {"spearman": 0.0, "pairwise_accuracy": 0.5, "accuracy": 0.5}
SHARES = {
    "ranking": ("spearman", "pairwise_accuracy"),
    "relative_values": ("spearman", "pairwise_accuracy"),
    "relative_pairs": ("accuracy",),
}  # task -> the metrics of which a share is taken
LOWER_IS_BETTER = ("mean_score",)  # a distance
_KEYS, _SAME = ["task", "dataset", "protocol"], ["first", "second", "reference"]
Task = tuple[str, str, str]  # name, data set, protocol: 'as_released', 'corrected' or ''


def item_table(
    first: Shaped[np.ndarray, " m"],
    second: Shaped[np.ndarray, " m"],
    score: Shaped[np.ndarray, " m"],
    reference: Shaped[np.ndarray, " m"] | float,
    correct: Bool[np.ndarray, " m"] | None,
) -> pd.DataFrame:
    """Items of one model on one task, a row each: which images or classes, the score, the truth, and whether it fits."""
    reference = np.broadcast_to(np.asarray(reference, dtype=float), score.shape)
    columns = {"first": first, "second": second, "score": score.astype(float), "reference": reference}
    return pd.DataFrame(columns | {"correct": correct})


class Predictions:
    """Collects the items of tasks; `table` returns all items in the order of their arrival."""

    def __init__(self) -> None:
        self._tables: list[pd.DataFrame] = []

    def add(
        self, task: Task, model: str, items: pd.DataFrame, ids: Sequence[str], units: Sequence[str] | None = None
    ) -> None:
        """Add one model's items of one task, whose `first` and `second` are positions in `ids`.

        `units` names what the bootstrap draws for each of `ids`; by default these themselves.
        """
        names = {"": np.asarray(ids, dtype=object), "_unit": np.asarray(ids if units is None else units, dtype=object)}
        sides = {f"{side}{end}": names[end][items[side].to_numpy()] for side in ("first", "second") for end in names}
        task_columns = dict(zip(COLUMNS, task, strict=False))
        self._tables.append(items.assign(**task_columns, **sides, model=model, item=np.arange(len(items))))

    def table(self) -> pd.DataFrame:
        """All items, with COLUMNS: protocol is 'as_released', 'corrected' or '', item a number within its task."""
        return pd.concat(self._tables, ignore_index=True)[COLUMNS].astype({"correct": "boolean"})


def summarise(predictions: pd.DataFrame, draws: int, seed: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Metrics with 95% bootstrap intervals, and paired differences finetuned - base where both models are there.

    Returns the tables of `measured` and of stats.metrics.compare.
    """
    both = {"base", "finetuned"} <= set(predictions.model)
    paired = compare(predictions, "finetuned", "base", draws, seed) if both else pd.DataFrame(columns=["task"])
    return measured(predictions, draws, seed), paired


def measured(predictions: pd.DataFrame, draws: int, seed: int) -> pd.DataFrame:
    """Every model's value on every task, data set and protocol, with its 95% interval, and the shares.

    Args:
        predictions: as Predictions collects them.
        draws, seed: of the bootstrap.

    Returns:
        task, dataset, protocol, model, metric, value, ci_low, ci_high, n, detectable, tied (of `tied`). The metric
        METRIC_share is of the text axes of tasks that have a supervised one for the same items, where that is above
        chance with its whole interval: of a ceiling that may be no better than chance nothing has a share.
    """
    groups = dict(iter(predictions.groupby(_KEYS, sort=False)))
    estimates = {
        key: {
            (metric, model): MEASURES[metric](in_units(part), draws, seed)
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
    table = estimate_table(values, [*_KEYS, "model", "metric"])
    return table.assign(tied=tied(table, list(values.values())))


def tied(table: pd.DataFrame, estimates: Sequence[Estimate]) -> Bool[np.ndarray, " r"]:
    """Which models cannot be told apart from the best of their task, data set, protocol and metric.

    The paired bootstrap p value of a model's distance to the best, adjusted by Holm's method for all rows of the same
    task and metric, is 0.05 or more. The best is tied where some other model is.

    Args:
        table: columns task, dataset, protocol, metric, value.
        estimates: of the rows of `table`.
    """
    is_tied, best, p = np.zeros(len(table), dtype=bool), np.arange(len(table)), np.full(len(table), np.nan)
    for (*_, metric), rows in table.groupby([*_KEYS, "metric"]).indices.items():
        values = table.value.to_numpy()[rows] * (-1 if metric in LOWER_IS_BETTER else 1)
        best[rows] = rows[np.nan_to_num(values, nan=-np.inf).argmax()]
        for row in rows[best[rows] != rows]:
            if len(estimates[row].draws) == len(estimates[best[row]].draws):
                p[row] = p_value(estimates[best[row]] - estimates[row])
    for rows in table.groupby(["task", "metric"]).indices.values():
        is_tied[rows] = holm(p[rows]) >= 0.05
    is_tied[best[is_tied]] = True
    return is_tied


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
    supervised = {other: group[group.model == SUPERVISED] for other, group in groups.items() if other[0] == task}
    same = [other for other, group in supervised.items() if group[_SAME].reset_index(drop=True).equals(own)]
    ceilings = {metric: estimates[same[0]][metric, SUPERVISED] for metric in SHARES[task]} if same else {}
    return {
        (f"{metric}_share", model): share(estimates[key][metric, model], ceiling, CHANCE[metric])
        for metric, ceiling in ceilings.items()
        if ceiling.interval[0] > CHANCE[metric]
        for model in models
    }
