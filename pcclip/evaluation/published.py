"""Published figures beside ours: published.csv has those of PC-CLIP's paper, and of its base model by other evaluations.

The group pc_clip is of the paper's tables, as reviews quote them; a range stands where no cell is known. The group clip is of
ViT-L-14 DataComp-XL before any finetuning. Figures that were not found are not there.
"""

from importlib.resources import files

import pandas as pd

TABLE = "published.csv"
CLOSE = 0.005  # two figures agree
_KEYS = ["task", "dataset", "protocol", "metric", "model"]


def beside(metrics: pd.DataFrame, group: str) -> pd.DataFrame:
    """A row for each published figure of a group: the columns of published.csv, then ours, ci_low, ci_high, difference, agrees.

    Args:
        metrics: rows of metrics.csv; ours is NaN where they lack a figure.
        group: pc_clip or clip.
    """
    table = pd.read_csv(str(files(__package__) / TABLE), keep_default_na=False, na_values={"published": [""]})
    table = table[table.group == group].drop(columns="group")
    ours = metrics.rename(columns={"value": "ours"})[[*_KEYS, "ours", "ci_low", "ci_high"]]
    table = table.merge(ours, on=_KEYS, how="left")
    difference = table.ours - table.published
    return table.assign(difference=difference, agrees=difference.abs() <= CLOSE)
