"""Spot-the-Diff (Jhamtani and Berg-Kirkpatrick, EMNLP 2018): two frames of a surveillance camera, and what has changed.

Its folder is `data` of https://github.com/harsh19/spot-the-diff:

    annotations/{train,val,test}.json   [{"img_id": "42", "sentences": ["a car has appeared near the building", ...]}]
    resized_images/42.png, 42_2.png     before and after (and 42_diff.jpg, which is not read)

Several entries may be about one pair; an entry is one text, its sentences joined. The sentences say what the second
frame has that the first has not ("there is now ...", "the man is no longer there"), so the orientation is -1. Some of
them speak of both frames, or say that nothing has changed: they are kept, and no model can place them.
"""

from pathlib import Path

import pandas as pd

from pcclip.benchmarks.benchmark import Benchmark, Reader, json_rows, sentences
from pcclip.benchmarks.change_captions import described_pairs

_SOURCE = "https://github.com/harsh19/spot-the-diff"
_IMAGES = "https://drive.google.com/file/d/1OVb4_3Uec_xbyUk90aWC6LFpKsIOtR7v"
_SPLITS = {"train": "tune", "val": "tune", "test": "test"}


def read(place: Path) -> Benchmark:
    """One item per entry of the annotations. Raises PcclipError when a file is no list."""
    rows = []
    for part, split in _SPLITS.items():
        for row, entry in json_rows(place / "annotations" / f"{part}.json", _SOURCE):
            pair, text = entry.get("img_id"), ". ".join(sentences(entry.get("sentences")))
            reason = ("" if text else "no text") if pair else "not a pair"
            image = f"{place}/resized_images/{pair}"
            rows.append((row, f"{image}.png", f"{image}_2.png", text, "", split, part, reason))
    columns = ["row", "first", "second", "text", "swapped", "split", "part", "reason"]
    return described_pairs("spot_the_diff", pd.DataFrame(rows, columns=columns), place, orientation=-1)


SPOT_THE_DIFF = Reader(
    "spot_the_diff",
    read,
    {
        f"get data/annotations of {_SOURCE}": [f"annotations/{part}.json" for part in _SPLITS],
        f"download {_IMAGES} and unpack it there": ["resized_images/"],
    },
)
