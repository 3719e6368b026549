"""The `folder` source: any directory of images with captions.csv or captions.jsonl.

Columns: `path` (or `file`, relative to the directory) and `caption`; optional `id` (else the path), `label`,
`concept`; every other numeric column is an attribute.
"""

from pathlib import Path

import pandas as pd

from pcclip.errors import PcclipError
from pcclip.params import Data, resolve

_KNOWN = {"id", "path", "caption", "label", "concept"}


def read(data: Data) -> tuple[pd.DataFrame, pd.DataFrame, int]:
    """Read data.path. Returns the table, what was left out (path, reason), and how many of those are bad rows."""
    folder = resolve(data.path)
    table = _captions(folder)
    if "path" not in table:
        table = table.rename(columns={"file": "path"})
    for column in ("path", "caption"):
        if column not in table:
            found = ", ".join(map(str, table.columns))
            raise PcclipError(f"{folder}: the captions file has no {column!r} column; found {found}")
    table["path"] = table.path.fillna("").astype(str)
    table["caption"] = table.caption.fillna("").astype(str).str.strip()
    table["id"] = table["id"].astype(str) if "id" in table else table.path
    reason = pd.Series("", index=table.index)
    reason[table.caption == ""] = "empty caption"
    reason[~table.path.map(lambda p: (folder / p).is_file())] = "missing file"
    left_out = pd.DataFrame({"path": table.path, "reason": reason})[reason != ""]
    table = table[reason == ""].copy()
    table["path"] = table.path.map(lambda p: str((folder / p).resolve()))
    extras = [c for c in table.columns if c not in _KNOWN and pd.api.types.is_numeric_dtype(table[c])]
    keep = [c for c in table.columns if c in _KNOWN] + extras
    return table[keep].astype(dict.fromkeys(extras, float)), left_out.reset_index(drop=True), len(left_out)


def _captions(folder: Path) -> pd.DataFrame:
    for name, reader in (("captions.csv", pd.read_csv), ("captions.jsonl", pd.read_json)):
        path = folder / name
        if path.is_file():
            try:
                text = dict.fromkeys(sorted(_KNOWN | {"file"}), str)
                return (reader(path, lines=True, dtype=text, convert_dates=False) if name.endswith("jsonl")
                        else reader(path, dtype=text))
            except (ValueError, UnicodeDecodeError) as error:
                raise PcclipError(f"{path}: cannot be read as a table ({error})") from None
    raise PcclipError(f"{folder}: no captions.csv or captions.jsonl; write one with columns path, caption")
