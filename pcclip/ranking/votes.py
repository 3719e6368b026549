"""Votes: which of two photos has more of an attribute, kept in a file."""

import json
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pcclip.errors import PcclipError
from pcclip.runs.log import Log

CHOICES = ("first", "second", "tie", "skip")


@dataclass(frozen=True)
class Vote:
    """One answer about two photos, named by id or path. A skipped pair says nothing but is not offered again."""

    first: str
    second: str
    choice: str

    def __post_init__(self) -> None:
        if self.choice not in CHOICES:
            raise PcclipError(f"a vote says {self.choice!r}; it must be one of {', '.join(CHOICES)}")
        if self.first == self.second:
            raise PcclipError(f"a vote compares {self.first!r} with itself; it needs two photos")


class VoteFile:
    """Votes in a JSON-lines file: each is on disk before the next is asked for, and none is ever rewritten.

    A line is a vote with its context (attribute, model, time), or an undo of the last vote with some context.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path).expanduser()
        self._log = Log(self.path, _vote_or_undo, "votes")

    def read(self, **context: Any) -> list[Vote]:
        """The votes in their order, without the undone ones; no file is no votes.

        Lines that are no votes are left out, which one printed line says, and kept in a file beside it (see Log).

        Args:
            context: only votes that were appended with these values, e.g. attribute='a large animal'.

        Raises:
            PcclipError: the file is there and cannot be read.
        """
        return [vote for own, vote in self._standing() if all(own.get(key) == value for key, value in context.items())]

    def attributes(self) -> dict[str, int]:
        """How many votes there are about each attribute ('' where none was named)."""
        return dict(Counter(str(context.get("attribute") or "") for context, _ in self._standing()))

    def append(self, vote: Vote, **context: Any) -> None:
        """Write a vote with the time and `context`, e.g. attribute and model. Raises PcclipError: no room, no right."""
        self._log.append({"first": vote.first, "second": vote.second, "choice": vote.choice, **context, **_now()})

    def undo(self, **context: Any) -> None:
        """Take back the last vote that was appended with these values. Without any there, nothing happens."""
        self._log.append({"undo": True, **context, **_now()})

    def _standing(self) -> list[tuple[dict[str, Any], Vote]]:
        """(context, vote) of the votes that were not undone.

        For each set of keys that undos name, votes are stacked by their values of those keys, so that each line is
        looked at a constant number of times.
        """
        votes: list[tuple[dict[str, Any], Vote] | None] = []
        stacks: dict[tuple[str, ...], dict[str, list[int]]] = {}
        for context, vote in self._log.read():
            if vote is not None:
                for keys, by_values in stacks.items():
                    by_values[_values(context, keys)].append(len(votes))
                votes.append((context, vote))
                continue
            keys = tuple(sorted(context))
            if keys not in stacks:
                stacks[keys] = defaultdict(list)
                for number, standing in enumerate(votes):
                    if standing is not None:
                        stacks[keys][_values(standing[0], keys)].append(number)
            stack = stacks[keys][_values(context, keys)]
            while stack and votes[stack[-1]] is None:  # undone through other keys
                stack.pop()
            if stack:
                votes[stack.pop()] = None
        return [standing for standing in votes if standing is not None]


def _values(context: Mapping[str, Any], keys: Sequence[str]) -> str:
    return json.dumps([context.get(key) for key in keys], sort_keys=True)


def _now() -> dict[str, str]:
    return {"time": datetime.now(UTC).isoformat(timespec="seconds")}


def _vote_or_undo(row: dict[str, Any]) -> tuple[dict[str, Any], Vote | None]:
    """(context, vote) of a line, without a vote for an undo. Raises KeyError, TypeError or PcclipError for others."""
    if row.get("undo") is True:
        return {key: value for key, value in row.items() if key not in ("undo", "time")}, None
    vote = Vote(row.pop("first"), row.pop("second"), row.pop("choice"))
    if not isinstance(vote.first, str) or not isinstance(vote.second, str):
        raise TypeError("a vote names two photos")
    return row, vote
