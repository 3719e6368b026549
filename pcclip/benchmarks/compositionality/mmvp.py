"""MMVP-VLM (Tong et al., CVPR 2024): pairs of images that CLIP sees as alike, nine visual patterns of 15 pairs.

Its folder is that of https://huggingface.co/datasets/MMVP/MMVP_VLM:

    Questions.csv                                   Question ID, Type, Statement; two rows, 1 and 2, 3 and 4, are a pair
    MLLM_VLM Images/Orientation and Direction/1.jpg

As in the released scorer a text is 'a photo of ' and the statement. Its own measure asks which of the two images a text
fits better, and wants both texts right: that is the image score. The patterns are parts.
"""

import csv
from pathlib import Path

import pandas as pd

from pcclip.benchmarks.compositionality.reading import place, row
from pcclip.errors import PcclipError

FORM = "groups"
_SOURCE = "https://huggingface.co/datasets/MMVP/MMVP_VLM"
_TABLE, _IMAGES = "Questions.csv", "MLLM_VLM Images"
_PROMPT = "a photo of {}"


def missing(path: Path) -> list[str]:
    """Whether the table and the images are there, and where to get them."""
    return [
        f"{path / name}: not there; get it from {_SOURCE}" for name in (_TABLE, _IMAGES) if not (path / name).exists()
    ]


def read(path: Path) -> pd.DataFrame:
    """One row per pair. Raises PcclipError when the table is none of three columns."""
    try:
        with open(path / _TABLE, encoding="utf-8-sig", newline="") as file:
            lines = [line for line in list(csv.reader(file))[1:] if any(line)]
    except (OSError, ValueError, csv.Error) as error:
        reason = " ".join(str(error).split())
        raise PcclipError(
            f"{path / _TABLE}: cannot be read as a table ({reason}); fetch it again from {_SOURCE}"
        ) from None
    if not lines or any(len(line) < 3 for line in lines):
        raise PcclipError(
            f"{path / _TABLE}: not a table of question, type and statement; fetch it again from {_SOURCE}"
        )
    rows = []
    for k in range(0, len(lines), 2):
        pair = lines[k : k + 2]
        kind = pair[0][1].strip()
        texts = [_PROMPT.format(statement.strip()) if statement.strip() else "" for _, _, statement, *_ in pair]
        found = row(
            f"{_TABLE}, line {k + 2}",
            [f"{kind}/{number.strip()}.jpg" for number, *_ in pair][:2] + [""] * (2 - len(pair)),
            texts + [""] * (2 - len(pair)),
            part=kind,
        )
        rows.append(found if _is_pair(pair) else {**found, "reason": "not a pair"})
    return place(pd.DataFrame(rows), [path / _IMAGES])


def _is_pair(pair: list[list[str]]) -> bool:
    """Two questions of one type, an odd number and the next, as the released scorer takes for granted."""
    numbers = [line[0].strip() for line in pair]
    return (
        len(pair) == 2
        and all(number.isdecimal() for number in numbers)
        and int(numbers[0]) % 2 == 1
        and int(numbers[1]) == int(numbers[0]) + 1
        and pair[0][1].strip() == pair[1][1].strip()
    )
