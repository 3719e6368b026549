"""From files to pixels: find photos, open any as RGB, decode batches ahead of the encoder, and make thumbnails.

A file that is no readable image raises BadImage, whose text is the reason that tables and pages show.
"""

import base64
import os
import re
import warnings
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from importlib.util import find_spec
from io import BytesIO
from pathlib import Path
from textwrap import fill
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

_HEIC_SUFFIXES, _INSTALL = (".heic", ".heif", ".hif"), "pip install 'pcclip[heic]' to read .heic and .heif"
if _HEIC := find_spec("pillow_heif") is not None:
    import pillow_heif

    pillow_heif.register_heif_opener()

if TYPE_CHECKING:
    from PIL.ImageFont import FreeTypeFont, ImageFont
    from torch import Tensor

SUFFIXES = frozenset(
    """.jpg .jpeg .jpe .jfif .mpo .png .apng .webp .avif .bmp .dib .gif .tif .tiff .jp2 .j2k .jpf .jpx .ppm .pgm .pbm
    .pnm .tga""".split()
).union(_HEIC_SUFFIXES if _HEIC else ())
MAX_PIXELS = 120_000_000  # of a picture as it is decoded; larger JPEG files are decoded at a fraction of their size
_MOST_THIN = 2_500  # a picture this many times longer than wide: a model's resizing would make a huge one of it
_PRIVATE = {0xDC80 + k: 0xF780 + k for k in range(128)}  # Python's stand-ins for bytes that are no UTF-8
_BYTES = {private: byte for byte, private in _PRIVATE.items()}
COPIES = frozenset(  # folders of copies and of deleted photos, as NAS, phone and desktop programs name them
    """@eadir @recycle #recycle #snapshot @recently-snapshot @tmp $recycle.bin recycler recycled trash trashbox papierkorb
    corbeille papelera cestino __macosx thumbnails thumbnail thumbs _thumbs thumb _thumb lost+found""".split()
).union({"ipod photo cache", "system volume information", "recently deleted"})
_NOTES = frozenset(  # kinds of files beside photos that nobody would take for pictures
    ".csv .tsv .txt .md .json .jsonl .yaml .yml .xml .html .xmp .aae .ini .db .log .npz .npy .parquet".split()
)
_ORIENTATION = 0x0112  # EXIF's tag
_ENTRY = re.compile(  # it in EXIF's first directory, whatever the entries before it are
    rb"(?:Exif\0\0)?(?:II\*\0.{6}(?:.{12}){,99}?\x12\x01\x03\0\x01\0\0\0|MM\0\*.{6}(?:.{12}){,99}?\x01\x12\0\x03\0\0\0\x01\0)([\1-\x08])",
    re.DOTALL,
)
_TRANSPOSE = dict(
    zip(
        "2345678",
        (
            Image.Transpose.FLIP_LEFT_RIGHT,
            Image.Transpose.ROTATE_180,
            Image.Transpose.FLIP_TOP_BOTTOM,
            Image.Transpose.TRANSPOSE,
            Image.Transpose.ROTATE_270,
            Image.Transpose.TRANSVERSE,
            Image.Transpose.ROTATE_90,
        ),
        strict=True,
    )
)
_IN_TAR = re.compile(r"(?P<tar>.+?\.tar)#(?P<offset>\d+)\+(?P<size>\d+)#.*", re.DOTALL)
_AHEAD = 2  # batches decoded while the caller works on another

Image.MAX_IMAGE_PIXELS = None  # open_image says the limit and the size, before it decodes
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")  # of broken EXIF, which open_image survives


class BadImage(Exception):
    """A file that is not a readable image; the message is the reason."""


def in_tar(tar: str, offset: int, size: int, name: str) -> str:
    """The path that open_image reads as an image of `size` bytes at `offset` in a tar file."""
    return f"{tar}#{offset}+{size}#{name}"


def file_of(path: str) -> str:
    """The file on disk that holds the image at `path`: a tar file, or the path itself."""
    member = _IN_TAR.fullmatch(path)
    return (member["tar"] if member else path).translate(_BYTES)


def as_text(path: str) -> str:
    """The path as text that Parquet, JSON and CSV can hold; open_image and file_of read it.

    Private characters stand for the bytes of a file's name that are no UTF-8.
    """
    return path.translate(_PRIVATE)


