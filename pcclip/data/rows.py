"""The rows of a source, usable or left out with a reason."""

from pathlib import Path

import pandas as pd

from pcclip.config import Data, resolve

NOT_BAD = {"val split"}  # reasons to leave a row out that are no fault of the row


def root_of(data: Data) -> Path:
    """data.path, from the workbook's root; the parameters are refused where a source needs it and it is not given."""
    return resolve(data.path or "")


def sort_out(table: pd.DataFrame, reason: pd.Series) -> tuple[pd.DataFrame, pd.DataFrame, int]:
    """The rows whose reason is '', the other rows (path, reason), and how many of the others are bad."""
    left_out = pd.DataFrame({"path": table.path, "reason": reason})[reason != ""].reset_index(drop=True)
    return table[reason == ""].reset_index(drop=True), left_out, int((~left_out.reason.isin(NOT_BAD)).sum())


def reasons(left_out: pd.DataFrame) -> str:
    """'3 missing file, 1 no text', the most frequent first; '' where nothing was left out."""
    return ", ".join(f"{n} {reason}" for reason, n in left_out.reason.value_counts().items())


def counted(left_out: pd.DataFrame) -> pd.DataFrame:
    """How many rows were left out of each data set for each reason: dataset, reason, rows, example (one path).

    `left_out` has the columns dataset, path and reason.
    """
    groups = left_out.groupby(["dataset", "reason"], sort=False).path
    return groups.agg(rows="size", example="first").reset_index().astype({"example": str})
