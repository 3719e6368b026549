"""The rows of a source, usable or left out with a reason."""

from pathlib import Path

import pandas as pd

from pcclip.errors import PcclipError

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


def told_apart(table: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The rows whose `reason` is empty, and path (their `row`) and reason of the others."""
    rest = table[table.reason != ""]
    return (
        table[table.reason == ""].reset_index(drop=True),
        pd.DataFrame({"path": rest["row"], "reason": rest.reason}).reset_index(drop=True),
    )


def reasons(left_out: pd.DataFrame) -> str:
    """'3 missing file, 1 no text', the most frequent first; '' where nothing was left out."""
    return ", ".join(f"{n} {reason}" for reason, n in left_out.reason.value_counts().items())


def check_usable(
    what: str, root: Path, one: str, many: str, usable: int, bad: int, left_out: pd.DataFrame, max_bad: float
) -> None:
    """Raise PcclipError where nothing of a set in `root` can be used, or a larger share than `max_bad` is bad.

    Args:
        what: what the set is called; one, many: what its rows are.
    """
    why = reasons(left_out)
    if not usable:
        raise PcclipError(f"{what}: no usable {one} in {root}; left out: {why or 'nothing'}")
    if bad > max_bad * (usable + bad):
        raise PcclipError(
            f"{what}: {bad} of {usable + bad} {many} are bad ({why}), more than {max_bad:.0%}; fetch "
            "what is missing, or raise max_bad to evaluate on the rest"
        )
