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

from pcclip.benchmarks.benchmark import Benchmark, Reader, benchmark_of_images
from pcclip.benchmarks.relative_attributes import FAMILY

_FOLDERS = ("UTKFace", "part[123]", "")  # the first of these that is there
_NAME = re.compile(r"(?P<age>\d{1,3})_[01]_[0-4]_(?P<time>\d{17}) ?\.?jpg(\.chip\.jpg)?")
_OLDEST, _TESTED = 116, 5


def read(root: Path) -> Benchmark:
    """All its images, with the attribute age in years."""
    pattern = next(folder for folder in _FOLDERS if not folder or any(root.glob(f"{folder}/")))
    rows = []
    for path in sorted(root.glob(f"{pattern}/*.jpg" if pattern else "*.jpg")):
        match = _NAME.fullmatch(path.name)
        age = int(match["age"]) if match else -1
        tested = match is not None and crc32(match["time"].encode()) % _TESTED == 0
        reason = "" if 0 <= age <= _OLDEST else "no age in its name"
        rows.append((path.name, str(path), "test" if tested else "tune", "", reason, age))
    images = pd.DataFrame(rows, columns=["id", "path", "split", "group", "reason", "age"])
    values = images[["age"]].astype(float)
    return benchmark_of_images(Benchmark("utkface", FAMILY, images.drop(columns="age"), values=values))


UTKFACE = Reader(
    "utkface",
    read,
    {
        "download UTKFace.tar.gz (aligned and cropped faces) from https://susanqq.github.io/UTKFace/ and unpack it "
        "there": [("UTKFace/*.jpg", "part[123]/*.jpg", "*.jpg")]
    },
    published=23708,
)
