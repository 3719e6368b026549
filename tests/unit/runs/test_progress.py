"""Progress: how many, how fast, and the time left in words that fit it."""

import subprocess
import sys
from types import SimpleNamespace

import psutil
import pytest

from pcclip.runs import progress


@pytest.fixture
def clock(monkeypatch):
    """Seconds on the clock, to be set by the test."""

    class Clock:
        now = 0.0

    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=lambda: Clock.now))
    return Clock


def lines(capsys) -> list[str]:
    return capsys.readouterr().out.splitlines()


@pytest.mark.parametrize(
    ("total", "told"),
    [
        (100, "things: 10/100, 1.0/s, 90 s left"),
        (1000, "things: 10/1000, 1.0/s, 16 min left"),
        (36010, "things: 10/36010, 1.0/s, 10.0 h left"),
    ],
)
def test_the_first_answers_say_how_long_it_takes(clock, capsys, total, told):
    meter = progress.Meter(total, "things")
    clock.now = 10.0
    meter.add(10)
    assert lines(capsys) == [told]


def test_what_takes_minutes_each_is_counted_by_the_hour(clock, capsys):
    meter = progress.Meter(3, "notebooks")
    clock.now = 360.0
    meter.add(1, "base")
    assert lines(capsys) == ["notebooks: 1/3, 10 an hour, 12 min left, base"]


def test_a_line_every_few_seconds_and_one_at_the_end(clock, capsys):
    meter = progress.Meter(100, "things")
    for second in range(100):
        clock.now = second + 1.0
        meter.add()
    told = lines(capsys)
    assert len(told) == 20
    assert told[-1] == "things: 100/100, 1.0/s, 0 s left"


def test_a_notebook_with_parts_says_which_one_is_at_work(capsys):
    progress.begin("04", 2)
    for name in ("stamps", "sugarcrepe"):
        progress.next_part(name)
        progress.Meter(1, "images").add()
    progress.begin("", 0)
    progress.Meter(1, "steps").add()
    starts = [line.split(":", 2)[:2] for line in lines(capsys)]
    assert starts[0] == ["04", " 1 of 2, stamps, images"]
    assert starts[1] == ["04", " 2 of 2, sugarcrepe, images"]
    assert starts[2][0] == "steps"


def test_a_bar_ends_green(monkeypatch):
    monkeypatch.setattr(progress, "interactive", lambda: True)
    meter = progress.Meter(3, "photos")
    styles = []
    for _ in range(3):
        meter.add(1)
        styles.append(meter._bar.container.children[1].bar_style)
    assert styles == ["", "", "success"]


def test_track_yields_everything(capsys):
    assert list(progress.track("abc", 3, "letters")) == ["a", "b", "c"]
    assert lines(capsys)[-1].startswith("letters: 3/3")


@pytest.mark.parametrize(
    ("parents", "looked_at"),
    [
        ([psutil.AccessDenied(1), ["python", "-m", "papermill"]], False),
        ([psutil.ZombieProcess(1)], True),
        ([["python", "-m", "jupyterlab"], psutil.NoSuchProcess(1)], True),
        (psutil.AccessDenied(1), True),
    ],
)
def test_processes_that_may_not_be_seen_say_nothing(monkeypatch, parents, looked_at):
    def told(words):
        if isinstance(words, psutil.Error):
            raise words
        return words

    def of(words):
        return SimpleNamespace(cmdline=lambda: told(words), cwd=lambda: "/")

    kernel = SimpleNamespace(IPKernelApp=SimpleNamespace(initialized=lambda: True))
    monkeypatch.setitem(sys.modules, "ipykernel.kernelapp", kernel)
    monkeypatch.delenv(progress.BATCH, raising=False)
    monkeypatch.setattr(psutil, "Process", lambda: SimpleNamespace(parents=lambda: [*map(of, told(parents))]))
    assert progress.interactive() is looked_at


# ---- heartbeat -------------------------------------------------------------------------------------------------------


class Ticks:
    """In place of the heart's clock: at each tick the next of these is done, then the end has come."""

    def __init__(self, *acts):
        self._acts = list(acts)

    def wait(self, seconds: float) -> bool:
        if not self._acts:
            return True
        self._acts.pop(0)()
        return False

    def set(self) -> None:
        pass


def beating(monkeypatch, *acts) -> tuple[progress.Heartbeat, object]:
    """A heartbeat of `01` over ticks, and a stream that it hears."""
    monkeypatch.setattr(progress, "_memory_of_children", lambda: 2_500_000_000)
    beat = progress.Heartbeat("01")
    stream = beat.stream(sys.stdout)
    beat._ended = Ticks(*(lambda act=act: act(stream) for act in acts))
    return beat, stream


def silent(stream) -> None:
    pass


def test_one_that_is_silent_is_said_to_be_at_work(monkeypatch, capsys):
    beat, _ = beating(monkeypatch, silent, lambda stream: stream.write("things: 1/9\n\n"), silent)
    with beat:
        pass
    assert lines(capsys) == [
        "01: at work for 0 s, 2.5 GB",
        "things: 1/9",
        "",
        "01: at work for 0 s, 2.5 GB; it last said: things: 1/9",
    ]
    assert beat.most == "up to 2.5 GB"


def test_one_that_talks_is_left_alone(monkeypatch, capsys):
    talk = [lambda stream: stream.write("a\n")] * 3
    beat, _ = beating(monkeypatch, *talk)
    with beat:
        pass
    assert lines(capsys) == ["a"] * 3


def test_memory_is_that_of_the_children():
    code = "import sys; held = bytearray(50_000_000); print('ready', flush=True); sys.stdin.read()"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        child.stdout.readline()
        assert progress._memory_of_children() > 50_000_000
        child.communicate()
