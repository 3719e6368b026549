"""Small files that tests make: any content in folders made for it, and pictures of one colour."""

import json
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import Any

from PIL import Image


def put(path: Path, content: Any = "") -> Path:
    """Write bytes, text or a JSON-able value; returns the path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if not isinstance(content, bytes | str):
        content = json.dumps(content)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


@cache
def jpeg(colour: int | tuple[int, int, int] = 0, size: tuple[int, int] = (8, 8), kind: str = "JPEG") -> bytes:
    """An RGB picture of one colour; an int is a shade of grey."""
    file = BytesIO()
    Image.new("RGB", size, (colour,) * 3 if isinstance(colour, int) else colour).save(file, kind)
    return file.getvalue()


def picture(path: Path, colour: int | tuple[int, int, int] = 0, size: tuple[int, int] = (8, 8)) -> str:
    """Write a picture of one colour, PNG where the name ends so, else JPEG; returns its name."""
    return put(path, jpeg(colour, size, "PNG" if path.suffix == ".png" else "JPEG")).name
