"""SUN397 (Xiao et al. 2010): scenes in folders by first letter, with the first of its ten official partitions.

A partition has 50 training and 50 test images per class, of 108,754; the others are not used. The released code draws
its own tenth instead, in the order in which the disk lists the files, which nobody can repeat.
"""

from pathlib import Path, PurePosixPath

import pandas as pd

from pcclip.benchmarks.classification import LabelledSet, lines, of_paths, place_of

_HOME = "https://vision.princeton.edu/projects/2010/SUN"
_FOLDERS = ["", "SUN397"]
_PARTS = {"Training_01.txt": "tune", "Testing_01.txt": "test"}
_NAMES = "ClassName.txt"
_READABLE = {  # where what follows the slash is no adjective
    "bakery/shop": "bakery shop",
    "elevator/door": "elevator door",
    "theater/indoor_seats": "indoor theater seats",
    "subway_station/platform": "subway station platform",
    "train_station/platform": "train station platform",
}


def missing(root: Path) -> list[str]:
    """What of images and partition is not there."""
    place, found = place_of(root, _FOLDERS, "a"), []
    if not (place / "a").is_dir():
        found.append(f"{place}: no a/abbey and so on; download {_HOME}/SUN397.tar.gz (37 GB) and unpack it in {root}")
    lost = [name for name in _PARTS if _listed(place, name) is None]
    if lost:
        found.append(
            f"{place}: no {', '.join(lost)}; download {_HOME}/download/Partitions.zip (a few MB) and unpack it there"
        )
    return found


def read(root: Path) -> LabelledSet:
    """The images of the partition; classes are those of ClassName.txt, else those that the partition names."""
    place = place_of(root, _FOLDERS, "a").resolve()
    table = pd.DataFrame(
        [(line.lstrip("/"), split) for name, split in _PARTS.items() for line in lines(_listed(place, name))],
        columns=["id", "split"],
    )
    folder = table["id"].map(lambda file: str(PurePosixPath(file).parent))
    names = _listed(place, _NAMES)
    folders = [line.lstrip("/") for line in lines(names)] if names else sorted(set(folder))
    table["path"] = f"{place}/" + table["id"]
    table["label"] = folder.map({name: label for label, name in enumerate(folders)})
    released = [name.split("/", 1)[-1] for name in folders]
    return of_paths("sun397", table, [_readable(name) for name in released], released)


def _readable(name: str) -> str:
    """'apartment_building/outdoor' -> 'outdoor apartment building'."""
    return _READABLE.get(name) or " ".join(reversed(name.split("/"))).replace("_", " ")


def _listed(place: Path, name: str) -> Path | None:
    """A list of the set: in its folder, or in `Partitions` in it or beside it."""
    places = (place / name, place / "Partitions" / name, place.parent / "Partitions" / name)
    return next((path for path in places if path.is_file()), None)
