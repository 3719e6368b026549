"""LFW-10 (Sandeep, Verma and Jawahar 2014): 2,000 faces, 1,000 pairs for each of ten attributes, with votes.

    LFW10/images/            1.jpg to 2000.jpg
    LFW10/annotations/       baldheadtrain.mat, baldheadtest.mat, ...: 500 pairs each

Of each file two fields are read, as public loaders read them: `images_compare`, whose rows of cells have the two files'
names in the second and third column, and `attribute_strengths`, whose second to fourth column count the votes for the
first image, for the second, and for neither. The most votes decide; a tie is undecided.
"""

from pathlib import Path

import numpy as np
import pandas as pd

from pcclip.benchmarks.benchmark import Benchmark, Reader
from pcclip.benchmarks.matlab import fields, table, texts
from pcclip.benchmarks.relative_attributes import ORDER, ordered_pairs
from pcclip.errors import PcclipError

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
_SPLITS = {"train": "tune", "test": "test"}


def read(place: Path) -> Benchmark:
    """All pairs of all ten attributes. Raises PcclipError when a file is not as published."""
    pairs = pd.concat(
        [_pairs(place, name, part).assign(split=split) for name in ATTRIBUTES for part, split in _SPLITS.items()],
        ignore_index=True,
    )
    return ordered_pairs("lfw10", pairs, place / "images")


def _pairs(place: Path, attribute: str, part: str) -> pd.DataFrame:
    path = place / "annotations" / f"{attribute}{part}.mat"
    compared, votes = fields(path, ["images_compare", "attribute_strengths"], _HOME)
    votes = table(votes, 4)[:, 1:4]
    if compared.ndim != 2 or compared.shape[1] < 3 or len(votes) != len(compared):
        raise PcclipError(f"{path}: {len(compared)} pairs, {len(votes)} rows of votes; download it again from {_HOME}")
    first, second = (pd.Series(texts(compared[:, column]), dtype=object) for column in (1, 2))
    most = votes == votes.max(axis=1, keepdims=True)
    decision = np.where(most.sum(axis=1) == 1, most.argmax(axis=1), 2)
    return pd.DataFrame(
        {
            "part": "",
            "attribute": attribute,
            "first": f"{place}/images/" + first,
            "second": f"{place}/images/" + second,
            "more": np.array(ORDER)[decision],
            "row": [f"{path.name}, row {k + 1}" for k in range(len(votes))],
            "reason": np.where(
                (first == "") | (second == ""), "no such image", np.where(votes.sum(axis=1) > 0, "", "no votes")
            ),
        }
    )


LFW10 = Reader(
    "lfw10",
    read,
    {
        f"download LFW-10 from {_HOME} and unpack it there": [
            *(f"annotations/{name}{part}.mat" for name in ATTRIBUTES for part in _SPLITS),
            "images/",
        ]
    },
    folders=("", "LFW10"),
    published=10000,
)
