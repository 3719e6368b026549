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
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pandas as pd

from pcclip.benchmarks.classification import LabelledSet
from pcclip.encoders.imagenet_classes import imagenet_names
from pcclip.errors import PcclipError
from pcclip.images import SUFFIXES
from pcclip.runs.progress import say
from pcclip.torchvision_shim import declare_missing

TUNE_EACH = 50  # training images of a class, as many as there are validation images of it
_KAGGLE, _SOLUTION = "ILSVRC/Data/CLS-LOC", "LOC_val_solution.csv"
_TRAIN = ("train", f"{_KAGGLE}/train")


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
    """One of the sets.

    Attributes:
        name: as in VARIANTS.
        folders: where its images may be: below the root, or the root itself where it has the folder's name.
        whole: how many images the set has.
        source: what to download.
        numbered: folders are named by the number of the class, not by its wnid.
        subset: only the classes that have a folder are candidates, as is usual for the sets of 200 classes.
    """

    name: str
    folders: tuple[str, ...]
    whole: int
    source: str
    numbered: bool = False
    subset: bool = False

    def missing(self, root: Path) -> list[str]:
        """Whether there is a folder of this set, with a folder for each class or, flat, with Kaggle's solution."""
        place = self._place(root)
        if place is None:
            return [f"{root}: no {self.folders[0]}/ in it; download {self.source} and unpack it there"]
        if not any(self._folders(place)) and self._solution(root, place) is None:
            kind = "number" if self.numbered else "WordNet id"
            flat = f", and no {_SOLUTION} beside it" if self.name == "imagenet" else ""
            return [f"{place}: no folder named by the {kind} of a class{flat}; unpack {self.source} again"]
        return []

    def read(self, root: Path) -> LabelledSet:
        """Read the set; `left_out` are folders and images that are of none of its classes.

        Raises PcclipError when there are no images of its classes, or Kaggle's solution is not as published.
        """
        root = root.resolve()
        place = self._place(root)
        test, left_out = self._test(root, place)
        if test.empty:
            raise PcclipError(f"{place}: no images of any class in it; unpack {self.source} again")
        if len(test) != self.whole:
            say(f"{self.name}: {len(test)} images here; the whole set has {self.whole}")
        candidates = sorted(set(test["class"])) if self.subset else range(len(wnids()))
        table = pd.concat([test, _training(root, candidates)], ignore_index=True)
        table["label"] = table["class"].map({found: label for label, found in enumerate(candidates)}).astype(int)
        table["id"] = [os.path.relpath(image, root) for image in table.path]
        names = class_names()
        return LabelledSet(
            self.name,
            table[["id", "label", "split"]],
            list(table.path),
            [names[found] for found in candidates],
            left_out=left_out,
        )

    def _place(self, root: Path) -> Path | None:
        """The folder of the images."""
        places = [root / folder for folder in self.folders]
        places += [root] if root.resolve().name in {place.name for place in places} else []
        return next((place for place in places if place.is_dir()), None)

    def _folders(self, place: Path) -> Iterator[tuple[Path, int]]:
        """The folders of classes with the class's number, in the order of their names."""
        known = {str(k) if self.numbered else wnid: k for k, wnid in enumerate(wnids())}
        for folder in sorted(path for path in place.iterdir() if path.is_dir()):
            if folder.name in known:
                yield folder, known[folder.name]

    def _solution(self, root: Path, place: Path) -> Path | None:
        """Kaggle's file of the classes of the validation images."""
        places = [folder / _SOLUTION for folder in (root, place, place.parent)] if self.name == "imagenet" else []
        return next((file for file in places if file.is_file()), None)

    def _test(self, root: Path, place: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
        """Columns path, class, split of the images; path, reason of what is of no class."""
        found = list(self._folders(place))
        if not found:
            return _flat(place, self._solution(root, place))
        table = _table([(image, number) for folder, number in found for image in _images(folder)], "test")
        others = sorted({path for path in place.iterdir() if path.is_dir()} - {folder for folder, _ in found})
        return table, pd.DataFrame({"path": [str(path) for path in others], "reason": "no class"}, dtype=str)


def _flat(place: Path, solution: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The images of one folder by Kaggle's solution: ImageId, PredictionString 'wnid x y x y [wnid ...]'."""
    try:
        given = pd.read_csv(solution, dtype=str, usecols=["ImageId", "PredictionString"])
        wnid = given.PredictionString.str.split().str[0]
    except (ValueError, UnicodeDecodeError, AttributeError) as error:
        raise PcclipError(
            f"{solution}: not a table of ImageId and PredictionString ({error}); download it again"
        ) from None
    number = dict(zip(given.ImageId, wnid.map({wnid: k for k, wnid in enumerate(wnids())}), strict=True))
    images = pd.DataFrame({"path": _images(place)}, dtype=str)
    images["class"] = [number.get(Path(image).stem) for image in images.path]
    known = images["class"].notna()
    left_out = images[~known][["path"]].assign(reason="no class").reset_index(drop=True)
    return _table(list(zip(images.path[known], images["class"][known].astype(int), strict=True)), "test"), left_out


def _training(root: Path, candidates) -> pd.DataFrame:
    """The first TUNE_EACH training images of each candidate, where there are training images."""
    place = next((root / folder for folder in _TRAIN if (root / folder).is_dir()), None)
    folders = [(place / wnids()[number], number) for number in candidates] if place else []
    return _table(
        [(image, number) for folder, number in folders if folder.is_dir() for image in _images(folder)[:TUNE_EACH]],
        "tune",
    )


def _table(rows: list[tuple[str, int]], split: str) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["path", "class"]).assign(split=split).astype({"class": int})


def _images(folder: Path) -> list[str]:
    """The image files of a folder, by name."""
    return [f"{folder}/{name}" for name in sorted(os.listdir(folder)) if os.path.splitext(name)[1].lower() in SUFFIXES]


_BERKELEY = "https://people.eecs.berkeley.edu/~hendrycks"
_HUB = "https://huggingface.co/datasets"
VARIANTS = {
    variant.name: variant
    for variant in (
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
}
