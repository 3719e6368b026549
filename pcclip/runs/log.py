"""An append-only log of JSON lines, for answers of language models and for votes.

A whole line is never changed or deleted. A line that cannot be read is skipped and copied to a file beside the log, and
one printed line says how many there are. A last line without its newline, which a kill or a power cut leaves, is completed
if it can be read, else moved to that file. A lock lets one process at a time append or repair.
"""

import fcntl
import json
import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict
from functools import partial
from mmap import ACCESS_READ, mmap
from pathlib import Path
from typing import Any, BinaryIO, Generic, TypeVar, get_type_hints
from zlib import crc32

from pcclip.config import Config
from pcclip.errors import PcclipError, one_line
from pcclip.images import batches
from pcclip.runs.files import atomic, digest, disk_errors, is_url, make_folder, names_in, sync
from pcclip.runs.progress import Meter, say, track
from pcclip.runs.ray_cluster import over_shards

_SUFFIX = ".jsonl"
_CHECKSUM = "crc"  # field of an answer's line: the checksum of all others
_SYNC_SECONDS = 0.5  # lines that come within this time share an fsync

Record = TypeVar("Record")
Item = TypeVar("Item")


class Log(Generic[Record]):
    """A file of JSON lines that is only ever appended to.

    Args:
        path: the file, or its URL. A store that a URL names cannot append: its file is sent as a whole by `store`.
        parse: makes a record of a line's object; raises for a line that is no record.
        noun: what the records are, for messages.
    """

    def __init__(self, path: Path, parse: Callable[[dict], Record], noun: str):
        self.path, self._parse, self.noun = path, parse, noun
        self._reported: set[int] = set()

    @property
    def bad_path(self) -> Path:
        """The file beside the log that keeps lines which cannot be read."""
        return self.path.with_name(f"{self.path.name}.bad")

    def read(self) -> list[Record]:
        """All records in their order; an absent file has none.

        Lines that are no records are left out, which one printed line says, and copied to `bad_path`.
        Raises PcclipError when the file is there and cannot be read.
        """
        records: list[Record] = []
        bad: dict[int, bytes] = {}
        number = 0
        try:
            with self.path.open("rb") as file:
                for number, line in enumerate(file, start=1):
                    record = self._record(line)
                    if record is None:
                        bad[number] = line
                    else:
                        records.append(record)
        except (FileNotFoundError, NotADirectoryError):
            return []
        except OSError as error:
            raise PcclipError(f"{self.path}: cannot be read ({error.strerror}); name a file of {self.noun}") from error
        if bad.keys() != self._reported:
            self._reported = set(bad)
            self._report(bad, number)
        return records

    def append(self, row: Mapping[str, Any]) -> None:
        """Store one line: it is on disk when this returns. Raises PcclipError: no room, no right, or locked."""
        list(self.store([(None, row)]))

    def store(self, rows: Iterable[tuple[Item, Mapping[str, Any]]]) -> Iterator[Item]:
        """Append the row of each (item, row), and yield the item once its row is on disk.

        Every line is flushed at once, so a kill loses none. An fsync comes with the first line that is written
        _SYNC_SECONDS after the last fsync, and at the end; a power cut can lose the lines since then, which were not
        yielded.
        """
        if is_url(self.path):
            yield from self._send(rows)
            return
        unsynced: list[Item] = []
        with self._open() as file:
            synced = time.monotonic()
            try:
                for item, row in rows:
                    self.write(file, row)
                    unsynced.append(item)
                    if time.monotonic() - synced >= _SYNC_SECONDS:
                        self._sync(file)
                        yield from unsynced
                        unsynced, synced = [], time.monotonic()
            finally:
                self._sync(file)
        yield from unsynced

    def write(self, file: BinaryIO, row: Mapping[str, Any]) -> None:
        """Add a line to the opened log, after mending its end, while no other process does."""
        with self._write_errors(), _locked(file):
            self._mend_end(file)
            file.write(_line(row))
            file.flush()

    def _record(self, line: bytes) -> Record | None:
        try:
            row = json.loads(line.decode("utf-8-sig"))
            return self._parse(row) if isinstance(row, dict) else None
        except (ValueError, LookupError, TypeError, ArithmeticError, RecursionError, PcclipError):
            return None

    def _report(self, bad: dict[int, bytes], lines: int) -> None:
        """Say in one line which lines were left out, and copy those that are not the end of a kill."""
        ended_lines = {number: line for number, line in bad.items() if line.endswith(b"\n")}
        parts = [f"line {lines} was cut short and is left out"] * (len(bad) - len(ended_lines))
        if ended_lines:
            first = f"{len(ended_lines)} of {lines} lines cannot be read and are left out, the first is line {min(bad)}"
            parts.insert(0, first)
            if not is_url(self.path):  # a store's file is sent with all its lines
                with suppress(OSError, PcclipError):  # a folder that may only be read
                    self._keep(ended_lines.values())
                    parts[0] = f"{first}; a copy is kept in {self.bad_path.name}"
        if parts:
            say(f"{self.path}: {', and '.join(parts)}")

    def _keep(self, lines: Iterable[bytes]) -> None:
        """Add lines to the file of bad lines, each once, and wait until they are on disk."""
        with open(self.bad_path, "ab+") as file, _locked(file):
            file.seek(0)
            kept = set(file.read().split(b"\n")[:-1])
            for line in dict.fromkeys(line.removesuffix(b"\n") for line in lines):
                if line not in kept:
                    file.write(line + b"\n")
            file.flush()
            os.fsync(file.fileno())
            sync(self.bad_path.parent)

    def _open(self) -> BinaryIO:
        """The log opened for appending; it and its folder are made where they are absent."""
        with self._write_errors():
            make_folder(self.path.parent)
            file = self.path.open("ab+")
            sync(self.path.parent)
        return file

    def _sync(self, file: BinaryIO) -> None:
        with self._write_errors():
            os.fsync(file.fileno())

    @contextmanager
    def _write_errors(self) -> Iterator[None]:
        """One line for a full disk, a missing right, or a path that is no file."""
        try:
            with disk_errors(self.path):
                yield
        except OSError as error:
            raise PcclipError(
                f"{self.path}: cannot be written ({error.strerror}); name a file of {self.noun}"
            ) from error

    def _mend_end(self, file: BinaryIO) -> None:
        """Complete a last line without its newline if it is a record; else move it to the file of bad lines."""
        if not file.seek(0, os.SEEK_END):
            return
        with mmap(file.fileno(), 0, access=ACCESS_READ) as content:
            start = content.rfind(b"\n") + 1
            line = content[start:]
        if line and self._record(line) is not None:
            file.write(b"\n")
        elif line:
            self._keep([line])
            file.truncate(start)

    def _send(self, rows: Iterable[tuple[Item, Mapping[str, Any]]]) -> Iterator[Item]:
        """Send the whole file, with what it held, at the end or when making the rows fails."""
        stored = self.path.read_bytes() if self.path.exists() else b""
        content, items = [stored and stored.removesuffix(b"\n") + b"\n"], []
        try:
            for item, row in rows:
                content.append(_line(row))
                items.append(item)
        finally:
            with atomic(self.path) as temporary:
                temporary.write_bytes(b"".join(content))
        yield from items


