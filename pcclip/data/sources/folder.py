"""The `folder` source: any directory of images with captions.csv or captions.jsonl.

Columns: `path` (or `file`, relative to the directory) and `caption`; optional `id` (else the path), `label`,
`concept`; every other numeric column is an attribute.
"""

import os
from pathlib import Path

import pandas as pd

from pcclip.config import Data
from pcclip.data.rows import root_of, sort_out
from pcclip.errors import PcclipError, one_line
from pcclip.runs.files import files_exist

_KNOWN = {"id", "path", "caption", "label", "concept"}
_READERS = {"captions.csv": pd.read_csv, "captions.jsonl": pd.read_json}


def missing(data: Data) -> list[str]:
    """A line where the folder has no captions file."""
    folder = root_of(data)
    if any((folder / name).is_file() for name in _READERS):
        return []
    return [f"{folder}: no {' or '.join(_READERS)}; write one with columns path, caption"]


def read(data: Data) -> tuple[pd.DataFrame, pd.DataFrame, int]:
    """Read data.path. Returns the table, the rows left out (path, reason), and how many of them are bad."""
    folder = root_of(data)
    table = _captions(folder)
    if "path" not in table:
        table = table.rename(columns={"file": "path"})
    for column in ("path", "caption"):
        if column not in table:
            names = ", ".join(map(str, table.columns))
            raise PcclipError(f"{folder}: the captions file has no {column!r} column; found {names}")
    table["path"] = table.path.fillna("").astype(str)
    table["caption"] = table.caption.fillna("").astype(str).str.strip()
    table["id"] = table["id"].astype(str) if "id" in table else table.path
    reason = pd.Series("", index=table.index)
    reason[table.caption == ""] = "empty caption"
    reason[~files_exist(table.path.map(lambda path: os.path.join(folder, path)))] = "missing file"
    table, left_out, bad = sort_out(table, reason)
    table["path"] = table.path.map(lambda path: os.path.realpath(os.path.join(folder, path)))
    attributes = [c for c in table.columns if c not in _KNOWN and pd.api.types.is_numeric_dtype(table[c])]
    columns = [c for c in table.columns if c in _KNOWN] + attributes
    return table[columns].astype(dict.fromkeys(attributes, float)), left_out, bad


def _captions(folder: Path) -> pd.DataFrame:
    path = next(folder / name for name in _READERS if (folder / name).is_file())
    text = dict.fromkeys(sorted(_KNOWN | {"file"}), str)
    options = {"lines": True, "convert_dates": False} if path.suffix == ".jsonl" else {}
    try:
        return _READERS[path.name](path, dtype=text, **options)
    except (ValueError, UnicodeDecodeError) as error:
        raise PcclipError(f"{path}: cannot be read as a table ({one_line(error)})") from None
