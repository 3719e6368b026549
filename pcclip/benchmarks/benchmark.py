"""Benchmark: a public set as it was read, the same class for every family; Reader: how a set is found and read.

Below them is what readers share: pictures that are no files, where files are, JSON files, tables and lists of lines.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from pcclip.errors import PcclipError, one_line
from pcclip.images import BadImage, file_of, open_image
from pcclip.runs.files import digest, files_exist, load_json, stamp

IMAGE_COLUMNS = ("first", "second", "image_0", "image_1")  # of items, where they name the images of an item
Box = tuple[int, int, int, int]  # left, top, right, bottom in pixels
NO_FAULT = {"val split", "neither has more", "empty folder"}  # reasons to leave a row out that do not count as bad


class LazyPictures(Sequence[Image.Image]):
    """Pictures that are made each time one is asked for.

    Args:
        make: makes the picture of a number.
        numbers: of the pictures, in their order.
    """

    def __init__(self, make: Callable[[int], Image.Image], numbers: Sequence[int] | np.ndarray):
        self._make, self._numbers = make, np.asarray(numbers, dtype=np.int64)

    def __len__(self) -> int:
        return len(self._numbers)

    def __getitem__(self, row: int) -> Image.Image:  # type: ignore[override]
        return self._make(int(self._numbers[row]))

    def subset(self, rows: Sequence[int] | np.ndarray) -> "LazyPictures":
        """The pictures at these rows."""
        return LazyPictures(self._make, self._numbers[np.asarray(rows, dtype=np.int64)])


@dataclass(frozen=True)
class Benchmark:
    """A public set: its images, the items that are scored, and the rows that were left out.

    Attributes:
        name: as in the registry.
        family: the folder of pcclip.benchmarks whose docstring says how the set is scored, and which columns it has.
        images: one row per image: id (text, unique), path (its id where one file holds many) and the family's columns,
            such as split ('tune': whatever is chosen is chosen there; 'test': only ever scored).
        items: one row per scored item, with the family's columns; without columns where the images are the items.
        left_out: path, reason of the rows that cannot be used.
        classes: true, readable class names; labels are indices into them.
        released: class names as the papers' released code puts them into its prompt, where those differ.
        class_attributes: one row per class and one float column per attribute.
        values: one row per image and one float column per attribute, NaN where unknown.
        decoded: the pictures, row by row of `images`, where a path alone does not say which.
        containers: the files that hold the pictures, where `images.path` does not name them.
        form: which texts belong to which images (compositionality.FORMS).
        orientation: +1 where a text speaks of the first image and then of the second, so that f(text) should lie along
            g(first) - g(second); -1 where it says what the second image has that the first has not.
        recalls: the k of recall@k that the authors report.
        start_is_candidate: whether the starting image of a query is an answer like any other.
        max_bad: a larger share of unusable rows or unreadable images fails.
    """

    name: str
    family: str
    images: pd.DataFrame
    items: pd.DataFrame = field(default_factory=pd.DataFrame)
    left_out: pd.DataFrame = field(default_factory=lambda: pd.DataFrame({"path": [], "reason": []}, dtype=str))
    classes: list[str] = field(default_factory=list)
    released: list[str] | None = None
    class_attributes: pd.DataFrame | None = None
    values: pd.DataFrame | None = None
    decoded: LazyPictures | None = None
    containers: Sequence[str] = ()
    form: str = ""
    orientation: int = 1
    recalls: tuple[int, ...] = ()
    start_is_candidate: bool = True
    max_bad: float = 0.05

    @property
    def pictures(self) -> Sequence[str | Image.Image]:
        """Row by row of `images`: paths, or PIL images where one file holds many or only a part is shown."""
        return list(self.images.path) if self.decoded is None else self.decoded

    @property
    def scored(self) -> pd.DataFrame:
        """The items, or the images where these are the items."""
        return self.items if len(self.items.columns) else self.images

    @property
    def attributes(self) -> list[str]:
        """Names of the attributes by which images or pairs are ordered."""
        return list(dict.fromkeys(self.items.attribute) if self.values is None else self.values.columns)

    @property
    def bad(self) -> int:
        """Number of rows that were left out through a fault."""
        return int((~self.left_out.reason.isin(NO_FAULT)).sum())

    def columns(self, prefix: str) -> list[str]:
        """The numbered columns of the items: PREFIX0, PREFIX1, ..."""
        return [name for k in range(len(self.items.columns)) if (name := f"{prefix}{k}") in self.items]

    def rows(self, numbers: Sequence[int] | np.ndarray) -> "Benchmark":
        """The same set with only these rows of `images`, in the given order."""
        return replace(
            self,
            images=self.images.iloc[numbers].reset_index(drop=True),
            values=None if self.values is None else self.values.iloc[numbers].reset_index(drop=True),
            decoded=None if self.decoded is None else self.decoded.subset(numbers),
        )

    def with_items(self, items: pd.DataFrame) -> "Benchmark":
        """The same set with only these items, and without images that no item shows."""
        kept = replace(self, items=items.reset_index(drop=True))
        columns = [column for column in IMAGE_COLUMNS if column in items]
        shown = {image for column in columns for image in items[column]}
        return kept.rows(np.flatnonzero(self.images["id"].isin(shown))) if columns else kept

    def only_images(self, max_bad: float) -> "Benchmark":
        """The images alone, each once, as they are embedded: vectors do not depend on items or labels."""
        distinct = self.rows(np.flatnonzero(~self.images["id"].duplicated()))
        images, decoded = distinct.images[["id", "path"]].reset_index(drop=True), distinct.decoded
        return Benchmark(self.name, "", images, max_bad=max_bad, decoded=decoded, containers=self.containers)

    def identity(self) -> str:
        """Hash of all tables, and of each file's size and time stamp: what a stage's key must notice."""
        files = dict.fromkeys(map(file_of, self.containers or self.images.path))  # images of one tar are one file
        tables = [table.to_csv(index=False) for table in (self.images, self.items, self.values) if table is not None]
        return digest([self.name, tables, self.classes, self.form, self.orientation, [stamp(file) for file in files]])


def at_most(items: pd.DataFrame, limit: int | None, seed: int) -> pd.DataFrame:
    """The items, or a random `limit` of them in their order; all without a limit."""
    return items.sample(limit, random_state=seed).sort_index() if limit and limit < len(items) else items


def benchmark_of_images(template: Benchmark) -> Benchmark:
    """The set without the rows of `template.images` (and `.values`) that have a reason, or whose file is missing.

    `template.images` may have the column reason: '' where the row can be used.
    """
    images = template.images
    reason = images["reason"] if "reason" in images else pd.Series("", index=images.index)
    reason = reason.where((reason != "") | files_exist(images.path), "missing file")
    left_out = pd.DataFrame({"path": images.path, "reason": reason})[reason != ""]
    known = images.drop(columns="reason", errors="ignore")
    kept = replace(template, images=known, left_out=pd.concat([template.left_out, left_out], ignore_index=True))
    return kept.rows(np.flatnonzero(reason == ""))


def benchmark_of_items(template: Benchmark, below: Path) -> Benchmark:
    """The set without the rows of `template.items` that have a reason, or that show an image whose file is missing.

    Args:
        template: its items have row (the name of the row in reports), reason ('' where it can be used), the
            IMAGE_COLUMNS with paths, and box where only a part of the image is shown.
        below: the folder that image ids leave out: an id is the path from there, and the box.

    Returns:
        The set with ids in the image columns, and with images: id, path, box (or None) and photo (the id of the whole
        photograph: items that show parts of one photograph are not independent).
    """
    items = template.items
    columns = [column for column in IMAGE_COLUMNS if column in items]
    for column in columns[::-1]:  # the first missing image gives the row its name in reports
        looked_for = items.reason.isin(["", "missing file"])
        missing = items.index[looked_for][~files_exist(items.loc[looked_for, column]).to_numpy()]
        items.loc[missing, "row"] = items.loc[missing, column]
        items.loc[missing, "reason"] = "missing file"
    left_out = pd.DataFrame({"path": items["row"], "reason": items.reason})[items.reason != ""]
    items = items[items.reason == ""].reset_index(drop=True)
    paths = items[columns].to_numpy(dtype=object).ravel()
    boxes = [box for box in (items.box if "box" in items else [None] * len(items)) for _ in columns]
    photos = {path: Path(os.path.relpath(path, below)).as_posix() for path in dict.fromkeys(paths)}
    ids = [
        photos[path] + ("" if box is None else "#" + ",".join(map(str, box)))
        for path, box in zip(paths, boxes, strict=True)
    ]
    images = pd.DataFrame({"id": ids, "path": paths, "photo": [photos[path] for path in paths]}, dtype=object)
    images = images.assign(box=pd.Series(boxes, dtype=object)).drop_duplicates("id", ignore_index=True)
    items[columns] = np.array(ids, dtype=object).reshape(-1, len(columns))
    parts = images.box.notna().any() or images.path.str.endswith(".npy").any()
    return replace(
        template,
        items=items.drop(columns=["row", "reason", "box"], errors="ignore"),
        images=images,
        left_out=left_out.reset_index(drop=True),
        decoded=LazyPictures(lambda row: open_part(images.path[row], images.box[row]), range(len(images)))
        if parts
        else None,
    )


@dataclass(frozen=True)
class Reader:
    """How one public set lies in its folder and is read: a class beside Benchmark, as the set is not yet read.

    Attributes:
        name: as in the parameters.
        read: makes the Benchmark from the set's folder; raises PcclipError when a file is not as published.
        needs: what to do about missing files -> the files and folders, as glob patterns. A tuple of patterns are
            alternatives; reports name the first, which may be words that no file is called.
        folders: where the set may lie below its folder, '' being the folder itself; the one that lacks least is read.
        missing_lines: one line for each missing thing in the set's folder, for a layout that patterns cannot describe.
        published: the number of scored rows as published, if known.
    """

    name: str
    read: Callable[[Path], Benchmark]
    needs: Mapping[str, Sequence[str | tuple[str, ...]]] = field(default_factory=dict)
    folders: Sequence[str] = ("",)
    missing_lines: Callable[[Path], list[str]] | None = None
    published: int | None = None

    def place(self, root: Path) -> Path:
        """The folder below `root`, or `root` itself, that lacks least."""
        return min((root / folder for folder in self.folders), key=lambda place: sum(map(len, self._lacking(place))))

    def missing(self, root: Path) -> list[str]:
        """One line for each kind of file that is not below `root`, with where to get it."""
        place = self.place(root)
        lines = [
            f"{place}: no {', '.join(names[:3])}{f' and {len(names) - 3} more' if len(names) > 3 else ''}; {advice}"
            for advice, names in zip(self.needs, self._lacking(place), strict=True)
            if names
        ]
        return lines + (self.missing_lines(root) if self.missing_lines and not lines else [])

    def _lacking(self, place: Path) -> list[list[str]]:
        """For each advice of `needs` the first pattern of everything that is missing."""
        alternatives = [[(name,) if isinstance(name, str) else name for name in names] for names in self.needs.values()]
        return [[names[0] for names in group if not find(place, *names)] for group in alternatives]


# ---- what readers share ----------------------------------------------------------------------------------------------


def open_part(path: str, box: Box | None) -> Image.Image:
    """The picture at `path`, an image file or an array (.npy), cropped to the box if there is one.

    Raises BadImage when the file cannot be read.
    """
    picture = _video_frame(path) if path.endswith(".npy") else open_image(path)
    return picture if box is None else picture.crop(box)


def _video_frame(path: str) -> Image.Image:
    """A video frame, stored as an array (h, w, 3) of bytes in the order blue, green, red."""
    try:
        pixels = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise BadImage(f"not an array ({error})") from None
    if pixels.ndim != 3 or pixels.shape[2] != 3 or pixels.dtype != np.uint8 or not pixels.size:
        raise BadImage(f"not an image: an array {pixels.shape} of {pixels.dtype}")
    return Image.fromarray(np.ascontiguousarray(pixels[:, :, ::-1]))


def find(folder: Path, *patterns: str) -> Path | None:
    """The last match in alphabetical order of the first glob pattern that matches; None where none does."""
    matches = (sorted(folder.glob(pattern)) if pattern else [folder] for pattern in patterns)
    return next((paths[-1] for paths in matches if paths), None)


def find_needed(folder: Path, *patterns: str) -> Path:
    """As `find`, for what a Reader needs. Raises PcclipError when nothing matches."""
    path = find(folder, *patterns)
    if path is None:
        raise PcclipError(f"{folder}: no {patterns[0]}")
    return path


def json_values(path: Path, source: str) -> list[Any]:
    """The values of a JSON list, object or file of lines. Raises PcclipError, which names `source`, without any."""
    advice = f"fetch it again from {source}"
    values = load_json(path, advice)
    values = list(values.values()) if isinstance(values, dict) else values
    if not isinstance(values, list) or not values:
        raise PcclipError(f"{path}: no list of items, or an empty one; {advice}")
    return values


def json_rows(path: Path, source: str) -> list[tuple[str, dict[str, Any]]]:
    """As `json_values`, each with its name for reports; a value that is no object becomes an empty one."""
    kind = "line" if path.suffix == ".jsonl" else "entry"
    return [
        (f"{path.name}, {kind} {k + 1}", value if isinstance(value, dict) else {})
        for k, value in enumerate(json_values(path, source))
    ]


def read_table(path: Path, columns: Sequence[str], advice: str, **options: Any) -> pd.DataFrame:
    """A CSV table with at least these columns; `options` as of pandas.read_csv.

    Raises PcclipError with the `advice`, what to do, when it cannot be read or lacks a column.
    """
    try:
        table = pd.read_csv(path, **options)
    except (OSError, ValueError) as error:
        raise PcclipError(f"{path}: not a table ({one_line(error)}); {advice}") from None
    if absent := [column for column in columns if column not in table]:
        raise PcclipError(f"{path}: has no column {absent[0]!r}; {advice}")
    return table


def read_lines(path: Path) -> list[str]:
    """The lines of a text file that are not empty. Raises PcclipError when there are none."""
    lines = [line.strip() for line in path.read_text(encoding="utf8", errors="replace").splitlines()]
    if not any(lines):
        raise PcclipError(f"{path}: empty; download or unpack it again")
    return [line for line in lines if line]


def first_existing(places: Sequence[pd.Series]) -> pd.Series:
    """Row by row the first of the places (paths) that is a file, and the first place of all where none is."""
    paths, missing = places[0], ~files_exist(places[0])
    for place in places[1:]:
        exists = files_exist(place[missing]).reindex(paths.index, fill_value=False)
        paths, missing = paths.mask(exists, place), missing & ~exists
    return paths


def sentences(values: Any) -> list[str]:
    """The texts of a JSON value that should be a list of texts: white space folded, full stops and empty ones off."""
    texts = values if isinstance(values, list) else []
    tidied = [" ".join(text.split()).strip(" .,?") for text in texts if isinstance(text, str)]
    return [text for text in tidied if text]
