"""UTKFace (Zhang, Song and Qi 2017): 23,708 aligned and cropped faces whose file names tell the age in years, 0 to 116.

Names are [age]_[gender]_[race]_[date and time].jpg.chip.jpg, or .jpg for the faces in the wild (part1 to part3). A few
lack gender or race and so are not sure to begin with the age: they are left out, as is usual; two misprints of the
ending are read. There is no official split. Here a fifth is tested: those whose checksum of date and time is divisible
by five, which stays so whatever part of the set is there.
"""

import re
from pathlib import Path
from zlib import crc32

import pandas as pd

from pcclip.benchmarks.relative_attributes import RelativeSet, of_values

PUBLISHED = 23708
_HOME = "https://susanqq.github.io/UTKFace/"
_FOLDERS = (("UTKFace",), ("part1", "part2", "part3"), ("",))  # the first of these that are there
_NAME = re.compile(r"(?P<age>\d{1,3})_[01]_[0-4]_(?P<time>\d{17}) ?\.?jpg(\.chip\.jpg)?")
_OLDEST, _TESTED = 116, 5


def missing(root: Path) -> list[str]:
    """Whether there is any image."""
    return (
        []
        if any(_files(root))
        else [
            f"{root}: no images in it or in its folder UTKFace; download UTKFace.tar.gz "
            f"(aligned and cropped faces) from {_HOME} and unpack it there"
        ]
    )


def read(root: Path) -> RelativeSet:
    """All its images, with the attribute age in years."""
    rows = []
    for path in _files(root.resolve()):
        told = _NAME.fullmatch(path.name)
        age = int(told["age"]) if told else -1
        tested = told is not None and crc32(told["time"].encode()) % _TESTED == 0
        rows.append(
            {
                "id": path.name,
                "path": str(path),
                "split": "test" if tested else "tune",
                "group": "",
                "age": age,
                "reason": "" if 0 <= age <= _OLDEST else "no age in its name",
            }
        )
    table = pd.DataFrame(rows)
    return of_values("utkface", table, table[["age"]])


def _files(root: Path) -> list[Path]:
    folders = next(names for names in _FOLDERS if any((root / name).is_dir() for name in names) or names == ("",))
    return [path for name in folders if (root / name).is_dir() for path in sorted((root / name).glob("*.jpg"))]