class AnswerLog(Log[tuple[str, Any]]):
    """Answers by the key of their question. Runs share them: a question that has an answer is not asked again.

    On one machine the log is one file. The workers of a cluster, and a storage that cannot append, write a folder of parts
    beside it, a part for a group of consecutive questions. Every run reads the file and all parts.

    Args:
        path: the file.
        kind: the answers' dataclass, with a property `failed`; failed answers are asked for again on the next run.
        noun: what the questions are about, for progress and messages.
    """

    def __init__(self, path: Path, kind: type, noun: str):
        super().__init__(path, partial(_answer, kind, get_type_hints(kind)), noun)
        self.kind = kind

    def answer_all(
        self,
        questions: Sequence[Any],
        ask: Callable[[list], Iterable[tuple]],
        config: Config | None = None,
    ) -> dict[str, Any]:
        """Answers by the questions' keys: those in the log, and the rest asked now and stored as they come in.

        Args:
            questions: each with a `key`; equal keys are asked once.
            ask: takes the questions that have no answer yet, yields (question, answer) in any order.
            config: names engine and storage; None asks in this process. With `engine: ray` workers receive `ask`, so it
                must be picklable, as a LazyBackend's methods are.

        Raises:
            PcclipError: some question was never answered, or the disk is full.
        """
        questions_by_key = {question.key: question for question in questions}
        storage = config.stored(self.path.parent) if config else None
        parts = (storage or self.path.parent) / self.path.stem
        stored = [*self.read(), *self._read_parts(parts)]
        answers = {key: answer for key, answer in stored if key in questions_by_key and not answer.failed}
        unanswered = [question for key, question in questions_by_key.items() if key not in answers]
        if answers:
            counts = f"{len(answers)} of {len(questions_by_key)}"
            say(f"{self.noun}: {counts} answers are in the log, asking {len(unanswered)}")
        if unanswered and config and (storage is not None or config.engine == "ray"):
            self._ask_in_groups(
                question_groups(list(questions_by_key.values()), answers, config.generate.shard), ask, parts, config
            )
            rest = questions_by_key.keys() - answers.keys()
            new = sorted(self._read_parts(parts), key=lambda row: not row[1].failed)  # an older part may hold a failure
            answers |= {key: answer for key, answer in new if key in rest}
        elif unanswered:
            for question, answer in track(self.store(_rows(ask(unanswered))), len(unanswered), self.noun):
                answers[question.key] = answer
        if missing := len(questions_by_key) - len(answers):
            shared = config and config.engine == "ray"
            hint = " (if workers did, set storage to where every node sees it)" if shared else ""
            raise PcclipError(
                f"{self.noun}: {missing} of {len(questions_by_key)} questions got no answer; run again to ask them{hint}"
            )
        return answers

    def _ask_in_groups(self, groups: Mapping[str, list], ask: Callable, parts: Path, config: Config) -> None:
        """Have each group's answers stored in its part, by the workers of a Ray cluster or here."""
        make_worker = partial(partial, write_part, ask, self.kind, parts)
        if config.engine == "ray":
            gpus = config.ray.gpus if config.generate.backend == "transformers" else 0.0
            settings = config.ray.model_copy(update={"gpus": gpus})
            over_shards(list(groups), groups.__getitem__, make_worker, settings, self.noun)
            return
        write, meter = make_worker(), Meter(sum(map(len, groups.values())), self.noun)
        for name, group in groups.items():
            write(name, group)
            meter.add(len(group))

    def _read_parts(self, folder: Path) -> Iterator[tuple[str, Any]]:
        for name in sorted(names_in(folder)):
            if name.endswith(_SUFFIX) and not name.startswith("."):
                yield from AnswerLog(folder / name, self.kind, self.noun).read()


