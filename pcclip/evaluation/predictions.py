"""Per-item predictions as they come in from the tasks: one tidy table for all of them."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

COLUMNS = ["task", "dataset", "protocol", "model", "item", "first", "second", "score", "reference", "correct"]


class Predictions:
    """Collects the items of tasks; `table` has them all, in the order they came."""

    def __init__(self):
        self._found = []

    def add(
        self, task: str, dataset: str, model: str, items: pd.DataFrame, ids: Sequence[str], protocol: str = ""
    ) -> None:
        """Add one model's items of one task, whose `first` and `second` are positions in `ids`."""
        names = np.asarray(ids, dtype=object)
        self._found.append(
            items.assign(
                task=task,
                dataset=dataset,
                protocol=protocol,
                model=model,
                item=np.arange(len(items)),
                first=names[items["first"].to_numpy()],
                second=names[items["second"].to_numpy()],
            )
        )

    def table(self) -> pd.DataFrame:
        """All items: task, dataset, protocol ('as_released', 'corrected' or ''), model, item, and those of tasks.py."""
        return pd.concat(self._found, ignore_index=True)[COLUMNS].astype({"correct": "boolean"})
