"""Examples: photos that show much or little of an attribute, named in a call or in a file."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

import numpy as np
import pandas as pd
from jaxtyping import Float

from pcclip.errors import PcclipError, one_line


class Examples:
    """Ids or paths of photos with much (most) and with little (least) of an attribute; one side may be empty.

    A class of its own because `pcclip.rank` takes both sides as one argument, checked where they are named. `contents`
    has the SHA-256 of their bytes, as far as it is known, by their names.

    Raises:
        PcclipError: no photo on either side, or one photo on both.
    """

    def __init__(
        self,
        most: Sequence[str | Path] = (),
        least: Sequence[str | Path] = (),
        contents: Mapping[str, str] = MappingProxyType({}),
    ):
        self.contents = contents
        self.most, self.least = [os.fspath(path) for path in most], [os.fspath(path) for path in least]
        if not self.most and not self.least:
            raise PcclipError("no examples; name one photo with much of the attribute, one with little, or both")
        if both := {*self.most} & {*self.least}:
            raise PcclipError(f"example {min(both)!r} is given as most and as least; leave it on one side")


def read_examples(path: str | Path) -> Examples:
    """Examples from a CSV or JSON-lines file with columns path and side ('most' or 'least').

    Raises PcclipError for a file that cannot be read, lacks a column, or has another word for a side.
    """
    path = Path(os.path.expanduser(path))
    try:
        if path.suffix.lower() == ".csv":
            table = pd.read_csv(path, dtype=str, keep_default_na=False)  # ids like 000123 and null stay text
        else:
            table = pd.read_json(path, lines=True, dtype=False)
    except (OSError, ValueError) as error:
        raise PcclipError(
            f"{path}: cannot be read as CSV or JSON lines ({one_line(error)}); name a file with columns path and side"
        ) from None
    if not {"path", "side"} <= {*table.columns}:
        raise PcclipError(f"{path}: has columns {', '.join(map(str, table.columns))}; it needs path and side")
    if other := {*table.side.astype(str)} - {"most", "least"}:
        raise PcclipError(f"{path}: side {min(other)!r}; it must be most or least")
    most, least = (list(table.path[table.side == side].astype(str)) for side in ("most", "least"))
    return Examples(most, least)


def example_differences(
    matrix: Float[np.ndarray, "n d"], most: Float[np.ndarray, "a d"], least: Float[np.ndarray, "b d"]
) -> Float[np.ndarray, "m d"]:
    """Examples as votes for the first side: each example against the mean vector of the other side.

    With one side only, against the mean of `matrix`, the ranked photos. One example on each side is one vote.
    """
    if len(most) == len(least) == 1:
        return most - least
    high = (most if len(most) else matrix).mean(axis=0)
    low = (least if len(least) else matrix).mean(axis=0)
    return np.concatenate([most - low, high - least])
