"""Directions made from text, and the supervised direction that no text should beat.

A direction is a unit vector of the embedding space. A photo's score is the projection of its unit vector on the
direction. `posterior` makes directions from examples and votes.
"""

import re
from collections.abc import Sequence

import numpy as np
import pandas as pd
from jaxtyping import Float, Int
from numpy.typing import ArrayLike

from pcclip.arithmetic.texts import TextMemory
from pcclip.config import Attribute
from pcclip.encoders.dual_encoder import Encoder
from pcclip.errors import PcclipError
from pcclip.stats.vectors import unit

ESTIMATORS = ("one_sided", "antisymmetric", "two_prompt", "ensemble")
_PHOTO = "a photo of {}"
_TERM = re.compile(r"(?:(?:^|\s)([+-])\s|^)\s*(?:(\d+(?:\.\d+)?):)?")  # a sign, and possibly a weight
_TEMPLATES = (_PHOTO, "{}", "a picture of {}", "this is {}")
_ROUNDING = 1e-6  # the same text encoded in two batches differs by less
_PENALTIES = np.logspace(-6, 3, 19)  # relative to the largest variance of the vectors


class Query:
    """The words that a person types to rank photos: the top of the ranking, and possibly its bottom.

    A class of its own because every estimator needs other texts made from the same words, and votes are filed under
    them.

    Attributes:
        more: what the photos at the top show, e.g. 'a large animal'.
        less: what the photos at the bottom show, e.g. 'a small animal'; None orders by likeness to `more` alone.

    Raises:
        PcclipError: an empty text, or the same text twice.
    """

    def __init__(self, more: str, less: str | None = None):
        self.more = " ".join(more.split())
        self.less = None if less is None else " ".join(less.split())
        if not self.more or self.less == "":
            raise PcclipError("rank: the attribute text is empty; say what more (and less) of it looks like")
        if self.less and self.more.casefold() == self.less.casefold():
            raise PcclipError(f"rank: more and less are both {self.more!r}; say how they differ")

    @property
    def label(self) -> str:
        """The name under which a file of votes keeps the votes on this query."""
        return f"{self.more} / {self.less}" if self.less else self.more

    def terms(self) -> list[tuple[float, "Query"]]:
        """The weighted attributes whose directions are added up: '2:golden retriever - puppy' is 2 and -1 of two.

        A term can have a bottom of its own: 'a large animal / a small animal + 0.5:a red thing'. Raises PcclipError: an
        empty term.
        """
        _, *parts = _TERM.split(self.more)
        terms = zip(parts[::3], parts[1::3], parts[2::3], strict=True)
        pairs = [(float(f"{sign or ''}{weight or 1}"), *text.partition(" / ")) for sign, weight, text in terms]
        return [(weight, Query(more, less or self.less)) for weight, more, _, less in pairs]

    def attribute(self) -> Attribute:
        """The texts that the estimators need; the text `less` is empty for a query without less."""
        other = f"shows {self.less}" if self.less else "does not"
        swapped = f"shows {self.less}" if self.less else "does not show it"
        return Attribute(
            more=_PHOTO.format(self.more),
            less=_PHOTO.format(self.less) if self.less else "",
            comparison=f"The first image shows {self.more}, while the second image {other}.",
            comparison_swapped=f"The first image {swapped}, while the second image shows {self.more}.",
        )


def query_axis(
    model: Encoder | TextMemory, query: Query, estimator: str, paraphrases: Sequence[tuple[str, str]] = ()
) -> Float[np.ndarray, " d"]:
    """The direction for typed words, see `Query.terms`. Raises PcclipError when the model cannot tell more from less."""
    terms = [(weight, term.attribute()) for weight, term in query.terms()]
    axis = unit(
        np.sum([weight * attribute_axis(model, term, estimator, paraphrases) for weight, term in terms], axis=0)
    )
    if not axis.any():
        raise PcclipError("more and less are the same to this model; say how they differ")
    return axis


