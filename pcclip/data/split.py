"""Which images are trained on and which are held out, and how many of each."""

import numpy as np
import pandas as pd

from pcclip.errors import PcclipError
from pcclip.stats.random_streams import stream

SIDES = ("train", "held_out")


def split_by_concept(concepts: pd.Series, held_out: float, seed: int) -> np.ndarray:
    """'train' or 'held_out' for each row, so that no concept is on both sides.

    Concepts are drawn at random; `held_out` is the share of concepts (at least one on each side).
    Raises PcclipError for fewer than two concepts.
    """
    names = np.array(sorted(set(concepts)))
    if len(names) < 2:
        raise PcclipError(f"need at least two concepts to hold one out; found {list(names)}")
    size = int(np.clip(round(held_out * len(names)), 1, len(names) - 1))
    drawn = set(stream("held-out concepts", seed).choice(names, size, replace=False))
    return np.where([concept in drawn for concept in concepts], "held_out", "train")


def official(table: pd.DataFrame, source: str) -> pd.Series:
    """The split of the set's authors. Raises PcclipError when the table has none, or a side is empty."""
    if "split" not in table:
        raise PcclipError(f"data source {source}: has no official split; set data.split: concept")
    empty = [side for side in SIDES if side not in set(table.split)]
    if empty:
        raise PcclipError(f"data source {source}: no {empty[0]} image in its official split; set data.split: concept")
    return table.split


def limited(table: pd.DataFrame, sizes: dict[str, int | None], seed: int) -> pd.DataFrame:
    """At most `sizes` rows of each side, drawn at random and left in order; None keeps all."""
    kept = []
    for side, size in sizes.items():
        rows = np.flatnonzero(table.split == side)
        if size and size < len(rows):
            rows = stream("limited images", seed).choice(rows, size, replace=False)
        kept.append(rows)
    return table.iloc[np.sort(np.concatenate(kept))]
