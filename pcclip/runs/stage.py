"""A stage of a run: a folder, a key made of everything that its result depends on, and a manifest written last.

A stage is done when its manifest has the same key and its files the recorded SHA-256; otherwise it is done again.
Files are written under a temporary name and renamed. Unfinished work is in `partial-KEY/`, so that a killed stage
resumes and a changed parameter never mixes with old work. A lock lets one process at a time work on a stage; runs that
begin one at the same moment do it once (`once`).

`storage` is a folder or URL that every node of a cluster sees. It holds the unfinished work and, at the end, a copy of
the files and the manifest, so that no other machine repeats the stage. It needs no lock: two runs with the same key
write the same.
"""

import json
import platform
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import wraps
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, TypeVar

import pandas as pd
from filelock import FileLock, Timeout

from pcclip import __version__
from pcclip.errors import PcclipError
from pcclip.runs.files import copy_file, digest, disk_errors, file_digest, read_parquet, remove_folder, write_json
from pcclip.runs.progress import say

_LOCK_SECONDS = 10  # a killed run's kernel needs a moment to notice and let go
_MANIFEST = "manifest.json"
_DIGEST = "digest"  # field of a manifest: the digest of all others

Run = TypeVar("Run", bound=Callable[..., Any])


class DoneMeanwhile(PcclipError):
    """Another run finished the stage after this one had seen that it was not done."""


def once(run: Run) -> Run:
    """Call a function that does or reads a stage; if another run did the stage meanwhile, call it once more."""

    @wraps(run)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        try:
            return run(*args, **kwargs)
        except DoneMeanwhile:
            return run(*args, **kwargs)

    return wrapped  # type: ignore[return-value]  # of the same signature


class Stage:
    """One stage of one run, e.g. outputs/demo/02_embed.

    Args:
        folder: of the stage's files.
        inputs: every value the result depends on (parameters, seed, hashes of the files it reads); JSON-able.
        storage: the stage's folder or URL that every node sees, if it differs from `folder`.

    Attributes:
        shards: the folder or URL of unfinished work that any node may add to.
    """

    def __init__(self, folder: Path, inputs: dict[str, Any], storage: Path | None = None):
        self.folder, self.inputs, self.storage = Path(folder), inputs, storage
        self.key = digest({"stage": self.folder.name, **inputs})
        self.partial = self.folder / f"partial-{self.key[:12]}"
        self.shards = self.partial if storage is None else storage / self.partial.name
        self._started, self._seen_undone = time.monotonic(), False

    def done(self) -> bool:
        """True when the folder has a manifest with this key and the files that it records.

        Prints the file that is missing or changed. Deletes what a run left behind that was killed after its manifest.
        """
        manifest, self._seen_undone = read_manifest(self.folder), True
        if not manifest or manifest["key"] != self.key:
            return False
        if changed := changed_output(self.folder, manifest["outputs"]):
            say(f"{changed}: not the file that {self.folder.name} wrote; {self.folder.name} is not done any more")
            return False
        self._tidy(manifest["outputs"])
        self._seen_undone = False
        return True

    def _tidy(self, outputs: Iterable[str]) -> None:
        """Delete partial work, and what a kill or a power cut left beside the outputs, some of them outside the folder."""
        remove_folder(self.partial)
        names = {Path(output).name for output in outputs}
        for place in {(self.folder / output).parent for output in outputs}:
            for stale in place.glob(".*.tmp"):
                if stale.name[1:].rsplit(".", 2)[0] in names:
                    stale.unlink(missing_ok=True)

    def done_or_fetched(self) -> bool:
        """True when the stage is done here, or by another run with the same storage, whose files are then fetched."""
        return self.done() or (self.storage is not None and self._fetched(self.storage))

    def _fetched(self, storage: Path) -> bool:
        manifest = read_manifest(storage)
        if not manifest or manifest["key"] != self.key:
            return False
        with self.work():
            for name in manifest["outputs"]:
                try:
                    copy_file(storage / name, self.folder / name)
                except FileNotFoundError:
                    return False
            if changed_output(self.folder, manifest["outputs"]):
                return False  # another run is writing there
            _write_manifest(self.folder, manifest)
            remove_folder(self.partial)
        return True

    @contextmanager
    def work(self) -> Iterator["Stage"]:
        """Hold the stage's lock; first delete the manifest and what killed runs and other keys left behind.

        Waits for another run that holds it, which a printed line says. Raises DoneMeanwhile.
        """
        with alone(self.folder / ".lock", "another run is writing here, waiting for it", _LOCK_SECONDS):
            if self._seen_undone and self.done():
                raise DoneMeanwhile(f"{self.folder}: another run has just finished it; run again to read it")
            for stale in [*self.folder.rglob(".*.tmp"), *self.folder.glob("partial-*")]:
                if stale.is_file():
                    stale.unlink()
                elif stale != self.partial:
                    shutil.rmtree(stale)
            (self.folder / _MANIFEST).unlink(missing_ok=True)
            self.partial.mkdir(exist_ok=True)
            self._started = time.monotonic()
            yield self

    def finish(self, outputs: list[str], counts: dict[str, Any], model: str = "") -> None:
        """Write the manifest, last, and delete the partial work. `outputs` are names relative to the folder."""
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
                copy_file(file, self.storage / name)
            _write_manifest(self.storage, manifest)
        _write_manifest(self.folder, manifest)
        remove_folder(self.shards)
        self._tidy(outputs)


