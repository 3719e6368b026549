"""Image vectors of photos anywhere on this computer, made once: by the photo's bytes and the image tower.

One SQLite file in the user's cache folder serves the command line, the page and notebook 06. A photo that was moved or
renamed is known by its bytes; a photo that was added costs only itself. The file can be deleted at any time.
"""

import hashlib
import json
import os
import sqlite3
import time
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from pcclip.config import Embed
from pcclip.embedding.stage import encode_by_all
from pcclip.embedding.vectors import Vectors
from pcclip.encoders.dual_encoder import Encoder
from pcclip.errors import PcclipError
from pcclip.images import file_of
from pcclip.runs.files import cache_folder, make_folder
from pcclip.runs.progress import Meter, say

_LIMIT = float(os.environ.get("PCCLIP_CACHE_GB", 4)) * 1e9  # bytes
_FIRST, _PART = 16, 64  # photos encoded before their vectors are stored, at first and then: the first are soon there
_SETTLED = 2_000_000_000  # ns: a file that was written longer ago cannot change without its time stamp changing
_DAY = 86_400
_EMBED = Embed(batch_size=16, workers=4)
_TABLES = """
PRAGMA auto_vacuum = FULL;
CREATE TABLE IF NOT EXISTS files (path TEXT PRIMARY KEY, version TEXT, content TEXT) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS vectors
    (content TEXT, tower TEXT, vector BLOB, checksum INTEGER, day INTEGER, PRIMARY KEY (content, tower));
"""


