"""The `folder` source: any directory of images with captions.csv (or .tsv, .txt, .jsonl) or metadata.csv (or .jsonl).

One row a caption; a photo may have several. Columns: the photo's path in the directory and its caption, under any of
_NAMES, in any capitals and plural or not; optional `id` (else the path), `label`, `concept`; every other numeric column is an
attribute, if it has one value a photo.
"""

import csv
import os
import re
import unicodedata
from contextlib import suppress
from pathlib import Path
from typing import Any

import pandas as pd

from pcclip.config import Data, resolve
from pcclip.data.captions import decoded
from pcclip.data.rows import outside, root_of, sort_out
from pcclip.errors import PcclipError
from pcclip.images import SUFFIXES, as_text, file_of, photos_below
from pcclip.runs.files import files_exist, from_json
from pcclip.runs.progress import say

_FILES = ("captions.csv", "captions.tsv", "captions.txt", "captions.jsonl", "metadata.csv", "metadata.jsonl")
_NAMES = {  # usual names of a column, letters alone: the first row with a name that is there counts
    "path": (
        {"path"},
        {"file", "filename", "filepath", "imagepath", "imagename", "imagefile", "imagefilename", "imagefilepath"},
        {"image", "img", "photo", "picture", "imageid"},
    ),
    "caption": ({"caption"}, {"text", "title", "description", "comment", "sentence", "alttext", "captiontext"}),
}
_TEXTS = ("id", "label", "concept")
_REASON = "left out because"  # a column of rows that cannot be read
_ROW_NUMBER = re.compile(r"(index|unnamed.*|)$", re.IGNORECASE)  # a column that programs add
_ROW_WITHIN = re.compile(rf"\n[^\n]*(?:{'|'.join(map(re.escape, sorted(SUFFIXES)))})[\"']?[,;\t|]", re.IGNORECASE)


def missing(data: Data) -> list[str]:
    """A line where the folder has no captions file."""
    readable = any((root_of(data) / name).is_file() for name in _FILES)
    return [] if readable else [f"{root_of(data)}: no {' or '.join(_FILES)}; write one with columns path, caption"]


def read(data: Data) -> tuple[pd.DataFrame, pd.DataFrame, int]:
    """Read data.path. Returns the table, the rows left out (path, reason), and how many of them are bad."""
    folder = root_of(data)
    file = next(folder / name for name in _FILES if (folder / name).is_file())
    text, encoding = decoded(file.read_bytes())
    rows, columns, separator = _json_rows(file, text) if file.suffix == ".jsonl" else _csv_rows(file, text)
    assumed = [
        *(f"{column} as {name}" for name, column in columns.items() if name in _NAMES and column.lower() != name),
        *[f"as {encoding}"] * (encoding not in ("utf-8-sig", "utf-16")),
        *[f"{separator!r} between columns"] * (separator not in (",", "")),
    ]
    if assumed:
        say(f"{file}: read {', '.join(assumed)}")
    table = pd.DataFrame(rows).rename(columns={column: name for name, column in columns.items()})
    for name in table.columns.intersection(["path", *_TEXTS]):
        table[name] = table[name].map(lambda value: as_text(str(value)), na_action="ignore").fillna("")
    reason = table.pop(_REASON).where(table.path != "", "no path")
    if not data.absolute_paths:
        reason = reason.mask((reason == "") & table.path.map(outside), "outside its folder (data.absolute_paths)")
    paths = _on_disk(resolve(data.images or str(folder)), table.path[reason == ""])
    reason[paths.index[paths == ""]] = "missing file"
    bare = table.caption.map(lambda value: (isinstance(value, str) and not value.strip()) or value in (None, []))
    reason = reason.mask((reason == "") & (bare | table.caption.isna()), "empty caption")
    table, left_out, bad = sort_out(table.assign(place=paths), reason)
    return _photos(table, "," if separator == ";" else "."), left_out, bad


def _photos(rows: pd.DataFrame, point: str) -> pd.DataFrame:
    """One row per photo: id, path, captions, and its label, concept and attributes with `point` before the decimals."""
    rows = rows.assign(id=rows["id"].where(rows["id"] != "", rows.path) if "id" in rows else rows.path)
    for name in rows.columns.difference(["path", "place", "caption", *_TEXTS]):
        cells = rows[name].map(
            lambda cell: str(cell).replace(point, ".") if isinstance(cell, str | int | float) else "no number"
        )
        values = pd.to_numeric(cells, errors="coerce").astype(float)
        numeric = values.notna().any() and (values.notna() | cells.isin(["", "nan"]) | cells.isna()).all()
        same = (values.groupby(rows.path).nunique() <= 1).all()
        rows = (
            rows.assign(**{name: values})
            if numeric and same and not _ROW_NUMBER.match(name)
            else rows.drop(columns=name)
        )
    photos = rows.groupby(["path", "id"], sort=False)
    lists = photos.caption.agg(
        lambda cells: [x for cell in cells for x in (cell if isinstance(cell, list) else [cell])]
    )
    table = photos.first().drop(columns="caption").assign(captions=lists).reset_index()
    if "label" in table:
        table["label"] = table.label.where(table.label != "", None)
    return table.assign(path=table.pop("place"))