@contextmanager
def alone(file: Path, busy: str, seconds: float = 0) -> Iterator[None]:
    """Hold the lock `file`; its folder is made where it is absent.

    Waits while another process holds the lock, and after `seconds` prints the folder and `busy`. With `seconds` 0 it
    raises PcclipError instead of waiting. A full disk raises PcclipError, too, also within the block.
    """
    with disk_errors(file.parent):
        file.parent.mkdir(parents=True, exist_ok=True)
        try:
            lock = FileLock(file).acquire(timeout=seconds)
        except Timeout:
            if not seconds:
                raise PcclipError(f"{file.parent}: {busy}") from None
            say(f"{file.parent}: {busy}")
            lock = FileLock(file).acquire()
        with lock:
            yield


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """The stage's manifest, or None when it is absent or not as `finish` wrote it."""
    try:
        manifest = json.loads((folder / _MANIFEST).read_bytes())
        own_digest = manifest.pop(_DIGEST)
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return None
    return manifest if digest(manifest) == own_digest else None


def _write_manifest(folder: Path, manifest: dict[str, Any]) -> None:
    stored = json.loads(json.dumps(manifest, default=str))
    write_json(folder / _MANIFEST, {**stored, _DIGEST: digest(stored)})


def changed_output(folder: Path, outputs: Mapping[str, Any]) -> Path | None:
    """The first file of a finished stage that is missing or has another SHA-256 than its manifest records.

    `outputs` maps file names to the manifest's records; a file whose record is None counts as changed.
    """
    for name, record in outputs.items():
        file = folder / name
        is_there = record and file.is_file() and file.stat().st_size == record["bytes"]
        if not is_there or file_digest(file) != record["sha256"]:
            return file
    return None


def finished(folder: Path, *names: str, **expected: Any) -> dict[str, Any]:
    """The manifest of an earlier stage, made with the `expected` inputs (images, seed, model, ...).

    Args:
        names: the files that are checked against the manifest; without any, all.

    Raises PcclipError when that stage has not finished or was made with other inputs, or a file has changed.
    """
    manifest = read_manifest(folder)
    if manifest is None:
        raise PcclipError(f"{folder}: this stage has not finished; run its notebook first")
    if other := [name for name, value in expected.items() if manifest["inputs"].get(name) != value]:
        raise PcclipError(f"{folder}: made with other {' and '.join(other)} than now asked for; run its notebook again")
    changed = changed_output(folder, {name: manifest["outputs"].get(name) for name in names or manifest["outputs"]})
    if changed:
        raise PcclipError(f"{changed}: missing or changed since {folder.name} wrote it; run its notebook again")
    return manifest


def output(folder: Path, name: str, **expected: Any) -> Path:
    """The path of a file that an earlier stage wrote, checked against its manifest. Raises PcclipError as `finished`."""
    finished(folder, name, **expected)
    return folder / name


def read_output(folder: Path, name: str, columns: list[str] | None = None, **expected: Any) -> pd.DataFrame:
    """A table that an earlier stage wrote, checked against its manifest; all columns, or of a Parquet file those named.

    An empty protocol is '', not missing. Raises PcclipError as `finished`.
    """
    path = output(folder, name, **expected)
    if path.suffix == ".parquet":
        return read_parquet(path, columns).to_pandas()
    table = pd.read_csv(path, keep_default_na=False, na_values=[""])
    return table.assign(protocol=table.protocol.fillna("")) if "protocol" in table else table


def built_on(earlier: Iterable[Path], shared: dict[str, Any]) -> dict[str, Any]:
    """Inputs of a stage that reads earlier stages: the `shared` inputs, and the hashes of those stages' files.

    Raises PcclipError when an earlier stage has not finished or was made with other shared inputs.
    """
    outputs = {folder.name: finished(folder, **shared)["outputs"] for folder in earlier}
    return {
        **shared,
        **{stage: {name: file["sha256"] for name, file in files.items()} for stage, files in outputs.items()},
    }


def versions() -> dict[str, str | None]:
    """Versions of Python and of the packages that can change a number; None for a package that is absent."""
    installed: dict[str, str | None] = {"pcclip": __version__, "python": platform.python_version()}
    for name in ("torch", "open_clip_torch", "transformers", "xllamacpp", "numpy", "pillow"):
        try:
            installed[name] = version(name)
        except PackageNotFoundError:
            installed[name] = None
    return installed
