"""SUN397 (Xiao et al. 2010): scenes in folders by first letter, with the first of its ten official partitions.

A partition has 50 training and 50 test images per class, of 108,754; the others are not used (torchvision's reader
knows no partition). The released code draws its own tenth instead, in the order of the disk's listing, which nobody
can repeat.
"""

from pathlib import Path, PurePosixPath

import pandas as pd

from pcclip.benchmarks.benchmark import Benchmark, Reader, find, find_needed, read_lines
from pcclip.benchmarks.classification import FAMILY, labelled_files

_HOME = "https://vision.princeton.edu/projects/2010/SUN"
_PARTS = {"Training_01.txt": "tune", "Testing_01.txt": "test"}
_READABLE = {  # where the part behind the slash is no adjective
    "bakery/shop": "bakery shop",
    "elevator/door": "elevator door",
    "theater/indoor_seats": "indoor theater seats",
    "subway_station/platform": "subway station platform",
    "train_station/platform": "train station platform",
}


def _places(name: str) -> tuple[str, ...]:
    """Where a list may be: in the set's folder, or in `Partitions` in it or beside it."""
    return name, f"Partitions/{name}", f"../Partitions/{name}"


def read(place: Path) -> Benchmark:
    """The images of the partition; classes are the lines of ClassName.txt, else the partition's folders."""
    parts = {split: read_lines(find_needed(place, *_places(name))) for name, split in _PARTS.items()}
    images = pd.DataFrame(
        [(line.lstrip("/"), split) for split, names in parts.items() for line in names], columns=["id", "split"]
    )
    folder = images["id"].map(lambda file: str(PurePosixPath(file).parent))
    class_list = find(place, *_places("ClassName.txt"))
    folders = [line.lstrip("/") for line in read_lines(class_list)] if class_list else sorted(set(folder))
    images["path"] = f"{place}/" + images["id"]
    images["label"] = folder.map({name: label for label, name in enumerate(folders)})
    released = [name.split("/", 1)[-1] for name in folders]
    return labelled_files(
        Benchmark("sun397", FAMILY, images, classes=[_readable(name) for name in released], released=released)
    )


def _readable(name: str) -> str:
    """'apartment_building/outdoor' -> 'outdoor apartment building'."""
    return _READABLE.get(name) or " ".join(reversed(name.split("/"))).replace("_", " ")


SUN397 = Reader(
    "sun397",
    read,
    {
        f"download {_HOME}/SUN397.tar.gz (37 GB) and unpack it there": ["a/"],
        f"download {_HOME}/download/Partitions.zip (a few MB) and unpack it there": [_places(name) for name in _PARTS],
    },
    folders=("", "SUN397"),
)
