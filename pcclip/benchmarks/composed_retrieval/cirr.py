"""CIRR (Liu et al., ICCV 2021): a photograph, how the wanted one differs, and the wanted one.

Its folder is the branch cirr_dataset of https://github.com/Cuberick-Orion/CIRR with NLVR2's photographs beside it:

    captions/cap.rc2.val.json     [{"pairid": 1, "reference": "dev-244-0-img0", "target_hard": "dev-1-0-img1",
                                    "caption": "remove all but one dog", "img_set": {"members": [...six names]}}]
    image_splits/split.rc2.val.json     {"dev-244-0-img0": "./dev/dev-244-0-img0.png", ...}
    img_raw/dev/dev-244-0-img0.png

The validation queries are read; answers of the test queries are not public. All validation images are searched but the
reference itself, and once more only the five others of the query's own set (`members`).
"""

from pathlib import Path

import pandas as pd

from pcclip.benchmarks.change_captions.reading import first_there, json_list, text_of
from pcclip.errors import PcclipError
from pcclip.runs.files import read_json

START_IS_CANDIDATE = False
RECALLS = (1, 5, 10, 50)
_SOURCE = "https://github.com/Cuberick-Orion/CIRR (branch cirr_dataset)"
_IMAGES = "https://lil.nlp.cornell.edu/nlvr/ (NLVR2)"


def missing(path: Path) -> list[str]:
    """Which of the annotations and photographs are not in the folder, and where to get them."""
    lines = [
        f"{path / folder}: no {name}; get it from {_SOURCE}"
        for folder, name in (("captions", "cap.VERSION.val.json"), ("image_splits", "split.VERSION.val.json"))
        if not _file(path, folder)
    ]
    if not any((path / place).is_dir() for place in ("img_raw/dev", "dev")):
        lines.append(f"{path / 'img_raw' / 'dev'}: not there; ask for the photographs of {_IMAGES}")
    return lines


def read(path: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Raises PcclipError when a file is not what it should be."""
    split = _file(path, "image_splits")
    named = read_json(split, [])
    if not isinstance(named, dict) or not named:
        raise PcclipError(f"{split}: names no image; fetch it again from {_SOURCE}")
    places = pd.Series(named, dtype=object).astype(str)
    images = pd.DataFrame(
        {"id": places.index, "path": first_there([f"{path}/img_raw/" + places, f"{path}/" + places]), "gallery": "val"}
    ).reset_index(drop=True)
    captions = _file(path, "captions")
    return images, pd.DataFrame([_row(captions.name, k, entry) for k, entry in enumerate(json_list(captions, _SOURCE))])


def _row(name: str, k: int, entry) -> dict:
    entry = entry if isinstance(entry, dict) else {}
    start, target = (str(entry.get(side) or "") for side in ("reference", "target_hard"))
    text, inner = "".join(text_of([entry.get("caption")])), entry.get("img_set")
    members = inner.get("members") if isinstance(inner, dict) else None
    reason = ("" if text else "no text") if start and target else "no reference or no target"
    return {
        "row": f"{name}, entry {k + 1}",
        "start": start,
        "right": (target,),
        "text": text,
        "before": "",
        "gallery": "val",
        "members": tuple(map(str, members)) if isinstance(members, list) else (),
        "weight": 1.0,
        "reason": reason,
    }


def _file(path: Path, folder: str) -> Path | None:
    """The newest version of the validation file in a folder."""
    return max((path / folder).glob("*.val.json"), default=None)