def write_part(ask: Callable[[list], Iterable[tuple]], kind: type, folder: Path, name: str, questions: list) -> None:
    """Store the answers to one group of questions in a part of the log; also in a process of a cluster."""
    part = AnswerLog(folder / name, kind, "answers")
    answered = {key for key, answer in part.read() if not answer.failed}
    if rest := [question for question in questions if question.key not in answered]:
        deque(part.store(_rows(ask(rest))), maxlen=0)


def question_groups(questions: list, answers: Mapping[str, Any], size: int) -> dict[str, list]:
    """Name of a part -> its questions without an answer, `size` consecutive questions a group.

    The groups and their names do not depend on which questions have been answered.
    """
    groups = {}
    for rows in batches(len(questions), size):
        group = questions[rows.start : rows.stop]
        if rest := [question for question in group if question.key not in answers]:
            groups[f"{digest([question.key for question in group])[:16]}{_SUFFIX}"] = rest
    return groups


@contextmanager
def _locked(file: BinaryIO) -> Iterator[None]:
    """Keep other processes from appending while the block runs. filelock takes ten times as long as writing the line."""
    fcntl.flock(file, fcntl.LOCK_EX)
    try:
        yield
    finally:
        fcntl.flock(file, fcntl.LOCK_UN)


def _rows(answers: Iterable[tuple]) -> Iterator[tuple[tuple, dict[str, Any]]]:
    """((question, answer), the log's row with its checksum) of each (question, answer)."""
    try:
        for question, answer in answers:
            row = {"key": question.key, **asdict(answer)}
            yield (question, answer), {**row, _CHECKSUM: crc32(_line(row))}
    except OSError as error:
        raise PcclipError(f"the language model failed ({one_line(error)}); mend that and run again") from error


def _answer(kind: type, hints: Mapping[str, Any], row: dict) -> tuple[str, Any]:
    """(key, answer) of a row; lines of older versions have no checksum.

    Raises TypeError or KeyError when a field is missing, unknown or of another type, ValueError for another checksum.
    """
    checksum = row.pop(_CHECKSUM, None)
    if checksum not in (None, crc32(_line(row))):
        raise ValueError("damaged")
    key = row.pop("key")
    answer = kind(**row)
    for name, value in [("key", key), *row.items()]:
        hint = hints.get(name, str)
        if not isinstance(value, hint) and not (type(value) is int and isinstance(0.0, hint)):
            raise TypeError(f"{name} is {value!r}")
    return key, answer


def _line(row: Mapping[str, Any]) -> bytes:
    return json.dumps(row).encode() + b"\n"
