"""CIRR (Liu et al., ICCV 2021): a photograph, how the wanted one differs, and the wanted one.

Its folder is the branch cirr_dataset of https://github.com/Cuberick-Orion/CIRR with NLVR2's photographs beside it:

    captions/cap.rc2.val.json     [{"pairid": 1, "reference": "dev-244-0-img0", "target_hard": "dev-1-0-img1",
                                    "caption": "remove all but one dog", "img_set": {"members": [...six names]}}]
    image_splits/split.rc2.val.json     {"dev-244-0-img0": "./dev/dev-244-0-img0.png", ...}
    img_raw/dev/dev-244-0-img0.png

The validation queries are read; answers of the test queries are not public. All validation images are searched but the
reference itself, and once more only the five others of the query's own set (`members`). Of several versions of a file
the newest is read.
"""

from pathlib import Path
from typing import Any

import pandas as pd

from pcclip.benchmarks.benchmark import Benchmark, Reader, find_needed, first_existing, json_rows, sentences
from pcclip.benchmarks.composed_retrieval import FAMILY, queries_of
from pcclip.errors import PcclipError
from pcclip.runs.files import load_json

_SOURCE = "https://github.com/Cuberick-Orion/CIRR (branch cirr_dataset)"
_CAPTIONS, _SPLIT = "captions/*.val.json", "image_splits/*.val.json"


def read(place: Path) -> Benchmark:
    """The validation queries. Raises PcclipError when a file is not as published."""
    split = find_needed(place, _SPLIT)
    names = load_json(split, f"fetch it again from {_SOURCE}")
    if not isinstance(names, dict) or not names:
        raise PcclipError(f"{split}: names no image; fetch it again from {_SOURCE}")
    places = pd.Series(names, dtype=object).astype(str)
    paths = first_existing([f"{place}/img_raw/" + places, f"{place}/" + places])
    images = pd.DataFrame({"id": places.index, "path": paths.to_numpy(), "gallery": "val"})
    queries = [_query(row, entry) for row, entry in json_rows(find_needed(place, _CAPTIONS), _SOURCE)]
    template = Benchmark("cirr", FAMILY, images, recalls=(1, 5, 10, 50), start_is_candidate=False)
    return queries_of(template, pd.DataFrame(queries))


def _query(row: str, entry: dict[str, Any]) -> dict[str, Any]:
    start, target = (str(entry.get(side) or "") for side in ("reference", "target_hard"))
    text, image_set = "".join(sentences([entry.get("caption")])), entry.get("img_set")
    members = image_set.get("members") if isinstance(image_set, dict) else None
    return {
        "row": row,
        "start": start,
        "right": (target,),
        "text": text,
        "gallery": "val",
        "members": tuple(map(str, members)) if isinstance(members, list) else (),
        "reason": ("" if text else "no text") if start and target else "no reference or no target",
    }


CIRR = Reader(
    "cirr",
    read,
    {
        f"get it from {_SOURCE}": [_CAPTIONS, _SPLIT],
        "ask for the photographs of https://lil.nlp.cornell.edu/nlvr/ (NLVR2)": [("img_raw/dev/", "dev/")],
    },
)
