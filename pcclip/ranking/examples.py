"""Examples: photos that show much or little of an attribute, named on the spot or in a file."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from pcclip.errors import PcclipError


@dataclass(frozen=True)
class Examples:
    """Ids or paths of photos with the most and with the least of it; one of the two may be empty."""

    most: Sequence[str] = ()
    least: Sequence[str] = ()

    def __post_init__(self):
        for side in ("most", "least"):
            object.__setattr__(self, side, [os.fspath(name) for name in getattr(self, side)])
        if not self.most and not self.least:
            raise PcclipError("no examples; name one photo with much of the attribute, one with little, or both")
        if both := {*self.most} & {*self.least}:
            raise PcclipError(f"example {min(both)!r} is given as most and as least; leave it on one side")


def read_examples(path: str | Path) -> Examples:
    """Examples of a CSV or JSON-lines file with columns path and side, 'most' or 'least'; paths as they stand there.

    Raises PcclipError: a file that cannot be read or has no such columns, or another word for a side.
    """
    path = Path(path).expanduser()
    try:
        table = (_read_csv if path.suffix.lower() == ".csv" else _read_lines)(path)
    except (OSError, ValueError) as error:
        raise PcclipError(
            f"{path}: cannot be read as CSV or JSON lines ({' '.join(str(error).split())}); name a file "
            "with columns path and side"
        ) from None
    if not {"path", "side"} <= {*table.columns}:
        raise PcclipError(f"{path}: has columns {', '.join(map(str, table.columns))}; it needs path and side")
    if other := {*table.side.astype(str)} - {"most", "least"}:
        raise PcclipError(f"{path}: side {min(other)!r}; it must be most or least")
    return Examples(*(list(table.path[table.side == side].astype(str)) for side in ("most", "least")))


def _read_csv(path: Path) -> pd.DataFrame:
    return pd.read_csv(path, dtype=str, keep_default_na=False)  # 000123 and null are names like any other


def _read_lines(path: Path) -> pd.DataFrame:
    return pd.read_json(path, lines=True, dtype=False)
