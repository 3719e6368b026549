"""All labelled sets by name; loading one as much as is asked for."""

from pathlib import Path

import numpy as np
import pandas as pd

from pcclip.benchmarks.classification import (
    SPLITS,
    LabelledSet,
    awa2,
    cifar,
    cub,
    eurosat,
    flowers,
    food101,
    imagenet,
    sun397,
)
from pcclip.config import resolve
from pcclip.data.rows import NO_FAULT, reasons
from pcclip.errors import PcclipError
from pcclip.runs.files import cache_folder

SETS = {
    "cifar10": cifar.TEN,
    "cifar100": cifar.HUNDRED,
    "eurosat": eurosat,
    "flowers": flowers,
    "sun397": sun397,
    "food101": food101,
    "cub": cub,
    "awa2": awa2,
    **imagenet.VARIANTS,
}


def load_labelled(
    name: str, path: str | None = None, limit: int | None = None, tune_limit: int | None = None, seed: int = 0
) -> LabelledSet:
    """Read a labelled set, and draw from each split if it is to be smaller.

    Args:
        name: one of SETS.
        path: the set's folder; None looks in the folder `name` of the cache (~/.cache/pcclip).
        limit: at most so many test images, drawn from each class in proportion and left in order; None keeps all.
        tune_limit: likewise of the tune split.
        seed: of the draw.

    Raises:
        PcclipError: no such set, something missing, nothing usable, duplicate ids, labels that are no class, or more
            than the set's max_bad of the images unusable.
    """
    lacking = missing(name, path)
    if lacking:
        raise PcclipError(f"labelled set {name}: {'; '.join(lacking)}")
    whole = SETS[name].read(folder_of(name, path))
    _check(whole)
    sizes = {"tune": tune_limit, "test": limit}
    return whole.rows(np.sort(np.concatenate([_drawn(whole.table, split, sizes[split], seed) for split in SPLITS])))


def missing(name: str, path: str | None) -> list[str]:
    """One line for each thing of a set that is not there. Raises PcclipError when there is no such set."""
    if name not in SETS:
        raise PcclipError(f"labelled set {name!r}: not known; the sets are {', '.join(SETS)}")
    return SETS[name].missing(folder_of(name, path))


def folder_of(name: str, path: str | None) -> Path:
    """Where a set is: `path`, or its own folder in the cache."""
    return resolve(path) if path else cache_folder() / name


def _check(whole: LabelledSet) -> None:
    table, bad = whole.table, int((~whole.left_out.reason.isin(NO_FAULT)).sum())
    if len(table) == 0 or bad > whole.max_bad * (len(table) + bad):
        raise PcclipError(
            f"labelled set {whole.name}: {bad} of {len(table) + bad} images are bad "
            f"({reasons(whole.left_out) or 'none found'}), more than {whole.max_bad:.0%}; unpack it "
            "again"
        )
    doubles = table["id"][table["id"].duplicated()]
    if len(doubles):
        raise PcclipError(f"labelled set {whole.name}: duplicate ids, e.g. {doubles.iloc[0]!r}; unpack it again")
    if len({*whole.classes}) < len(whole.classes):
        raise PcclipError(f"labelled set {whole.name}: two classes share a name; unpack it again")
    if not (table.label.between(0, len(whole.classes) - 1) & table.split.isin(SPLITS)).all():
        raise PcclipError(f"labelled set {whole.name}: labels or splits that do not exist; unpack it again")


def _drawn(table: pd.DataFrame, split: str, size: int | None, seed: int) -> np.ndarray:
    """Rows of a split, at most `size` of them: the classes in proportion, and none left out while there is room."""
    rows = np.flatnonzero(table.split == split)
    if size is None or size >= len(rows):
        return rows
    rows = np.random.default_rng(seed).permutation(rows)
    each = table.label.iloc[rows].groupby(table.label.iloc[rows].to_numpy())
    place = each.cumcount() / each.transform("size")  # of a row among those of its class, from 0 to 1
    return rows[np.argsort(place.to_numpy(), kind="stable")[:size]]
