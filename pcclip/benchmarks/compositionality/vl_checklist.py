"""VL-CheckList (Zhao et al., EMNLP 2022): what is in an image, with one word of it replaced.

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

from pcclip.benchmarks.compositionality.reading import entries, place, row

FORM = "choices"
_SOURCE = "https://github.com/om-ai-lab/VL-CheckList"
_HOW = f"DATASETS.md of {_SOURCE}"
_KINDS = ("Attribute", "Object", "Relation")


def missing(path: Path) -> list[str]:
    """Whether there are annotations, and which folder of images that they need is not there."""
    files = _files(path)
    if not files:
        return [f"{path / 'data'}: no annotations ({', '.join(_KINDS)}); get data of {_SOURCE}"]
    needed = {_images_of(file, path): file for file in files[::-1]}
    return [
        f"{path / folder}: not there; {_HOW} says where its images are, or remove {file.relative_to(path)} and "
        f"the other files that need them"
        for folder, file in sorted(needed.items())
        if not (path / folder).is_dir()
    ]


def read(path: Path) -> pd.DataFrame:
    """One row per pair of texts. Raises PcclipError when a file is no list."""
    tables = []
    for file in _files(path):
        part = file.relative_to(path / "data").with_suffix("").as_posix()
        kind = part.split("/")[0]
        rows = [
            _row(f"{part}.json, entry {k + 1}", entry, part, kind) for k, entry in enumerate(entries(file, _SOURCE))
        ]
        tables.append(place(pd.DataFrame(rows), [path / _images_of(file, path)]))
    return pd.concat(tables, ignore_index=True)


def _files(path: Path) -> list[Path]:
    return sorted(file for kind in _KINDS for file in (path / "data" / kind).rglob("*.json"))


def _images_of(file: Path, path: Path) -> str:
    name = file.relative_to(path).as_posix()
    return next((folder for folder in ("hake", "swig") if folder in name), "vg")


def _row(name: str, entry, part: str, kind: str) -> dict:
    image, texts = entry if isinstance(entry, list) and len(entry) == 2 else (None, None)
    texts = texts if isinstance(texts, dict) else {}
    first = [given[0] if isinstance(given := texts.get(key), list) and given else None for key in ("POS", "NEG")]
    return row(name, [image], first, part=part, group=part, tags=[kind])
