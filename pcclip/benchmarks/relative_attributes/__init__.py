"""Public sets whose images are ordered by attributes: what attribute axes are judged on beside the run's own images.

A set is a module or an object with PUBLISHED, the number of images with values or of pairs it was published with, if
known; `missing(root)`, the lines that say what is not there and where to get it; and `read(root)`, which returns a
RelativeSet of all of it. Adding one is adding it to SETS in sets.py, and its texts to pcclip/benchmarks/relative_attributes/texts.csv.
Images are never downloaded here.
"""

import re
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from pcclip.benchmarks.classification import stamp
from pcclip.data.rows import NO_FAULT
from pcclip.runs.files import digest, files_exist

ORDER = ("first", "second", "equal")  # which of a pair has more of an attribute
PAIRS = ["part", "attribute", "first", "second", "more", "split"]


@dataclass(frozen=True)
class RelativeSet:
    """Images with a value for each attribute, or pairs of images that people have ordered.

    Attributes:
        name: as in SETS.
        images: one row per image: id (text, unique), path, split ('tune', of the official training or validation
            images, or 'test', only ever scored; '' where pairs have splits instead) and group (the class whose value
            an image has, '' where images have values of their own).
        values: one row per image and a float column per attribute, NaN where unknown; no columns where there are pairs.
        pairs: part ('' or the authors' name of it), attribute, first, second (ids), more (of ORDER: which has more;
            equal or undecided) and split; no rows where there are values. A pair may be in several parts.
        left_out: path, reason of rows that cannot be used.
    """

    name: str
    images: pd.DataFrame
    values: pd.DataFrame
    pairs: pd.DataFrame
    left_out: pd.DataFrame

    @property
    def attributes(self) -> list[str]:
        return [*self.values.columns, *dict.fromkeys(self.pairs.attribute)]

    @property
    def bad(self) -> int:
        """How many rows cannot be used through a fault."""
        return int((~self.left_out.reason.isin(NO_FAULT)).sum())

    def identity(self) -> str:
        """Hash of all tables and each file's size and time stamp: what a stage's key must notice."""
        tables = [table.to_csv(index=False) for table in (self.images, self.values, self.pairs)]
        return digest([self.name, *tables, [stamp(path) for path in self.images.path]])

    def only(self, images: np.ndarray | None = None, pairs: np.ndarray | None = None) -> "RelativeSet":
        """The set with these rows of images or of pairs, in the order given, and no image that is in none."""
        kept = self if pairs is None else replace(self, pairs=self.pairs.iloc[pairs].reset_index(drop=True))
        if images is None:
            images = np.flatnonzero(kept.images["id"].isin({*kept.pairs["first"], *kept.pairs["second"]}))
        return replace(
            kept,
            images=kept.images.iloc[images].reset_index(drop=True),
            values=kept.values.iloc[images].reset_index(drop=True),
        )


def of_values(name: str, table: pd.DataFrame, values: pd.DataFrame) -> RelativeSet:
    """A set of images with values.

    Args:
        table: id, path, split, group and reason ('' where the row can be used). Rows whose file is not there are left
            out too.
        values: row by row of the table, a column for each attribute.
    """
    reason = table.reason.where((table.reason != "") | files_exist(table.path), "missing file")
    kept = (reason == "").to_numpy()
    left_out = pd.DataFrame({"path": table.path, "reason": reason})[~kept]
    return RelativeSet(
        name,
        table[["id", "path", "split", "group"]][kept].reset_index(drop=True),
        values[kept].reset_index(drop=True).astype(float),
        pd.DataFrame(columns=PAIRS, dtype=str),
        left_out.reset_index(drop=True),
    )


def of_pairs(name: str, paths: pd.Series, pairs: pd.DataFrame) -> RelativeSet:
    """A set of ordered pairs.

    Args:
        paths: the path of each image by its id.
        pairs: PAIRS, then row (what to call it) and reason ('' where it can be used). Pairs of one image with itself,
            or of an image whose file is not there, are left out too.
    """
    reason = pairs.reason.mask((pairs.reason == "") & (pairs["first"] == pairs["second"]), "one image twice")
    named = paths[paths.index.isin({*pairs["first"][reason == ""], *pairs["second"][reason == ""]})]
    here = {*named.index[files_exist(named).to_numpy()]}
    gone = ~(pairs["first"].isin(here) & pairs["second"].isin(here))
    reason = reason.mask((reason == "") & gone, "missing file")
    kept = pairs[PAIRS][reason == ""].reset_index(drop=True)
    images = paths[paths.index.isin({*kept["first"], *kept["second"]})]
    left_out = pd.DataFrame({"path": pairs["row"], "reason": reason})[reason != ""]
    return RelativeSet(
        name,
        pd.DataFrame({"id": images.index, "path": images.to_numpy(), "split": "", "group": ""}),
        pd.DataFrame(index=range(len(images))),
        kept,
        left_out.reset_index(drop=True),
    )


def plain(name: str) -> str:
    """An attribute's name in small letters: 'VisibleForehead' and 'size-large' become visible_forehead, size_large."""
    split = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name.strip())
    return re.sub(r"[^a-z0-9]+", "_", split.lower()).strip("_")
