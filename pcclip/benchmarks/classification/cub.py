"""CUB-200-2011 (Wah et al. 2011): 200 kinds of birds, 5,994 training and 5,794 test images. No captions are needed."""

from pathlib import Path

from pcclip.benchmarks.benchmark import Benchmark, Reader, find
from pcclip.benchmarks.classification import FAMILY, labelled_files
from pcclip.data.sources.cub import birds, missing_birds, readable

_SPLITS = {"train": "tune", "held_out": "test"}


def _place(root: Path) -> Path:
    """The folder of the lists: `root`, or CUB_200_2011 below it."""
    lists = find(root, "images.txt", "CUB_200_2011/images.txt")
    return lists.parent if lists else root


def read(root: Path) -> Benchmark:
    """All its images. `released` are the names of classes.txt without their numbers: 'Black_footed_Albatross'.

    Raises PcclipError when a list is not as published.
    """
    table, names, reason = birds(_place(root))
    released = [name.split(".", 1)[-1] for name in names]
    images = table.assign(
        label=table["class"].map({number: label for label, number in enumerate(names.index)}),
        split=table["split"].map(_SPLITS),
        reason=reason,
    )
    return labelled_files(
        Benchmark(
            "cub",
            FAMILY,
            images[["id", "path", "label", "split", "reason"]],
            classes=[readable(name) for name in released],
            released=released,
        )
    )


CUB = Reader(
    "cub",
    read,
    missing_lines=lambda root: [f"{line} and unpack it in {root}" for line in missing_birds(_place(root))],
)
