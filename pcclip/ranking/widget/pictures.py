"""Small pictures of photos, made when they are asked for, as JPEG bytes; a bounded number of bytes is kept."""

from collections import OrderedDict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO

from PIL import ImageOps

from pcclip.images import BadImage, open_image

_QUALITY = 82


def jpeg(path: str, side: int) -> bytes:
    """The photo within side x side pixels, never enlarged. Raises BadImage with the reason."""
    image = open_image(path)
    if max(image.size) > side:
        image = ImageOps.contain(image, (side, side))
    buffer = BytesIO()
    image.save(buffer, "JPEG", quality=_QUALITY)
    return buffer.getvalue()


class Pictures:
    """Small pictures of the photos at `paths`, by row.

    Args:
        side: pixels of the longer side.
        room: bytes kept at most; the ones asked for longest ago are forgotten.
        workers: threads that decode.
    """

    def __init__(self, paths: Sequence[str], side: int = 256, room: int = 64 * 2**20, workers: int = 4):
        self._paths, self._side, self._room = paths, side, room
        self._kept: OrderedDict[int, bytes] = OrderedDict()
        self._pool = ThreadPoolExecutor(workers)
        self.held = 0  # bytes that are kept

    def get(self, rows: Sequence[int]) -> list[bytes | BadImage]:
        """JPEG bytes of each row, or why there are none; what cannot be read is tried again the next time."""
        fresh = [row for row in dict.fromkeys(rows) if row not in self._kept]
        made = dict(zip(fresh, self._pool.map(self._make, fresh), strict=True))
        found = [made[row] if row in made else self._kept[row] for row in rows]
        self._keep(rows, made)
        return found

    def _make(self, row: int) -> bytes | BadImage:
        try:
            return jpeg(self._paths[row], self._side)
        except BadImage as problem:
            return problem

    def _keep(self, rows: Sequence[int], made: dict[int, bytes | BadImage]) -> None:
        for row in dict.fromkeys(rows):
            if isinstance(made.get(row), bytes):
                self._kept[row] = made[row]
                self.held += len(made[row])
            elif row in self._kept:
                self._kept.move_to_end(row)
        while self.held > self._room:
            self.held -= len(self._kept.popitem(last=False)[1])