def attribute_axis(
    model: Encoder | TextMemory, attribute: Attribute, estimator: str, paraphrases: Sequence[tuple[str, str]] = ()
) -> Float[np.ndarray, " d"]:
    """The direction of one attribute, of length one; larger projections mean more of the attribute.

    The zero vector, which ties all photos, where the model gives more and less the same vector.

    one_sided: f(comparison), the paper's comparative prompt. A constant offset of the text tower stays in the
        direction, but changes no ranking within one set of images.
    antisymmetric: f(comparison) - f(comparison_swapped), which cancels that offset.
    two_prompt: f(more) - f(less), two plain descriptions; without less, likeness to more alone.
    ensemble: the mean of antisymmetric and of two_prompt in several templates, paraphrases included.

    Args:
        paraphrases: further pairs of more and less for the ensemble, e.g. ('a huge beast', 'a tiny creature').

    Raises:
        PcclipError: an unknown estimator.
    """
    if estimator == "one_sided":
        return text_axis(model, attribute.comparison)
    if estimator == "antisymmetric":
        return text_axis(model, attribute.comparison, attribute.comparison_swapped)
    if estimator == "two_prompt":
        return text_axis(model, attribute.more, attribute.less)
    if estimator != "ensemble":
        raise PcclipError(f"unknown estimator {estimator!r}; known: {', '.join(ESTIMATORS)}")
    prefix = _PHOTO.format("")
    more, less = attribute.more.removeprefix(prefix), attribute.less.removeprefix(prefix)
    if not less and not paraphrases:
        return unit(model.encode_texts([form.format(more) for form in _TEMPLATES]).mean(axis=0)[None])[0]
    phrases = [*([(more, less)] if less else []), *paraphrases]
    pairs = [(form.format(high), form.format(low)) for high, low in phrases for form in _TEMPLATES]
    return paraphrase_axis(model, [*pairs, (attribute.comparison, attribute.comparison_swapped)])


def text_axis(model: Encoder | TextMemory, more: str, less: str | None = None) -> Float[np.ndarray, " d"]:
    """f(more) - f(less), of length one or zero; without `less`, f(more)."""
    return paraphrase_axis(model, [(more, less)]) if less else unit(model.encode_texts([more]))[0]


def paraphrase_axis(model: Encoder | TextMemory, paraphrases: Sequence[tuple[str, str]]) -> Float[np.ndarray, " d"]:
    """Mean of f(more) - f(less) over pairs of texts, of length one, or zero where the mean is within rounding."""
    texts = model.encode_texts([text for pair in paraphrases for text in pair])
    difference = (texts[0::2] - texts[1::2]).mean(axis=0)
    return unit(difference[None])[0] if np.linalg.norm(difference) > _ROUNDING else np.zeros_like(difference)


def agreeing(model: Encoder, query: Query, paraphrases: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    """The paraphrases whose own direction has a positive cosine with the direction of the typed words."""
    if not paraphrases:
        return []
    typed = attribute_axis(model, query.attribute(), "ensemble")
    texts = model.encode_texts([_PHOTO.format(text) for pair in paraphrases for text in pair])
    cosines = (texts[0::2] - texts[1::2]) @ typed
    return [pair for pair, cosine in zip(paraphrases, cosines, strict=True) if cosine > 0]


def ridge_axis(
    matrix: Float[np.ndarray, "n d"],
    rows: Int[np.ndarray, " m"],
    values: ArrayLike,
    groups: Sequence | None = None,
) -> tuple[Float[np.ndarray, " d"], float]:
    """The supervised direction: ridge regression of the true values on image vectors, as an upper bound for text.

    scikit-learn's RidgeCV chooses the penalty with the smallest leave-one-out error on the given images, which are
    therefore tune images.

    Args:
        matrix: image vectors.
        rows: rows of `matrix` to fit on.
        values: true value of each of these rows; images with NaN are left out.
        groups: class of each row, where values belong to classes. Each class then counts once, by the mean vector of
            its images, so that whole classes are left out; otherwise the other images of a class would give its value
            away, and the chosen penalty would be far too small.

    Returns:
        The coefficients scaled to length one, and the chosen penalty.

    Raises:
        PcclipError: fewer than three images (or classes) with a value, or all values or all vectors equal.
    """
    from sklearn.linear_model import RidgeCV

    table = pd.DataFrame({"row": np.asarray(rows), "value": np.asarray(values, dtype=np.float64)})
    table["group"] = np.arange(len(table)) if groups is None else np.asarray(groups)
    table = table[np.isfinite(table.value)]
    vectors = pd.DataFrame(matrix[table.row].astype(np.float64)).groupby(table.group.to_numpy(), sort=False).mean()
    x, y = vectors.to_numpy(), table.groupby("group", sort=False).value.mean().to_numpy()
    if len(y) < 3 or np.ptp(y) == 0:
        raise PcclipError(
            f"a supervised axis needs three different things with values that differ; {len(y)} have "
            "one; leave this attribute out"
        )
    variance = np.linalg.norm(x - x.mean(axis=0), 2) ** 2
    if variance == 0:
        raise PcclipError("a supervised axis needs image vectors that differ; these are all the same: embed them again")
    ridge = RidgeCV(_PENALTIES * variance).fit(x, y)
    return unit(ridge.coef_[None])[0].astype(matrix.dtype), float(ridge.alpha_)
