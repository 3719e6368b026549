"""UT-Zap50K (Yu and Grauman 2014): 50,025 photos of shoes, pairs of which people have ordered by four attributes.

Its two archives lie unpacked beside each other:

    ut-zap50k-data/          image-path.mat, zappos-labels.mat, zappos-labels-fg.mat, train-test-splits.mat
    ut-zap50k-images/        Shoes/Oxfords/Bostonian/100627.72.jpg; or ut-zap50k-images-square/

`imagepath` names the images. `mturkOrder`, `mturkEqual` and, in the file that ends in -fg, `mturkHard` hold one matrix
for each of ATTRIBUTES, whose rows are: number of the first image, of the second (from 1), attribute, relation (1: the
first has more, 2: the second, 3: equal), confidence, agreement. This is what the authors' own demonstration script and
several public loaders read. They score two parts, and so does this reader:

    coarse  UT-Zap50K-1: the ordered pairs by the first of the ten splits in train-test-splits.mat (`trainIndexAll` and
            `testIndexAll`, by attribute and split, from 1)
    fine    UT-Zap50K-2: tuned on all ordered pairs, tested on the fine-grained ones

Equal pairs are in no split of theirs; here they are tune pairs of both parts. Folders whose name ends in a dot, and
Levi's, are spelt otherwise in the archives of images than in `imagepath`; both spellings are tried.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from pcclip.benchmarks.benchmark import Benchmark, Reader, first_existing
from pcclip.benchmarks.matlab import fields, table, texts
from pcclip.benchmarks.relative_attributes import ORDER, ordered_pairs
from pcclip.errors import PcclipError
from pcclip.runs.progress import say

ATTRIBUTES = ("open", "pointy", "sporty", "comfort")
_HOME = "https://vision.cs.utexas.edu/projects/finegrained/utzap50k/"
_DATA, _IMAGES = "ut-zap50k-data", ("ut-zap50k-images", "ut-zap50k-images-square")
_PATHS, _COARSE, _FINE, _SPLITS = (
    "image-path.mat",
    "zappos-labels.mat",
    "zappos-labels-fg.mat",
    "train-test-splits.mat",
)
_LISTED = 50025  # images in _PATHS as published


def read(place: Path) -> Benchmark:
    """All pairs of all four attributes. Raises PcclipError when a file is not as published."""
    data = place / _DATA
    names = pd.Series(texts(fields(data / _PATHS, ["imagepath"], _HOME)[0]), dtype=object)
    if len(names) != _LISTED:
        say(f"{data / _PATHS}: {len(names)} images, of {_LISTED} as published")
    names = _spelled(place, names)
    ordered, equal = fields(data / _COARSE, ["mturkOrder", "mturkEqual"], _HOME)
    [fine] = fields(data / _FINE, ["mturkHard"], _HOME)
    splits = fields(data / _SPLITS, ["trainIndexAll", "testIndexAll"], _HOME)
    pairs = []
    for k, attribute in enumerate(ATTRIBUTES):
        ordered_rows, equal_rows, fine_rows = (
            _rows(cells, k, f"{kind} pairs of {attribute}", names)
            for kind, cells in (("ordered", ordered), ("equal", equal), ("fine", fine))
        )
        split = _first_split(splits, k, len(ordered_rows), attribute)
        pairs += [
            ordered_rows.assign(part="coarse", split=split)[split != ""],
            ordered_rows.assign(part="fine", split="tune"),
            fine_rows.assign(part="fine", split="test"),
            equal_rows.assign(part="coarse", split="tune"),
            equal_rows.assign(part="fine", split="tune"),
        ]
    return ordered_pairs("zap50k", pd.concat(pairs, ignore_index=True), place / _IMAGES[0])


def _rows(cells: np.ndarray, k: int, name: str, paths: pd.Series) -> pd.DataFrame:
    """The rows of the matrix of attribute k, called `name` in reports."""
    if cells.size != len(ATTRIBUTES):
        raise PcclipError(
            f"{_DATA}: {name}: {cells.size} attributes, not {len(ATTRIBUTES)}; download it again from {_HOME}"
        )
    rows = table(np.ravel(cells, order="F")[k], 4)
    numbers, relation = rows[:, :2], rows[:, 3]
    known = ((numbers >= 1) & (numbers <= len(paths)) & (numbers % 1 == 0)).all(axis=1)
    related = np.isin(relation, (1, 2, 3))
    places = np.where(known[:, None], numbers, 1).astype(int) - 1
    return pd.DataFrame(
        {
            "attribute": ATTRIBUTES[k],
            "first": paths.to_numpy()[places[:, 0]],
            "second": paths.to_numpy()[places[:, 1]],
            "more": np.array(ORDER)[np.where(related, relation, 3).astype(int) - 1],
            "row": [f"{name}, row {n + 1}" for n in range(len(rows))],
            "reason": np.select(
                [~known, ~related, rows[:, 2] != k + 1],
                ["no such image", "no such relation", "another attribute"],
                "",
            ),
        }
    )


def _first_split(splits: Sequence[np.ndarray], k: int, count: int, attribute: str) -> np.ndarray:
    """'tune', 'test' or '' for each ordered pair of attribute k, by the first of the authors' splits."""
    split = np.full(count, "", dtype=object)
    for name, cells in zip(("tune", "test"), splits, strict=True):
        try:
            rows = np.ravel(np.ravel(np.ravel(cells)[k])[0]).astype(int) - 1
        except (IndexError, ValueError, TypeError):
            rows = np.array([-1])
        if not len(rows) or rows.min() < 0 or rows.max() >= count:
            raise PcclipError(
                f"{_DATA}/{_SPLITS}: no split of the {count} ordered pairs of {attribute}; download it "
                f"again from {_HOME}"
            )
        split[rows] = name
    return split


def _spelled(place: Path, names: pd.Series) -> pd.Series:
    """The path of each image, in the spelling that its folder has on disk."""
    folders, files = names.str.rpartition("/")[0], names.str.rpartition("/")[2]
    bare = folders.str.rstrip(".")
    spellings = [folders, bare, bare + "%2E", folders.str.replace("Levi's", "Levi's&#174;", regex=False)]
    return first_existing(
        [f"{place}/{images}/" + spelling + "/" + files for images in _IMAGES for spelling in spellings]
    )


ZAP50K = Reader(
    "zap50k",
    read,
    {
        f"download ut-zap50k-data.zip from {_HOME} and unpack it there": [
            f"{_DATA}/{name}" for name in (_PATHS, _COARSE, _FINE, _SPLITS)
        ],
        f"download {_IMAGES[0]}.zip (or the square images) from {_HOME} and unpack it there": [
            tuple(f"{name}/" for name in _IMAGES)
        ],
    },
    folders=("", "ut-zap50k"),
)
