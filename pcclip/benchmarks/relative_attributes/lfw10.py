"""LFW-10 (Sandeep, Verma and Jawahar 2014): 2,000 faces, 1,000 pairs of them for each of ten attributes, with votes.

    LFW10/images/            1.jpg to 2000.jpg
    LFW10/annotations/       baldheadtrain.mat, baldheadtest.mat, ...: 500 pairs each

Of each file two fields are read, as public loaders read them: `images_compare`, whose rows of cells have the two files'
names in the second and third column, and `attribute_strengths`, whose second to fourth column count the votes for the
first image, for the second, and for neither. The most votes decide; a tie is undecided.
"""

from pathlib import Path

import numpy as np
import pandas as pd

from pcclip.benchmarks.classification import place_of
from pcclip.benchmarks.matlab import fields, table, texts
from pcclip.benchmarks.relative_attributes import ORDER, RelativeSet, of_pairs
from pcclip.errors import PcclipError

PUBLISHED = 10000
ATTRIBUTES = (
    "baldhead",
    "darkhair",
    "eyesopen",
    "goodlooking",
    "masculinelooking",
    "mouthopen",
    "smile",
    "v_teeth",
    "vforehead",
    "young",
)
_HOME = "http://cvit.iiit.ac.in/projects/relativeParts/"
_FOLDERS, _MARKS = ["", "LFW10"], ("annotations", "images")
_PARTS = {"train": "tune", "test": "test"}


def missing(root: Path) -> list[str]:
    """What of the annotations and the images is not there."""
    place = place_of(root, _FOLDERS, *_MARKS)
    lost = [
        f"annotations/{name}{part}.mat"
        for name in ATTRIBUTES
        for part in _PARTS
        if not (place / "annotations" / f"{name}{part}.mat").is_file()
    ]
    lost += ["images/"] if not (place / "images").is_dir() else []
    shown = ", ".join(lost[:3]) + (f" and {len(lost) - 3} more" if len(lost) > 3 else "")
    return [f"{place}: no {shown}; download LFW-10 from {_HOME} and unpack it in {root}"] if lost else []


def read(root: Path) -> RelativeSet:
    """All pairs of all ten attributes. Raises PcclipError when a file is not as published."""
    place = place_of(root, _FOLDERS, *_MARKS).resolve()
    pairs = pd.concat(
        [
            _pairs(place / "annotations" / f"{name}{part}.mat", name, split)
            for name in ATTRIBUTES
            for part, split in _PARTS.items()
        ],
        ignore_index=True,
    )
    names = sorted({*pairs["first"], *pairs["second"]} - {""})
    return of_pairs("lfw10", pd.Series([f"{place}/images/{name}" for name in names], index=names, dtype=str), pairs)


def _pairs(path: Path, attribute: str, split: str) -> pd.DataFrame:
    compared, votes = fields(path, ["images_compare", "attribute_strengths"], _HOME)
    votes = table(votes, 4)[:, 1:4]
    if compared.ndim != 2 or compared.shape[1] < 3 or len(votes) != len(compared):
        raise PcclipError(f"{path}: {len(compared)} pairs, {len(votes)} rows of votes; download it again from {_HOME}")
    first, second = (texts(compared[:, column]) for column in (1, 2))
    most = votes == votes.max(axis=1, keepdims=True)
    decided = np.where(most.sum(axis=1) == 1, most.argmax(axis=1), 2)
    nameless = (np.array(first, dtype=object) == "") | (np.array(second, dtype=object) == "")
    return pd.DataFrame(
        {
            "part": "",
            "attribute": attribute,
            "first": first,
            "second": second,
            "more": np.array(ORDER)[decided],
            "split": split,
            "row": [f"{path.name}, row {k + 1}" for k in range(len(votes))],
            "reason": np.where(nameless, "no such image", np.where((votes.sum(axis=1) > 0), "", "no votes")),
        }
    )
