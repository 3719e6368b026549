"""What the readers share: a file that is a JSON list, and which of several places an image is in."""

import json
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from pcclip.errors import PcclipError
from pcclip.runs.files import files_exist


def json_list(path: Path, source: str) -> list:
    """The JSON list in `path`, not empty. Raises PcclipError, which names the `source` to fetch it from again."""
    try:
        values = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise PcclipError(f"{path}: cannot be read as JSON ({error}); fetch it again from {source}") from None
    if not isinstance(values, list) or not values:
        raise PcclipError(f"{path}: not a list of pairs, or an empty one; fetch it again from {source}")
    return values


def first_there(places: Sequence[pd.Series]) -> pd.Series:
    """Row by row the first of the places (paths) that is a file, and the first place of all where none is."""
    found = places[0].copy()
    lacking = ~files_exist(found)
    for place in places[1:]:
        if not lacking.any():
            break
        here = files_exist(place[lacking])
        found[here.index[here]] = place[here.index[here]]
        lacking[here.index[here]] = False
    return found


def text_of(values) -> list[str]:
    """The texts in a JSON value that should be a list of them: white space folded, full stops and empty ones off."""
    texts = values if isinstance(values, list) else []
    tidied = [" ".join(text.split()).strip(" .,?") for text in texts if isinstance(text, str)]
    return [text for text in tidied if text]
