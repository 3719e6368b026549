"""Many asked at once, answers as they come in."""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from queue import SimpleQueue
from typing import TypeVar

Item = TypeVar("Item")
Found = TypeVar("Found")


def as_answered(
    submit: Callable[[Item], "Future[Found]"], items: Iterable[Item], limit: int
) -> Iterator[tuple[Item, Found]]:
    """Submit every item and yield it with its result. At most `limit` are held; those left over are cancelled."""
    items, running, done = iter(items), {}, SimpleQueue()
    try:
        while True:
            while len(running) < limit and (item := next(items, None)) is not None:
                future = submit(item)
                running[future] = item
                future.add_done_callback(done.put)
            if not running:
                return
            future = done.get()
            yield running.pop(future), future.result()
    finally:
        for future in running:
            future.cancel()
