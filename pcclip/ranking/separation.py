"""Whether words say anything about photos: by how much some stand out, against words that mean nothing.

A text tower gives any words a direction, and photos always have an order along it. For words that the photos show, the
most similar twentieth stands out from the mean; for nonsense it stands out by the towers' noise alone. LOG.md has the
measure on known attributes: it knows nonsense, and does not know whether the order of an attribute is right.
"""

import re
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from pcclip.arithmetic.texts import TextMemory
from pcclip.ranking.axes import Query, query_axis

NONSENSE = (
    "blorf;znark;quixel vorp;mimsy tove;asdf qwer;zxcv uiop;frabjous;brillig;glimbat;xyzzy;vorpal;wug wug;kdjfhg skdjfh;"
    "plonth;lorem ipsum;dolor sit amet"
).split(";")
_NEGATION = re.compile(r"\b(?:not|no|never|without|non|\w+n't)\b", re.IGNORECASE)
_SAME = 0.8  # cosine of a text with itself without its negation
_TOP = 0.95  # quantile of the similarities
_SAMPLE = 5000  # photos that are enough


def without_negation(query: Query) -> str:
    """The words for the top without their 'not' or 'no'; '' where they have none, or nothing else."""
    words = " ".join(_NEGATION.sub(" ", query.more).split())
    return "" if words == query.more else words


def doubt(matrix: Float[np.ndarray, "n d"], query: Query, model: TextMemory) -> str:
    """Why the order of photos by words may mean little, in a sentence; '' where nothing speaks against it.

    `matrix` has the photos' vectors by the image tower of the same model.
    """

    def directions(texts: Sequence[str]) -> Float[np.ndarray, "d t"]:
        model.encode_texts([term.attribute().more for text in texts for _, term in Query(text).terms()])  # all at once
        return np.stack([query_axis(model, Query(text), "two_prompt") for text in texts], axis=1)

    positive = without_negation(query)
    if positive and np.dot(*directions([query.more, positive]).T) > _SAME:
        return "This model hardly hears the negation: photos that show what is negated come first. Say it under less."
    photos, typed = matrix[:: -(-len(matrix) // _SAMPLE)], [text for text in (query.more, query.less) if text]
    contrast, noise = (_contrast(photos @ directions(texts)) for texts in (typed, NONSENSE))
    if contrast > noise:
        return ""
    return f"No photo stands out for these words more than for nonsense ({contrast:.2f}, {noise:.2f}): the order may mean little."


def _contrast(similarities: Float[np.ndarray, "n t"]) -> float:
    """By how much the top photos exceed the mean, for the text for which they do so most."""
    return float((np.quantile(similarities, _TOP, axis=0) - similarities.mean(axis=0)).max())
