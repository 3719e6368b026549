"""A run that ends in the middle, as by a kill.

It is no KeyboardInterrupt: one that escaped its test would end the whole session of pytest.
"""


class Crash(BaseException):
    """Ends a run; nothing in the package catches it."""


def crash_after(monkeypatch, owner, name, calls) -> None:
    """The call of owner.name after `calls` others raises Crash.

    `owner` is a module or class of the package: torch wraps the methods of its own classes, and would keep the wrapper.
    """
    original, seen = getattr(owner, name), []

    def counted(*arguments, **options):
        if len(seen) == calls:
            raise Crash
        seen.append(1)
        return original(*arguments, **options)

    monkeypatch.setattr(owner, name, counted)
