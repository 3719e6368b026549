"""Animals with Attributes 2 (Xian et al. 2018): 50 animals, 37,322 images, and 85 attributes of each animal.

The attributes are of animals, not of images: a strength from 0 to 100 (people's judgements) and, thresholded at the
overall mean, a yes or no. The release's own trainclasses.txt and testclasses.txt part the animals 40 to 10: no animal
is both in the 'tune' and in the 'test' split. The texts about two animals are made here too.
"""

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from jaxtyping import Int

from pcclip.benchmarks.benchmark import Benchmark, Reader, read_lines
from pcclip.benchmarks.classification import FAMILY
from pcclip.benchmarks.relative_attributes import FAMILY as RELATIVE
from pcclip.errors import PcclipError

_ARCHIVE = "https://cvml.ista.ac.at/AwA2/AwA2-data.zip (13 GB)"
_PARTS = {"tune": "trainclasses.txt", "test": "testclasses.txt"}
_CONTINUOUS, _BINARY = "predicate-matrix-continuous.txt", "predicate-matrix-binary.txt"

MOST = 5  # attributes named on each side of a corrected text, which then has at most 48 of CLIP's 77 tokens
# What the released filter means to leave out, as it cannot be seen. It takes the numbers of predicates.txt, which begin
# with 1, for positions that begin with 0, and so leaves out the attribute after each: 'newworld' instead of 'stalker'.
NOT_VISUAL = (
    "smelly tunnels fast slow agility fish meat plankton insects forager grazer hunter scavenger skimmer "
    "stalker solitary"
).split()
_SENTENCE = "The first image has attributes of {}, while the second image has attributes of {}"


def read(place: Path) -> Benchmark:
    """All its images. `class_attributes` are the strengths (NaN where nobody judged), `released` the folders' names.

    An animal without images is left out, and so is one that is in neither or in both of the splits. Raises PcclipError
    when a list or the attributes are not as published.
    """
    names = _names(place / "classes.txt")
    parts = {split: set(read_lines(place / file)) for split, file in _PARTS.items()}
    rows, left_out = [], []
    for label, name in enumerate(names):
        folder, splits = place / "JPEGImages" / name, [split for split, part in parts.items() if name in part]
        files = sorted(file for file in os.listdir(folder) if file.endswith(".jpg")) if folder.is_dir() else []
        if not files or len(splits) != 1:
            left_out.append((str(folder), "not in one split" if files else "no images"))
            continue
        rows += [(f"{name}/{file.removesuffix('.jpg')}", f"{folder}/{file}", label, splits[0]) for file in files]
    strengths = _matrix(place, _CONTINUOUS)
    return Benchmark(
        "awa2",
        FAMILY,
        pd.DataFrame(rows, columns=["id", "path", "label", "split"]),
        left_out=pd.DataFrame(left_out, columns=["path", "reason"]),
        classes=[name.replace("+", " ") for name in names],
        released=names,
        class_attributes=strengths.where(strengths >= 0),  # -1: nobody judged
    )


def read_strengths(place: Path) -> Benchmark:
    """All its images by the strengths of the 85 attributes, as `relative_attributes` scores them.

    A strength is an animal's, not an image's: images of one animal are tied, and the 10 animals that are tested are
    other ones than the 40 of the tune split. A strength that nobody judged (-1) is unknown.
    """
    labelled = read(place)
    labels, strengths = labelled.images.label, labelled.class_attributes
    assert strengths is not None
    return Benchmark(
        "awa2",
        RELATIVE,
        labelled.images.assign(group=[labelled.classes[label] for label in labels]).drop(columns="label"),
        left_out=labelled.left_out,
        values=strengths.iloc[labels].reset_index(drop=True),
    )


AWA2 = Reader(
    "awa2",
    read,
    {
        f"download {_ARCHIVE} and unpack it there": [
            "classes.txt",
            *_PARTS.values(),
            "predicates.txt",
            _CONTINUOUS,
            _BINARY,
            "JPEGImages/",
        ]
    },
    folders=("", "Animals_with_Attributes2"),
    published=37322,
)
AWA2_STRENGTHS = replace(AWA2, read=read_strengths)


