"""The interface of a language model: questions with replies, and choices with odds.

A backend answers in any order. An answer depends on its question and the question's seed alone, never on the questions
that are answered beside it, so that a run which was killed and resumed equals a run which was not. (A server may not
keep to this.)
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from typing import NamedTuple, Protocol, TypeVar, runtime_checkable

from pcclip.comparisons.sentences import from_captions
from pcclip.errors import PcclipError

Item = TypeVar("Item")
Result = TypeVar("Result")


class Question(NamedTuple):
    """The two texts that fill a prompt's question; `second` is empty where the prompt needs one text only."""

    key: str
    first: str
    second: str

    @property
    def seed(self) -> int:
        return int(hashlib.sha256(self.key.encode()).hexdigest()[:8], 16)


@dataclass(frozen=True)
class Reply:
    """The model's raw text, and why it ended: 'stop', 'length', or 'error: ...'.

    Raises TypeError or UnicodeError for a text that no table can hold, so that a log neither stores nor reads one.
    """

    text: str
    finish_reason: str

    def __post_init__(self) -> None:
        if not isinstance(self.text, str):
            raise TypeError(f"a reply that is no text: {self.text!r}")
        self.text.encode()  # half a surrogate pair

    @property
    def failed(self) -> bool:
        return self.finish_reason.startswith("error")


class Choice(NamedTuple):
    """A text, and two lists of words that may come next.

    Attributes:
        key: identifies the choice; its odds are stored under it.
        text: the text that the model continues, such as '... a fox is much'.
        more: the words that stand for more, such as ('larger', 'bigger').
        less: the words that stand for less, such as ('smaller', 'lighter').
        question: the choice in plain words, between a first and a second thing, for servers that give no token
            probabilities; empty where the text is about one thing.
    """

    key: str
    text: str
    more: tuple[str, ...]
    less: tuple[str, ...]
    question: str


@dataclass(frozen=True)
class Odds:
    """log P(more) - log P(less) in nats, None after an error; `reason` is 'probabilities...', 'structured', 'error: ...'."""

    value: float | None
    reason: str

    @property
    def failed(self) -> bool:
        return self.value is None


@runtime_checkable
class Backend(Protocol):
    """A language model.

    Attributes:
        identity: a hash of the model's weights, or of its name where the weights cannot be seen.
    """

    identity: str

    def answers(self, questions: Iterable[Question]) -> Iterator[tuple[Question, Reply]]:
        """Yield every question with its reply, as the replies arrive."""

    def choose(self, choices: Iterable[Choice]) -> Iterator[tuple[Choice, Odds]]:
        """Yield every choice with its odds, as the odds arrive."""


class Template:
    """A baseline without a language model: one sentence made of the two captions."""

    identity = "template-1"

    def answers(self, questions: Iterable[Question]) -> Iterator[tuple[Question, Reply]]:
        for question in questions:
            yield question, Reply(from_captions(question.first, question.second), "stop")

    def choose(self, choices: Iterable[Choice]) -> Iterator[tuple[Choice, Odds]]:
        raise PcclipError(
            "generate.backend = template cannot judge attributes; name a language model's backend, "
            "or leave generate.attributes out"
        )


class LazyBackend:
    """A backend that loads its model for the first question, so that a run with all answers stored loads none.

    Before the first question it can be sent to another process.
    """

    def __init__(self, identity: str, start: Callable[[], Backend]):
        self.identity, self._start = identity, start

    @cached_property
    def _backend(self) -> Backend:
        return self._start()

    def answers(self, questions: Iterable[Question]) -> Iterator[tuple[Question, Reply]]:
        return self._backend.answers(questions)

    def choose(self, choices: Iterable[Choice]) -> Iterator[tuple[Choice, Odds]]:
        return self._backend.choose(choices)


def as_completed(
    submit: Callable[[Item], "Future[Result]"], items: Iterable[Item], limit: int
) -> Iterator[tuple[Item, Result]]:
    """Submit the items, at most `limit` at a time, and yield each with its result as soon as the result is there.

    An item is taken from `items` when there is room for it. When the consumer stops, unfinished items are cancelled.
    """
    items = iter(items)
    running: dict[Future[Result], Item] = {}
    try:
        while True:
            for item in islice(items, limit - len(running)):
                running[submit(item)] = item
            if not running:
                return
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                yield running.pop(future), future.result()
    finally:
        for future in running:
            future.cancel()
