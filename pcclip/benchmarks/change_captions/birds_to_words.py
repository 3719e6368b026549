"""Birds-to-Words (Forbes et al., EMNLP 2019): two photographs of birds, and a paragraph that tells them apart.

Its folder holds the table of https://github.com/google-research-datasets/birds-to-words and the photographs, which
each user fetches from iNaturalist (they belong to their photographers):

    birds-to-words-v1.0.tsv    with a header: img1ObservationURL, img1ImgURL, img1Species, img1Selection, the same for
                               img2, split (train, val, test), annN (1 to 5) and description
    images/647514.jpg          the photograph of .../photos/647514, the last part of its ObservationURL; .jpeg, .JPG
                               and .png will do

Up to five people describe each pair; each description is a row. They speak of 'animal1' (left) and 'animal2'; here
these are 'the first animal' and 'the second animal', as our comparisons name their sides, so the orientation is +1,
and exchanging the two gives the swapped text.
"""

import csv
import re
from pathlib import Path

import pandas as pd

from pcclip.benchmarks.change_captions.reading import first_there
from pcclip.errors import PcclipError

ORIENTATION = 1
NO_FAULT: set[str] = set()
_TABLE = "birds-to-words-v1.0.tsv"
_SOURCE = "https://github.com/google-research-datasets/birds-to-words"
_COLUMNS = ["img1ObservationURL", "img1Species", "img2ObservationURL", "img2Species", "split", "description"]
_SPLITS = {"train": "tune", "val": "tune", "test": "test"}
_SUFFIXES = ("jpg", "jpeg", "JPG", "JPEG", "png")
_ANIMAL = re.compile(r"\banimal\s?([12])\b", re.IGNORECASE)
_NAMES = {"1": "the first animal", "2": "the second animal"}


def missing(path: Path) -> list[str]:
    """Whether the table and the folder of photographs are there, and where to get them."""
    lines = []
    if not (path / _TABLE).is_file():
        lines.append(f"{path / _TABLE}: not there; get it from {_SOURCE}")
    if not (path / "images").is_dir():
        lines.append(
            f"{path / 'images'}: not there; save the photographs of the table's img1ImgURL and img2ImgURL "
            "in it as NUMBER.jpg, the number being the last part of its ObservationURL"
        )
    return lines


def read(path: Path) -> pd.DataFrame:
    """One row per description; also species of both birds. Raises PcclipError when the table has other columns."""
    table = _table(path / _TABLE)
    numbers = {
        side: table[f"img{k}ObservationURL"].str.rstrip("/").str.rsplit("/", n=1).str[-1]
        for k, side in ((1, "first"), (2, "second"))
    }
    places = {
        side: first_there([f"{path}/images/" + number + f".{suffix}" for suffix in _SUFFIXES])
        for side, number in numbers.items()
    }
    written = table.description.str.split().str.join(" ").str.strip('" ')
    reason = pd.Series("", index=table.index)
    reason[~table.split.isin(list(_SPLITS))] = "no split"
    reason[written == ""] = "no text"
    reason[~(numbers["first"].str.isdecimal() & numbers["second"].str.isdecimal())] = "no photograph"
    return pd.DataFrame(
        {
            "row": [f"{_TABLE}, line {k + 2}" for k in range(len(table))],
            **places,
            "text": written.map(_named),
            "swapped": written.map(_exchanged),
            "split": table.split.map(_SPLITS),
            "part": table.split,
            "reason": reason,
            "first_species": table.img1Species,
            "second_species": table.img2Species,
        }
    )


def _table(path: Path) -> pd.DataFrame:
    """All columns as text; quotation marks are characters like any other."""
    try:
        table = pd.read_csv(path, sep="\t", dtype=str, keep_default_na=False, quoting=csv.QUOTE_NONE)
    except (ValueError, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())
        raise PcclipError(f"{path}: not a table with tabs ({reason}); fetch it again from {_SOURCE}") from None
    if lacking := [column for column in _COLUMNS if column not in table]:
        raise PcclipError(f"{path}: has no column {lacking[0]!r}; fetch it again from {_SOURCE}")
    return table.fillna("")


def _named(text: str) -> str:
    return _ANIMAL.sub(lambda found: _NAMES[found[1]], text)


def _exchanged(text: str) -> str:
    """The description of (second, first); '' where it names neither."""
    if not _ANIMAL.search(text):
        return ""
    return _ANIMAL.sub(lambda found: _NAMES["2" if found[1] == "1" else "1"], text)
