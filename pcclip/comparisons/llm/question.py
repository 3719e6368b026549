"""What a backend is asked and what it replies."""

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol

from pcclip.comparisons.llm.choice import Choice, Odds


@dataclass(frozen=True)
class Question:
    """One pair to compare. `key` comes back with the answer."""

    key: str
    first: str
    second: str

    @property
    def seed(self) -> int:
        return int(hashlib.sha256(self.key.encode()).hexdigest()[:8], 16)


@dataclass(frozen=True)
class Reply:
    """What came back: the raw text, and why it ended ('stop', 'length', or 'error: ...')."""

    text: str
    finish_reason: str

    @property
    def failed(self) -> bool:
        return self.finish_reason.startswith("error")


class Backend(Protocol):
    identity: str  # hash of the model's weights or of its name, or the template's version

    def answers(self, questions: Iterable[Question]) -> Iterator[tuple[Question, Reply]]:
        """Answer every question, in the order answers come in."""

    def choose(self, choices: Iterable[Choice]) -> Iterator[tuple[Choice, Odds]]:
        """Judge every choice, in the order verdicts come in."""
