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

from pcclip.benchmarks.change_captions.reading import json_list, text_of

ORIENTATION = -1
NO_FAULT: set[str] = set()
_SOURCE = "https://github.com/harsh19/spot-the-diff"
_IMAGES = "https://drive.google.com/file/d/1OVb4_3Uec_xbyUk90aWC6LFpKsIOtR7v"
_SPLITS = {"train": "tune", "val": "tune", "test": "test"}


def missing(path: Path) -> list[str]:
    """Which of the annotations and images are not in the folder, and where to get them."""
    lacking = [f"{part}.json" for part in _SPLITS if not (path / "annotations" / f"{part}.json").is_file()]
    lines = []
    if lacking:
        lines.append(f"{path / 'annotations'}: no {', '.join(lacking)}; get data/annotations of {_SOURCE}")
    if not (path / "resized_images").is_dir():
        lines.append(f"{path / 'resized_images'}: not there; download {_IMAGES} and unpack it in {path}")
    return lines


def read(path: Path) -> pd.DataFrame:
    """One row per entry of the annotations. Raises PcclipError when a file is no list."""
    return pd.DataFrame(
        [
            _row(path, part, k, entry)
            for part in _SPLITS
            for k, entry in enumerate(json_list(path / "annotations" / f"{part}.json", _SOURCE))
        ]
    )


def _row(path: Path, part: str, k: int, entry) -> dict:
    whole = isinstance(entry, dict) and bool(entry.get("img_id"))
    image = path / "resized_images" / str(entry["img_id"] if whole else "")
    text = ". ".join(text_of(entry.get("sentences"))) if whole else ""
    reason = ("" if text else "no text") if whole else "not a pair"
    return {
        "row": f"{part}.json, entry {k + 1}",
        "first": f"{image}.png",
        "second": f"{image}_2.png",
        "text": text,
        "swapped": "",
        "split": _SPLITS[part],
        "part": part,
        "reason": reason,
    }