class VectorCache:
    """The stored vectors. Where its file cannot be read or written, nothing is stored and nothing fails."""

    def __init__(self) -> None:
        self.path = cache_folder() / "vectors-1.sqlite"

    def contents(self, paths: Sequence[str]) -> list[str]:
        """SHA-256 of each file's bytes, '' for a file that cannot be read. An unchanged file is read once."""
        keys = [(os.path.abspath(path), _version(path)) for path in paths]
        rows = self._select("SELECT path, version, content FROM files WHERE path IN", [path for path, _ in keys])
        known = {(path, version): content for path, version, content in rows}
        new = {key: path for key, path in zip(keys, paths, strict=True) if key not in known}
        with ThreadPoolExecutor(4) as threads:
            hashes = dict(zip(new, threads.map(_sha256, new.values()), strict=True))
        settled = [(*key, content) for key, content in hashes.items() if key[1] and content]
        self._write("INSERT OR REPLACE INTO files VALUES (?, ?, ?)", settled)
        return [(known | hashes)[key] for key in keys]

    def read(self, contents: Sequence[str], tower: str) -> dict[str, Float[np.ndarray, " d"]]:
        """The stored vectors by content. An entry that is damaged is left out, so that it is made again."""
        day, key = int(time.time()) // _DAY, "content IN (SELECT value FROM json_each(?))"
        rows = self._select(
            f"SELECT content, vector, checksum FROM vectors WHERE tower = '{tower}' AND content IN", contents
        )
        self._write(f"UPDATE vectors SET day = {day} WHERE day < {day} AND {key}", [(json.dumps(contents),)])
        sound = [(content, vector) for content, vector, checksum in rows if _checksum(vector) == checksum]
        return {content: np.frombuffer(vector, "<f4") for content, vector in sound}

    def store(self, vectors: Mapping[str, Float[np.ndarray, " d"]], tower: str) -> None:
        """Store vectors by content; where the file exceeds its limit, the vectors not used for longest go."""
        blobs = [(content, np.asarray(vector, "<f4").tobytes()) for content, vector in vectors.items()]
        rows = [(content, tower, blob, _checksum(blob), int(time.time()) // _DAY) for content, blob in blobs]
        self._write("INSERT OR REPLACE INTO vectors VALUES (?, ?, ?, ?, ?)", rows)
        self.trim(_LIMIT)

    def trim(self, limit: float) -> None:
        """Delete the vectors not used for longest until the file has at most `limit` bytes."""
        oldest = "DELETE FROM vectors WHERE rowid IN (SELECT rowid FROM vectors ORDER BY day, rowid LIMIT ?)"
        while (size := self._size()) > limit and (count := sum(self.towers().values())):
            self._write(oldest, [(max(1, int(count * (1 - 0.9 * limit / size))),)])

    def towers(self) -> dict[str, int]:
        """How many vectors there are of each image tower."""
        return dict(self._do(lambda db: db.execute("SELECT tower, COUNT(*) FROM vectors GROUP BY tower").fetchall()))

    def summary(self) -> str:
        """The file, its size and limit, and the number of vectors of each image tower, a line each."""
        lines = [f"{count:8,} vectors of the image tower {name}" for name, count in self.towers().items()]
        return "\n".join([f"{self.path}: {self._size() / 1e6:.1f} MB of at most {_LIMIT / 1e6:.0f} MB", *lines])

    def _size(self) -> int:
        return self.path.stat().st_size if self.path.exists() else 0

    def _select(self, query: str, keys: Sequence[str]) -> list[tuple]:
        """The rows of a query that ends in IN, for these keys."""
        text = f"{query} (SELECT value FROM json_each(?))"
        return self._do(lambda db: db.execute(text, [json.dumps(keys)]).fetchall())

    def _write(self, statement: str, rows: Sequence[tuple]) -> None:
        self._do(lambda db: db.executemany(statement, rows).fetchall())

    def _do(self, work: Callable[[sqlite3.Connection], list]) -> list:
        """Do something with the file in one transaction; a damaged file is begun anew, and none is no entry."""
        try:
            make_folder(self.path.parent)
            with closing(sqlite3.connect(self.path, timeout=60)) as db, db:
                db.executescript(_TABLES)
                return work(db)
        except (OSError, sqlite3.OperationalError) as error:
            say(f"{self.path}: vectors are not kept ({error})")
        except sqlite3.DatabaseError as error:
            say(f"{self.path}: is damaged and begun anew ({error})")
            self.path.unlink(missing_ok=True)
        return []


class Part(NamedTuple):
    """Some of the photos: rows and vectors of those that could be read, (row, problem) of the others."""

    rows: list[int]
    matrix: Float[np.ndarray, "n d"]
    problems: list[tuple[int, str]]


def embed_parts(paths: Sequence[str], model: Encoder) -> Iterator[Part]:
    """The vectors of photos by a model's image tower: first all stored ones, then the others as they are encoded."""
    cache, tower = VectorCache(), model.image_fingerprint()
    contents = cache.contents(paths)
    stored = {content: vector for content, vector in cache.read(contents, tower).items() if len(vector) == model.width}
    known = [row for row, content in enumerate(contents) if content in stored]
    new = [row for row, content in enumerate(contents) if content not in stored]
    if known:
        say(f"photos: {len(known)} of {len(paths)} are known from before")
    yield Part(known, np.array([stored[contents[row]] for row in known], np.float32).reshape(-1, model.width), [])
    meter = Meter(len(new), "photos")
    for start, end in pairwise(dict.fromkeys([0, *range(_FIRST, len(new), _PART), len(new)])):
        rows = new[start:end]
        [matrix], readable, bad = encode_by_all([paths[row] for row in rows], [model], meter, _EMBED)
        encoded = [rows[k] for k in readable]
        cache.store(
            {contents[row]: vector for row, vector in zip(encoded, matrix, strict=True) if contents[row]}, tower
        )
        yield Part(encoded, matrix, [(rows[k], reason) for k, reason in bad])


def embed_photos(paths: Sequence[str], model: Encoder) -> tuple[Vectors, list[tuple[str, str]]]:
    """Vectors of the readable photos, and (path, problem) of the others. Raises PcclipError when none is readable."""
    parts = list(embed_parts(paths, model))
    rows = [row for part in parts for row in part.rows]
    problems = [(paths[row], reason) for part in parts for row, reason in part.problems]
    if not rows:
        raise PcclipError(f"none of the {len(paths)} photos can be read, e.g. {problems[0][0]}: {problems[0][1]}")
    order = np.argsort(rows)
    names = [paths[rows[k]] for k in order]
    matrix = np.concatenate([part.matrix for part in parts])[order]
    return Vectors(names, names, matrix, model.image_fingerprint()), problems


def _checksum(vector: object) -> int:
    return zlib.crc32(vector) if isinstance(vector, bytes) and len(vector) % 4 == 0 else -1


def _version(path: str) -> str:
    """What changes when the file does; '' for a file that is absent or too new to tell."""
    with suppress(OSError, ValueError):
        stat = os.stat(file_of(path))
        if time.time_ns() - stat.st_mtime_ns > _SETTLED:
            return f"{stat.st_dev} {stat.st_ino} {stat.st_size} {stat.st_mtime_ns} {stat.st_ctime_ns}"
    return ""


def _sha256(path: str) -> str:
    with suppress(OSError, ValueError), open(file_of(path), "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
    return ""