def _columns(file: Path, names: list[str]) -> dict[str, str]:
    """The column of each kind. Raises PcclipError where there is none, or none is surer than another."""
    plain = {name: re.sub(r"[\W_]", "", str(name).lower()).removesuffix("s") for name in names}
    columns = {kind: name for name, kind in plain.items() if kind in _TEXTS}
    for kind, groups in _NAMES.items():
        fitting = next((fits for group in groups if (fits := [name for name in names if plain[name] in group])), [])
        if len(fitting) != 1:
            problem = f"columns {' and '.join(fitting)} could be the {kind}" if fitting else f"has no {kind!r} column"
            raise PcclipError(
                f"{file}: {problem}; name one of its columns {kind}: {', '.join(' '.join(str(name).split()) for name in names)}"
            )
        columns[kind] = fitting[0]
    return columns


def _json_rows(file: Path, text: str) -> tuple[list[dict], dict[str, str], str]:
    rows: list[dict] = []
    broken: list[str] = []
    for number, line in enumerate(text.split("\n"), start=1):
        row: Any = None
        with suppress(ValueError):
            row = from_json(line or "null")
        if isinstance(row, dict):
            rows.append({**row, _REASON: ""})
        elif line.strip():
            broken.append(f"{file.name} line {number}")
    columns = _columns(file, list(dict.fromkeys(name for row in rows for name in row if name != _REASON)))
    return [*rows, *({columns["path"]: place, _REASON: "broken JSON"} for place in broken)], columns, ""


def _csv_rows(file: Path, text: str) -> tuple[list[dict], dict[str, str], str]:
    """The rows, the columns, and what is between them. Raises PcclipError for a quote that is never closed."""
    text = re.sub("\r\n?", "\n", text)
    if named := re.match('"?sep=(.)"?\n', text):
        text = text[named.end() :]
    first, separator = text.lstrip("\n").split("\n", 1)[0], named[1] if named else ","
    for candidate in "," if named else ",;\t|":
        try:
            _columns(file, next(csv.reader([first], delimiter=candidate), []))
        except PcclipError:
            continue
        separator = candidate
        break
    lines = text.split("\n")
    spaced = all(f'{separator} "' in line for line in lines[1:] if line)  # path, "caption"
    reader, rows = csv.reader((f"{line}\n" for line in lines), delimiter=separator, skipinitialspace=spaced), []
    try:
        header = [name.strip() for name in next(filter(any, reader), [])]
        columns, last = _columns(file, header), reader.line_num
        for fields in reader:
            start, last = last, reader.line_num
            unclosed = last > start + 1 and "\n".join(lines[start:last]).count('"') % 2
            if unclosed or any(_ROW_WITHIN.search(field) for field in fields):
                raise PcclipError(f"{file}, line {start + 1}: a quote opens and closes lines later; close or double it")
            if not any(fields):
                continue
            if len(fields) > len(header) and columns["caption"] == header[-1]:  # a comma in a caption without quotes
                fields[len(header) - 1 :] = [separator.join(fields[len(header) - 1 :]).rstrip(separator)]
            values = dict(zip(header, fields + [""] * (len(header) - len(fields)), strict=False))
            rows.append({**values, _REASON: "more fields than columns" if any(fields[len(header) :]) else ""})
    except csv.Error as error:
        raise PcclipError(f"{file}, line {reader.line_num}: cannot be read as a table ({error})") from None
    if not rows:
        raise PcclipError(f"{file}: has no rows below its header; write a path and a caption on each line")
    return rows, columns, separator


def _on_disk(folder: Path, names: pd.Series) -> pd.Series:
    """The real path of each photo, '' where it is missing; names may be of another Unicode form or encoding."""
    paths = names.map(lambda name: os.path.join(folder, name))
    paths = paths.where(files_exist(paths), "")
    spellings: dict[str, str] = {}
    if (paths == "").any():
        for path in photos_below(folder)[0]:
            relative = os.path.relpath(path, folder)
            for spelling in (decoded(os.fsencode(file_of(relative)))[0], relative):
                spellings[_spelling(spelling)] = path
        plain = names[paths == ""].str.replace("\\", "/").map(os.path.normpath).map(_spelling)
        paths.update(plain.map(spellings).fillna(""))
    return paths.map(lambda path: as_text(os.path.realpath(file_of(path))) if path else "")


def _spelling(name: str) -> str:
    """A file's name in one Unicode form, without the folder that Kaggle packs photos in."""
    return unicodedata.normalize("NFC", name).removeprefix("Images/").removeprefix("images/")
