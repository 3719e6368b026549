"""The rows of a source, usable or left out with a reason."""

import os
from pathlib import Path

import pandas as pd

from pcclip.config import Data, resolve
from pcclip.runs.files import files_exist

FOLDER_NOT_THERE = "folder not there"  # of one of the two archives of COCO, which are of use alone
NOT_BAD = {"val split", FOLDER_NOT_THERE}  # reasons to leave a row out that are no fault of the row


def root_of(data: Data) -> Path:
    """data.path, from the workbook's root; the parameters are refused where a source needs it and it is not given."""
    return resolve(data.path or "")


def outside(file: str) -> bool:
    """Whether a file's name leads out of the folder that it is in."""
    return os.path.isabs(file) or os.path.normpath(file).split(os.sep)[0] == os.pardir


def file_reasons(folder: Path, files: pd.Series) -> pd.Series:
    """Why each of the files cannot be read from the folder: 'missing file', 'outside its folder', or ''."""
    reason = files_exist(f"{folder}/" + files).map({True: "", False: "missing file"})
    return reason.mask(files.map(outside), "outside its folder")


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


def by_reason(counts: pd.DataFrame) -> dict[str, int]:
    """The table of `counted` for a manifest: 'data set, reason' -> rows."""
    return {f"{row.dataset}, {row.reason}": int(row.rows) for row in counts.itertuples()}
