"""Files a source reads: which of many are there, what a JSON file holds, and where fetched ones are kept."""

import json
import os
from pathlib import Path

import pandas as pd

from pcclip.errors import PcclipError


def cache() -> Path:
    """$PCCLIP_CACHE, else ~/.cache/pcclip."""
    return Path(os.environ.get("PCCLIP_CACHE", Path.home() / ".cache" / "pcclip"))


def there(paths: pd.Series) -> pd.Series:
    """True where a path is a file. Each folder is listed once: asking for 118,000 files one by one takes long."""
    listed = {}

    def is_there(path: str) -> bool:
        folder, name = os.path.split(path)
        if folder not in listed:
            listed[folder] = _files(folder)
        return name in listed[folder] or os.path.isfile(path)

    return paths.map(is_there).astype(bool)


def read_json(path: Path, keys: list[str]) -> dict:
    """The JSON object in `path`. Raises PcclipError when it is none or lacks one of the keys."""
    try:
        values = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise PcclipError(f"{path}: cannot be read as JSON ({error}); download or unpack it again") from None
    lacking = [key for key in keys if not isinstance(values, dict) or not isinstance(values.get(key), list)]
    if lacking:
        raise PcclipError(f"{path}: has no list {lacking[0]!r}; is it the right file?")
    return values


def _files(folder: str) -> set[str]:
    if not os.path.isdir(folder):
        return set()
    with os.scandir(folder) as entries:
        return {entry.name for entry in entries if entry.is_file()}
