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
    paths = sorted(root.glob(f"{pattern}/*.jpg" if pattern else "*.jpg"))
    names = [_NAME.fullmatch(path.name) for path in paths]
    ages = [int(name["age"]) if name else -1 for name in names]
    images = pd.DataFrame(
        {
            "id": [path.name for path in paths],
            "path": map(str, paths),
            "split": ["test" if name and crc32(name["time"].encode()) % _TESTED == 0 else "tune" for name in names],
            "group": "",
            "reason": ["" if 0 <= age <= _OLDEST else "no age in its name" for age in ages],
        }
    )
    values = pd.DataFrame({"age": ages}, dtype=float)
    return benchmark_of_images(Benchmark("utkface", FAMILY, images, values=values))


UTKFACE = Reader(
    "utkface",
    read,
    {
        "download UTKFace.tar.gz (aligned and cropped faces) from https://susanqq.github.io/UTKFace/ and unpack it "
        "there": [("UTKFace/*.jpg", "part[123]/*.jpg", "*.jpg")]
    },
    published=23708,
)
