"""Relative Attributes (Parikh and Grauman 2011), version 2: PubFig, 772 faces, and OSR, 2,688 outdoor scenes.

Either folder of the release has data.mat and the images. The fields that are read, as public loaders read them too:

    im_names           n cells, the files' names
    class_labels       n x 1, from 1: PubFig's eight people, OSR's eight kinds of scene
    used_for_training  n x 1, 1 for the authors' training images (30 of each class; PubFig has 241), else 0
    attribute_names    a cells
    relative_ordering  a x c: how much of an attribute a class has, compared with the others; equal where undecided

The values are of classes, not of images, so images of one class are tied; test images are of the classes that were
trained on. The images of PubFig are in images/, OSR's in spatial_envelope_256x256_static_8outdoorcategories/.
"""

from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from pcclip.benchmarks.benchmark import Benchmark, Reader, benchmark_of_images
from pcclip.benchmarks.matlab import fields, texts
from pcclip.benchmarks.relative_attributes import FAMILY, plain_name
from pcclip.errors import PcclipError

_HOME = "https://www.cc.gatech.edu/~parikh/relative.html (data)"
_FIELDS = ["im_names", "class_labels", "used_for_training", "attribute_names", "relative_ordering"]


def _read(name: str, folder: str, place: Path) -> Benchmark:
    """All images of the set `name`, which are in `folder`. Raises PcclipError when data.mat is not as published."""
    names, labels, training, attributes, ordering = fields(place / "data.mat", _FIELDS, _HOME)
    files, labels, training = texts(names), labels.ravel(), training.ravel()
    columns = [plain_name(attribute) for attribute in texts(attributes)]
    if not len(files) == len(labels) == len(training) or ordering.shape[:1] != (len(columns),):
        raise PcclipError(
            f"{place / 'data.mat'}: {len(files)} images, {len(labels)} classes and {len(training)} splits of them, "
            f"{len(columns)} attributes and {ordering.shape[0]} orders; download it again from {_HOME}"
        )
    known = (labels >= 1) & (labels <= ordering.shape[1])
    images = pd.DataFrame(
        {
            "id": files,
            "path": [f"{place}/{folder}/{file}" for file in files],
            "split": np.where(training == 1, "tune", "test"),
            "group": [f"class {label:g}" for label in labels],
            "reason": np.where(known, "", "no class"),
        }
    )
    values = ordering.astype(float)[:, np.where(known, labels, 1).astype(int) - 1].T
    return benchmark_of_images(Benchmark(name, FAMILY, images, values=pd.DataFrame(values, columns=columns)))


def _reader(name: str, folder: str, published: int) -> Reader:
    advice = f"download relative_attributes_v2.zip from {_HOME} and unpack its folder {name} there"
    return Reader(
        name,
        partial(_read, name, folder),
        {advice: ["data.mat", f"{folder}/"]},
        folders=("", name, f"relative_attributes/{name}"),
        published=published,
    )


PUBFIG = _reader("pubfig", "images", 772)
OSR = _reader("osr", "spatial_envelope_256x256_static_8outdoorcategories", 2688)
