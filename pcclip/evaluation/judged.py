"""What a judge is shown, and its answer with what that cost."""

from dataclasses import dataclass

from pcclip.comparisons.llm import Odds

FORMAT = 1  # raise it when a question's words change: old answers are then not taken for theirs


@dataclass(frozen=True)
class Look:
    """Which of two images is it? `key` comes back with the answer."""

    key: str
    first: str  # paths
    second: str
    question: str


@dataclass(frozen=True)
class Judged:
    """log odds that it is the first, in nats, None on an error; where that is from; and what asking cost."""

    value: float | None
    reason: str  # as of Odds
    seconds: float  # from asking to the answer, retries and their waits included
    requests: int = 1  # retries included; a request that failed for good counts once
    metered: int = 0  # replies that said how many tokens they took, and those tokens
    tokens_in: int = 0
    tokens_out: int = 0

    @property
    def failed(self) -> bool:
        return self.value is None

    @classmethod
    def of(cls, odds: Odds, seconds: float, **cost: int) -> "Judged":
        return cls(odds.value, odds.reason, seconds, **cost)
