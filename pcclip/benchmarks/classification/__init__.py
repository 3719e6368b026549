"""Labelled image sets: what models are evaluated on, with true class names and the splits of their authors.

A set is a module or an object with `missing(root)`, the lines that say what is not there and where to get it, and
`read(root)`, which returns a LabelledSet of all its images. Adding one is adding it to SETS in sets.py, which loads
them by name. Images are never downloaded here.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from pcclip.data.rows import sort_out
from pcclip.errors import PcclipError
from pcclip.images import file_of
from pcclip.runs.files import digest, files_exist

SPLITS = ("tune", "test")


@dataclass(frozen=True)
class LabelledSet:
    """Images with class labels.

    Attributes:
        name: as in SETS.
        table: one row per image: id (text, unique), label (an index into classes), split ('tune', of the official
            training or validation images: whatever is chosen is chosen there; or 'test', only ever scored).
        images: the images, row by row of the table: paths, or PIL images where the set keeps many in one file.
        classes: true, readable class names.
        released: the names as the released code puts them into its prompt, where those differ (papers' defects).
        attributes: one row per class and one float column per attribute, where the set has them.
        left_out: path, reason of rows that cannot be used.
        files: the files that hold the images, where those are PIL images; empty where they are paths.
        max_bad: a larger share of unusable images fails.
    """

    name: str
    table: pd.DataFrame
    images: Sequence[str | Image.Image]
    classes: list[str]
    released: list[str] | None = None
    attributes: pd.DataFrame | None = None
    left_out: pd.DataFrame = field(default_factory=lambda: pd.DataFrame({"path": [], "reason": []}))
    files: Sequence[str] = ()
    max_bad: float = 0.05

    @property
    def paths(self) -> list[str]:
        """Where each image is: its path, or its id where one file holds many."""
        return list(self.table["id"]) if self.files else list(self.images)

    def rows(self, numbers: Sequence[int] | np.ndarray) -> "LabelledSet":
        """The same set with only these rows of the table, in the order given."""
        images = Chosen(self.images, numbers) if self.files else [self.images[i] for i in numbers]
        return replace(self, table=self.table.iloc[numbers].reset_index(drop=True), images=images)

    def identity(self) -> str:
        """Hash of name, table, classes and each file's size and time stamp: what a stage's key must notice."""
        files = dict.fromkeys(map(file_of, self.files or self.images))  # images of one tar are one file
        return digest([self.name, self.table.to_csv(index=False), self.classes, [stamp(file) for file in files]])


class Chosen(Sequence):
    """Some images of a sequence, by row; each is opened only when it is asked for."""

    def __init__(self, images: Sequence, rows: Sequence[int] | np.ndarray):
        self._images, self._rows = images, rows

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, row: int) -> str | Image.Image:
        return self._images[int(self._rows[row])]


def of_paths(name: str, table: pd.DataFrame, classes: list[str], released: list[str] | None = None) -> LabelledSet:
    """A set of image files.

    Args:
        table: id, path, label (an index into classes, missing where there is none) and split. Rows without a class or
            whose file is not there are left out.
    """
    reason = pd.Series("", index=table.index)
    reason[table.label.isna()] = "no class"
    reason[~files_exist(table.path)] = "missing file"
    table, left_out, _ = sort_out(table, reason)
    rows = table[["id", "label", "split"]].astype({"label": int})
    return LabelledSet(name, rows, list(table.path), classes, released, left_out=left_out)


def unlabelled(name: str, images: pd.DataFrame, max_bad: float) -> LabelledSet:
    """Images (id, path) that are only to have vectors: of one class, all for testing."""
    table = pd.DataFrame({"id": images["id"].to_numpy(), "label": 0, "split": "test"})
    return LabelledSet(name, table, list(images.path), ["image"], max_bad=max_bad)


def lines(path: Path) -> list[str]:
    """The lines of a text file that are not empty. Raises PcclipError when there are none."""
    found = [line.strip() for line in path.read_text(encoding="utf8", errors="replace").splitlines()]
    if not any(found):
        raise PcclipError(f"{path}: empty; download or unpack it again")
    return [line for line in found if line]


def place_of(root: Path, folders: Sequence[str], *marks: str) -> Path:
    """The first of the folders below root ('' is root itself) that has all of these files or folders; else root."""
    return next((root / name for name in folders if all((root / name / mark).exists() for mark in marks)), root)


def stamp(file: str) -> tuple:
    """A file with its bytes and time stamp (ns); without them when it is not there."""
    try:
        found = Path(file).stat()
    except OSError:
        return (file,)
    return file, found.st_size, found.st_mtime_ns
