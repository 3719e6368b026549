"""From files to pixels: open any photo as RGB, decode ahead of the encoder, record what cannot be read."""

import base64
import os
import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageOps

if TYPE_CHECKING:
    from torch import Tensor

SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff"}
_IN_TAR = re.compile(r"(?P<tar>.+?\.tar)#(?P<offset>\d+)\+(?P<size>\d+)#.*", re.DOTALL)
_AHEAD = 2  # batches that are decoded while the caller works on another


class BadImage(Exception):
    """A file that is not a readable image; the message is the reason."""


def in_tar(tar: str, offset: int, size: int, name: str) -> str:
    """The path of an image inside a tar file, `size` bytes from `offset` on; open_image reads it there."""
    return f"{tar}#{offset}+{size}#{name}"


def file_of(path: str) -> str:
    """The file on disk that holds the image at `path`: the tar file of one inside a tar, else the path itself."""
    found = _IN_TAR.fullmatch(path)
    return found["tar"] if found else path


def open_image(source: str | Path | Image.Image, at_least: int | None = None) -> Image.Image:
    """Open as 8-bit RGB: upright by EXIF, transparency on white, CMYK converted, 16-bit scaled down.

    `source` is an image, a file or a path made by in_tar. With `at_least` a JPEG file is decoded at a half, a quarter
    or an eighth of its size where both sides keep so many pixels, which is faster and not quite the same picture.
    Raises BadImage with the reason when the file is missing, empty, cut short or no image at all.
    """
    try:
        image = source if isinstance(source, Image.Image) else Image.open(_readable(source))
        if at_least and image is not source:
            image.draft(None, (at_least, at_least))
        image = ImageOps.exif_transpose(image)
        if image.mode.startswith("I") or image.mode == "F":
            image = _to_eight_bits(image)
        if "A" in image.getbands() or "transparency" in image.info:
            image = image.convert("RGBA")
            white = Image.new("RGBA", image.size, "white")
            image = Image.alpha_composite(white, image)
        return image.convert("RGB")
    except (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError) as error:
        raise BadImage(_reason(source, error)) from None


def batches(count: int, size: int, start: int = 0) -> list[range]:
    """`count` rows from `start` on, `size` at a time."""
    return [range(k, min(k + size, start + count)) for k in range(start, start + count, size)]


def decoded_batches(
    sources: Sequence,
    preprocess: Sequence[Callable[[Image.Image], "Tensor"]],
    wanted: Iterable[Sequence[int]],
    workers: int,
    at_least: int | None = None,
) -> Iterator[tuple[list[int], list["Tensor"], list[tuple[int, str]]]]:
    """Yield (rows, pixels, bad) per batch of wanted rows, decoding the next batches while the caller computes.

    Each image is opened once and preprocessed for each of several models.

    Args:
        wanted: the batches, indices into `sources`.
        workers: threads.
        at_least: as in `open_image`.

    rows: those of the images in pixels; pixels: one tensor (len(rows), 3, h, w) per model, and none where no image of
    the batch was readable; bad: (index, reason) of the others.
    """

    def load(row: int) -> tuple[int, list, str]:
        try:
            image = open_image(sources[row], at_least)
        except BadImage as error:
            return row, [], str(error)
        return row, [one(image) for one in preprocess], ""

    pool, waiting, wanted = ThreadPoolExecutor(workers), deque(), iter(wanted)
    try:
        while True:
            while len(waiting) <= _AHEAD and (rows := next(wanted, None)) is not None:
                loading = [pool.submit(load, row) for row in rows]
                waiting.append(pool.submit(_stacked, loading))  # after its images, so it never keeps them waiting
            if not waiting:
                return
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def _stacked(loading: Sequence[Future]) -> tuple[list[int], list["Tensor"], list[tuple[int, str]]]:
    import torch

    loaded = [future.result() for future in loading]
    rows = [row for row, pixels, _ in loaded if pixels]
    pixels = [torch.stack(of_one) for of_one in zip(*(pixels for _, pixels, _ in loaded if pixels), strict=True)]
    return rows, pixels, [(row, why) for row, _, why in loaded if why]


def thumbnail(source: str | Path | Image.Image, side: int, quality: int = 82) -> bytes:
    """A JPEG of the image within side x side pixels, never enlarged. Raises BadImage with the reason."""
    image = open_image(source)
    if max(image.size) > side:
        image = ImageOps.contain(image, (side, side))
    buffer = BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def data_url(jpeg: bytes) -> str:
    """A JPEG as text that HTML pages and OpenAI-compatible servers accept in place of an address."""
    return f"data:image/jpeg;base64,{base64.b64encode(jpeg).decode()}"


def contact_sheet(
    paths: Sequence[str],
    captions: Sequence[str],
    columns: int = 6,
    side: int = 160,
    numbers: Sequence[int] | None = None,
) -> Image.Image:
    """A grid of thumbnails in the given order, each with a number (from 1 on, or its own) and a short caption below."""
    from matplotlib import get_data_path
    from PIL import ImageDraw, ImageFont

    font = ImageFont.truetype(f"{get_data_path()}/fonts/ttf/DejaVuSans.ttf", 10)
    columns = min(columns, max(1, len(paths)))
    rows = -(-len(paths) // columns)
    cell, margin = side + 34, 6
    sheet = Image.new("RGB", (columns * (side + margin) + margin, max(1, rows) * cell + margin), "white")
    draw = ImageDraw.Draw(sheet)
    numbers = range(1, len(paths) + 1) if numbers is None else numbers
    for i, (path, caption, number) in enumerate(zip(paths, captions, numbers, strict=True)):
        x, y = margin + (i % columns) * (side + margin), margin + (i // columns) * cell
        try:
            photo = ImageOps.contain(open_image(path), (side, side))
        except BadImage:
            photo = Image.new("RGB", (side, side), "lightgrey")
        sheet.paste(photo, (x + (side - photo.width) // 2, y + (side - photo.height) // 2))
        text = " ".join(f"{number}. {caption}".split())
        while draw.textlength(text, font) > side and len(text) > 4:
            text = text[:-2].rstrip(" ….") + "…" if len(text) > 5 else text[:-1]
        draw.text((x, y + side + 6), text, fill="black", font=font)
    return sheet


def _to_eight_bits(image: Image.Image) -> Image.Image:
    values = np.asarray(image, dtype=np.float64)
    top = 65535.0 if image.mode.startswith("I") else max(1.0, float(values.max(initial=1.0)))
    return Image.fromarray(np.clip(values / top * 255.0, 0, 255).astype(np.uint8))


def _readable(source: str | Path) -> str | Path | BytesIO:
    """What PIL can open: the file, or the bytes of an image inside a tar."""
    found = _IN_TAR.fullmatch(str(source))
    if not found:
        return source
    with open(found["tar"], "rb") as file:
        file.seek(int(found["offset"]))
        return BytesIO(file.read(int(found["size"])))


def _reason(source, error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        return "missing file"
    if isinstance(source, str | Path) and _size(source) == 0:
        return "empty file"
    return f"unreadable image ({type(error).__name__})"


def _size(source: str | Path) -> int | None:
    """Bytes of an image; None when it is no file."""
    found = _IN_TAR.fullmatch(str(source))
    if found:
        return int(found["size"])
    return os.path.getsize(source) if os.path.isfile(source) else None
