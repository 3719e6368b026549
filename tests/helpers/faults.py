"""Faults on purpose: damaged bytes, a full disk, and what a user may be told of them."""

import os
import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from pcclip.errors import PcclipError

FAULTS = int(os.environ.get("PCCLIP_FAULTS", "20"))  # of each kind; make test-faults tries 1,000


def told(action: Callable, *arguments: Any, lines: int = 1) -> tuple[str, Any]:
    """(what a user reads when the action fails, None), or ('', its result). Any other error is the test's.

    Args:
        lines: the message may have so many; parameter files get one for each bad key.
    """
    try:
        return "", action(*arguments)
    except PcclipError as error:
        message = str(error)
    assert message.strip()
    assert len(message.splitlines()) <= lines, message
    return message, None


@contextmanager
def no_file_above(size: int) -> Iterator[None]:
    """The system refuses to let a file grow above `size` bytes, as it does on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def flipped(content: bytes, bit: int) -> bytes:
    """The content with one bit flipped."""
    damaged = bytearray(content)
    damaged[bit // 8] ^= 1 << bit % 8
    return bytes(damaged)


def mutated(content: bytes, rng: np.random.Generator, other: bytes = b"") -> bytes:
    """The content changed as disks, editors and careless programs change it: 1 to 3 random edits.

    Args:
        other: parts of it are put in too.
    """
    for _ in range(rng.integers(1, 4)):
        content = _edited(content, rng, other)
    return content


def _edited(content: bytes, rng: np.random.Generator, other: bytes) -> bytes:
    start, end = sorted(int(place) for place in rng.integers(0, len(content) + 1, 2))
    part = content[start:end]
    edits = [
        lambda: flipped(content, int(rng.integers(8 * len(content)))) if content else b"",
        lambda: content[:start],
        lambda: content[:start] + content[end:],
        lambda: content[:end] + part[:500] + content[end:],
        lambda: content[:start] + rng.bytes(int(rng.integers(1, 20))) + content[start:],
        lambda: content[:start] + bytes(min(end - start, 64)) + content[end:],
        lambda: content[:start] + other[len(other) // 3 : len(other) // 2] + content[end:],
        lambda: content.replace(part[:1], rng.bytes(1)) if part and len(content) < 2000 else content,
        lambda: content[:start] + _SPICE[int(rng.integers(len(_SPICE)))] + content[start:],
        lambda: b"\xef\xbb\xbf" + content,
        lambda: content.replace(b"\n", b"\r\n"),
    ]
    return edits[int(rng.integers(len(edits)))]()


_SPICE = [
    b"\n", b"\0", b'"', b"'", b"{", b"[", b"]", b":", b",", b"null", b"NaN", b"-1", b"1e999", b"true", b"\xff", b"\\ud800",
    b"  ", b"\t", b"&a ", b"*a ", b"!!python/object ", b"%", b"#", b"=", b"../", b"<b>", b"9" * 400, b"\xe2\x80\xae",
]  # fmt: skip
