"""Sets of image pairs with a text about their difference: what change captioning has, read as their authors give it.

A set is a module with `missing(path)`, the lines that say what is not there and where to get it; `read(path)`, which
returns one row per pair and text: row (what to call it), first, second (paths), text, swapped, split, part and reason
('' where it can be used), and whatever else the set has; ORIENTATION; and NO_FAULT, the reasons that are not bad.
Adding one is adding it to SETS. Images are never downloaded here.
"""

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from pcclip.benchmarks.change_captions import birds_to_words, compbench, fashion_iq, spot_the_diff
from pcclip.benchmarks.classification import stamp
from pcclip.config import resolve
from pcclip.data.rows import check_usable, told_apart
from pcclip.errors import PcclipError
from pcclip.runs.files import digest, files_exist

SETS = {
    "spot_the_diff": spot_the_diff,
    "birds_to_words": birds_to_words,
    "fashion_iq": fashion_iq,
    "compbench": compbench,
}


@dataclass(frozen=True)
class ChangeSet:
    """Pairs of images, each with a text about their difference.

    Attributes:
        name: as in SETS.
        images: one row per image: id (its path below the set's folder, unique) and path.
        pairs: one row per pair and text: first, second (ids), text, swapped (the same text with the images' roles
            exchanged, '' where the set's texts have none), split ('tune', of the official training or validation
            pairs, or 'test', only ever scored), part (the authors' own split), and the set's own columns.
        left_out: path, reason of rows that cannot be used.
        orientation: +1 where the text speaks of the first image and then of the second, so that f(text) should lie
            along g(first) - g(second), as our comparisons do; -1 where it says what the second image has that the
            first has not, so that it should lie along g(second) - g(first).
    """

    name: str
    images: pd.DataFrame
    pairs: pd.DataFrame
    left_out: pd.DataFrame
    orientation: int

    def identity(self) -> str:
        """Hash of all pairs, and each image file's size and time stamp: what a stage's key must notice."""
        return digest(
            [
                self.name,
                self.orientation,
                self.pairs.to_csv(index=False),
                self.images.to_csv(index=False),
                [stamp(file) for file in self.images.path],
            ]
        )


def missing(name: str, path: str | Path) -> list[str]:
    """One line for each thing of the set that is not at `path`, with where to get it. PcclipError: no such set."""
    return _module(name).missing(resolve(path).resolve())


def load_changes(name: str, path: str | Path, max_bad: float = 0.05) -> ChangeSet:
    """Read a set of image pairs from its folder.

    Args:
        name: one of SETS.
        path: the set's folder, laid out as its module says.
        max_bad: a larger share of bad rows fails.

    Raises:
        PcclipError: no such set, something missing, nothing usable, or too many bad rows.
    """
    module, root = _module(name), resolve(path).resolve()
    if lacking := module.missing(root):
        raise PcclipError(f"change set {name}: {'; '.join(lacking)}")
    table = module.read(root)
    _note_missing_files(table)
    usable, left_out = told_apart(table)
    bad = int((~left_out.reason.isin(module.NO_FAULT)).sum())
    check_usable(f"change set {name}", root, "pair", "rows", len(usable), bad, left_out, max_bad)
    paths = pd.Series(pd.unique(usable[["first", "second"]].to_numpy().ravel()))
    ids = paths.map(lambda found: Path(os.path.relpath(found, root)).as_posix())
    known = dict(zip(paths, ids, strict=True))
    pairs = usable.drop(columns=["row", "reason"]).assign(
        first=usable["first"].map(known), second=usable["second"].map(known)
    )
    return ChangeSet(name, pd.DataFrame({"id": ids, "path": paths}), pairs, left_out, module.ORIENTATION)


def _note_missing_files(table: pd.DataFrame) -> None:
    """Give the otherwise usable rows whose images are not there that reason, and call them by the missing file."""
    for side in ("second", "first"):  # the first is named where both are missing
        gone = np.zeros(len(table), bool)
        looked = (table.reason == "").to_numpy() | (table.reason == "missing file").to_numpy()
        gone[looked] = ~files_exist(table.loc[looked, side])
        table.loc[gone, "row"] = table.loc[gone, side]
        table.loc[gone, "reason"] = "missing file"


def _module(name: str):
    if name not in SETS:
        raise PcclipError(f"no change set {name!r}; there are: {', '.join(SETS)}")
    return SETS[name]
