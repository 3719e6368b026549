"""Compositional benchmarks: images and texts made of the same things, put together in another way.

A set is a module or an object with `missing(path)`, the lines that say what is not there and where to get it;
`read(path)`, which returns one row per item: row (what to call it), image_0 (a path; image_1 too where FORM is
'groups'), text_0, text_1, ..., part, group, tags (see CompositionalSet) and reason ('' where it can be used), and box
(left, top, right, bottom in pixels) where only a part of the image is shown; and FORM, which says what belongs
together. Adding one is adding it to SETS and to evaluate.compositional in params.py. Images are never downloaded here.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from pcclip.benchmarks.classification import LabelledSet, stamp, unlabelled
from pcclip.benchmarks.compositionality import (
    eqben,
    mmvp,
    naturalbench,
    order,
    sugarcrepe,
    sugarcrepe_pp,
    visual_genome,
    vl_checklist,
    winoground,
)
from pcclip.config import resolve
from pcclip.data.rows import check_usable, told_apart
from pcclip.errors import PcclipError
from pcclip.images import BadImage, open_image
from pcclip.runs.files import digest, files_exist

SETS = {
    "winoground": winoground,
    "vg_relation": visual_genome.RELATION,
    "vg_attribution": visual_genome.ATTRIBUTION,
    "coco_order": order.COCO,
    "flickr30k_order": order.FLICKR30K,
    "sugarcrepe": sugarcrepe,
    "sugarcrepe_pp": sugarcrepe_pp,
    "vl_checklist": vl_checklist,
    "eqben": eqben,
    "mmvp_vlm": mmvp,
    "naturalbench": naturalbench,
}
FORMS = {  # what belongs together
    "groups": "two images and two texts: text k belongs to image k and to no other",
    "choices": "one image; the first text is right and all others are wrong ('' is no text)",
    "triples": "one image; the first two texts are right, in different words, and the third is wrong",
}


@dataclass(frozen=True)
class CompositionalSet:
    """Items of images and texts, and which belong together.

    Attributes:
        name: as in SETS.
        form: one of FORMS.
        images: one row per image: id (its path below the set's folder, and its box), path, box (or None) and photo
            (the id of the whole photograph: items that show parts of one photograph are not independent).
        items: one row per item: image_0 (an id; image_1 too in 'groups'), text_0, ..., part (the authors' own, '' where
            there is one only), group (a macro average gives each the same weight; '' is left out of it) and tags (names
            of further subsets that it is in).
        left_out: path, reason of rows that cannot be used.
    """

    name: str
    form: str
    images: pd.DataFrame
    items: pd.DataFrame
    left_out: pd.DataFrame

    @property
    def texts(self) -> list[str]:
        """The columns of the texts, in order."""
        return columns(self.items, "text_")

    def drawn(self, limit: int | None, seed: int) -> "CompositionalSet":
        """At most `limit` items of each part, and their images; all with None."""
        items = self.items
        if limit is not None:
            order = np.random.default_rng(seed).permutation(len(items))
            place = items.part.iloc[order].groupby(items.part.iloc[order]).cumcount()
            items = items.iloc[np.sort(order[place.to_numpy() < limit])]
        used = {image for column in columns(items, "image_") for image in items[column]}
        return CompositionalSet(
            self.name,
            self.form,
            self.images[self.images["id"].isin(used)].reset_index(drop=True),
            items.reset_index(drop=True),
            self.left_out,
        )

    def pictures(self, max_bad: float) -> LabelledSet:
        """The images as the stage of vectors wants them; a larger share of unreadable ones than `max_bad` fails."""
        plain, boxes = unlabelled(self.name, self.images, max_bad), list(self.images.box)
        if not any(boxes) and not any(path.endswith(".npy") for path in plain.images):
            return plain
        return replace(plain, images=_Pictures(plain.images, boxes), files=plain.images)

    def identity(self) -> str:
        """Hash of all items, and each image file's size and time stamp: what a stage's key must notice."""
        return digest(
            [
                self.name,
                self.items.to_csv(index=False),
                self.images.to_csv(index=False),
                [stamp(file) for file in dict.fromkeys(self.images.path)],
            ]
        )


def missing(name: str, path: str | Path) -> list[str]:
    """One line for each thing of the set that is not at `path`, with where to get it. PcclipError: no such set."""
    return _source(name).missing(resolve(path).resolve())


def load_compositional(
    name: str, path: str | Path, limit: int | None = None, max_bad: float = 0.05, seed: int = 0
) -> CompositionalSet:
    """Read a compositional benchmark from its folder.

    Args:
        name: one of SETS.
        path: the set's folder, laid out as its module says.
        limit: at most so many items of each part; None keeps all.
        max_bad: a larger share of bad rows fails.
        seed: of the draw.

    Raises:
        PcclipError: no such set, something missing, nothing usable, or too many bad rows.
    """
    source, root = _source(name), resolve(path).resolve()
    if lacking := source.missing(root):
        raise PcclipError(f"compositional set {name}: {'; '.join(lacking)}")
    table = source.read(root)
    _note_what_is_lacking(table, source.FORM)
    usable, left_out = told_apart(table)
    check_usable(f"compositional set {name}", root, "item", "items", len(usable), len(left_out), left_out, max_bad)
    return _assembled(name, source.FORM, root, usable, left_out).drawn(limit, seed)


def columns(table: pd.DataFrame, start: str) -> list[str]:
    """The numbered columns START0, START1, ... of a table."""
    return [column for k in range(len(table.columns)) if (column := f"{start}{k}") in table]


def _note_what_is_lacking(table: pd.DataFrame, form: str) -> None:
    """Give otherwise usable rows without a text, a wrong text or a file that reason, and call them by the file."""
    lacking = table[columns(table, "text_")] == ""
    lacking = lacking.text_0 | lacking.iloc[:, 1:].all(axis=1) if form == "choices" else lacking.any(axis=1)
    table.loc[(table.reason == "") & lacking, "reason"] = "no text"
    for column in columns(table, "image_")[::-1]:  # the first is named where both are missing
        looked = (table.reason == "") | (table.reason == "missing file")
        gone = table.index[looked][~files_exist(table.loc[looked, column])]
        table.loc[gone, "row"] = table.loc[gone, column]
        table.loc[gone, "reason"] = "missing file"


def _assembled(name: str, form: str, root: Path, usable: pd.DataFrame, left_out: pd.DataFrame) -> CompositionalSet:
    shown = columns(usable, "image_")
    boxes = list(usable.box) if "box" in usable else [None] * len(usable)
    whole = {path: Path(os.path.relpath(path, root)).as_posix() for column in shown for path in usable[column].unique()}
    items, images = usable.drop(columns=["row", "reason", *shown, *(["box"] if "box" in usable else [])]), {}
    ids = {column: [] for column in shown}
    for box, *paths in zip(boxes, *(usable[column] for column in shown), strict=True):
        for column, path in zip(shown, paths, strict=True):
            ids[column].append(whole[path] + ("" if box is None else "#" + ",".join(map(str, box))))
            images.setdefault(ids[column][-1], (path, box, whole[path]))
    items = items.assign(**ids)
    table = pd.DataFrame([(one, *about) for one, about in images.items()], columns=["id", "path", "box", "photo"])
    return CompositionalSet(name, form, table.astype({"box": object}), items, left_out)


class _Pictures(Sequence):
    """Images that are part of a photograph, or video frames kept as arrays; opened only when asked for."""

    def __init__(self, paths: Sequence[str], boxes: Sequence[tuple | None]):
        self._paths, self._boxes = paths, boxes

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, row: int) -> Image.Image:
        """Raises BadImage when the file cannot be read."""
        path, box = self._paths[int(row)], self._boxes[int(row)]
        image = _frame(path) if path.endswith(".npy") else open_image(path)
        return image if box is None else image.crop(box)


def _frame(path: str) -> Image.Image:
    """A video frame, an array (h, w, 3) of bytes: blue, green, red."""
    try:
        values = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise BadImage(f"not an array ({error})") from None
    if values.ndim != 3 or values.shape[2] != 3 or values.dtype != np.uint8 or not values.size:
        raise BadImage(f"not an image: an array {values.shape} of {values.dtype}")
    return Image.fromarray(np.ascontiguousarray(values[:, :, ::-1]))


def _source(name: str):
    if name not in SETS:
        raise PcclipError(f"no compositional set {name!r}; there are: {', '.join(SETS)}")
    return SETS[name]
