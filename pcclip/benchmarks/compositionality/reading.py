"""What the readers share: the entries of a JSON file, where a file or an image is, and an item as a row."""

import json
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from pcclip.benchmarks.change_captions.reading import first_there
from pcclip.errors import PcclipError


def entries(path: Path, source: str) -> list:
    """What a JSON list, a JSON object (its values) or a file with a JSON object on each line holds, not empty.

    Raises PcclipError, which names the `source` to fetch it from again.
    """
    try:
        text = path.read_text(encoding="utf8")
        values = (
            [json.loads(line) for line in text.splitlines() if line.strip()]
            if (path.suffix == ".jsonl")
            else json.loads(text)
        )
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise PcclipError(f"{path}: cannot be read as JSON ({reason}); fetch it again from {source}") from None
    values = list(values.values()) if isinstance(values, dict) else values
    if not isinstance(values, list) or not values:
        raise PcclipError(f"{path}: no list of items, or an empty one; fetch it again from {source}")
    return values


def found(path: Path, places: Sequence[str]) -> Path | None:
    """The first of the places below `path` that is there."""
    return next((path / place for place in places if (path / place).exists()), None)


def row(
    name: str, images: Sequence, texts: Sequence, part: str = "", group: str = "", tags: Sequence[str] = (), **more
) -> dict:
    """An item as read; one of its images or texts that is no text, or empty, makes it unusable."""
    images = [image if isinstance(image, str) else "" for image in images]
    texts = [" ".join(text.split()) if isinstance(text, str) else "" for text in texts]
    return {
        "row": name,
        **{f"image_{k}": image for k, image in enumerate(images)},
        **{f"text_{k}": text for k, text in enumerate(texts)},
        "part": part,
        "group": group,
        "tags": tuple(tags),
        "reason": "" if all(images) else "no image",
        **more,
    }


def place(table: pd.DataFrame, folders: Sequence[Path], suffixes: Sequence[str] = ("",)) -> pd.DataFrame:
    """The same table with each image as a path: in the first of the folders, with the first suffix, that has it."""
    for column in [column for column in ("image_0", "image_1") if column in table]:
        table[column] = first_there(
            [f"{folder}/" + table[column] + suffix for folder in folders for suffix in suffixes]
        )
    return table
