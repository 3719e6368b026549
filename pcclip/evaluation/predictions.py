"""Per-item predictions of every task in one tidy table, and the metrics that summarise them."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from jaxtyping import Bool, Shaped

from pcclip.evaluation.rankings import measured
from pcclip.stats.metrics import compare

FOLDER = "04_evaluate"  # the stage's folder
COLUMNS = ["task", "dataset", "protocol", "model", "item", "first", "second", "score", "reference", "correct"]


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

    def add(self, task: Task, model: str, items: pd.DataFrame, ids: Sequence[str]) -> None:
        """Add one model's items of one task, whose `first` and `second` are positions in `ids`."""
        names = np.asarray(ids, dtype=object)
        self._tables.append(
            items.assign(
                **dict(zip(COLUMNS, task, strict=False)),
                model=model,
                item=np.arange(len(items)),
                first=names[items["first"].to_numpy()],
                second=names[items["second"].to_numpy()],
            )
        )

    def table(self) -> pd.DataFrame:
        """All items, with COLUMNS: protocol is 'as_released', 'corrected' or '', item a number within its task."""
        return pd.concat(self._tables, ignore_index=True)[COLUMNS].astype({"correct": "boolean"})


def summarise(predictions: pd.DataFrame, draws: int, seed: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Metrics with 95% bootstrap intervals, and paired differences finetuned - base where both models are there.

    Returns the tables of rankings.measured and of stats.metrics.compare.
    """
    both = {"base", "finetuned"} <= set(predictions.model)
    paired = compare(predictions, "finetuned", "base", draws, seed) if both else pd.DataFrame(columns=["task"])
    return measured(predictions, draws, seed), paired
