"""Sets for composed image retrieval: an image, a text of what should be different, and the images that are right then.

A set is a module with `missing(path)`, the lines that say what is not there and where to get it; `read(path)`, which
returns images (id, path, gallery: an image stands once in each gallery it belongs to) and queries (row, start, right:
a tuple of ids, text, before: what the text replaces or '', gallery, members: a tuple of ids or (), weight, reason);
START_IS_CANDIDATE; and RECALLS, the k that its authors report. Adding one is adding it to SETS. Images are never
downloaded here. Only queries whose answers are public and that are no training queries are read.
"""

from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from pcclip.benchmarks.classification import stamp
from pcclip.benchmarks.composed_retrieval import cirr, fashion_iq, simat
from pcclip.config import resolve
from pcclip.data.rows import check_usable, told_apart
from pcclip.errors import PcclipError
from pcclip.runs.files import digest, files_exist

SETS = {"fashion_iq": fashion_iq, "cirr": cirr, "simat": simat}


@dataclass(frozen=True)
class ComposedSet:
    """Queries of an image and a text, and the galleries that are searched.

    Attributes:
        name: as in SETS.
        images: id, path, gallery; the files are there.
        queries: start, right, text, before, gallery, members, weight, as in the module's docstring.
        left_out: path, reason of rows and images that cannot be used.
        start_is_candidate: whether the starting image is an answer like any other, as its authors score it.
        recalls: the k of recall@k.
    """

    name: str
    images: pd.DataFrame
    queries: pd.DataFrame
    left_out: pd.DataFrame
    start_is_candidate: bool
    recalls: tuple[int, ...]

    def identity(self) -> str:
        """Hash of all queries, and each image file's size and time stamp: what a stage's key must notice."""
        return digest(
            [
                self.name,
                self.queries.to_csv(index=False),
                self.images.to_csv(index=False),
                [stamp(path) for path in dict.fromkeys(self.images.path)],
            ]
        )


def missing(name: str, path: str | Path) -> list[str]:
    """One line for each thing of the set that is not at `path`, with where to get it. PcclipError: no such set."""
    return _module(name).missing(resolve(path).resolve())


def load_composed(name: str, path: str | Path, max_bad: float = 0.05) -> ComposedSet:
    """Read a set from its folder.

    Args:
        name: one of SETS.
        path: the set's folder, laid out as its module says.
        max_bad: a larger share of bad queries, or of images that are not there, fails.

    Raises:
        PcclipError: no such set, something missing, nothing usable, or too much that is bad.
    """
    module, root = _module(name), resolve(path).resolve()
    if lacking := module.missing(root):
        raise PcclipError(f"composed set {name}: {'; '.join(lacking)}")
    images, queries = module.read(root)
    here = files_exist(images.path)
    present = set(zip(images["id"][here], images.gallery[here], strict=True))
    queries = queries.assign(
        right=[
            tuple(i for i in ids if (i, gallery) in present)
            for ids, gallery in zip(queries.right, queries.gallery, strict=True)
        ]
    )
    known = [(start, gallery) in present for start, gallery in zip(queries.start, queries.gallery, strict=True)]
    whole = pd.Series(known, index=queries.index) & (queries.right.str.len() > 0)
    queries.loc[(queries.reason == "") & ~whole, "reason"] = "missing file"
    usable, rest = told_apart(queries)
    gone = pd.DataFrame({"path": images.path[~here].unique(), "reason": "missing file"})
    left_out = pd.concat([rest, gone], ignore_index=True)
    for one, many, good, bad in (
        ("query", "queries", len(usable), len(rest)),
        ("image", "images", int(here.sum()), int((~here).sum())),
    ):
        check_usable(f"composed set {name}", root, one, many, good, bad, left_out, max_bad)
    return ComposedSet(
        name,
        images[here].reset_index(drop=True),
        usable.drop(columns=["row", "reason"]),
        left_out,
        module.START_IS_CANDIDATE,
        module.RECALLS,
    )


def _module(name: str):
    if name not in SETS:
        raise PcclipError(f"no composed set {name!r}; there are: {', '.join(SETS)}")
    return SETS[name]