def photos_below(folder: str | Path) -> tuple[list[str], Counter[str]]:
    """Image files at all levels of a folder, sorted and as text, and the number of other files by kind (suffix), without notes.

    Hidden files and folders, recycle bins and folders of thumbnails are left out. A link to a folder is followed
    unless that folder is read anyway, or holds the link.
    """
    photos: list[str] = []
    others: Counter[str] = Counter()
    waiting, read = deque([str(folder)]), set()
    while waiting:
        place = waiting.popleft()
        real = os.path.realpath(place)
        around = Path(os.path.realpath(os.path.dirname(place)), "link").parents
        if real in read or (os.path.islink(place) and Path(real) in around):
            continue
        read.add(real)
        try:
            entries = [entry for entry in os.scandir(place) if not entry.name.startswith(".")]
        except OSError:
            others["unreadable folder"] += 1
            continue
        for entry in sorted(entries, key=lambda entry: entry.name):
            suffix = os.path.splitext(entry.name)[1].lower()
            if os.path.isdir(entry.path) and entry.name.casefold() not in COPIES:
                (waiting.append if entry.is_symlink() else waiting.appendleft)(entry.path)  # links come last
            elif os.path.isfile(entry.path) and suffix in SUFFIXES:
                photos.append(as_text(entry.path))
            elif os.path.isfile(entry.path) and suffix not in _NOTES:
                others[suffix or "without a suffix"] += 1
            elif entry.is_symlink() and not os.path.exists(entry.path):
                others["broken link"] += 1
    return sorted(photos), others


def left_alone(others: Counter[str]) -> str:
    """'3 .mov, 2 .heic (and how to read these)', the most frequent first; '' where there are none."""
    kinds = sorted(others.items(), key=lambda item: (-item[1], item[0]))
    heic = not _HEIC and others.keys() & set(_HEIC_SUFFIXES)
    return ", ".join(f"{count} {kind}" for kind, count in kinds) + (f" ({_INSTALL})" if heic else "")


def open_image(source: str | Path | Image.Image, at_least: int | None = None) -> Image.Image:
    """Open as 8-bit RGB: upright by EXIF, transparency on white, CMYK converted, wider greys scaled down.

    `source` is an image, a file or a path made by in_tar. With `at_least` a JPEG file is decoded at a half, a quarter
    or an eighth of its size if both sides keep at least that many pixels: faster, and pixels differ slightly.
    Raises BadImage with the reason when the file is missing, empty, cut short, too large or no image at all.
    """
    try:
        image = source if isinstance(source, Image.Image) else Image.open(_readable(source))
        if image is not source:
            _bound(image, at_least)
        image.load()
        turn = None
        with suppress(Exception):  # of any class too: where EXIF is beyond reading, a photo is shown as it lies
            orientation = image.getexif().get(_ORIENTATION)
            if orientation is None and (entry := _ENTRY.match(image.info.get("exif", b""))):
                orientation = ord(entry[1])  # Pillow stops at an entry that it cannot read
            turn = _TRANSPOSE.get(str(orientation))
        image = image if turn is None else image.transpose(turn)
        if image.mode.startswith("I") or image.mode == "F":
            image = _to_eight_bits(image)
        if "A" in image.getbands() or "transparency" in image.info:
            image = image.convert("RGBA")
            image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
        return image.convert("RGB")
    except BadImage:
        raise
    except Exception as error:  # of any class: Pillow's readers trust what a file says about itself
        raise BadImage(_reason(source, error)) from None


