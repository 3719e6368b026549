"""VL-CheckList (Zhao et al., EMNLP 2022): a text about an image, and the same with one word replaced.

Its folder is https://github.com/om-ai-lab/VL-CheckList with the folders of images that its DATASETS.md describes:

    data/Relation/vg/action.json      [["VG_100K_2/2408124.jpg", {"POS": ["steam coming from train"],
                                      "NEG": ["steam opening train"]}], ...]; below data/ also Attribute/ and Object/
    vg/VG_100K_2/2408124.jpg          of Visual Genome, for the files of vg and vaw
    hake/..., swig/...                for the files that are called so

As in the released scorer the first text of POS and of NEG counts. A part is a file (Relation/vg/action); Attribute,
Object and Relation are subsets. As many files are read as are there.
"""

from pathlib import Path

import pandas as pd

from pcclip.benchmarks.benchmark import Benchmark, Reader, json_values
from pcclip.benchmarks.compositionality import item, located, matching_set
from pcclip.errors import PcclipError
from pcclip.runs.files import load_json

_SOURCE = "https://github.com/om-ai-lab/VL-CheckList"
_KINDS = ("Attribute", "Object", "Relation")


def read(place: Path) -> Benchmark:
    """One item per pair of texts. Raises PcclipError when a file is no list."""
    tables = []
    for file in _files(place):
        part, items = file.relative_to(place / "data").with_suffix("").as_posix(), []
        entries = load_json(file, f"fetch it again from {_SOURCE}")
        if entries == []:  # three files of the release are
            continue
        for k, entry in enumerate(entries if isinstance(entries, list) else json_values(file, _SOURCE)):
            image, texts = entry if isinstance(entry, list) and len(entry) == 2 else (None, None)
            sides = [texts.get(side) if isinstance(texts, dict) else None for side in ("POS", "NEG")]
            firsts = [side[0] if isinstance(side, list) and side else None for side in sides]
            columns = {"part": part, "group": part, "tags": (part.split("/")[0],)}
            items.append(item(f"{part}.json, entry {k + 1}", [image], firsts, **columns))
        tables.append(located(items, [place / _image_folder(file, place)]))
    if not tables:
        raise PcclipError(f"{place / 'data'}: only empty lists; fetch it again from {_SOURCE}")
    return matching_set("vl_checklist", "choices", pd.concat(tables, ignore_index=True), place)


def _files(place: Path) -> list[Path]:
    return sorted(file for kind in _KINDS for file in (place / "data" / kind).rglob("*.json"))


def _image_folder(file: Path, place: Path) -> str:
    return next((folder for folder in ("hake", "swig") if folder in file.relative_to(place).as_posix()), "vg")


def _missing(place: Path) -> list[str]:
    """Which folder of images that the annotations need is not there."""
    needed = {_image_folder(file, place): file for file in _files(place)[::-1]}
    return [
        f"{place / folder}: not there; DATASETS.md of {_SOURCE} says where its images are, or remove "
        f"{file.relative_to(place)} and the other files that need them"
        for folder, file in sorted(needed.items())
        if not (place / folder).is_dir()
    ]


VL_CHECKLIST = Reader(
    "vl_checklist",
    read,
    {f"get data of {_SOURCE}": [tuple(f"data/{kind}/**/*.json" for kind in _KINDS)]},
    missing_lines=_missing,
)
