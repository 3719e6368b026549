"""SugarCrepe (Hsieh et al., NeurIPS 2023): COCO images with their caption and a fluent, plausible wrong one.

Its folder is https://github.com/RAIVNLab/sugar-crepe with COCO's val2017 in it:

    data/add_att.json            {"0": {"filename": "000000085329.jpg", "caption": "...", "negative_caption": "..."},
                                 ...}, keys may skip; also add_obj, replace_att, replace_obj, replace_rel, swap_att and
                                 swap_obj, and `data` may be left out
    val2017/000000085329.jpg     or in images/val2017/ or images/

The seven kinds of change are the parts.
"""

from pathlib import Path

import pandas as pd

from pcclip.benchmarks.compositionality.reading import entries, found, place, row

FORM = "choices"
PARTS = ("add_att", "add_obj", "replace_att", "replace_obj", "replace_rel", "swap_att", "swap_obj")
_SOURCE = "https://github.com/RAIVNLab/sugar-crepe"
_COCO = "http://images.cocodataset.org/zips/val2017.zip"
_FOLDERS = ("val2017", "images/val2017", "images")


def missing(path: Path) -> list[str]:
    """Which of the seven files is not there, and whether the images are."""
    return lacking(path, PARTS, _SOURCE)


def read(path: Path) -> pd.DataFrame:
    """One row per caption. Raises PcclipError when a file is not what it should be."""
    return captioned(path, PARTS, _SOURCE, ("caption", "negative_caption"))


def captioned(path: Path, parts: tuple[str, ...], source: str, texts: tuple[str, ...]) -> pd.DataFrame:
    """The rows of SugarCrepe's and SugarCrepe++'s files, the texts in the order given."""
    rows = []
    for part in parts:
        for k, entry in enumerate(entries(_file(path, part), source)):
            entry = entry if isinstance(entry, dict) else {}
            rows.append(
                row(
                    f"{part}.json, entry {k + 1}",
                    [entry.get("filename")],
                    [entry.get(text) for text in texts],
                    part=part,
                    group=part,
                )
            )
    return place(pd.DataFrame(rows), [path / folder for folder in _FOLDERS])


def lacking(path: Path, parts: tuple[str, ...], source: str) -> list[str]:
    """One line for files that are not there, and one for the images."""
    lines = []
    if absent := [f"{part}.json" for part in parts if _file(path, part) is None]:
        lines.append(f"{path / 'data'}: no {', '.join(absent)}; get data of {source}")
    if found(path, _FOLDERS) is None:
        lines.append(f"{path / 'val2017'}: not there; download {_COCO} and unpack it in {path}")
    return lines


def _file(path: Path, part: str) -> Path | None:
    return found(path, (f"data/{part}.json", f"{part}.json"))
