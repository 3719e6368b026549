"""Relative Attributes (Parikh and Grauman 2011), version 2: PubFig, 772 faces, and OSR, 2,688 outdoor scenes.

Either folder of the release has data.mat and the images. The fields that are read, as public loaders read them too:

    im_names           n cells, the files' names
    class_labels       n x 1, from 1: PubFig's eight people, OSR's eight kinds of scene
    used_for_training  n x 1, 1 for the authors' training images (30 of each class), else 0
    attribute_names    a cells
    relative_ordering  a x c: how much of an attribute a class has, compared with the others; equal where undecided

The values are of classes, not of images, so images of one class are tied; test images are of the classes that were
trained on. The images of PubFig are in images/, those of OSR in spatial_envelope_256x256_static_8outdoorcategories/.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from pcclip.benchmarks.classification import place_of
from pcclip.benchmarks.matlab import fields, texts
from pcclip.benchmarks.relative_attributes import RelativeSet, of_values, plain
from pcclip.errors import PcclipError

_HOME = "https://www.cc.gatech.edu/~parikh/relative.html (data)"
_FIELDS = ["im_names", "class_labels", "used_for_training", "attribute_names", "relative_ordering"]


@dataclass(frozen=True)
class Ordered:
    """One of the two sets."""

    name: str
    images: str  # the folder of the images
    PUBLISHED: int

    def missing(self, root: Path) -> list[str]:
        """What of data.mat and the images is not there."""
        place = self._place(root)
        lost = [name for name in ("data.mat", self.images) if not (place / name).exists()]
        return (
            [
                f"{place}: no {', '.join(lost)}; download relative_attributes_v2.zip from {_HOME} and unpack its "
                f"folder {self.name} in {root}"
            ]
            if lost
            else []
        )

    def read(self, root: Path) -> RelativeSet:
        """All its images. Raises PcclipError when data.mat is not as published."""
        place = self._place(root).resolve()
        names, labels, training, attributes, ordering = fields(place / "data.mat", _FIELDS, _HOME)
        names, labels, training = texts(names), labels.ravel(), training.ravel()
        attributes = [plain(name) for name in texts(attributes)]
        if not len(names) == len(labels) == len(training) or ordering.shape[:1] != (len(attributes),):
            raise PcclipError(
                f"{place / 'data.mat'}: {len(names)} images, {len(labels)} classes and {len(training)} "
                f"splits of them, {len(attributes)} attributes and {ordering.shape[0]} orders; download "
                f"it again from {_HOME}"
            )
        known = (labels >= 1) & (labels <= ordering.shape[1])
        table = pd.DataFrame(
            {
                "id": names,
                "path": [f"{place}/{self.images}/{name}" for name in names],
                "group": [f"class {label:g}" for label in labels],
                "split": np.where(training == 1, "tune", "test"),
                "reason": np.where(known, "", "no class"),
            }
        )
        values = ordering.astype(float)[:, np.where(known, labels, 1).astype(int) - 1].T
        return of_values(self.name, table, pd.DataFrame(values, columns=attributes))

    def _place(self, root: Path) -> Path:
        return place_of(root, ["", self.name, f"relative_attributes/{self.name}"], "data.mat")


PUBFIG = Ordered("pubfig", "images", 772)
OSR = Ordered("osr", "spatial_envelope_256x256_static_8outdoorcategories", 2688)
