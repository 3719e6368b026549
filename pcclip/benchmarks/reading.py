"""Shared by the readers of public sets: JSON files, tables and lists of lines, and where a file is."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from pcclip.errors import PcclipError
from pcclip.runs.files import files_exist


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


def load_json(path: Path, advice: str) -> Any:
    """The value of a JSON file; a list of the lines' values where it ends in .jsonl.

    Raises PcclipError with the `advice`, what to do, when it cannot be read.
    """
    try:
        text = path.read_text(encoding="utf8")
        if path.suffix == ".jsonl":
            return [json.loads(line) for line in text.splitlines() if line.strip()]
        return json.loads(text)
    except (OSError, ValueError) as error:
        raise PcclipError(f"{path}: cannot be read as JSON ({' '.join(str(error).split())}); {advice}") from None


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
        raise PcclipError(f"{path}: not a table ({' '.join(str(error).split())}); {advice}") from None
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
    paths = places[0].copy()
    missing = ~files_exist(paths)
    for place in places[1:]:
        if not missing.any():
            break
        exists = files_exist(place[missing])
        paths[exists.index[exists]] = place[exists.index[exists]]
        missing[exists.index[exists]] = False
    return paths


def sentences(values: Any) -> list[str]:
    """The texts of a JSON value that should be a list of texts: white space folded, full stops and empty ones off."""
    texts = values if isinstance(values, list) else []
    tidied = [" ".join(text.split()).strip(" .,?") for text in texts if isinstance(text, str)]
    return [text for text in tidied if text]
