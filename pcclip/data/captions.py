"""An image's captions: all of them, and the one that is compared."""

import hashlib

import numpy as np
import pandas as pd


def all_captions(table: pd.DataFrame) -> pd.Series:
    """Every row's captions, stripped, without empty ones; the index repeats the row's index for each caption.

    Read from column `captions` (lists), else from `caption`.
    """
    texts = (table.captions if "captions" in table else table.caption).explode()
    texts = texts.fillna("").astype(str).str.strip()
    return texts[texts != ""]


def caption_of_each(texts: pd.Series, ids: pd.Series, how: str, seed: int) -> pd.Series:
    """One of `texts` for each row: the first, the longest (in words, then the first) or a random one.

    The random one depends on the seed, the image's id and its captions alone, not on the other rows.
    """
    if how == "longest":
        rank = -texts.str.split().str.len().to_numpy()
    elif how == "random":
        rank = np.array([_lot(seed, *pair) for pair in zip(ids[texts.index], texts, strict=True)], dtype=np.uint64)
    else:
        rank = np.zeros(len(texts))
    ordered = texts.iloc[np.argsort(rank, kind="stable")]
    return ordered[~ordered.index.duplicated()]


def _lot(seed: int, image: str, text: str) -> int:
    return int.from_bytes(hashlib.blake2b(f"{seed}\0{image}\0{text}".encode(), digest_size=8).digest())
