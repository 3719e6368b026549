"""The rows of a source, usable or left out with a reason."""

import pandas as pd

NO_FAULT = {"val split"}  # reasons that do not count as bad


def sort_out(
    table: pd.DataFrame, reason: pd.Series, names: pd.Series | None = None
) -> tuple[pd.DataFrame, pd.DataFrame, int]:
    """The rows without a reason, the others (path, reason), and how many of those are bad.

    `names` are the paths to report, where they are not the table's.
    """
    named = table.path if names is None else names
    left_out = pd.DataFrame({"path": named, "reason": reason})[reason != ""].reset_index(drop=True)
    return table[reason == ""].reset_index(drop=True), left_out, int((~left_out.reason.isin(NO_FAULT)).sum())
