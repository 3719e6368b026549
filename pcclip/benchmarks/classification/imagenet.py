"""ImageNet-1k's validation images, and the four sets that ask whether a result on them holds elsewhere.

    imagenet         val/<wnid>/*.JPEG (Russakovsky et al. 2015)
    imagenet_v2      imagenetv2-matched-frequency-format-val/<0..999>/*.jpeg (Recht et al. 2019)
    imagenet_r       imagenet-r/<wnid>/*.jpg: art, toys, sketches of 200 classes (Hendrycks et al. 2021)
    imagenet_a       imagenet-a/<wnid>/*.jpg: what a ResNet-50 got wrong, of 200 classes (Hendrycks et al. 2021)
    imagenet_sketch  sketch/<wnid>/*.JPEG (Wang et al. 2019)

A wnid is a class's WordNet id; the 1000 classes are in the order of their wnids. Names are open_clip's; as it has
'missile' and 'sunglasses' twice, one of each is called by another of its WordNet names. Images of
train/<wnid>, the first TUNE_EACH of a class by name, are the 'tune' split; without them that split is empty.
"""

import os
from functools import cache, partial
from pathlib import Path

import pandas as pd

from pcclip.benchmarks.benchmark import Benchmark, Reader, find
from pcclip.benchmarks.classification import FAMILY, labelled_files
from pcclip.encoders.imagenet_classes import imagenet_names
from pcclip.errors import PcclipError
from pcclip.images import SUFFIXES
from pcclip.runs.progress import say
from pcclip.torchvision_shim import declare_missing

TUNE_EACH = 50  # training images of a class, as many as there are validation images of it
_KAGGLE = "ILSVRC/Data/CLS-LOC"
_RENAMED = {744: "projectile missile", 836: "sunglass"}
_BERKELEY = "https://people.eecs.berkeley.edu/~hendrycks"
_HUB = "https://huggingface.co/datasets"
Row = tuple[str, int, str]  # path, number of the class (-1 for none), split


def class_names() -> list[str]:
    """open_clip's names of the 1000 classes in their order, but for two, so that no two classes share a name."""
    return [_RENAMED.get(row, name) for row, name in enumerate(imagenet_names())]


@cache
def wnids() -> tuple[str, ...]:
    """The WordNet ids of the 1000 classes in their order (timm's list)."""
    declare_missing()
    from timm.data import ImageNetInfo

    return tuple(ImageNetInfo("imagenet-1k").label_names())


def _read(name: str, size: int, place: Path) -> Benchmark:
    """The set `name`, of `size` test images as published; `left_out` are folders and images of none of its classes.

    Of the sets of 200 classes only the classes that have a folder are candidates, as is usual. Raises PcclipError when
    there are no images of its classes.
    """
    known = {str(k) if name == "imagenet_v2" else wnid: k for k, wnid in enumerate(wnids())}
    rows: list[Row] = []
    for folder in sorted(path for path in place.iterdir() if path.is_dir()):
        number = known.get(folder.name, -1)
        rows += _pictures(folder, number, "test") if number >= 0 else [(str(folder), -1, "test")]
    if not (present := sorted({number for _, number, _ in rows} - {-1})):
        raise PcclipError(f"{place}: no images of any class in it; unpack the set again")
    count = sum(number >= 0 for _, number, _ in rows)
    if count != size:
        say(f"{name}: {count} images here; the whole set has {size}")
    candidates = present if name in ("imagenet_r", "imagenet_a") else list(range(len(wnids())))
    training = find(place, "../train/", f"../{_KAGGLE}/train/")
    for number in candidates:
        tune_folder = training / wnids()[number] if training else None
        rows += _pictures(tune_folder, number, "tune")[:TUNE_EACH] if tune_folder and tune_folder.is_dir() else []
    images = pd.DataFrame(rows, columns=["path", "label", "split"])
    images["id"] = [os.path.relpath(path, place.parent) for path in images.path]
    images["label"] = images.label.map({number: label for label, number in enumerate(candidates)})
    names = class_names()
    return labelled_files(Benchmark(name, FAMILY, images, classes=[names[number] for number in candidates]))


def _pictures(folder: Path, number: int, split: str) -> list[Row]:
    """The image files of a folder, by name."""
    names = [name for name in sorted(os.listdir(folder)) if os.path.splitext(name)[1].lower() in SUFFIXES]
    return [(f"{folder}/{name}", number, split) for name in names]


def _reader(name: str, size: int, folders: tuple[str, ...], source: str) -> Reader:
    """The reader of a set that lies in one of the folders, or is itself a folder of that name."""
    classes = "[0-9]*/" if name == "imagenet_v2" else "n[0-9]*/"
    itself = [f"../{Path(folder).name}/{classes}" for folder in folders]
    alternatives = (f"{folders[0]}/ with a folder {classes} for each class", *itself)
    needs = {f"download {source} and unpack it there": [alternatives]}
    return Reader(name, partial(_read, name, size), needs, folders=("", *folders))


READERS = (
    _reader(
        "imagenet",
        50_000,
        ("val", f"{_KAGGLE}/val"),
        "ILSVRC2012_img_val.tar (6.7 GB, from https://image-net.org, one folder for each wnid) or Kaggle's "
        "imagenet-object-localization-challenge",
    ),
    _reader(
        "imagenet_v2",
        10_000,
        ("imagenetv2-matched-frequency-format-val",),
        f"{_HUB}/vaishaal/ImageNetV2/resolve/main/imagenetv2-matched-frequency.tar.gz (1.3 GB)",
    ),
    _reader("imagenet_r", 30_000, ("imagenet-r",), f"{_BERKELEY}/imagenet-r.tar (2.2 GB)"),
    _reader("imagenet_a", 7_500, ("imagenet-a",), f"{_BERKELEY}/imagenet-a.tar (0.7 GB)"),
    _reader(
        "imagenet_sketch",
        50_889,
        ("sketch", "imagenet-sketch"),
        f"{_HUB}/songweig/imagenet_sketch/resolve/main/data/ImageNet-Sketch.zip (7.8 GB)",
    ),
)
