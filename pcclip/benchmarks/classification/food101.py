"""Food-101 (Bossard et al. 2014): 101 dishes, 750 training and 250 test photos each; training labels have noise."""

from pathlib import Path

import pandas as pd

from pcclip.benchmarks.classification import LabelledSet, lines, of_paths, place_of

_ARCHIVE = "http://data.vision.ee.ethz.ch/cvl/food-101.tar.gz (5 GB)"
_FOLDERS = ["", "food-101"]
_PARTS = {"train.txt": "tune", "test.txt": "test"}
_NAMES = "classes.txt"


def missing(root: Path) -> list[str]:
    """What of images and lists is not there."""
    place = place_of(root, _FOLDERS, "meta")
    lost = [f"meta/{name}" for name in (*_PARTS, _NAMES) if not (place / "meta" / name).is_file()]
    lost += ["images/"] if not (place / "images").is_dir() else []
    return [f"{place}: no {', '.join(lost)}; download {_ARCHIVE} and unpack it in {root}"] if lost else []


def read(root: Path) -> LabelledSet:
    """All its images."""
    place = place_of(root, _FOLDERS, "meta").resolve()
    folders = lines(place / "meta" / _NAMES)
    table = pd.DataFrame(
        [(line, split) for name, split in _PARTS.items() for line in lines(place / "meta" / name)],
        columns=["id", "split"],
    )
    table["path"] = f"{place}/images/" + table["id"] + ".jpg"
    table["label"] = table["id"].str.split("/").str[0].map({name: label for label, name in enumerate(folders)})
    return of_paths("food101", table, [name.replace("_", " ") for name in folders])