def difference_texts(benchmark: Benchmark, binary: pd.DataFrame, protocol: str) -> Callable[[int, int], str]:
    """What a text says of images of two classes, given by label, when the attributes of their animals are compared.

    Args:
        benchmark: as `read` made it, with images of every class.
        binary: as `binary_attributes` gives them.
        protocol: 'as_released', or 'corrected': the attributes are the animals' own (see `predicate_rows`), the filter
            drops what it means to, and the text is short enough to be read to its end (see `attribute_differences`).
    """
    own, strengths = predicate_rows(benchmark, protocol), benchmark.class_attributes
    return lambda a, b: attribute_differences((own[a], own[b]), binary, strengths, protocol)


def binary_attributes(root: Path) -> pd.DataFrame:
    """Which attributes an animal has: one row per class and one column of 0 and 1 per attribute."""
    return _matrix(AWA2.place(root), _BINARY).astype(int)


def predicate_rows(benchmark: Benchmark, protocol: str) -> Int[np.ndarray, " c"]:
    """For each class, the row of the attributes that is read as its own; -1 for a class without images.

    corrected: its own row. as_released: the released code numbers the classes of a split in alphabetical order and
    looks these numbers up among all 50 animals, so that the first of ten test animals gets the antelope's attributes.
    """
    if protocol == "corrected":
        return np.arange(len(benchmark.classes))
    rows = np.full(len(benchmark.classes), -1)
    for _, part in benchmark.images.groupby("split"):
        members = sorted(set(part.label), key=lambda label: (benchmark.released or benchmark.classes)[label])
        rows[members] = np.arange(len(members))
    return rows


def attribute_differences(
    rows: tuple[int, int], binary: pd.DataFrame, strengths: pd.DataFrame | None, protocol: str
) -> str:
    """'The first image has attributes of ..., while the second image has attributes of ...'.

    as_released: every attribute that one animal has and the other has not, but for the filter's slip (see NOT_VISUAL);
        mostly longer than 77 tokens, so that the end, the second image, is cut off.
    corrected: the filter as its authors mean it, and on each side the MOST
        attributes in whose strength the two differ most.

    Args:
        rows: of the attributes, for the first and the second image.
        binary, strengths: the attributes; only 'corrected' uses `strengths`.
    """
    names, first, second = binary.columns.to_numpy(), *(binary.iloc[row].to_numpy(dtype=bool) for row in rows)
    filtered = np.flatnonzero(np.isin(names, NOT_VISUAL)) + (protocol == "as_released")
    visible = ~np.isin(np.arange(len(names)), filtered)
    sides = [np.flatnonzero(first & ~second & visible), np.flatnonzero(second & ~first & visible)]
    if protocol == "as_released" or strengths is None:
        return _SENTENCE.format(*(", ".join(names[side]) for side in sides))
    gap = np.nan_to_num((strengths.iloc[rows[0]] - strengths.iloc[rows[1]]).to_numpy(dtype=float))
    strongest = [
        side[np.argsort(-sign * gap[side], kind="stable")[:MOST]] for side, sign in zip(sides, (1, -1), strict=True)
    ]
    return f"{_SENTENCE.format(*(', '.join(names[side]) or 'none of these' for side in strongest))}."


def _matrix(place: Path, name: str) -> pd.DataFrame:
    """A matrix of one row per class and one column per predicate. Raises PcclipError when it has another shape."""
    classes, predicates = _names(place / "classes.txt"), _names(place / "predicates.txt")
    try:
        values = np.array([line.split() for line in read_lines(place / name)], dtype=float)
    except ValueError as error:
        raise PcclipError(f"{place / name}: not a table of numbers ({error}); unpack {_ARCHIVE} again") from None
    if values.shape != (len(classes), len(predicates)):
        raise PcclipError(
            f"{place / name}: has {len(values)} rows of {values[0].size} numbers, not {len(classes)} "
            f"classes of {len(predicates)} predicates; unpack {_ARCHIVE} again"
        )
    return pd.DataFrame(values, columns=predicates)


def _names(path: Path) -> list[str]:
    """The names of a file of lines 'number name'."""
    lines = [line.split() for line in read_lines(path)]
    if any(len(words) != 2 for words in lines):
        raise PcclipError(f"{path}: not lines of a number and a name; unpack {_ARCHIVE} again")
    return [name for _, name in lines]
