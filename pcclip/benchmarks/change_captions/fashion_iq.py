"""Fashion-IQ (Wu et al., CVPR 2021): two garments, and how shoppers ask for the second when they are shown the first.

Its folder is a clone of https://github.com/XiaoxiaoGuo/fashion-iq with the photographs beside its captions:

    captions/cap.{dress,shirt,toptee}.{train,val}.json
        [{"candidate": "B0084Y8XIU", "target": "B008BHCT58", "captions": ["is solid white", "is a lighter color"]}]
    images/B0084Y8XIU.jpg     or .png, or below images/dress and so on

The first image is the candidate, the second the target. The captions describe the TARGET against the candidate ("is
solid white", "has longer sleeves"), so the orientation is -1. The two captions of a pair are joined by 'and', as is
usual for this set. The test captions come without targets, so the validation pairs are the test, as is usual too.
"""

from pathlib import Path

import pandas as pd

from pcclip.benchmarks.benchmark import Benchmark, Reader, first_existing, json_rows, sentences
from pcclip.benchmarks.change_captions import described_pairs

SOURCE = "https://github.com/XiaoxiaoGuo/fashion-iq"
_SPLITS = {"train": "tune", "val": "test"}
_CATEGORIES = ("dress", "shirt", "toptee")


def read(place: Path) -> Benchmark:
    """One item per pair; also its category. Raises PcclipError when a file is no list."""
    return described_pairs("fashion_iq", read_pairs(place), place, orientation=-1)


def read_pairs(place: Path) -> pd.DataFrame:
    """All pairs: row, first, second (paths), text, swapped, split, part, reason and category."""
    rows = []
    for category in _CATEGORIES:
        for part, split in _SPLITS.items():
            for row, entry in json_rows(place / "captions" / f"cap.{category}.{part}.json", SOURCE):
                candidate, target = (str(entry.get(side) or "") for side in ("candidate", "target"))
                text = " and ".join(sentences(entry.get("captions")))
                reason = ("" if text else "no text") if candidate and target else "no candidate or no target"
                rows.append((row, candidate, target, text, "", split, part, reason, category))
    columns = ["row", "first", "second", "text", "swapped", "split", "part", "reason", "category"]
    pairs = pd.DataFrame(rows, columns=columns)
    for side in ("first", "second"):
        pairs[side] = photographs(place, pairs[side], pairs.category)
    return pairs


def photographs(place: Path, names: pd.Series, category: pd.Series | str) -> pd.Series:
    """The path of each photograph."""
    return first_existing(
        [f"{place}/images/" + below + names + f".{end}" for below in ("", category + "/") for end in ("jpg", "png")]
    )


FASHION_IQ = Reader(
    "fashion_iq",
    read,
    {
        f"get captions of {SOURCE}": [
            f"captions/cap.{category}.{part}.json" for category in _CATEGORIES for part in _SPLITS
        ],
        "download the photographs that image_url of https://github.com/hongwang600/fashion-iq-metadata lists and save "
        "each in it as ASIN.jpg": ["images/"],
    },
)
