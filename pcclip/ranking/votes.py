"""Votes and examples: what a person says about photos, kept in a file that is only appended to.

A photo has one identity everywhere: the SHA-256 of its file's bytes. Its id or path is written beside it as a hint, and
alone it names the photo in files from before the identity was kept (`photo_index.PhotoIndex` finds both).
"""

import os
from collections import Counter, defaultdict
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pcclip.errors import PcclipError
from pcclip.runs.log import Log

CHOICES = ("first", "second", "tie", "skip")


@dataclass(frozen=True)
class Vote:
    """One answer about two photos. A skipped pair says nothing but is not offered again.

    Attributes:
        first, second: ids or paths of the photos.
        choice: which of them has more, one of CHOICES.
        first_content, second_content: SHA-256 of the photos' bytes; '' where it is not known.
    """

    first: str
    second: str
    choice: str
    first_content: str = ""
    second_content: str = ""

    def __post_init__(self) -> None:
        if self.choice not in CHOICES:
            raise PcclipError(f"a vote says {self.choice!r}; it must be one of {', '.join(CHOICES)}")
        if self.first == self.second:
            raise PcclipError(f"a vote compares {self.first!r} with itself; it needs two photos")


@dataclass(frozen=True)
class Example:
    """A photo with much (likes 1) or little (-1) of an attribute; 0 takes an earlier example back."""

    example: str
    likes: int
    content: str = ""


@dataclass(frozen=True)
class Words:
    """An attribute in words, how they become an axis, the model's spec, the words that the page began with, the photos' place."""

    more: str
    less: str
    estimator: str
    model: str = ""
    begun: str = ""
    photos: str = ""


class VoteFile:
    """Words, votes and examples in a JSON-lines file: each is on disk at once, and none is ever rewritten.

    A line is a vote, an example or an undo of the last vote, with the attribute that it is about, or words. Every line
    has its time.
    """

    def __init__(self, path: str | Path):
        self.path = Path(os.path.expanduser(path))
        self._log = Log(self.path, _record, "votes")

    def read(self, attribute: str | None = None) -> list[Vote]:
        """The votes on one attribute, or all, in their order and without the undone ones; no file is no votes.

        Lines that are no votes are left out, which one printed line says, and kept in a file beside it (see Log).
        Raises PcclipError when the file is there and cannot be read.
        """
        return [vote for name, vote in self._standing() if attribute in (None, name)]

    def examples(self, attribute: str) -> list[Example]:
        """The examples of an attribute that were not taken back."""
        lines = [line for name, line in self._log.read() if isinstance(line, Example) and name == attribute]
        return [line for line in {line.content or line.example: line for line in lines}.values() if line.likes]

    def words(self) -> Words | None:
        """The words that were typed last."""
        return next((line for _, line in reversed(self._log.read()) if isinstance(line, Words)), None)

    def attributes(self) -> dict[str, int]:
        """How many votes there are about each attribute ('' where none was named)."""
        return dict(Counter(name for name, _ in self._standing()))

    def append(self, line: Vote | Example | Words, **context: Any) -> None:
        """Write a vote, an example or words with the time and `context`, e.g. attribute and model.

        Raises PcclipError: no room, no right.
        """
        self._log.append({**asdict(line), **context, **_now()})

    def undo(self, attribute: str | None = None) -> None:
        """Take back the last vote, of an attribute or of all. Without any there, nothing happens."""
        self._log.append({"undo": True, **({} if attribute is None else {"attribute": attribute}), **_now()})

    def _standing(self) -> list[tuple[str, Vote]]:
        """(attribute, vote) of the votes that were not undone; each line is looked at a constant number of times."""
        votes: dict[int, tuple[str, Vote]] = {}
        numbers: defaultdict[str, list[int]] = defaultdict(list)
        for number, (attribute, line) in enumerate(self._log.read()):
            if isinstance(line, Vote):
                votes[number] = attribute or "", line
                numbers[attribute or ""].append(number)
            elif line is None and attribute is None and votes:
                numbers[votes.popitem()[1][0]].pop()
            elif line is None and attribute is not None and numbers[attribute]:
                del votes[numbers[attribute].pop()]
        return list(votes.values())


def _now() -> dict[str, str]:
    return {"time": datetime.now(UTC).isoformat(timespec="seconds")}


def _record(row: dict[str, Any]) -> tuple[str | None, Vote | Example | Words | None]:
    """(attribute, what a line says), None for an undo. Raises KeyError, TypeError or PcclipError for other lines."""
    attribute = row.get("attribute")
    kind = next((kind for kind, name in ((Words, "more"), (Example, "example")) if name in row), Vote)
    if row.get("undo") is True:
        return attribute, None
    line = kind(**{field.name: row[field.name] for field in fields(kind) if field.name in row})
    texts = [attribute or "", *(value for name, value in asdict(line).items() if name != "likes")]
    if not all(isinstance(text, str) for text in texts) or getattr(line, "likes", 0) not in (-1, 0, 1):
        raise TypeError("a vote names two photos, an example one")
    return attribute, line
