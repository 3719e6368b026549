"""Files that survive faults: atomic writes, hashes, JSON and Parquet, local or by the URL of a shared storage.

A URL is a path that `pcclip.config.place` made for a file system other than the local one (an fsspec UPath).
"""

import errno
import hashlib
import json
import os
import secrets
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cache, lru_cache
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zipfile import ZipFile

import pandas as pd

from pcclip.errors import PcclipError, one_line
from pcclip.images import as_text, file_of

if TYPE_CHECKING:
    from torch import Tensor

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_NOT_ALLOWED = {errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EEXIST}
_SETTLED = 2_000_000_000  # ns: a file that was written longer ago cannot change without its time stamp changing
_PROBE = 2**16  # bytes that are added to a file to see whether there is room
_FORMULA = ("=", "+", "-", "@", "\t", "\r")  # how a cell begins that a spreadsheet executes
_OBJECT_STORES = {"s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "adl", "oci", "memory"}  # show only whole files


def digest(value: Any) -> str:
    """SHA-256 of any JSON-able value, the same on every machine."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def file_digest(path: Path) -> str:
    """SHA-256 of a file. Model files and tables are large, so a process reads a file again only when it has changed.

    A file written within the last two seconds is always read: it could change within one tick of the file clock.
    """
    stat = os.stat(path)
    if time.time_ns() - stat.st_mtime_ns < _SETTLED:
        return _read_digest(str(path))
    return _settled_digest(str(path), (stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns))


@lru_cache(maxsize=1024)
def _settled_digest(path: str, version: tuple) -> str:
    return _read_digest(path)


def _read_digest(path: str) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turn the system's "no room" and "not allowed" into a PcclipError: one line about `path` with the remedy."""
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise PcclipError(f"{path}: no room on disk; free some and run again, finished work is kept") from error
        if error.errno in _NOT_ALLOWED:
            reason = f"cannot write here ({error.strerror}); make it writable or set `outputs`"
            raise PcclipError(f"{path}: {reason}") from error
        raise


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; it is flushed and renamed into place only if the block succeeds.

    For a URL the temporary path is on the local disk, and the finished file is sent. Raises PcclipError: no room, or
    no right to write.
    """
    with disk_errors(path):
        if is_url(path):
            with tempfile.TemporaryDirectory() as folder, _written(Path(folder) / path.name) as temporary:
                yield temporary
                _send(temporary, path)
            return
        path = Path(path)
        make_folder(path.parent)
        with _written(path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")) as temporary:
            yield temporary
            with open(temporary, "rb+") as file:
                os.fsync(file.fileno())
            os.replace(temporary, path)
            sync(path.parent)


@contextmanager
def _written(temporary: Path) -> Iterator[Path]:
    """Delete the temporary file at the end, and raise the system's error where a library raised one of its own.

    torch and numpy hide a full disk behind errors without its number; adding to their file shows it.
    """
    try:
        yield temporary
    except (OSError, RuntimeError):
        with open(temporary, "ab") as file:
            file.write(bytes(_PROBE))
        raise
    finally:
        temporary.unlink(missing_ok=True)


def spreadsheet(table: pd.DataFrame) -> pd.DataFrame:
    """The table with an apostrophe before every text that a spreadsheet would read as a formula."""
    return table.map(lambda value: f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else value)


def make_folder(folder: Path) -> None:
    """Make a local folder and its parents so that they outlive a power cut."""
    absent = [parent for parent in (folder, *folder.parents) if not parent.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    for path in absent:
        sync(path.parent)


def sync(path: Path) -> None:
    """Wait until a local file, or the names in a folder, are on disk; without this a power cut can undo a rename."""
    with suppress(OSError):  # of systems and network stores that cannot sync a folder
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def move_folder(source: Path, target: Path) -> None:
    """Give a folder its place once everything in it is on disk."""
    os.sync()
    os.replace(source, target)
    sync(target.parent)


def is_url(path: Any) -> bool:
    """Whether `path` is on a file system other than the local one."""
    return hasattr(path, "fs")


def names_in(folder: Any) -> set[str]:
    """Names of a folder's entries, by one listing; none when the folder does not exist."""
    if is_url(folder):
        folder.fs.invalidate_cache()  # other machines write there too
    try:
        return {path.name for path in folder.iterdir()}
    except (FileNotFoundError, NotADirectoryError):
        return set()


def _send(file: Path, url: Any) -> None:
    """Upload a file so that no reader sees half of it: where uploads are visible, under another name first."""
    fs, path = url.fs, url.path
    if url.protocol in _OBJECT_STORES:
        fs.put_file(str(file), path)
        return
    unfinished = f"{path}.{secrets.token_hex(4)}.tmp"
    fs.makedirs(fs._parent(path), exist_ok=True)
    fs.put_file(str(file), unfinished)
    if fs.exists(path):
        fs.rm_file(path)
    fs.mv(unfinished, path)


def copy_file(source: Any, target: Path) -> None:
    """Copy a file, or the file at a URL, atomically. Raises FileNotFoundError when it is not there."""
    with source.open("rb") as reader, atomic(target) as temporary, open(temporary, "wb") as writer:
        shutil.copyfileobj(reader, writer)


def remove_folder(folder: Any) -> None:
    """Delete a folder, or the folder at a URL, with its contents, if it exists."""
    if not is_url(folder):
        shutil.rmtree(folder, ignore_errors=True)
    elif folder.fs.exists(folder.path):
        folder.fs.rm(folder.path, recursive=True)


def write_json(path: Path, value: Any) -> None:
    """Write a JSON-able value atomically."""
    with atomic(path) as temporary:
        temporary.write_text(json.dumps(value, indent=1, default=str), encoding="utf8")


def write_tensors(path: Path, tensors: Mapping[str, "Tensor"]) -> None:
    """Write tensors atomically, as safetensors, whose own writer would hide a full disk."""
    from safetensors.torch import save

    content = save({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()})
    with atomic(path) as temporary:
        temporary.write_bytes(content)


def write_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write a state of tensors, numbers, texts, lists and dicts atomically, in torch's format."""
    import torch

    with atomic(path) as temporary:
        torch.save(state, temporary)


def read_checkpoint(path: Path) -> dict[str, Any]:
    """What `write_checkpoint` wrote, on the CPU. Raises PcclipError when the file is damaged."""
    import torch

    try:
        with path.open("rb") as file:  # torch.load takes no URLs
            damaged = ZipFile(file).testzip()  # torch.load ignores checksums
            if damaged is None:
                file.seek(0)
                return torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever damage raises in two readers
        damaged = one_line(error)
    raise PcclipError(f"{path}: a damaged checkpoint ({damaged}); delete it and run again")


def write_parquet(path: Path, table: Any) -> None:
    """Write a pandas or pyarrow table atomically, with a checksum in each page."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    if not isinstance(table, pa.Table):
        table = pa.Table.from_pandas(table, preserve_index=False)
    with atomic(path) as temporary:
        pq.write_table(table, temporary, write_page_checksum=True)


def write_csv(path: Path, table: pd.DataFrame, **options: Any) -> None:
    """Write a table atomically, without its index; `options` as in DataFrame.to_csv."""
    with atomic(path) as temporary:
        table.to_csv(temporary, index=False, **options)


def read_parquet(path: Path, columns: list[str] | None = None) -> Any:
    """A pyarrow table, all columns or those named. Raises PcclipError when the file is missing or damaged."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        source = BytesIO(path.read_bytes()) if is_url(path) else path
        table = pq.read_table(source, columns=columns, partitioning=None, page_checksum_verification=True)
        table.validate(full=True)  # texts are UTF-8
    except FileNotFoundError:
        raise PcclipError(f"{path}: not there; run the notebook that writes it first") from None
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        reason = f"not a whole Parquet file ({one_line(error)}); delete it and run its notebook again"
        raise PcclipError(f"{path}: {reason}") from None
    return table


def cache_folder() -> Path:
    """The folder for files that can be made or fetched again: $PCCLIP_CACHE, else ~/.cache/pcclip."""
    return Path(os.environ.get("PCCLIP_CACHE", Path.home() / ".cache" / "pcclip"))


def files_exist(paths: pd.Series) -> pd.Series:
    """True where a path is a file. Lists each folder once: asking for 118,000 COCO files one by one takes long."""
    names = cache(_file_names)
    return pd.Series(
        [
            os.path.basename(path) in names(os.path.dirname(path)) or os.path.isfile(path)
            for path in map(file_of, paths)
        ],
        paths.index,
        dtype=bool,
    )


def stamp(file: str) -> tuple:
    """A file with its size in bytes and its time stamp in nanoseconds; without them when it is not there."""
    try:
        status = os.stat(file)
    except OSError:
        return (file,)
    return file, status.st_size, status.st_mtime_ns


def from_json(text: str) -> Any:
    """The value of JSON from outside; half a surrogate pair, which no table can hold, becomes U+FFFD. Raises ValueError."""
    try:
        value = json.loads(text)
        if "\\ud" in text.lower():
            plain = as_text(json.dumps(value, ensure_ascii=False)).encode("utf-16", "surrogatepass")
            value = json.loads(plain.decode("utf-16", "replace"))
    except RecursionError:
        raise ValueError("lists within lists beyond counting") from None
    return value


def load_json(path: Path, advice: str = "download or unpack it again") -> Any:
    """The value of a JSON file; a list of the lines' values where it ends in .jsonl.

    Raises PcclipError with the `advice`, what to do, when it cannot be read.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
        if path.suffix == ".jsonl":
            return [from_json(line) for line in text.split("\n") if line.strip()]
        return from_json(text)
    except (OSError, ValueError) as error:
        raise PcclipError(f"{path}: cannot be read as JSON ({one_line(error)}); {advice}") from None


def read_json(path: Path, keys: list[str]) -> dict:
    """The JSON object in `path`. Raises PcclipError when it is not an object with a list under each of `keys`."""
    values = load_json(path)
    lacking = [key for key in keys if not isinstance(values, dict) or not isinstance(values.get(key), list)]
    if lacking:
        raise PcclipError(f"{path}: has no list {lacking[0]!r}; is it the right file?")
    return values


def _file_names(folder: str) -> set[str]:
    if not os.path.isdir(folder):
        return set()
    with os.scandir(folder) as entries:
        return {entry.name for entry in entries if entry.is_file()}
