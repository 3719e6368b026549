"""What a person takes away from the page: the order as a table, a contact sheet, or the photos' files themselves."""

import filecmp
import json
import os
import re
import shutil
from collections.abc import Callable, Collection
from functools import partial
from io import BytesIO
from itertools import count
from pathlib import Path

import pandas as pd

from pcclip.errors import PcclipError, one_line
from pcclip.images import as_text, file_of
from pcclip.ranking import saved
from pcclip.ranking.rank import SHEET_PHOTOS, ranked_sheet
from pcclip.ranking.widget.ranker import Ranker
from pcclip.runs.files import make_folder, spreadsheet, sync, write_csv


def _copy(source: str, target: str | Path) -> None:
    """Copy a photo; it is on disk when this returns, as a move to another disk then deletes the first."""
    shutil.copy2(source, target)
    sync(Path(target))


PLACINGS: dict[str, Callable[[str, Path], object]] = {
    "copy": _copy,
    "link": os.symlink,
    "move": partial(shutil.move, copy_function=_copy),
}
KINDS = ["csv", "jsonl", "labels", "png", *PLACINGS]
_MEDIA = {"csv": "text/csv", "jsonl": "application/jsonl", "png": "image/png", "json": "application/json"}


def file_name(ranker: Ranker) -> str:
    """The words as the stem of a file's name."""
    return re.sub(r"[^\w]+", "_", ranker.name or ranker.query.more).strip("_")[:60] or "ranking"


def order_table(ranker: Ranker, model: str, rows: Collection[int] | None = None) -> pd.DataFrame:
    """The order of all photos or of some rows, best first.

    Columns rank (in the complete order), path, id, caption, score, deviation (after votes or examples), more, less,
    model and estimator.
    """
    table = ranker.table(model, rows).rename(columns={"position": "rank"})
    table.insert(1, "path", table.pop("path"))
    return table.assign(more=ranker.query.more, less=ranker.query.less or "", model=model, estimator=ranker.estimator)


def labels(ranker: Ranker, rows: Collection[int] | None) -> pd.DataFrame:
    """Every photo with its path, its caption and a column named by the words: 1 for the chosen rows, 0 for others.

    In the photos' folder, as captions.csv, this is an attribute that notebook 06 and the `folder` source read.
    """
    table = ranker.table().sort_index()
    chosen = table.index.isin(table.index if rows is None else rows).astype(int)
    return pd.DataFrame({"path": table["id"], "caption": table.caption, file_name(ranker): chosen})


def exported(ranker: Ranker, kind: str, model: str, rows: Collection[int] | None = None) -> tuple[str, str, bytes]:
    """The name, the media type and the bytes of a file: csv, jsonl, labels, png (contact sheet) or json (ranking)."""
    suffix = "csv" if kind == "labels" else kind
    if kind == "json":
        content = json.dumps(saved.summary(ranker.name), indent=1)
    elif kind == "jsonl":
        content = order_table(ranker, model, rows).to_json(orient="records", lines=True, force_ascii=False)
    elif kind == "png":
        table, buffer = ranker.table(model, rows), BytesIO()
        ends = [f"most: {ranker.query.more}", f"least: {ranker.query.less or ranker.query.more}"]
        titles = [f"{end} ({model}, {len(table)} of {len(ranker.photos.captions)} photos)" for end in ends]
        ranked_sheet(table, titles, len(table) // 2 if len(table) > SHEET_PHOTOS else 0).save(buffer, "PNG")
        return f"{file_name(ranker)}.png", _MEDIA[suffix], buffer.getvalue()
    else:
        table = labels(ranker, rows) if kind == "labels" else order_table(ranker, model, rows)
        content = spreadsheet(table).to_csv(index=False)
    return f"{file_name(ranker)}.{suffix}", _MEDIA[suffix], content.encode()


def place_files(ranker: Ranker, kind: str, model: str, rows: Collection[int] | None, to: str) -> str:
    """Copy, link or move photos to a folder, with their order as order.csv, and say in one line where they are now.

    A file in the folder is never overwritten: another one of its name gets a number. A file that cannot be placed is
    counted, and named in the line.

    Raises:
        PcclipError: no whole path, photos inside tar files, a move of photos that a run's notebooks read or while more
            are coming in, no right to write.
    """
    folder, table = Path(os.path.expanduser(to)), order_table(ranker, model, rows)
    if not folder.is_absolute():
        raise PcclipError(f"folder {to!r}: name its whole path, such as ~/chosen")
    if any("#" in path and file_of(path).endswith(".tar") for path in table.path):
        raise PcclipError("photos inside tar files cannot be placed elsewhere; take a table, or unpack the file")
    if kind == "move" and (ranker.coming or ranker.photos.images is not None):
        raise PcclipError("move: a run's photos, or those still coming in, stay where they are; copy or link them")
    try:
        make_folder(folder)
    except OSError as error:
        raise PcclipError(f"{folder}: cannot be made ({error.strerror}); name another folder") from error
    files, problem = [], ""
    for row, path in table.path.items():
        try:
            file = _placed(file_of(path), folder, kind)
        except OSError as error:
            file, problem = "", f"; {path}: {one_line(error)}"
        files.append(as_text(file))
        if file and kind == "move":
            ranker.photos.vectors.paths[row] = as_text(str(folder / file))
    ranker.photos.__dict__.pop("index", None)  # of the paths before
    write_csv(_free(folder / "order.csv"), spreadsheet(table.assign(file=files)))
    verb = {"copy": "copied to", "link": "linked in", "move": "moved to"}[kind]
    return f"{len(files) - files.count('')} of {len(files)} photos {verb} {folder}, with order.csv{problem}"


def _placed(source: str, folder: Path, kind: str) -> str:
    """Place a file; the name that it has in the folder."""
    target = folder / os.path.basename(source)
    if kind == "move" or not (target.is_file() and filecmp.cmp(source, target, shallow=False)):
        target = _free(target)
        PLACINGS[kind](os.path.abspath(source), target)
    return target.name


def _free(path: Path) -> Path:
    """The path, or where it is taken the first with a number that is not."""
    names = (path.with_stem(f"{path.stem} ({k})") for k in count(2))
    return path if not os.path.lexists(path) else next(name for name in names if not os.path.lexists(name))
