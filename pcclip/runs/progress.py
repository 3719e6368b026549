"""Progress that is always visible: a bar in JupyterLab, a plain log line every few seconds everywhere else.

A bar under papermill prints only its first line, so batch runs get lines instead; and where a kernel is silent, the
process that runs it says so (Heartbeat).
"""

import os
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import TextIO

_SECONDS = 5.0
_SILENT = 30.0
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


class Heartbeat:
    """While it is entered, says every `seconds` that `what` is at work, unless its streams said something since.

    Told are the time, the memory of this process's children (a kernel and what it started), and the last line.
    """

    def __init__(self, what: str, seconds: float = _SILENT):
        self._what, self._seconds, self._heard, self._last, self._bytes = what, seconds, 0, "", 0
        self._ended = threading.Event()

    def __enter__(self):
        self._started = time.monotonic()
        self._thread = threading.Thread(target=self._beat, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *error) -> None:
        self._ended.set()
        self._thread.join()

    def stream(self, out: TextIO) -> "_Heard":
        """What writes to `out` and counts as a sign of life."""
        return _Heard(out, self)

    def hear(self, text: str) -> None:
        self._heard += 1
        self._last = next((line.strip() for line in reversed(text.splitlines()) if line.strip()), self._last)

    @property
    def most(self) -> str:
        """The most memory that was seen, in words; '' where it was not looked at yet."""
        return f"up to {self._bytes / 1e9:.1f} GB" if self._bytes else ""

    def _beat(self) -> None:
        heard = self._heard
        while not self._ended.wait(self._seconds):
            now = _memory_of_the_children()
            self._bytes = max(self._bytes, now)
            if self._heard == heard:
                told = f"; it last said: {self._last}" * bool(self._last)
                say(f"{self._what}: at work for {_time(time.monotonic() - self._started)}, {now / 1e9:.1f} GB{told}")
            heard = self._heard


class _Heard:
    """A text stream that tells a Heartbeat what is written to it."""

    def __init__(self, out: TextIO, beat: Heartbeat):
        self._out, self._beat = out, beat

    def write(self, text: str) -> None:
        self._beat.hear(text)
        self._out.write(text)

    def flush(self) -> None:
        self._out.flush()


def _memory_of_the_children() -> int:
    """Bytes that the processes below this one hold; those that are gone by then hold none."""
    import psutil

    held = 0
    with suppress(psutil.Error):
        for child in psutil.Process().children(recursive=True):
            with suppress(psutil.Error):
                held += child.memory_info().rss
    return held


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
