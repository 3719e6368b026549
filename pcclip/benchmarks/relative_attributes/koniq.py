"""KonIQ-10k (Hosu et al. 2020): 10,073 photos with the mean of people's opinions of their technical quality.

    koniq10k_distributions_sets.csv    image_name, ..., MOS (1 to 100), ..., set (training, validation or test)
    1024x768/ or 512x384/              the photos

The split is the authors': 7,058 training and 1,000 validation photos for tuning, 2,015 for testing. The list of scores
without the column `set` that is on the same site does not do.
"""

from pathlib import Path

import pandas as pd

from pcclip.benchmarks.benchmark import Benchmark, Reader, benchmark_of_images, find_needed, read_table
from pcclip.benchmarks.relative_attributes import FAMILY

_LIST = "koniq10k_distributions_sets.csv"
_DOWNLOAD = f"download it from https://github.com/subpic/koniq/blob/master/metadata/{_LIST}"
_FOLDERS = ("1024x768/", "512x384/")
_SPLITS = {"training": "tune", "validation": "tune", "test": "test"}


def read(place: Path) -> Benchmark:
    """All its photos, with the attribute quality. Raises PcclipError when the list is not as published."""
    table = read_table(place / _LIST, ["image_name", "MOS", "set"], _DOWNLOAD, dtype={"image_name": str})
    names, splits = table["image_name"].fillna(""), table["set"].map(_SPLITS)
    opinions = pd.to_numeric(table["MOS"], errors="coerce")
    reason = pd.Series("", index=table.index).mask(splits.isna(), "no split").mask(opinions.isna(), "no opinion")
    folder = find_needed(place, *_FOLDERS)
    images = pd.DataFrame({"id": names, "path": f"{folder}/" + names, "split": splits, "group": "", "reason": reason})
    return benchmark_of_images(Benchmark("koniq10k", FAMILY, images, values=pd.DataFrame({"quality": opinions})))


KONIQ = Reader(
    "koniq10k",
    read,
    {
        _DOWNLOAD: [_LIST],
        "download koniq10k_1024x768.zip or koniq10k_512x384.zip from "
        "https://database.mmsp-kn.de/koniq-10k-database.html and unpack it there": [_FOLDERS],
    },
    published=10073,
)
