"""Whether words say anything about photos: by how much some stand out, against words that mean nothing.

A text tower gives any words a direction, and photos always have an order along it. For words that the photos show, the
most similar twentieth stands out from the mean; for nonsense it stands out by the towers' noise alone. LOG.md has the
measure on known attributes: it knows nonsense, and does not know whether the order of an attribute is right.
"""

import re
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from pcclip.ranking.axes import Query

NONSENSE = (
    "blorf;znark;quixel vorp;mimsy tove;asdf qwer;zxcv uiop;frabjous;brillig;glimbat;xyzzy;vorpal;wug wug;kdjfhg skdjfh;"
    "plonth;lorem ipsum;dolor sit amet"
).split(";")
_NEGATION = re.compile(r"\b(?:not|no|never|without|isn't|non)\b", re.IGNORECASE)
_SAME = 0.8  # cosine of a text with itself without its negation
_TOP = 0.95  # quantile of the similarities
_SAMPLE = 5000  # photos that are enough


def without_negation(query: Query) -> str:
    """The words for the top without their 'not' or 'no'; '' where they have none, or nothing else."""
    words = " ".join(_NEGATION.sub(" ", query.more).split())
    return "" if words == query.more else words


def doubt(
    matrix: Float[np.ndarray, "n d"],
    texts: Sequence[Float[np.ndarray, " d"]],
    nonsense: Sequence[Float[np.ndarray, " d"]],
    positive: Float[np.ndarray, " d"] | None = None,
) -> str:
    """Why the order by words may mean little, in a sentence; '' where nothing speaks against it.

    Args:
        matrix: the photos' vectors.
        texts: of the words for the top and, where there are any, for the bottom.
        nonsense: texts of NONSENSE, by the same model.
        positive: the text for the top without its negation.
    """
    if positive is not None and texts[0] @ positive > _SAME:
        return "This model hardly hears the negation: photos that show what is negated come first. Say it under less."
    photos = matrix[:: -(-len(matrix) // _SAMPLE)]
    contrast, noise = (_contrast(photos @ np.stack(columns, axis=1)) for columns in (texts, nonsense))
    if contrast > noise:
        return ""
    return f"No photo stands out for these words more than for nonsense ({contrast:.2f}, {noise:.2f}): the order may mean little."


def _contrast(similarities: Float[np.ndarray, "n t"]) -> float:
    """By how much the top photos exceed the mean, for the text for which they do so most."""
    return float((np.quantile(similarities, _TOP, axis=0) - similarities.mean(axis=0)).max())
