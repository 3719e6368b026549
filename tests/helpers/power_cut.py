"""What a folder may look like after a power cut: its file operations are recorded, and any legal end state is made.

A disk keeps what was synced. Of the rest anything may be lost: the content of a file that was not synced (all of it, or
its end, or with a run of zeros), and names that were made, renamed or deleted since their folder was synced, in any
order. A killed process loses nothing that it wrote: that is the state in which everything is kept.
"""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from pcclip.runs.log import Log


@dataclass
class Disk:
    """Names and contents of a folder's files, as they are in memory and as they are known to be on disk."""

    names: dict[Path, int] = field(default_factory=dict)  # of files, to their numbers; a folder has none
    folders: set[Path] = field(default_factory=set)
    written: dict[int, bytes] = field(default_factory=dict)
    synced: dict[int, bytes] = field(default_factory=dict)


class Recording:
    """The operations on files below `root`, in order; each is a tuple that begins with its name."""

    def __init__(self, root: Path):
        self.root, self.operations = root, list[tuple]()
        self._numbers: dict[Path, int] = {}
        self._contents: dict[Path, bytes] = {}
        self._scan()
        self._start = len(self.operations)

    def reported(self, upto: int) -> set[str]:
        """Keys of the answers that were reported as stored before operation `upto`."""
        return {operation[1] for operation in self.operations[:upto] if operation[0] == "reported"}

    @contextmanager
    def recording(self) -> Iterator[None]:
        """Record while the block runs."""
        with pytest.MonkeyPatch.context() as patch:
            for name in ("fsync", "replace", "rename", "unlink", "remove", "mkdir", "rmdir"):
                patch.setattr(os, name, self._noted(name, getattr(os, name)))
            store = Log.store

            def noted_store(log: Log, rows) -> Iterator:
                for item in store(log, rows):
                    self.operations.append(("reported", item[0].key))
                    yield item

            patch.setattr(Log, "store", noted_store)
            yield
        self._scan()

    def _noted(self, name: str, call):
        def noted(*arguments, dir_fd=None, **options):
            self._scan()  # what was written since the last operation
            if dir_fd is not None:
                options["dir_fd"] = dir_fd
            if name == "fsync":
                paths = [Path(os.readlink(f"/proc/self/fd/{arguments[0]}"))]
            else:
                base = Path(os.readlink(f"/proc/self/fd/{dir_fd}")) if dir_fd is not None else Path()
                paths = [
                    Path(os.path.abspath(base / os.fspath(path)))
                    for path in arguments[: 2 if name in ("replace", "rename") else 1]
                ]
            result = call(*arguments, **options)
            if all(path.is_relative_to(self.root) for path in paths):
                self._note({"replace": "rename", "remove": "unlink"}.get(name, name), paths)
            return result

        return noted

    def _note(self, name: str, paths: list[Path]) -> None:
        if name == "fsync":
            name, paths = ("sync folder", paths) if paths[0].is_dir() else ("sync", [self._numbers[paths[0]]])
        if name == "rename":
            for table in (self._numbers, self._contents):
                if paths[0] in table:
                    table[paths[1]] = table.pop(paths[0])
        if name == "unlink":
            self._numbers.pop(paths[0], None)
            self._contents.pop(paths[0], None)
        self.operations.append((name, *paths))

    def _scan(self) -> None:
        folders, files = [], []
        for place, below, names in os.walk(self.root):
            folders += [Path(place, name) for name in below]
            files += [Path(place, name) for name in names]
        made = {operation[1] for operation in self.operations if operation[0] == "mkdir"}
        self.operations += [("mkdir", folder) for folder in sorted(folders) if folder not in made]
        for path in sorted(files):
            content = path.read_bytes()
            if path not in self._numbers:
                self._numbers[path] = len(self.operations)
                self.operations.append(("create", path, self._numbers[path]))
            if self._contents.get(path) != content:
                self._contents[path] = content
                self.operations.append(("write", self._numbers[path], content))

    def cut(self, rng: np.random.Generator, keep_all: bool = False) -> int:
        """Put `root` into a state that a power cut at a random operation may leave; returns that operation's number.

        Args:
            keep_all: the process was killed, and the machine stayed up.
        """
        end = int(rng.integers(self._start, len(self.operations) + 1))
        disk, pending = Disk(), list[tuple]()
        for operation in self.operations[: self._start]:
            _follow(disk, pending, operation)
        _apply(disk, pending)  # what was there before is on disk
        disk.synced, pending = dict(disk.written), []
        for operation in self.operations[self._start : end]:
            _follow(disk, pending, operation)
        share = 1.0 if keep_all else rng.choice([0.0, 0.5, 0.9, 1.0])
        _apply(disk, [operation for operation in pending if rng.random() < share or keep_all])
        shutil.rmtree(self.root)
        self.root.mkdir()
        for folder in sorted(disk.folders):
            folder.mkdir(parents=True, exist_ok=True)
        for path, number in disk.names.items():
            if path.parent.is_dir():  # else its folder's name was lost
                content = disk.written.get(number, b"")
                path.write_bytes(content if keep_all else _left_of(content, disk.synced.get(number, b""), rng))
        return end


def _follow(disk: Disk, pending: list[tuple], operation: tuple) -> None:
    """Take an operation into account; those on names wait in `pending` until their folder is synced."""
    name, *arguments = operation
    if name == "write":
        disk.written[arguments[0]] = arguments[1]
    elif name == "sync":
        disk.synced[arguments[0]] = disk.written.get(arguments[0], b"")
    elif name == "sync folder":
        now = [each for each in pending if arguments[0] in {path.parent for path in each[1:] if isinstance(path, Path)}]
        _apply(disk, now)
        pending[:] = [each for each in pending if each not in now]
    elif name != "reported":
        pending.append(operation)


def _apply(disk: Disk, operations: list[tuple]) -> None:
    """Carry out operations on names, as far as those that were lost let them."""
    for name, path, *rest in operations:
        if name == "create":
            disk.names[path] = rest[0]
        elif name == "rename" and path in disk.names:
            disk.names[rest[0]] = disk.names.pop(path)
        elif name == "unlink":
            disk.names.pop(path, None)
        elif name == "mkdir":
            disk.folders.add(path)
        elif name == "rmdir":
            disk.folders.discard(path)
            for table in (disk.names, disk.folders):
                for below in [other for other in table if path in other.parents]:
                    table.pop(below) if isinstance(table, dict) else table.discard(below)


def _left_of(written: bytes, synced: bytes, rng: np.random.Generator) -> bytes:
    """What may be left of a file's content since it was synced."""
    if written == synced:
        return written
    common = next(
        (k for k, (a, b) in enumerate(zip(written, synced, strict=False)) if a != b), min(len(written), len(synced))
    )
    end = int(rng.integers(common, len(written) + 1))
    states = [written, synced, written[:end]]
    if len(synced) == common:  # it only grew: what was synced stays
        states.append(written[:end] + bytes(len(written) - end))
    return states[int(rng.integers(len(states)))]
