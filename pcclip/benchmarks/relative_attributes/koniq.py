"""KonIQ-10k (Hosu et al. 2020): 10,073 photos with the mean of people's opinions of their technical quality.

    koniq10k_distributions_sets.csv    image_name, ..., MOS (1 to 100), ..., set (training, validation or test)
    1024x768/ or 512x384/              the photos

The split is the authors': 7,058 training and 1,000 validation photos for tuning, 2,015 for testing. The list of scores
without the column `set` that is on the same site does not do.
"""

from pathlib import Path

import pandas as pd

from pcclip.benchmarks.relative_attributes import RelativeSet, of_values
from pcclip.errors import PcclipError

PUBLISHED = 10073
_HOME = "https://database.mmsp-kn.de/koniq-10k-database.html"
_LIST = "koniq10k_distributions_sets.csv"
_LISTED_AT = f"https://github.com/subpic/koniq/blob/master/metadata/{_LIST}"
_IMAGES = ("1024x768", "512x384")
_SPLITS = {"training": "tune", "validation": "tune", "test": "test"}


def missing(root: Path) -> list[str]:
    """What of the list and the photos is not there."""
    found = [] if (root / _LIST).is_file() else [f"{root}: no {_LIST}; download it from {_LISTED_AT}"]
    if not any((root / name).is_dir() for name in _IMAGES):
        found.append(
            f"{root}: no {' or '.join(_IMAGES)}; download koniq10k_1024x768.zip or koniq10k_512x384.zip from "
            f"{_HOME} and unpack it there"
        )
    return found


def read(root: Path) -> RelativeSet:
    """All its photos, with the attribute quality. Raises PcclipError when the list is not as published."""
    root = root.resolve()
    try:
        listed = pd.read_csv(root / _LIST, dtype={"image_name": str})
        names, opinions = listed["image_name"].fillna(""), pd.to_numeric(listed["MOS"], errors="coerce")
        splits = listed["set"].map(_SPLITS)
    except (OSError, ValueError, KeyError) as error:
        told = " ".join(str(error).split())
        raise PcclipError(
            f"{root / _LIST}: no columns image_name, MOS and set that can be read ({told}); download it "
            f"from {_LISTED_AT}"
        ) from None
    folder = next(name for name in _IMAGES if (root / name).is_dir())
    reason = pd.Series("", index=listed.index)
    reason[splits.isna()] = "no split"
    reason[opinions.isna()] = "no opinion"
    table = pd.DataFrame(
        {"id": names, "path": f"{root}/{folder}/" + names, "split": splits, "group": "", "reason": reason}
    )
    return of_values("koniq10k", table, pd.DataFrame({"quality": opinions}))
