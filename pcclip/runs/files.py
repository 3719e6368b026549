"""Files of runs: atomic writes, hashes, tables, URLs of a shared storage, and the cache folder."""

import errno
import hashlib
import json
import os
import secrets
import shutil
import tempfile
import time
from contextlib import contextmanager, suppress
from functools import lru_cache
from io import BytesIO
from pathlib import Path

import pandas as pd

from pcclip.errors import PcclipError

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_CLOSED = {errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EEXIST}
_SETTLED = 2_000_000_000  # nanoseconds since a file was written
_WHOLE = {"s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "adl", "oci", "memory"}  # stores of whole objects


def digest(value) -> str:
    """SHA-256 of any JSON-able value, the same on every machine."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def file_digest(path: Path) -> str:
    """SHA-256 of a file. Model files are part of many keys, so a process reads a file again only when it has changed.

    One that was written just now is always read: it could change within the tick of the file system's clock.
    """
    found = os.stat(path)
    if time.time_ns() - found.st_mtime_ns < _SETTLED:
        return _read_digest(str(path))
    return _settled_digest(str(path), (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns))


@lru_cache(maxsize=1024)
def _settled_digest(path: str, version: tuple) -> str:
    return _read_digest(path)


def _read_digest(path: str) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def disk_errors(path: Path):
    """Turn 'no room' and 'not allowed' into one line that says what to do."""
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise PcclipError(f"{path}: no room on disk; free some and run again, finished work is kept") from error
        if error.errno in _CLOSED:
            reason = f"cannot write here ({error.strerror}); make it writable or set `outputs`"
            raise PcclipError(f"{path}: {reason}") from error
        raise


@contextmanager
def atomic(path: Path):
    """Yield a temporary path beside `path`; it is flushed and renamed into place only if the block succeeds.

    For a URL (see params.place) the temporary path is on the local disk, and the file is sent once it is whole.
    """
    if is_url(path):
        with disk_errors(path), tempfile.TemporaryDirectory() as folder:
            temporary = Path(folder) / path.name
            yield temporary
            _send(temporary, path)
        return
    path = Path(path)
    with disk_errors(path):
        make_folder(path.parent)
        temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
        try:
            yield temporary
            with open(temporary, "rb+") as file:
                os.fsync(file.fileno())
            os.replace(temporary, path)
            sync_folder(path.parent)
        finally:
            temporary.unlink(missing_ok=True)


def make_folder(folder: Path) -> None:
    """Make a local folder and its parents so that they outlive a power cut."""
    absent = [parent for parent in (folder, *folder.parents) if not parent.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    for path in absent:
        sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Wait until the names in a local folder are on disk; without this a power cut can undo a rename."""
    with suppress(OSError):  # of systems and network stores that cannot sync a folder
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def is_url(path) -> bool:
    """Whether a path is one of params.place with a file system of its own."""
    return hasattr(path, "fs")


def names_in(folder: Path) -> set[str]:
    """Names of what is in a folder, none where there is no folder. One listing, however much is there."""
    if is_url(folder):
        folder.fs.invalidate_cache()  # others write there too
    try:
        return {path.name for path in folder.iterdir()}
    except (FileNotFoundError, NotADirectoryError):
        return set()


def _send(file: Path, url) -> None:
    """An object store shows only whole objects; elsewhere a file has another name until it is whole."""
    fs, path = url.fs, url.path
    if url.protocol in _WHOLE:
        fs.put_file(str(file), path)
        return
    half = f"{path}.{secrets.token_hex(4)}.tmp"
    fs.makedirs(fs._parent(path), exist_ok=True)
    fs.put_file(str(file), half)
    if fs.exists(path):
        fs.rm_file(path)
    fs.mv(half, path)


def copy_here(source: Path, target: Path) -> None:
    """Into a local file."""
    if is_url(source):
        source.fs.get_file(source.path, str(target))
    else:
        shutil.copyfile(source, target)


def remove_tree(folder: Path) -> None:
    if not is_url(folder):
        shutil.rmtree(folder, ignore_errors=True)
    elif folder.fs.exists(folder.path):
        folder.fs.rm(folder.path, recursive=True)


def write_json(path: Path, value) -> None:
    with atomic(path) as temporary:
        temporary.write_text(json.dumps(value, indent=1, default=str), encoding="utf8")


def write_parquet(path: Path, table) -> None:
    """Write a pandas or pyarrow table atomically."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    if not isinstance(table, pa.Table):
        table = pa.Table.from_pandas(table, preserve_index=False)
    with atomic(path) as temporary:
        pq.write_table(table, temporary)


def read_parquet(path: Path, columns: list[str] | None = None):
    """Read a table, or these columns of it, as pyarrow. Raises PcclipError when the file is missing or was cut short."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        source = BytesIO(path.read_bytes()) if is_url(path) else path
        return pq.read_table(source, columns=columns, partitioning=None)
    except FileNotFoundError:
        raise PcclipError(f"{path}: not there; run the notebook that writes it first") from None
    except (pa.ArrowException, OSError) as error:
        raise PcclipError(f"{path}: not a whole Parquet file ({error}); delete it and run its notebook again") from None


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
