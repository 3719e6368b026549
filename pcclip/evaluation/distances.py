"""Embedding distances: is the text of a difference where the difference of the two texts is?"""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from jaxtyping import Float

from pcclip.errors import PcclipError
from pcclip.evaluation.protocols import PROTOCOLS
from pcclip.evaluation.zero_shot import Encode, encoded
from pcclip.stats.vectors import beats, cosines, unit

PROMPT = "A photo of a {}"  # the released code's


def distance_items(
    encode: Encode, classes: Sequence[str], pairs: pd.DataFrame, protocol: str, prompt: str = PROMPT
) -> pd.DataFrame:
    """Cosine distance of the text of a difference of two classes to the difference of their texts, f(a) - f(b).

    Args:
        encode: texts to unit vectors.
        classes: names, put into `prompt`.
        pairs: first, second (names of classes a and b) and difference, the text of what sets a off from b; for
            'corrected' also swapped, the text the other way round.
        protocol: 'as_released' takes f(difference); 'corrected' takes f(difference) - f(swapped), in which whatever
            the texts of differences share cancels.

    Returns:
        One item per pair, with the columns of tasks.py, first and second being indices of classes: score is 1 - cos,
        reference 1 + cos, the distance to f(b) - f(a), and an item is correct when the first is the smaller. The
        paper's figures are the means of both. A text of no direction is at distance 1 from everything.

    Raises:
        PcclipError: an unknown protocol, no pairs, a column that is not there, a name that is no class, or vectors that
            are not numbers.
    """
    if protocol not in PROTOCOLS:
        raise PcclipError(f"unknown protocol {protocol!r}; known: {', '.join(PROTOCOLS)}")
    lacking = {"first", "second", "difference", *(["swapped"] if protocol == "corrected" else [])} - set(pairs.columns)
    if lacking or pairs.empty:
        raise PcclipError(
            f"embedding distances: pairs have no {min(lacking) if lacking else 'rows'}; write texts of "
            "the differences of classes first"
        )
    index = {name: label for label, name in enumerate(classes)}
    if unknown := sorted({*pairs["first"], *pairs["second"]} - index.keys()):
        raise PcclipError(f"embedding distances: {unknown[0]!r} is no class; write texts for the names of this set")
    first, second = (pairs[side].map(index).to_numpy() for side in ("first", "second"))
    named = _vectors(encode, [prompt.format(name) for name in classes])
    told = _vectors(encode, pairs.difference)
    if protocol == "corrected":
        told = unit(told - _vectors(encode, pairs.swapped))
    cosine = cosines(told, unit(named[first] - named[second])).astype(float)
    return pd.DataFrame(
        {"first": first, "second": second, "score": 1 - cosine, "reference": 1 + cosine, "correct": beats(cosine, 0.0)}
    )


def _vectors(encode: Encode, texts: Sequence[str]) -> Float[np.ndarray, "n d"]:
    codes, vectors = encoded(encode, texts)
    return vectors[codes]
