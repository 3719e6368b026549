"""An image's captions: bytes as text, all captions of a table, and the one that is compared."""

import codecs
import hashlib
from contextlib import suppress

import numpy as np
import pandas as pd


def decoded(content: bytes) -> tuple[str, str]:
    """The text of a file, and its encoding: UTF-8 or, by its first bytes, UTF-16; else Windows' cp1252, else latin-1."""
    utf16 = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    for encoding in ("utf-16",) if utf16 else ("utf-8-sig", "cp1252"):
        with suppress(UnicodeDecodeError):
            return content.decode(encoding), encoding
    return content.decode("latin-1"), "latin-1"


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
