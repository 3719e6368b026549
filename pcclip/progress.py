"""Progress that is always visible: a bar in JupyterLab, a plain log line every few seconds everywhere else.

A bar under papermill prints only its first line, so batch runs get lines instead.
"""

import os
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

_SECONDS = 5.0
BATCH = "PCCLIP_BATCH"  # set for the kernels of `pcclip run`


def say(text: str) -> None:
    print(text, flush=True)


class Meter:
    """Counts `total` things called `what`; `add(n)` shows how many are done, the rate and the time left."""

    def __init__(self, total: int, what: str):
        self._total, self._what, self._done = total, what, 0
        self._started = self._last = time.monotonic()
        self._bar = None
        if interactive():
            from tqdm.notebook import tqdm

            self._bar = tqdm(total=total, desc=what)

    def add(self, n: int = 1, note: str = "") -> None:
        self._done += n
        if self._bar is not None:
            self._bar.set_postfix_str(note, refresh=False)
            self._bar.update(n)
            return
        now = time.monotonic()
        if now - self._last >= _SECONDS or self._done >= self._total:
            rate = self._done / max(now - self._started, 1e-9)
            left = (self._total - self._done) / rate
            say(f"{self._what}: {self._done}/{self._total}, {_rate(rate)}, {_time(left)} left{', ' * bool(note)}{note}")
            self._last = now


def track(items: Iterable, total: int, what: str) -> Iterator:
    """Yield `items` under a Meter."""
    meter = Meter(total, what)
    for item in items:
        yield item
        meter.add()


def _rate(per_second: float) -> str:
    return f"{per_second:.1f}/s" if per_second >= 0.1 else f"{per_second * 3600:.0f} an hour"


def _time(seconds: float) -> str:
    """87 -> '87 s', 1234 -> '21 min', 12345 -> '3.4 h'."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def interactive() -> bool:
    """True in a kernel that a person looks at: not in a script, nor in a kernel that papermill started."""
    kernel = sys.modules.get("ipykernel.kernelapp")  # starting a kernel imports it too
    if kernel is None or not kernel.IPKernelApp.initialized() or BATCH in os.environ:
        return False
    return not any(Path(word).stem == "papermill" for word in _words_of_the_parents())


def _words_of_the_parents() -> list[str]:
    """How the two processes above this one were called: python, [-m,] papermill. What may not be seen is left out."""
    import psutil

    words = []
    with suppress(psutil.Error):
        for parent in psutil.Process().parents()[:2]:
            with suppress(psutil.Error):
                words += parent.cmdline()[:3]
    return words
