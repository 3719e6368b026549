"""Which row is a photo that a vote or an example names: by its bytes, which travel, or by its id or path."""

import os
import unicodedata
from collections import defaultdict
from collections.abc import Sequence
from functools import cached_property
from itertools import takewhile
from pathlib import Path

from pcclip.images import as_text
from pcclip.ranking.cache import VectorCache


class PhotoIndex:
    """Finds photos by SHA-256, id and path. A file is read only when a name alone cannot decide.

    Args:
        ids, paths: of the photos, row by row.
    """

    def __init__(self, ids: Sequence[str], paths: Sequence[str]):
        self.paths = paths
        self._rows = {_key(os.path.abspath(path)): row for row, path in enumerate(paths)}
        self._rows |= {_key(name): row for names in (paths, ids) for row, name in enumerate(names)}
        self._contents: dict[int, str] = {}

    def content(self, row: int) -> str:
        """SHA-256 of the photo's file, '' where it cannot be read."""
        if row not in self._contents:
            self._contents[row] = VectorCache().contents([self.paths[row]])[0]
        return self._contents[row]

    def row(self, name: str, content: str = "") -> int | None:
        """The row of a photo, or None. Where `content` is known it decides, and the name only says where to look first.

        A name alone is an id, a path, a file whose copy is among the photos, or, for a folder that was moved, the end
        of one photo's path.
        """
        path = os.path.abspath(os.path.expanduser(name))
        row = self._rows.get(_key(name), self._rows.get(_key(path)))
        if content:
            known = row is not None and self.content(row) in ("", content)
            return row if known else self._row_of_content.get(content)
        if row is None and os.path.isfile(path):
            return self._row_of_content.get(VectorCache().contents([as_text(path)])[0])
        return self._row_by_end(name) if row is None else row

    @cached_property
    def _row_of_content(self) -> dict[str, int]:
        contents = VectorCache().contents(self.paths)
        return {content: row for row, content in reversed([*enumerate(contents)]) if content}

    @cached_property
    def _rows_of_name(self) -> dict[str, list[int]]:
        rows = defaultdict(list)
        for row, path in enumerate(self.paths):
            rows[_key(os.path.basename(path))].append(row)
        return rows

    def _row_by_end(self, name: str) -> int | None:
        """The photo whose path shares its end with `name`: all of a relative name, of an absolute one the most."""
        parts = Path(_key(name)).parts[::-1]
        candidates = self._rows_of_name.get(parts[0], []) if parts else []
        ends = {row: zip(parts, Path(_key(self.paths[row])).parts[::-1], strict=False) for row in candidates}
        shared = {row: len([*takewhile(lambda pair: pair[0] == pair[1], end)]) for row, end in ends.items()}
        best = max(shared.values(), default=0)
        rows = [row for row, length in shared.items() if length == best]
        return rows[0] if len(rows) == 1 and (os.path.isabs(name) or best == len(parts)) else None


def _key(name: str) -> str:
    return unicodedata.normalize("NFC", as_text(name))
