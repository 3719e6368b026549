"""Progress that is always visible: a bar in JupyterLab, a plain log line every few seconds everywhere else.

A bar under papermill prints only its first line, so batch runs print lines instead. While a kernel prints nothing, the
process that runs it reports that it is alive (Heartbeat).
"""

import os
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TextIO

_SECONDS = 5.0
_SILENT = 30.0
BATCH = "PCCLIP_BATCH"  # set for the kernels of `pcclip run`


def say(text: str) -> None:
    """Print a line at once, also where output is buffered."""
    print(text, flush=True)


_part: dict[str, Any] = {"notebook": "", "total": 0, "number": 0, "name": ""}


def begin(notebook: str, total: int) -> None:
    """Say that a notebook has `total` parts from here on; 0 ends them."""
    _part.update(notebook=notebook, total=total, number=0)


def next_part(name: str) -> None:
    """Start the notebook's next part: every Meter of it is named '04: 3 of 9, NAME, images'."""
    _part.update(number=_part["number"] + 1, name=name)


class Meter:
    """Counts up to `total` things called `noun`; `add(n)` shows how many are done, the rate and the time left."""

    def __init__(self, total: int, noun: str):
        if _part["total"]:
            noun = "{notebook}: {number} of {total}, {name}, ".format(**_part) + noun
        self._total, self._noun, self._done = total, noun, 0
        self._started = self._last = time.monotonic()
        self._bar = None
        if interactive():
            from tqdm.notebook import tqdm

            self._bar = tqdm(total=total, desc=noun)

    def add(self, n: int = 1, note: str = "") -> None:
        self._done += n
        if self._bar is not None:
            self._bar.set_postfix_str(note, refresh=False)
            self._bar.update(n)
            if self._done >= self._total:
                self._bar.close()  # turns it green
            return
        now = time.monotonic()
        if now - self._last >= _SECONDS or self._done >= self._total:
            rate = self._done / max(now - self._started, 1e-9)
            left = (self._total - self._done) / rate
            pace = f"{rate:.1f}/s" if rate >= 0.1 else f"{rate * 3600:.0f} an hour"
            say(f"{self._noun}: {self._done}/{self._total}, {pace}, {_time(left)} left{note and f', {note}'}")
            self._last = now


def track(items: Iterable, total: int, noun: str) -> Iterator:
    """Yield `items` under a Meter."""
    meter = Meter(total, noun)
    for item in items:
        yield item
        meter.add()


class Heartbeat:
    """A context that prints every `seconds` that `noun` is at work, unless its streams were written to since.

    The line has the time since the start, the memory of this process's children (a kernel and its own children), and
    the last line that the streams got.
    """

    def __init__(self, noun: str, seconds: float = _SILENT):
        self._noun, self._seconds = noun, seconds
        self._writes, self._last_line, self._peak_bytes = 0, "", 0
        self._ended = threading.Event()

    def __enter__(self) -> "Heartbeat":
        self._started = time.monotonic()
        self._thread = threading.Thread(target=self._beat, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._ended.set()
        self._thread.join()

    def stream(self, out: TextIO) -> SimpleNamespace:
        """A text stream that writes to `out` and counts as a sign of life."""

        def write(text: str) -> None:
            self._writes += 1
            lines = [line.strip() for line in text.splitlines() if line.strip()]
            self._last_line = lines[-1] if lines else self._last_line
            out.write(text)

        return SimpleNamespace(write=write, flush=out.flush)

    @property
    def most(self) -> str:
        """The most memory the children have used, e.g. 'up to 1.2 GB'; '' before the first measurement."""
        return f"up to {self._peak_bytes / 1e9:.1f} GB" if self._peak_bytes else ""

    def _beat(self) -> None:
        writes = self._writes
        while not self._ended.wait(self._seconds):
            memory = _memory_of_children()
            self._peak_bytes = max(self._peak_bytes, memory)
            if self._writes == writes:
                seconds = time.monotonic() - self._started
                last = f"; it last said: {self._last_line}" if self._last_line else ""
                say(f"{self._noun}: at work for {_time(seconds)}, {memory / 1e9:.1f} GB{last}")
            writes = self._writes


def _memory_of_children() -> int:
    """Resident bytes of all processes below this one; a process that has ended meanwhile counts nothing."""
    import psutil

    total = 0
    with suppress(psutil.Error):
        for child in psutil.Process().children(recursive=True):
            with suppress(psutil.Error):
                total += child.memory_info().rss
    return total


def _time(seconds: float) -> str:
    """87 -> '87 s', 1234 -> '21 min', 12345 -> '3.4 h'."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def interactive() -> bool:
    """True in a kernel that a person uses: not in a script, nor in a kernel that papermill started."""
    kernel = sys.modules.get("ipykernel.kernelapp")  # starting a kernel imports it too
    is_kernel = kernel is not None and kernel.IPKernelApp.initialized() and BATCH not in os.environ
    return is_kernel and not papermill_commands()


def papermill_commands() -> list[tuple[Path, list[str]]]:
    """Working folder and words of each command of papermill among the two processes above this one.

    Commands that may not be read are left out.
    """
    import psutil

    commands = []
    with suppress(psutil.Error):
        for parent in psutil.Process().parents()[:2]:
            with suppress(psutil.Error):
                commands.append((Path(parent.cwd()), parent.cmdline()))
    return [command for command in commands if any(Path(word).stem == "papermill" for word in command[1][:3])]
