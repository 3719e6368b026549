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

from pcclip.benchmarks.change_captions.reading import first_there, json_list, text_of

ORIENTATION = -1
NO_FAULT: set[str] = set()
CATEGORIES = ("dress", "shirt", "toptee")
_SOURCE = "https://github.com/XiaoxiaoGuo/fashion-iq"
_IMAGES = "https://github.com/hongwang600/fashion-iq-metadata"
_SPLITS = {"train": "tune", "val": "test"}


def missing(path: Path) -> list[str]:
    """Which of the captions are not in the folder, and whether its images are, and where to get them."""
    lacking = [name for name in _files().values() if not (path / "captions" / name).is_file()]
    lines = []
    if lacking:
        lines.append(f"{path / 'captions'}: no {', '.join(lacking)}; get captions of {_SOURCE}")
    if not (path / "images").is_dir():
        lines.append(
            f"{path / 'images'}: not there; download the photographs that image_url of {_IMAGES} lists and "
            "save each in it as ASIN.jpg"
        )
    return lines


def read(path: Path) -> pd.DataFrame:
    """One row per pair; also its category. Raises PcclipError when a file is no list."""
    table = pd.DataFrame(
        [
            _row(name, part, category, k, entry)
            for (category, part), name in _files().items()
            for k, entry in enumerate(json_list(path / "captions" / name, _SOURCE))
        ]
    )
    for side in ("first", "second"):
        table[side] = first_there(
            [
                f"{path}/images/" + below + table[side] + f".{suffix}"
                for below in ("", table.category + "/")
                for suffix in ("jpg", "png")
            ]
        )
    return table


def _files() -> dict[tuple[str, str], str]:
    """(category, part) -> file name."""
    return {(category, part): f"cap.{category}.{part}.json" for category in CATEGORIES for part in _SPLITS}


def _row(name: str, part: str, category: str, k: int, entry) -> dict:
    entry = entry if isinstance(entry, dict) else {}
    first, second = (str(entry.get(side) or "") for side in ("candidate", "target"))
    text = " and ".join(text_of(entry.get("captions")))
    reason = ("" if text else "no text") if first and second else "no candidate or no target"
    return {
        "row": f"{name}, entry {k + 1}",
        "first": first,
        "second": second,
        "text": text,
        "swapped": "",
        "split": _SPLITS[part],
        "part": part,
        "reason": reason,
        "category": category,
    }
