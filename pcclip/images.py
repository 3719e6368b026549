"""From files to pixels: open any photo as RGB, decode batches ahead of the encoder, and make thumbnails.

A file that is no readable image raises BadImage, whose text is the reason that tables and pages show.
"""

import base64
import os
import re
from collections import deque
from collections.abc import Callable, Generator, Iterable, Sequence
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
_AHEAD = 2  # batches decoded while the caller works on another


class BadImage(Exception):
    """A file that is not a readable image; the message is the reason."""


def in_tar(tar: str, offset: int, size: int, name: str) -> str:
    """The path that open_image reads as an image of `size` bytes at `offset` in a tar file."""
    return f"{tar}#{offset}+{size}#{name}"


def file_of(path: str) -> str:
    """The file on disk that holds the image at `path`: a tar file, or the path itself."""
    member = _IN_TAR.fullmatch(path)
    return member["tar"] if member else path


def open_image(source: str | Path | Image.Image, at_least: int | None = None) -> Image.Image:
    """Open as 8-bit RGB: upright by EXIF, transparency on white, CMYK converted, 16-bit scaled down.

    `source` is an image, a file or a path made by in_tar. With `at_least` a JPEG file is decoded at a half, a quarter
    or an eighth of its size if both sides keep at least that many pixels: faster, and pixels differ slightly.
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
    """Ranges of at most `size` rows that together cover `count` rows from `start` on."""
    return [range(k, min(k + size, start + count)) for k in range(start, start + count, size)]


def decoded_batches(
    sources: Sequence,
    preprocess: Sequence[Callable[[Image.Image], "Tensor"]],
    wanted: Iterable[Sequence[int]],
    workers: int,
    at_least: int | None = None,
) -> Generator[tuple[list[int], list["Tensor"], list[tuple[int, str]]], None, None]:
    """Decode batches of images in threads while the caller computes; open each image once for all models.

    Args:
        sources: images or paths, as `open_image` takes them.
        preprocess: one function for each model, from an image to a tensor (3, h, w).
        wanted: the batches, indices into `sources`.
        workers: number of threads.

    Yields:
        rows: indices of the batch's readable images.
        pixels: a tensor (len(rows), 3, h, w) for each model; an empty list if the batch has no readable image.
        bad: (index, reason) of each unreadable image.
    """

    def load(row: int) -> tuple[int, list, str]:
        try:
            image = open_image(sources[row], at_least)
        except BadImage as error:
            return row, [], str(error)
        return row, [function(image) for function in preprocess], ""

    pool, remaining = ThreadPoolExecutor(workers), iter(wanted)
    waiting: deque[Future] = deque()
    try:
        while True:
            while len(waiting) <= _AHEAD and (rows := next(remaining, None)) is not None:
                loading = [pool.submit(load, row) for row in rows]
                waiting.append(
                    pool.submit(_stacked, loading)
                )  # queued after its images, so its thread never waits long
            if not waiting:
                return
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def _stacked(loading: Sequence[Future]) -> tuple[list[int], list["Tensor"], list[tuple[int, str]]]:
    import torch

    loaded = [future.result() for future in loading]
    rows = [row for row, tensors, _ in loaded if tensors]
    pixels = [torch.stack(images) for images in zip(*(tensors for _, tensors, _ in loaded if tensors), strict=True)]
    return rows, pixels, [(row, reason) for row, _, reason in loaded if reason]


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
    photos: Sequence[str | Path | Image.Image],
    captions: Sequence[str],
    columns: int = 6,
    side: int = 160,
    numbers: Sequence[int] | None = None,
) -> Image.Image:
    """A grid of photos in the given order, each with its number (by default 1, 2, ...) and one line of its caption.

    `side` is the pixels of a photo's square; a photo that cannot be read is a grey square.
    """
    from matplotlib import get_data_path
    from PIL import ImageDraw, ImageFont

    font = ImageFont.truetype(f"{get_data_path()}/fonts/ttf/DejaVuSans.ttf", 10)
    columns = min(columns, max(1, len(photos)))
    rows = -(-len(photos) // columns)
    cell, margin = side + 34, 6
    sheet = Image.new("RGB", (columns * (side + margin) + margin, max(1, rows) * cell + margin), "white")
    draw = ImageDraw.Draw(sheet)
    numbers = range(1, len(photos) + 1) if numbers is None else numbers
    for i, (source, caption, number) in enumerate(zip(photos, captions, numbers, strict=True)):
        x, y = margin + (i % columns) * (side + margin), margin + (i // columns) * cell
        try:
            photo = ImageOps.contain(open_image(source), (side, side))
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
    """The file itself, or the bytes of an image inside a tar file: what PIL can open."""
    member = _IN_TAR.fullmatch(str(source))
    if not member:
        return source
    with open(member["tar"], "rb") as file:
        file.seek(int(member["offset"]))
        return BytesIO(file.read(int(member["size"])))


def _reason(source: str | Path | Image.Image, error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        return "missing file"
    if isinstance(source, str | Path) and _is_empty(source):
        return "empty file"
    return f"unreadable image ({type(error).__name__})"


def _is_empty(source: str | Path) -> bool:
    member = _IN_TAR.fullmatch(str(source))
    if member:
        return int(member["size"]) == 0
    return os.path.isfile(source) and os.path.getsize(source) == 0
