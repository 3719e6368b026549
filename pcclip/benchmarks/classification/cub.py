"""CUB-200-2011 (Wah et al. 2011): 200 kinds of birds, 5,994 training and 5,794 test images. No captions are needed."""

from pathlib import Path

from pcclip.benchmarks.classification import LabelledSet, place_of
from pcclip.data.rows import sort_out
from pcclip.data.sources.cub import birds, missing_birds, readable

_FOLDERS = ["", "CUB_200_2011"]


def missing(root: Path) -> list[str]:
    """What of the lists and of the images is not there."""
    return [f"{line} and unpack it in {root}" for line in missing_birds(place_of(root, _FOLDERS, "images.txt"))]


def read(root: Path) -> LabelledSet:
    """All its images. `released` are the names of classes.txt without their numbers: 'Black_footed_Albatross'.

    Raises PcclipError when a list is not as published.
    """
    table, names, reason = birds(place_of(root, _FOLDERS, "images.txt").resolve())
    names = names.map(lambda name: name.split(".", 1)[-1])
    table, left_out, _ = sort_out(table, reason)
    table["label"] = table["class"].map({number: label for label, number in enumerate(names.index)}).astype(int)
    table["split"] = table.split.map({"train": "tune", "held_out": "test"})
    return LabelledSet(
        "cub",
        table[["id", "label", "split"]],
        list(table.path),
        [readable(name) for name in names],
        released=list(names),
        left_out=left_out,
    )
