"""Votes: which of two photos has more of an attribute, kept in a file; the axis they speak for; what to ask next.

The model is Bradley and Terry's (1952): the first of two photos wins with probability sigmoid(w . (u1 - u2)), u the
photos' unit vectors. The weights w have a Gaussian prior of the same width in every direction, around the text axis
where there is one, so that no votes mean the text's own ranking and each vote moves it. The posterior is Laplace's
approximation. It differs from the prior only within the span of the voted differences, and is computed there: the
width of the embedding costs next to nothing.
"""

import json
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal, get_args

import numpy as np
from jaxtyping import Float

from pcclip.errors import PcclipError
from pcclip.runs.files import disk_errors
from pcclip.runs.progress import say

Choice = Literal["first", "second", "tie", "skip"]
_OUTCOME = {"first": 1.0, "second": 0.0, "tie": 0.5}
_ROWS = 2**14  # held at once in float64


@dataclass(frozen=True)
class Vote:
    """One answer about two photos, named by id or path. A skipped pair says nothing but is not offered again."""

    first: str
    second: str
    choice: Choice

    def __post_init__(self):
        if self.choice not in get_args(Choice):
            raise PcclipError(f"a vote says {self.choice!r}; it must be one of {', '.join(get_args(Choice))}")
        if self.first == self.second:
            raise PcclipError(f"a vote compares {self.first!r} with itself; it needs two photos")


class VoteFile:
    """Votes in a JSON-lines file: each is on disk before the next is asked for, and none is ever rewritten."""

    def __init__(self, path: str | Path):
        self.path = Path(path).expanduser()

    def read(self, **context) -> list[Vote]:
        """The votes in their order, without the undone ones; no file is no votes.

        Args:
            context: only votes that were appended with these values, e.g. attribute='a large animal'.

        Raises:
            PcclipError: it is there and cannot be read, or a line is not a vote, but for the last one, which a kill
                may have cut short: that is said.
        """
        return [vote for said, vote in self._kept() if _matches(said, context)]

    def attributes(self) -> dict[str, int]:
        """How many votes there are about each attribute ('' where none was named)."""
        return dict(Counter(str(said.get("attribute") or "") for said, _ in self._kept()))

    def _kept(self) -> list[tuple[dict, Vote]]:
        votes: list[tuple[dict, Vote]] = []
        for row in self._rows():
            if row.pop("undo", False):
                undone = [k for k, (said, _) in enumerate(votes) if _matches(said, row)]
                votes = [vote for k, vote in enumerate(votes) if k not in undone[-1:]]
            else:
                votes.append((row, Vote(row.pop("first"), row.pop("second"), row.pop("choice"))))
        return votes

    def append(self, vote: Vote, **context) -> None:
        """Write one vote with the time and `context`, e.g. attribute and model. Raises PcclipError: no room, no right."""
        self._write({"first": vote.first, "second": vote.second, "choice": vote.choice, **context})

    def undo(self, **context) -> None:
        """Take back the last vote that was appended with these values. Without any there, nothing happens."""
        self._write({"undo": True, **context})

    def _write(self, row: dict) -> None:
        line = json.dumps({**row, "time": datetime.now(UTC).isoformat(timespec="seconds")}, ensure_ascii=False)
        try:
            with disk_errors(self.path):
                self.path.parent.mkdir(parents=True, exist_ok=True)
                with open(self.path, "ab+") as file:
                    file.write(self._mended(file) + line.encode() + b"\n")
                    file.flush()
                    os.fsync(file.fileno())
        except OSError as error:
            raise PcclipError(f"{self.path}: cannot be written ({error.strerror}); name a file of votes") from error

    def _mended(self, file) -> bytes:
        """Cut off a last line that a kill cut short; what must stand before the next line."""
        file.seek(0)
        last = file.read().rpartition(b"\n")[2]
        if not last or _whole(last):
            return b"\n" if last else b""
        file.truncate(file.seek(0, os.SEEK_END) - len(last))
        return b""

    def _rows(self) -> list[dict]:
        try:
            lines = self.path.read_bytes().split(b"\n")
        except (FileNotFoundError, NotADirectoryError):
            return []
        except OSError as error:
            raise PcclipError(f"{self.path}: cannot be read ({error.strerror}); name a file of votes") from error
        rows = []
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            row = _whole(line)
            if row:
                rows.append(row)
            elif number == len(lines):  # no newline after it
                say(f"{self.path}: line {number} was cut short and is left out; the {len(rows)} before it are whole")
            else:
                raise PcclipError(f"{self.path}: line {number} is not a vote; mend or delete it")
        return rows


def _whole(line: bytes) -> dict | None:
    """A line's vote or undo, or None."""
    try:
        row = json.loads(line)
        if row.get("undo") is True:
            row.pop("time", None)
            return row
        Vote(row["first"], row["second"], row["choice"])
        return row if isinstance(row["first"], str) and isinstance(row["second"], str) else None
    except (ValueError, AttributeError, LookupError, TypeError, PcclipError):
        return None


def _matches(said: dict, wanted: dict) -> bool:
    return all(said.get(key) == value for key, value in wanted.items())


@dataclass(frozen=True)
class Ballot:
    """Votes on photos that are here, as numbers.

    differences (m, d): first minus second vector; outcomes (m,): 1 the first has more, 0 the second, 0.5 a tie;
    asked: row pairs (lower, higher) that were voted on or skipped; unknown: how many votes name a photo not here.
    """

    differences: Float[np.ndarray, "m d"]
    outcomes: Float[np.ndarray, " m"]
    asked: set[tuple[int, int]]
    unknown: int


def ballot(votes: Iterable[Vote], matrix: Float[np.ndarray, "n d"], *names: Sequence[str]) -> Ballot:
    """The votes on the rows of `matrix`; `names` are parallel to its rows, e.g. the ids and the paths.

    A vote that names one photo in two ways compares nothing and is left out.
    """
    row = {name: i for column in names for i, name in enumerate(column)}
    votes = list(votes)
    here = [(row[v.first], row[v.second], v.choice) for v in votes if v.first in row and v.second in row]
    cast = [vote for vote in here if vote[0] != vote[1]]
    pairs = np.array([(one, two) for one, two, choice in cast if choice in _OUTCOME], dtype=np.int64).reshape(-1, 2)
    outcomes = np.array([_OUTCOME[choice] for *_, choice in cast if choice in _OUTCOME])
    asked = {(min(one, two), max(one, two)) for one, two, _ in cast}
    return Ballot(matrix[pairs[:, 0]] - matrix[pairs[:, 1]], outcomes, asked, len(votes) - len(here))
