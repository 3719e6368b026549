"""Pictures that are no files of their own: rows of a larger file, boxes of a photograph, video frames as arrays."""

from collections.abc import Callable, Sequence

import numpy as np
from PIL import Image

from pcclip.images import BadImage, open_image

Box = tuple[int, int, int, int]  # left, top, right, bottom in pixels


class LazyPictures(Sequence[Image.Image]):
    """Pictures that are made each time one is asked for.

    Args:
        make: makes the picture of a number.
        numbers: of the pictures, in their order.
    """

    def __init__(self, make: Callable[[int], Image.Image], numbers: Sequence[int] | np.ndarray):
        self._make, self._numbers = make, np.asarray(numbers, dtype=np.int64)

    def __len__(self) -> int:
        return len(self._numbers)

    def __getitem__(self, row: int) -> Image.Image:  # type: ignore[override]
        return self._make(int(self._numbers[row]))

    def subset(self, rows: Sequence[int] | np.ndarray) -> "LazyPictures":
        """The pictures at these rows."""
        return LazyPictures(self._make, self._numbers[np.asarray(rows, dtype=np.int64)])


def open_part(path: str, box: Box | None) -> Image.Image:
    """The picture at `path`, an image file or an array (.npy), cropped to the box if there is one.

    Raises BadImage when the file cannot be read.
    """
    picture = _video_frame(path) if path.endswith(".npy") else open_image(path)
    return picture if box is None else picture.crop(box)


def _video_frame(path: str) -> Image.Image:
    """A video frame, stored as an array (h, w, 3) of bytes in the order blue, green, red."""
    try:
        pixels = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise BadImage(f"not an array ({error})") from None
    if pixels.ndim != 3 or pixels.shape[2] != 3 or pixels.dtype != np.uint8 or not pixels.size:
        raise BadImage(f"not an image: an array {pixels.shape} of {pixels.dtype}")
    return Image.fromarray(np.ascontiguousarray(pixels[:, :, ::-1]))
