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

from pathlib import Path

import numpy as np
import pandas as pd

from pcclip.benchmarks.change_captions.reading import first_there
from pcclip.benchmarks.classification import place_of
from pcclip.benchmarks.matlab import fields, table, texts
from pcclip.benchmarks.relative_attributes import ORDER, RelativeSet, of_pairs
from pcclip.errors import PcclipError
from pcclip.runs.progress import say

PUBLISHED = None  # of its images
_LISTED = 50025
ATTRIBUTES = ("open", "pointy", "sporty", "comfort")
_HOME = "https://vision.cs.utexas.edu/projects/finegrained/utzap50k/"
_DATA, _IMAGES = "ut-zap50k-data", ("ut-zap50k-images", "ut-zap50k-images-square")
_PATHS, _COARSE, _FINE, _SPLITS = (
    "image-path.mat",
    "zappos-labels.mat",
    "zappos-labels-fg.mat",
    "train-test-splits.mat",
)
_FOLDERS = ["", "ut-zap50k"]


def missing(root: Path) -> list[str]:
    """What of the labels and the images is not there."""
    place, found = place_of(root, _FOLDERS, _DATA), []
    lost = [name for name in (_PATHS, _COARSE, _FINE, _SPLITS) if not (place / _DATA / name).is_file()]
    if lost:
        found.append(
            f"{place / _DATA}: no {', '.join(lost)}; download ut-zap50k-data.zip from {_HOME} and unpack it in {place}"
        )
    if not any((place / name).is_dir() for name in _IMAGES):
        found.append(
            f"{place}: no {_IMAGES[0]}/; download {_IMAGES[0]}.zip (or the square images) from {_HOME} and "
            "unpack it there"
        )
    return found


def read(root: Path) -> RelativeSet:
    """All pairs of all four attributes. Raises PcclipError when a file is not as published."""
    place = place_of(root, _FOLDERS, _DATA).resolve()
    [names] = fields(place / _DATA / _PATHS, ["imagepath"], _HOME)
    names = texts(names)
    if len(names) != _LISTED:
        say(f"{place / _DATA / _PATHS}: {len(names)} images, of {_LISTED} as published")
    ordered, equal = fields(place / _DATA / _COARSE, ["mturkOrder", "mturkEqual"], _HOME)
    [fine] = fields(place / _DATA / _FINE, ["mturkHard"], _HOME)
    splits = fields(place / _DATA / _SPLITS, ["trainIndexAll", "testIndexAll"], _HOME)
    found = []
    for k, attribute in enumerate(ATTRIBUTES):
        own = {
            what: _rows(cells, k, f"{what} pairs of {attribute}", attribute, names)
            for what, cells in (("ordered", ordered), ("equal", equal), ("fine", fine))
        }
        side = _first_split(splits, k, len(own["ordered"]), attribute)
        found += [
            own["ordered"].assign(part="coarse", split=side)[side != ""],
            own["ordered"].assign(part="fine", split="tune"),
            own["fine"].assign(part="fine", split="test"),
            own["equal"].assign(part="coarse", split="tune"),
            own["equal"].assign(part="fine", split="tune"),
        ]
    pairs = pd.concat(found, ignore_index=True)
    used = pd.Series(sorted({*pairs["first"], *pairs["second"]} - {""}), dtype=str)
    return of_pairs("zap50k", pd.Series(_path(place, used).to_numpy(), index=used), pairs)


def _rows(cells: np.ndarray, k: int, what: str, attribute: str, names: list[str]) -> pd.DataFrame:
    """The rows of one attribute's matrix."""
    if cells.size != len(ATTRIBUTES):
        raise PcclipError(
            f"{_DATA}: {what}: {cells.size} attributes, not {len(ATTRIBUTES)}; download it again from {_HOME}"
        )
    rows = table(np.ravel(cells, order="F")[k], 4)
    numbers, relation = rows[:, :2], rows[:, 3]
    known = ((numbers >= 1) & (numbers <= len(names)) & (numbers % 1 == 0)).all(axis=1)
    reason = np.select(
        [~known, ~np.isin(relation, (1, 2, 3)), rows[:, 2] != k + 1],
        ["no such image", "no such relation", "another attribute"],
        "",
    )
    at = np.where(known[:, None], numbers, 1).astype(int) - 1
    more = np.array(ORDER)[np.where(np.isin(relation, (1, 2, 3)), relation, 3).astype(int) - 1]
    listed = np.array(names, dtype=object)
    return pd.DataFrame(
        {
            "attribute": attribute,
            "first": listed[at[:, 0]],
            "second": listed[at[:, 1]],
            "more": more,
            "row": [f"{what}, row {n + 1}" for n in range(len(rows))],
            "reason": reason,
        }
    )


def _first_split(splits: list[np.ndarray], k: int, count: int, attribute: str) -> np.ndarray:
    """'tune', 'test' or '' for each ordered pair of an attribute, by the first of the authors' splits."""
    side = np.full(count, "", dtype=object)
    for name, all_of in zip(("tune", "test"), splits, strict=True):
        try:
            index = np.ravel(np.ravel(np.ravel(all_of)[k])[0]).astype(int) - 1
        except (IndexError, ValueError, TypeError):
            index = np.array([-1])
        if not len(index) or index.min() < 0 or index.max() >= count:
            raise PcclipError(
                f"{_DATA}/{_SPLITS}: no split of the {count} ordered pairs of {attribute}; download it "
                f"again from {_HOME}"
            )
        side[index] = name
    return side


def _path(place: Path, names: pd.Series) -> pd.Series:
    """Where each image is, by the spellings of its folder that there are."""
    folders, files = names.str.rpartition("/")[0], names.str.rpartition("/")[2]
    bare = folders.str.rstrip(".")
    spelt = [folders, bare, bare + "%2E", folders.str.replace("Levi's", "Levi's&#174;", regex=False)]
    return first_there([f"{place}/{images}/" + spelling + "/" + files for images in _IMAGES for spelling in spelt])
