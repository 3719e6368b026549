"""Asking, as something that can be sent to another process: a backend is started where the first question is put."""

from collections.abc import Callable, Iterable, Iterator
from typing import Literal

from pcclip.comparisons.llm.question import Backend


class Asker:
    """A backend's `answers` or `choose`; the backend is started once, when something is asked."""

    def __init__(self, start: Callable[[], Backend], method: Literal["answers", "choose"] = "answers"):
        self._start, self._method, self._backend = start, method, None

    def __call__(self, questions: Iterable) -> Iterator[tuple]:
        if self._backend is None:
            self._backend = self._start()
        return getattr(self._backend, self._method)(questions)
