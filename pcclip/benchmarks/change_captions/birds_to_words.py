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

from pcclip.benchmarks.benchmark import Benchmark, Reader, first_existing, read_table
from pcclip.benchmarks.change_captions import described_pairs

_TABLE = "birds-to-words-v1.0.tsv"
_SOURCE = "https://github.com/google-research-datasets/birds-to-words"
_COLUMNS = ["img1ObservationURL", "img1Species", "img2ObservationURL", "img2Species", "split", "description"]
_SPLITS = {"train": "tune", "val": "tune", "test": "test"}
_ANIMAL = re.compile(r"\banimal\s?([12])\b", re.IGNORECASE)
_NAMES = {"1": "the first animal", "2": "the second animal"}
_SUFFIXES = ("jpg", "jpeg", "JPG", "JPEG", "png")
_EXCHANGED = {"1": _NAMES["2"], "2": _NAMES["1"]}


def read(place: Path) -> Benchmark:
    """One item per description; also the species of both birds. Raises PcclipError when the table is another one."""
    options = {"sep": "\t", "dtype": str, "keep_default_na": False, "quoting": csv.QUOTE_NONE}  # quotes are characters
    table = read_table(place / _TABLE, _COLUMNS, f"fetch it again from {_SOURCE}", **options).fillna("")
    numbers = {
        side: table[f"img{k}ObservationURL"].str.rstrip("/").str.rsplit("/", n=1).str[-1]
        for k, side in ((1, "first"), (2, "second"))
    }
    written = table.description.str.split().str.join(" ").str.strip('" ')
    nameless = ~(numbers["first"].str.isdecimal() & numbers["second"].str.isdecimal())
    reason = pd.Series("", index=table.index).mask(~table.split.isin(list(_SPLITS)), "no split")
    rows = pd.DataFrame(
        {
            "row": [f"{_TABLE}, line {k + 2}" for k in range(len(table))],
            **{
                side: first_existing([f"{place}/images/" + number + f".{suffix}" for suffix in _SUFFIXES])
                for side, number in numbers.items()
            },
            "text": written.map(lambda text: _ANIMAL.sub(lambda match: _NAMES[match[1]], text)),
            "swapped": written.map(
                lambda text: _ANIMAL.sub(lambda match: _EXCHANGED[match[1]], text) if _ANIMAL.search(text) else ""
            ),  # of (second, first); '' where the description names neither
            "split": table.split.map(_SPLITS),
            "part": table.split,
            "reason": reason.mask(written == "", "no text").mask(nameless, "no photograph"),
            "first_species": table.img1Species,
            "second_species": table.img2Species,
        }
    )
    return described_pairs("birds_to_words", rows, place, orientation=1)


BIRDS_TO_WORDS = Reader(
    "birds_to_words",
    read,
    {
        f"get it from {_SOURCE}": [_TABLE],
        "save the photographs of the table's img1ImgURL and img2ImgURL in it as NUMBER.jpg, the number being the last "
        "part of its ObservationURL": ["images/"],
    },
)
