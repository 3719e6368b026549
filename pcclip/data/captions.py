"""An image's captions: bytes as text, all captions of a table, and the one that is compared."""

import codecs
import hashlib
from contextlib import suppress

import numpy as np
import pandas as pd


def decoded(content: bytes) -> tuple[str, str]:
    """The text of a file, and its encodings: UTF-16 by its first bytes; else each line's own.

    A line that can be UTF-8 is UTF-8, else Windows' cp1252, else latin-1: programs append to files of others.
    """
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return content.decode("utf-16", "replace"), "utf-16"
    lines = [_decoded_line(line) for line in content.split(b"\n")]
    encodings = {encoding for text, encoding in lines if not text.isascii()} or {"utf-8-sig"}
    return "\n".join(text for text, _ in lines), " and ".join(sorted(encodings))


def _decoded_line(line: bytes) -> tuple[str, str]:
    for encoding in ("utf-8-sig", "cp1252"):
        with suppress(UnicodeDecodeError):
            return line.decode(encoding), encoding
    return line.decode("latin-1"), "latin-1"


def caption_lists(table: pd.DataFrame) -> pd.Series:
    """Each row's captions as a list, read from column `captions`, else from `caption`."""
    column = table.captions if "captions" in table else table.caption
    return column.map(lambda value: value if isinstance(value, list) else [value])


def all_captions(table: pd.DataFrame) -> pd.Series:
    """Every row's captions, stripped, without empty ones; the index repeats the row's index for each caption."""
    texts = caption_lists(table).explode().fillna("").astype(str).str.strip()
    return texts[texts != ""]


def caption_of_each(texts: pd.Series, ids: pd.Series, how: str, seed: int) -> pd.Series:
    """One of `texts` for each row: the first, the longest (in words, then the first) or a random one.

    The random one depends on the seed, the image's id and its captions alone, not on the other rows.
    """
    if how == "longest":
        rank = -texts.str.split().str.len().to_numpy()
    elif how == "random":
        keys = [f"{seed}\0{image}\0{text}".encode() for image, text in zip(ids[texts.index], texts, strict=True)]
        rank = np.array([hashlib.blake2b(key, digest_size=8).hexdigest() for key in keys])
    else:
        rank = np.zeros(len(texts))
    ordered = texts.iloc[np.argsort(rank, kind="stable")]
    return ordered[~ordered.index.duplicated()]
