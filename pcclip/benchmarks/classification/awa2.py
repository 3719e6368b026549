"""Animals with Attributes 2 (Xian et al. 2018): 50 animals, 37,322 images, and 85 attributes of each animal.

The attributes are of animals, not of images: a strength from 0 to 100 (people's judgements) and, thresholded at the
overall mean, a yes or no. The release's own trainclasses.txt and testclasses.txt part the animals 40 to 10: no animal
is both in the 'tune' and in the 'test' split. What a text says of two animals is here too, as it is made of both.
"""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
from jaxtyping import Int

from pcclip.benchmarks.classification import LabelledSet, lines, place_of
from pcclip.errors import PcclipError

_ARCHIVE = "https://cvml.ista.ac.at/AwA2/AwA2-data.zip (13 GB)"
_FOLDERS = ["", "Animals_with_Attributes2"]
_CLASSES, _PREDICATES, _IMAGES = "classes.txt", "predicates.txt", "JPEGImages"
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


def missing(root: Path) -> list[str]:
    """What of the lists, the attributes and the images is not there."""
    place = place_of(root, _FOLDERS, _CLASSES)
    files = [_CLASSES, *_PARTS.values(), _PREDICATES, _CONTINUOUS, _BINARY]
    lost = [name for name in files if not (place / name).is_file()]
    lost += [f"{_IMAGES}/"] if not (place / _IMAGES).is_dir() else []
    return [f"{place}: no {', '.join(lost)}; download {_ARCHIVE} and unpack it in {root}"] if lost else []


def read(root: Path) -> LabelledSet:
    """All its images. `attributes` are the strengths (NaN where nobody judged), `released` the folders: 'blue+whale'.

    An animal without images is left out, and so is one that is in neither or in both of the splits. Raises PcclipError
    when a list or the attributes are not as published.
    """
    place = place_of(root, _FOLDERS, _CLASSES).resolve()
    names = _names(place / _CLASSES)
    parts = {split: set(lines(place / name)) for split, name in _PARTS.items()}
    rows, images, left_out = [], [], []
    for label, name in enumerate(names):
        folder, of = place / _IMAGES / name, [split for split, part in parts.items() if name in part]
        files = sorted(file for file in os.listdir(folder) if file.endswith(".jpg")) if folder.is_dir() else []
        if not files or len(of) != 1:
            left_out.append({"path": str(folder), "reason": "not in one split" if files else "no images"})
            continue
        rows += [{"id": f"{name}/{file.removesuffix('.jpg')}", "label": label, "split": of[0]} for file in files]
        images += [str(folder / file) for file in files]
    strengths = _matrix(place, _CONTINUOUS)
    return LabelledSet(
        "awa2",
        pd.DataFrame(rows, columns=["id", "label", "split"]),
        images,
        [name.replace("+", " ") for name in names],
        released=names,
        attributes=strengths.where(strengths >= 0),  # -1: nobody judged
        left_out=pd.DataFrame(left_out, columns=["path", "reason"]),
    )


def binary(root: Path) -> pd.DataFrame:
    """Which attributes an animal has: one row per class and one column of 0 and 1 per attribute, as in `attributes`."""
    return _matrix(place_of(root, _FOLDERS, _CLASSES), _BINARY).astype(int)


def difference_texts(images: LabelledSet, binary: pd.DataFrame, protocol: str) -> Callable[[int, int], str]:
    """What is said of images of two classes, given by index, when the attributes of their animals are compared.

    Args:
        images: what `read` gave, with images of every class.
        binary: what the function `binary` gave.
        protocol: 'as_released', or 'corrected': the attributes are the animals' own (see `predicate_rows`), the filter
            drops what it means to, and the text is short enough to be read to its end (see `attribute_differences`).

    Raises:
        PcclipError: an unknown protocol.
    """
    own = predicate_rows(images, protocol)
    return lambda a, b: attribute_differences(own[a], own[b], binary, images.attributes, protocol)


def predicate_rows(images: LabelledSet, protocol: str) -> Int[np.ndarray, " c"]:
    """For each class, the row of the attributes that is read as its own; -1 for a class without images.

    corrected: its own row. as_released: the released code numbers the classes of a split in alphabetical order and
    looks these numbers up among all 50 animals, so that the first of ten test animals gets the antelope's attributes.
    """
    if not _released(protocol):
        return np.arange(len(images.classes))
    rows = np.full(len(images.classes), -1)
    for _, part in images.table.groupby("split"):
        members = sorted(set(part.label), key=lambda label: images.released[label])
        rows[members] = np.arange(len(members))
    return rows


def attribute_differences(
    first: int, second: int, binary: pd.DataFrame, continuous: pd.DataFrame | None, protocol: str
) -> str:
    """'The first image has attributes of ..., while the second image has attributes of ...'.

    as_released: every attribute that one animal has and the other has not, but for the filter's slip (see NOT_VISUAL);
        mostly longer than 77 tokens, so that the end, the second image, is cut off.
    corrected: the filter as it is meant, and on each side the MOST attributes in whose strength the two differ most.

    Args:
        first, second: rows of the attributes.
        binary, continuous: the attributes; only 'corrected' asks for `continuous`.
        protocol: one of the two.

    Raises:
        PcclipError: an unknown protocol.
    """
    names, one, two = binary.columns.to_numpy(), *(binary.iloc[row].to_numpy(dtype=bool) for row in (first, second))
    filtered = np.flatnonzero(np.isin(names, NOT_VISUAL))
    if _released(protocol):
        seen = ~np.isin(np.arange(len(names)), filtered + 1)
        return _SENTENCE.format(*(", ".join(names[only & seen]) for only in (one & ~two, two & ~one)))
    seen = ~np.isin(np.arange(len(names)), filtered)
    gap = np.nan_to_num((continuous.iloc[first] - continuous.iloc[second]).to_numpy(dtype=float))
    sides = [
        ", ".join(names[_strongest(only & seen, larger)]) or "none of these"
        for only, larger in ((one & ~two, gap), (two & ~one, -gap))
    ]
    return f"{_SENTENCE.format(*sides)}."


def _strongest(mask: np.ndarray, gap: np.ndarray) -> np.ndarray:
    """Positions of at most MOST attributes of the mask, the largest gap first."""
    found = np.flatnonzero(mask)
    return found[np.argsort(-gap[found], kind="stable")[:MOST]]


def _matrix(place: Path, name: str) -> pd.DataFrame:
    """A matrix of one row per class and one column per predicate. Raises PcclipError when it has another shape."""
    classes, predicates = _names(place / _CLASSES), _names(place / _PREDICATES)
    try:
        values = np.array([line.split() for line in lines(place / name)], dtype=float)
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
    found = [line.split() for line in lines(path)]
    if any(len(words) != 2 for words in found):
        raise PcclipError(f"{path}: not lines of a number and a name; unpack {_ARCHIVE} again")
    return [name for _, name in found]


def _released(protocol: str) -> bool:
    if protocol not in ("as_released", "corrected"):
        raise PcclipError(f"no protocol {protocol!r}; known: as_released, corrected")
    return protocol == "as_released"
