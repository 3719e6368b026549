"""ImageNet-1k's validation images, and the four sets that ask whether a result on them holds elsewhere.

    imagenet         val/<wnid>/*.JPEG, or all in val/ beside Kaggle's LOC_val_solution.csv (Russakovsky et al. 2015)
    imagenet_v2      imagenetv2-matched-frequency-format-val/<0..999>/*.jpeg (Recht et al. 2019)
    imagenet_r       imagenet-r/<wnid>/*.jpg: art, toys, sketches of 200 classes (Hendrycks et al. 2021)
    imagenet_a       imagenet-a/<wnid>/*.jpg: what a ResNet-50 got wrong, of 200 classes (Hendrycks et al. 2021)
    imagenet_sketch  sketch/<wnid>/*.JPEG (Wang et al. 2019)

A wnid is a class's WordNet id; the 1000 classes are in the order of their wnids. Names are open_clip's; as it has
'missile' and 'sunglasses' twice, one of each is called by another of its WordNet names. Images of
train/<wnid>, the first TUNE_EACH of a class by name, are the 'tune' split; without them that split is empty.
"""

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pandas as pd

from pcclip.benchmarks.benchmark import Benchmark, Reader, benchmark_of_images
from pcclip.benchmarks.classification import FAMILY
from pcclip.benchmarks.reading import find, read_table
from pcclip.encoders.imagenet_classes import imagenet_names
from pcclip.errors import PcclipError
from pcclip.images import SUFFIXES
from pcclip.runs.progress import say
from pcclip.torchvision_shim import declare_missing

TUNE_EACH = 50  # training images of a class, as many as there are validation images of it
_KAGGLE, _SOLUTION = "ILSVRC/Data/CLS-LOC", "LOC_val_solution.csv"
_TRAIN = ("train/", f"{_KAGGLE}/train/")
_RENAMED = {744: "projectile missile", 836: "sunglass"}


def class_names() -> list[str]:
    """open_clip's names of the 1000 classes in their order, but for two, so that no two classes share a name."""
    return [_RENAMED.get(row, name) for row, name in enumerate(imagenet_names())]


@cache
def wnids() -> tuple[str, ...]:
    """The WordNet ids of the 1000 classes in their order (timm's list)."""
    declare_missing()
    from timm.data import ImageNetInfo

    return tuple(ImageNetInfo("imagenet-1k").label_names())


@dataclass(frozen=True)
class Variant:
    """Parameters of the reader that all five sets share, a Reader's `read` and `missing_lines` being its methods.

    Attributes:
        name: as in the registry.
        folders: where its images may be: below the root, or the root itself where it has the folder's name.
        size: the number of test images as published.
        source: what to download.
        numbered: folders are named by the number of the class, not by its wnid.
        subset: only the classes that have a folder are candidates, as is usual for the sets of 200 classes.
    """

    name: str
    folders: tuple[str, ...]
    size: int
    source: str
    numbered: bool = False
    subset: bool = False

    def missing(self, root: Path) -> list[str]:
        """Whether there is a folder of this set, with a folder for each class or, flat, with Kaggle's solution."""
        place = self._place(root)
        if place is None:
            return [f"{root}: no {self.folders[0]}/ in it; download {self.source} and unpack it there"]
        if any(self._class_folders(place)) or self._solution(root, place):
            return []
        kind = "number" if self.numbered else "WordNet id"
        flat = f", and no {_SOLUTION} beside it" if self.name == "imagenet" else ""
        return [f"{place}: no folder named by the {kind} of a class{flat}; unpack {self.source} again"]

    def read(self, root: Path) -> Benchmark:
        """Read the set; `left_out` are folders and images that are of none of its classes.

        Raises PcclipError when there are no images of its classes, or Kaggle's solution is not as published.
        """
        root = root.resolve()
        place = self._place(root)
        if place is None:
            raise PcclipError(self.missing(root)[0])
        folders = list(self._class_folders(place))
        if folders:
            rows = [(picture, number, "test", "") for folder, number in folders for picture in _pictures(folder)]
            others = {path for path in place.iterdir() if path.is_dir()} - {folder for folder, _ in folders}
            rows += [(str(path), -1, "test", "no class") for path in sorted(others)]
        else:
            rows = list(_flat(place, self._solution(root, place)))
        present = sorted({number for _, number, _, _ in rows} - {-1})
        if not present:
            raise PcclipError(f"{place}: no images of any class in it; unpack {self.source} again")
        count = sum(number >= 0 for _, number, _, _ in rows)
        if count != self.size:
            say(f"{self.name}: {count} images here; the whole set has {self.size}")
        candidates = present if self.subset else list(range(len(wnids())))
        images = pd.DataFrame([*rows, *_training(root, candidates)], columns=["path", "label", "split", "reason"])
        images["id"] = [os.path.relpath(path, root) for path in images.path]
        images["label"] = images.label.map({number: label for label, number in enumerate(candidates)}).fillna(-1)
        names = class_names()
        return benchmark_of_images(
            Benchmark(
                self.name, FAMILY, images.astype({"label": int}), classes=[names[number] for number in candidates]
            )
        )

    def _place(self, root: Path) -> Path | None:
        """The folder of the images."""
        itself = ("",) if root.resolve().name in {Path(folder).name for folder in self.folders} else ()
        return find(root, *(f"{folder}/" for folder in self.folders), *itself)

    def _class_folders(self, place: Path) -> Iterator[tuple[Path, int]]:
        """The folders of classes with the class's number, in the order of their names."""
        known = {str(k) if self.numbered else wnid: k for k, wnid in enumerate(wnids())}
        folders = sorted(path for path in place.iterdir() if path.is_dir())
        return ((folder, known[folder.name]) for folder in folders if folder.name in known)

    def _solution(self, root: Path, place: Path) -> Path | None:
        """Kaggle's file of the classes of the validation images."""
        if self.name != "imagenet":
            return None
        return find(root, _SOLUTION) or find(place, _SOLUTION, f"../{_SOLUTION}")


