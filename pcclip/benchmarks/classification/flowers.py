"""Oxford 102 Flowers (Nilsback and Zisserman 2008): 8,189 photos, labels and split in MATLAB files.

The official training and validation images (trnid and valid, ten per class and each) are for tuning; the test images
are tstid, 6,149, as in the papers. The files hold no class names: torchvision has the authors' list, by label, but
tells where the photos are through private attributes alone, so the files are read here.
"""

from pathlib import Path

import numpy as np
import pandas as pd

from pcclip.benchmarks.benchmark import Benchmark, Reader
from pcclip.benchmarks.classification import FAMILY, labelled_files
from pcclip.benchmarks.matlab import fields
from pcclip.errors import PcclipError
from pcclip.torchvision_shim import declare_missing

_HOME = "https://www.robots.ox.ac.uk/~vgg/data/flowers/102"
_SPLITS = {"trnid": "tune", "valid": "tune", "tstid": "test"}
_CLASSES = 102


def read(place: Path) -> Benchmark:
    """All images of the split. `released` spells two of the names in its own way."""
    declare_missing()
    from torchvision.datasets import Flowers102

    if not (classes := getattr(Flowers102, "classes", [])):
        raise PcclipError("flowers: this torchvision has no names of the flowers; `pip install --upgrade torchvision`")
    [labels] = fields(place / "imagelabels.mat", ["labels"], _HOME)
    parts = zip(_SPLITS.values(), fields(place / "setid.mat", list(_SPLITS), _HOME), strict=True)
    images = pd.DataFrame(
        [(int(number), split) for split, numbers in parts for number in np.ravel(numbers)], columns=["number", "split"]
    )
    images["id"] = images.number.map("image_{:05d}".format)
    images["path"] = f"{place}/jpg/" + images["id"] + ".jpg"
    images["label"] = images.number.map(
        {row + 1: label - 1 for row, label in enumerate(np.ravel(labels).astype(int)) if 0 < label <= _CLASSES}
    )
    return labelled_files(
        Benchmark(
            "flowers",
            FAMILY,
            images.drop(columns="number"),
            classes=[name.replace("?", "") for name in classes],
            released=[name.replace("colt's", "colts") for name in classes],
        )
    )


FLOWERS = Reader(
    "flowers",
    read,
    {
        f"download {_HOME}/102flowers.tgz (345 MB) and unpack it there": ["jpg/"],
        f"download {_HOME}/imagelabels.mat and {_HOME}/setid.mat (under 1 MB) and put them there": [
            "imagelabels.mat",
            "setid.mat",
        ],
    },
    folders=("", "flowers-102"),
)
