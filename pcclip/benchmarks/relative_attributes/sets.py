"""All sets of relative attributes by name, and the texts that ask for them; loading one as much as is asked for."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd

from pcclip.benchmarks.classification.sets import folder_of
from pcclip.benchmarks.relative_attributes import RelativeSet, awa2, koniq, lfw10, parikh, utkface, zap50k
from pcclip.config import Attribute
from pcclip.data.rows import reasons
from pcclip.errors import PcclipError
from pcclip.runs.progress import say

SETS = {
    "zap50k": zap50k,
    "pubfig": parikh.PUBFIG,
    "osr": parikh.OSR,
    "lfw10": lfw10,
    "awa2": awa2,
    "utkface": utkface,
    "koniq10k": koniq,
}
_TEXTS = Path(__file__).parent / "texts.csv"


def load_relative(
    name: str,
    path: str | None = None,
    limit: int | None = None,
    tune_limit: int | None = None,
    seed: int = 0,
    max_bad: float = 0.05,
) -> RelativeSet:
    """Read a set, and draw from each split if it is to be smaller.

    Args:
        name: one of SETS.
        path: the set's folder; None looks in the folder `name` of the cache (~/.cache/pcclip).
        limit: at most so many test images, or test pairs of each part and attribute; None keeps all.
        tune_limit: likewise of the tune split.
        seed: of the draw.
        max_bad: a larger share of unusable rows fails.

    Raises:
        PcclipError: no such set, something missing, nothing to test, duplicate ids, or too many rows
            unusable.
    """
    if lacking := missing(name, path):
        raise PcclipError(f"relative set {name}: {'; '.join(lacking)}")
    module = SETS[name]
    whole = module.read(folder_of(name, path))
    _check(whole, max_bad)
    rows = len(whole.pairs if len(whole.pairs) else whole.images)
    if module.PUBLISHED not in (rows + len(whole.left_out), None):
        say(
            f"{name}: {rows} {'pairs' if len(whole.pairs) else 'images'} and {len(whole.left_out)} left out, of "
            f"{module.PUBLISHED} as published"
        )
    sizes = {"tune": tune_limit, "test": limit}
    if len(whole.pairs):
        parts = whole.pairs.groupby(["part", "attribute", "split"], sort=False).indices
        return whole.only(pairs=_drawn(((parts[key], sizes[key[2]]) for key in parts), seed))
    sides = whole.images.groupby("split", sort=False).indices
    return whole.only(images=_drawn(((sides[side], sizes[side]) for side in sides), seed))


def missing(name: str, path: str | None) -> list[str]:
    """One line for each thing of a set that is not there. Raises PcclipError when there is no such set."""
    if name not in SETS:
        raise PcclipError(f"relative set {name!r}: not known; the sets are {', '.join(SETS)}")
    return SETS[name].missing(folder_of(name, path))


def texts_of(name: str) -> dict[str, Attribute]:
    """The shipped texts of a set's attributes, by attribute; {} where there are none."""
    table = pd.read_csv(_TEXTS, dtype=str)
    return {
        row.attribute: Attribute(
            more=f"a photo of {row.high}",
            less=f"a photo of {row.low}",
            comparison=f"The first image shows {row.more}, while the second image shows {row.less}.",
            comparison_swapped=f"The first image shows {row.less}, while the second image shows {row.more}.",
        )
        for row in table[table.set == name].itertuples()
    }


def _check(whole: RelativeSet, max_bad: float) -> None:
    rows = whole.pairs if len(whole.pairs) else whole.images
    if rows.empty or whole.bad > max_bad * (len(rows) + whole.bad):
        first = f", e.g. {whole.left_out.path.iloc[0]}" if len(whole.left_out) else ""
        raise PcclipError(
            f"relative set {whole.name}: {whole.bad} of {len(rows) + whole.bad} rows are bad "
            f"({reasons(whole.left_out) or 'none found'}{first}), more than {max_bad:.0%}; unpack it "
            "again, or raise max_bad to score the rest"
        )
    doubles = whole.images["id"][whole.images["id"].duplicated()]
    if len(doubles):
        raise PcclipError(f"relative set {whole.name}: duplicate ids, e.g. {doubles.iloc[0]!r}; unpack it again")
    if not (rows["split"] == "test").any():
        raise PcclipError(f"relative set {whole.name}: nothing to test; unpack it again")


def _drawn(groups: Iterable[tuple[np.ndarray, int | None]], seed: int) -> np.ndarray:
    """Of each group of rows at most so many, in order."""
    rng = np.random.default_rng(seed)
    kept = [
        rows if size is None or size >= len(rows) else rng.choice(rows, size, replace=False) for rows, size in groups
    ]
    return np.sort(np.concatenate(kept))