def _flat(place: Path, solution: Path | None) -> Iterator[tuple[str, int, str, str]]:
    """The images of one folder by Kaggle's solution: ImageId, PredictionString 'wnid x y x y [wnid ...]'."""
    if solution is None:
        raise PcclipError(f"{place}: no {_SOLUTION} beside it")
    labels = read_table(solution, ["ImageId", "PredictionString"], "download it again", dtype=str)
    numbers = {wnid: number for number, wnid in enumerate(wnids())}
    number_of = dict(
        zip(labels.ImageId, labels.PredictionString.fillna("").str.split(" ").str[0].map(numbers), strict=True)
    )
    for picture in _pictures(place):
        number = number_of.get(Path(picture).stem)
        yield (picture, -1, "test", "no class") if pd.isna(number) else (picture, int(number), "test", "")


def _training(root: Path, candidates: Iterable[int]) -> Iterator[tuple[str, int, str, str]]:
    """The first TUNE_EACH training images of each candidate, where there are training images."""
    place = find(root, *_TRAIN)
    for number in candidates if place else ():
        folder = place / wnids()[number]
        for picture in _pictures(folder)[:TUNE_EACH] if folder.is_dir() else ():
            yield picture, number, "tune", ""


def _pictures(folder: Path) -> list[str]:
    """The image files of a folder, by name."""
    return [f"{folder}/{name}" for name in sorted(os.listdir(folder)) if os.path.splitext(name)[1].lower() in SUFFIXES]


_BERKELEY = "https://people.eecs.berkeley.edu/~hendrycks"
_HUB = "https://huggingface.co/datasets"
_VARIANTS = (
    Variant(
        "imagenet",
        ("val", f"{_KAGGLE}/val"),
        50_000,
        "ILSVRC2012_img_val.tar (6.7 GB, from "
        "https://image-net.org, one folder for each wnid) or Kaggle's imagenet-object-localization-challenge",
    ),
    Variant(
        "imagenet_v2",
        ("imagenetv2-matched-frequency-format-val",),
        10_000,
        f"{_HUB}/vaishaal/ImageNetV2/resolve/main/imagenetv2-matched-frequency.tar.gz (1.3 GB)",
        numbered=True,
    ),
    Variant("imagenet_r", ("imagenet-r",), 30_000, f"{_BERKELEY}/imagenet-r.tar (2.2 GB)", subset=True),
    Variant("imagenet_a", ("imagenet-a",), 7_500, f"{_BERKELEY}/imagenet-a.tar (0.7 GB)", subset=True),
    Variant(
        "imagenet_sketch",
        ("sketch", "imagenet-sketch"),
        50_889,
        f"{_HUB}/songweig/imagenet_sketch/resolve/main/data/ImageNet-Sketch.zip (7.8 GB)",
    ),
)
READERS = tuple(Reader(variant.name, variant.read, missing_lines=variant.missing) for variant in _VARIANTS)
