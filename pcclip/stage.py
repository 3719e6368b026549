"""A stage of a run: a folder, a key made of everything that went in, and a manifest that comes last.

A stage is done when its manifest carries the same key and its files are there with the recorded sizes. Anything else
means: do it (again). Files are written under a temporary name and renamed; unfinished work lives in `partial-KEY/`,
so a killed stage resumes and a changed parameter never mixes with old work. One process at a time holds the lock.

With a storage, a folder or URL that every node of a cluster sees, unfinished work is there, and at the end a copy of
the files and the manifest, so that another machine need not do the stage again. No lock is held there: what two runs
of one key write is the same.
"""

import errno
import hashlib
import json
import os
import platform
import secrets
import shutil
import tempfile
import time
from collections.abc import Iterable
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from io import BytesIO
from pathlib import Path

from filelock import FileLock, Timeout

from pcclip import __version__
from pcclip.errors import PcclipError

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_CLOSED = {errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EEXIST}
_SETTLED = 2_000_000_000  # nanoseconds since a file was written
_LOCK_SECONDS = 10  # a killed run's kernel needs a moment to notice and let go
_WHOLE = {"s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "adl", "oci", "memory"}  # stores of whole objects
_MANIFEST = "manifest.json"


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
    return _settled_digest(
        str(path), (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns))


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
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
        try:
            yield temporary
            with open(temporary, "rb+") as file:
                os.fsync(file.fileno())
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)


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


def _copy(source: Path, target: Path) -> None:
    """Into a local file."""
    if is_url(source):
        source.fs.get_file(source.path, str(target))
    else:
        shutil.copyfile(source, target)


def _remove(folder: Path) -> None:
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
    """Read a table, or these columns of it, as pyarrow. Raises PcclipError when the file is missing or was cut short.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        source = BytesIO(path.read_bytes()) if is_url(path) else path
        return pq.read_table(source, columns=columns, partitioning=None)
    except FileNotFoundError:
        raise PcclipError(f"{path}: not there; run the notebook that writes it first") from None
    except (pa.ArrowException, OSError) as error:
        raise PcclipError(f"{path}: not a whole Parquet file ({error}); delete it and run its notebook again") from None


class Stage:
    """One stage of one run, e.g. outputs/demo/02_embed.

    Args:
        folder: where its files live.
        inputs: every value the result depends on (parameters, seed, hashes of what it reads); JSON-able.
        storage: the stage's own folder or URL where every node sees it, if that is another one (see params.place).

    Attributes:
        shards: where unfinished work is put by whoever does it.
    """

    def __init__(self, folder: Path, inputs: dict, storage: Path | None = None):
        self.folder, self.inputs, self.storage = Path(folder), inputs, storage
        self.key = digest({"stage": self.folder.name, **inputs})
        self.partial = self.folder / f"partial-{self.key[:12]}"
        self.shards = self.partial if storage is None else storage / self.partial.name
        self._started = time.monotonic()

    def done(self) -> bool:
        """True when a manifest with this very key is there and its files have the recorded sizes."""
        manifest = read_manifest(self.folder)
        return bool(manifest) and manifest["key"] == self.key and all(
            (self.folder / name).is_file() and (self.folder / name).stat().st_size == file["bytes"]
            for name, file in manifest["outputs"].items()
        )

    def found(self) -> bool:
        """True when it is done, here or by another run with the same storage: its files are then fetched."""
        return self.done() or (self.storage is not None and self._fetched())

    def _fetched(self) -> bool:
        manifest = read_manifest(self.storage)
        if not manifest or manifest["key"] != self.key:
            return False
        with self.work():
            for name, file in manifest["outputs"].items():
                try:
                    with atomic(self.folder / name) as temporary:
                        _copy(self.storage / name, temporary)
                except FileNotFoundError:
                    return False
                if file_digest(self.folder / name) != file["sha256"]:
                    return False  # another run is writing there
            write_json(self.folder / _MANIFEST, manifest)
            _remove(self.partial)
        return True

    @contextmanager
    def work(self):
        """Hold the stage's lock while working; clear what other keys or killed runs left behind."""
        with disk_errors(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            lock = FileLock(self.folder / ".lock")
            try:
                lock.acquire(timeout=_LOCK_SECONDS)
            except Timeout:
                raise PcclipError(
                    f"{self.folder}: another run is writing here; wait for it, stop it, or choose another run name"
                ) from None
            try:
                for stale in [*self.folder.rglob(".*.tmp"), *self.folder.glob("partial-*")]:
                    if stale.is_file():
                        stale.unlink()
                    elif stale != self.partial:
                        shutil.rmtree(stale)
                (self.folder / _MANIFEST).unlink(missing_ok=True)
                self.partial.mkdir(exist_ok=True)
                self._started = time.monotonic()
                yield self
            finally:
                lock.release()

    def finish(self, outputs: list[str], counts: dict, model: str = "") -> None:
        """Write the manifest, last, and drop the partial work. `outputs` are names relative to the folder."""
        files = {name: self.folder / name for name in outputs}
        manifest = {
            "stage": self.folder.name,
            "key": self.key,
            "inputs": self.inputs,
            "model": model,
            "seed": self.inputs.get("seed"),
            "counts": counts,
            "outputs": {n: {"sha256": file_digest(f), "bytes": f.stat().st_size} for n, f in files.items()},
            "versions": versions(),
            "seconds": round(time.monotonic() - self._started, 1),
            "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        if self.storage is not None:
            for name, file in files.items():
                with atomic(self.storage / name) as temporary:
                    shutil.copyfile(file, temporary)
            write_json(self.storage / _MANIFEST, manifest)
        write_json(self.folder / _MANIFEST, manifest)
        for partial in {self.partial, self.shards}:
            _remove(partial)


def read_manifest(folder: Path) -> dict | None:
    """The stage's manifest, or None when there is none that can be read."""
    try:
        manifest = json.loads(((folder if is_url(folder) else Path(folder)) / _MANIFEST).read_text(encoding="utf8"))
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return None
    return manifest if isinstance(manifest, dict) and {"key", "inputs", "outputs"} <= manifest.keys() else None


def finished(folder: Path, **expected) -> dict:
    """The manifest of a stage this one builds on, made with the `expected` inputs (images, seed, model, ...).

    Raises PcclipError when that stage has not finished or was made with other ones.
    """
    manifest = read_manifest(folder)
    if manifest is None:
        raise PcclipError(f"{folder}: this stage has not finished; run its notebook first")
    other = [name for name, value in expected.items() if manifest["inputs"].get(name) != value]
    if other:
        raise PcclipError(f"{folder}: made with other {' and '.join(other)} than now asked for; run its notebook again")
    return manifest


def output_hashes(folder: Path, **expected) -> dict:
    """Hashes of an earlier stage's files, for the key of the stage that reads them; `expected` as in `finished`."""
    return {name: file["sha256"] for name, file in finished(folder, **expected)["outputs"].items()}


def built_on(earlier: Iterable[Path], shared: dict) -> dict:
    """Inputs of a stage that reads the stages in the folders `earlier`: what all share, and the hashes of their files.

    Raises PcclipError when one of them has not finished or does not share images, model and seed.
    """
    return {**shared, **{folder.name: output_hashes(folder, **shared) for folder in earlier}}


def versions() -> dict:
    """Versions of everything that can change a number."""
    found = {"pcclip": __version__, "python": platform.python_version()}
    for name in ("torch", "open_clip_torch", "transformers", "xllamacpp", "numpy", "pillow"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = None
    return found