def _bound(image: Image.Image, at_least: int | None) -> None:
    """Let a JPEG file be decoded at a fraction of its size. Raises BadImage where too much is to be decoded."""
    width, height = image.size
    fraction = next((k for k in (1, 2, 4) if width * height <= MAX_PIXELS * k * k), 8)
    if at_least or fraction > 1:
        image.draft(None, (at_least, at_least) if at_least else (width // fraction, height // fraction))
    if image.width * image.height > MAX_PIXELS:
        raise BadImage(f"{width} x {height} pixels, more than {MAX_PIXELS // 10**6} million; make it smaller")
    if max(image.size) > _MOST_THIN * min(image.size):
        raise BadImage(f"{width} x {height} pixels, more than {_MOST_THIN} times longer than wide; crop it")


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
    buffer = BytesIO()
    (contained(image, side) if max(image.size) > side else image).save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def contained(image: Image.Image, side: int) -> Image.Image:
    """The image with `side` pixels as its longer side, and at least one as its shorter."""
    return image.resize([max(1, round(length / max(image.size) * side)) for length in image.size])


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
    """A grid of photos in the given order, each with its number (by default 1, 2, ...) and two lines of its caption.

    `side` is the pixels of a photo's square; a photo that cannot be read is a grey square.
    """
    from PIL import ImageDraw

    font = _font(11)
    columns = min(columns, max(1, len(photos)))
    rows = -(-len(photos) // columns)
    cell, margin = side + 42, 6
    sheet = Image.new("RGB", (columns * (side + margin) + margin, max(1, rows) * cell + margin), "white")
    draw = ImageDraw.Draw(sheet)
    numbers = range(1, len(photos) + 1) if numbers is None else numbers
    for i, (source, caption, number) in enumerate(zip(photos, captions, numbers, strict=True)):
        x, y = margin + (i % columns) * (side + margin), margin + (i // columns) * cell
        try:
            photo = contained(open_image(source), side)
        except BadImage:
            photo = Image.new("RGB", (side, side), "lightgrey")
        sheet.paste(photo, (x + (side - photo.width) // 2, y + (side - photo.height) // 2))
        text = fill(f"{number}. {caption}", max(8, side * 2 // 13), max_lines=2, placeholder="…")  # 6.5 pixels a letter
        draw.text((x, y + side + 6), text, fill="black", font=font)
    return sheet


def below_title(sheet: Image.Image, title: str) -> Image.Image:
    """The sheet with a line of text above it."""
    from PIL import ImageDraw

    page = Image.new("RGB", (sheet.width, sheet.height + 26), "white")
    page.paste(sheet, (0, 26))
    ImageDraw.Draw(page).text((6, 6), title, fill="black", font=_font(14))
    return page


def _font(size: int) -> "FreeTypeFont | ImageFont":
    from PIL import ImageFont

    with suppress(ImportError):  # its font has more alphabets
        from matplotlib import get_data_path

        return ImageFont.truetype(f"{get_data_path()}/fonts/ttf/DejaVuSans.ttf", size)
    return ImageFont.load_default(size)


def _to_eight_bits(image: Image.Image) -> Image.Image:
    """Greys of more than 8 bits, scaled so that black and white stay.

    White is the largest number of 12 or 16 bits, whichever holds all values of a picture; of other pictures (32 bits,
    floats, negative values) the smallest value is black and the largest is white.
    """
    values = np.asarray(image)
    if image.mode == "F":
        values = np.nan_to_num(values, posinf=values.max(initial=1, where=np.isfinite(values)), neginf=0)
    low, high = min(0.0, float(values.min())), float(values.max())
    if image.mode == "F":
        high = max(1.0, high)
    elif low == 0 and high < 1 << 16:
        high = 4095.0 if high < 1 << 12 else 65535.0
    scaled = values.astype(np.float32)
    scaled -= low
    scaled *= 255.0 / max(high - low, 1e-30)
    return Image.fromarray(np.rint(scaled, out=scaled).astype(np.uint8))


def _readable(source: str | Path) -> str | BytesIO:
    """The file itself, or the bytes of an image inside a tar file: what PIL can open."""
    member = _IN_TAR.fullmatch(str(source))
    if not member:
        return str(source).translate(_BYTES)
    with open(member["tar"], "rb") as file:
        file.seek(int(member["offset"]))
        return BytesIO(file.read(int(member["size"])))


def _reason(source: str | Path | Image.Image, error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        return "missing file"
    member = _IN_TAR.fullmatch(str(source))
    size = int(member["size"]) if member else os.path.getsize(str(source)) if os.path.isfile(str(source)) else None
    if size == 0:
        return "empty file"
    if not _HEIC and str(source).lower().endswith(_HEIC_SUFFIXES):
        return f"not read: {_INSTALL}"
    return f"unreadable image ({type(error).__name__})"
