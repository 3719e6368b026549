"""Food-101 (Bossard et al. 2014): 101 dishes, 750 training and 250 test photos each; training labels have noise.

torchvision's reader tells where the files are through private attributes alone, so the lists are read here.
"""

from pathlib import Path

import pandas as pd

from pcclip.benchmarks.benchmark import Benchmark, Reader, read_lines
from pcclip.benchmarks.classification import FAMILY, labelled_files

_PARTS = {"train": "tune", "test": "test"}


def read(place: Path) -> Benchmark:
    """All its images."""
    folders = read_lines(place / "meta" / "classes.txt")
    images = pd.DataFrame(
        [(line, split) for part, split in _PARTS.items() for line in read_lines(place / "meta" / f"{part}.txt")],
        columns=["id", "split"],
    )
    images["path"] = f"{place}/images/" + images["id"] + ".jpg"
    images["label"] = images["id"].str.split("/").str[0].map({name: label for label, name in enumerate(folders)})
    return labelled_files(Benchmark("food101", FAMILY, images, classes=[name.replace("_", " ") for name in folders]))


FOOD101 = Reader(
    "food101",
    read,
    {
        "download http://data.vision.ee.ethz.ch/cvl/food-101.tar.gz (5 GB) and unpack it there": [
            "meta/train.txt",
            "meta/test.txt",
            "meta/classes.txt",
            "images/",
        ]
    },
    folders=("", "food-101"),
)
