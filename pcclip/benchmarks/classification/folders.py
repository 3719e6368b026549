"""A set of one's own: a folder of images for each class, as torchvision's ImageFolder reads them.

    CLASS/*.jpg             all images are tested; or, in folders train/ (or tune/), val/ and test/,
    test/CLASS/*.jpg        these are, and the others are for tuning. Without test/, those of val/ are tested.

A class is called as its folder, with spaces for underscores. Images are of any kind that pcclip.images reads.
"""

from pathlib import Path

import pandas as pd

from pcclip.benchmarks.benchmark import Benchmark, Reader
from pcclip.benchmarks.classification import FAMILY, labelled_files
from pcclip.images import photos_below

_LAYOUT = "https://docs.pytorch.org/vision/stable/generated/torchvision.datasets.ImageFolder.html"
_PARTS = ("test", "val", "tune", "train")  # the first of these that is there is tested


def read(place: Path) -> Benchmark:
    """All its images; a class without images is a left-out row."""
    parts = [part for part in _PARTS if (place / part).is_dir()] or [""]
    folders = [
        (folder, "tune" if k else "test")
        for k, part in enumerate(parts)
        for folder in sorted((place / part).iterdir())
        if folder.is_dir() and not folder.name.startswith(".")
    ]
    names = sorted({folder.name for folder, _ in folders})
    rows = [(path, names.index(folder.name), split) for folder, split in folders for path in photos_below(folder)[0]]
    images = pd.DataFrame(rows, columns=["path", "label", "split"])
    images["id"] = images.path.str.removeprefix(f"{place}/")
    empty = [str(folder) for folder, _ in folders if not images.path.str.startswith(f"{folder}/").any()]
    return labelled_files(
        Benchmark(
            "folders",
            FAMILY,
            images,
            left_out=pd.DataFrame({"path": empty, "reason": "empty folder"}, dtype=str),
            classes=[name.replace("_", " ") for name in names],
            released=names,
        )
    )


FOLDERS = Reader("folders", read, {f"put a folder of images for each class there, as {_LAYOUT} says": ["*/"]})
