"""A set of one's own: a folder of images for each class, as torchvision's ImageFolder reads them.

    CLASS/*.jpg             all images are tested; or, in folders train/ (or tune/), val/ and test/,
    test/CLASS/*.jpg        these are, and the others are for tuning. Without test/, those of val/ are tested.

The parts may have other usual names, such as validation/ or Training_Set/. A class is called as its folder, with spaces
for underscores. Images are of any kind that pcclip.images reads; folders of thumbnails and deleted images are no classes.
"""

from pathlib import Path

import pandas as pd

from pcclip.benchmarks.benchmark import Benchmark, Reader
from pcclip.benchmarks.classification import FAMILY, labelled_files
from pcclip.images import COPIES, as_text, photos_below

_LAYOUT = "https://docs.pytorch.org/vision/stable/generated/torchvision.datasets.ImageFolder.html"
_PARTS = (  # the first of these that is there is tested
    "test testing test_set val valid validation validation_set dev tune train training training_set".split()
)


def read(place: Path) -> Benchmark:
    """All its images; a class without images is a left-out row."""
    by_name = {folder.name.lower(): folder for folder in place.iterdir() if folder.is_dir()}
    folders = [
        (folder, as_text(folder.name), "tune" if k else "test")
        for k, part in enumerate([by_name[part] for part in _PARTS if part in by_name] or [place])
        for folder in sorted(part.iterdir())
        if folder.is_dir() and not folder.name.startswith(".") and folder.name.casefold() not in COPIES
    ]
    names, photos = sorted({name for _, name, _ in folders}), [photos_below(folder)[0] for folder, _, _ in folders]
    rows = [
        (path, names.index(name), split)
        for paths, (_, name, split) in zip(photos, folders, strict=True)
        for path in paths
    ]
    images = pd.DataFrame(rows, columns=["path", "label", "split"])
    images["id"] = images.path.str.removeprefix(as_text(f"{place}/"))
    empty = [as_text(str(folder)) for paths, (folder, _, _) in zip(photos, folders, strict=True) if not paths]
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
