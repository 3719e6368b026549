"""Attribute axes: a unit direction in the embedding space; a photo's score is its vector's projection.

From texts (ESTIMATORS), from examples, from the true values (the ceiling); `votes` makes them from pairwise votes.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from pcclip.config import Attribute
from pcclip.encoders.dual_encoder import Encoder
from pcclip.errors import PcclipError
from pcclip.ranking.posterior import vote_axis
from pcclip.stats.vectors import unit

ESTIMATORS = ("one_sided", "antisymmetric", "two_prompt", "ensemble")
_PHOTO = "a photo of {}"
_TEMPLATES = (_PHOTO, "{}", "a picture of {}", "this is {}")
_SAME = 1e-6  # the difference of a unit vector in float32 and itself, made in another batch
_PENALTIES = np.logspace(-6, 3, 19)  # of the largest variance of the vectors


@dataclass(frozen=True)
class Query:
    """What a person types: what the top of a ranking looks like and, better, the bottom too.

    'a large animal', 'a small animal'. Raises PcclipError for an empty text, or twice the same.
    """

    more: str
    less: str | None = None

    def __post_init__(self):
        for side in ("more", "less"):
            if getattr(self, side) is not None:
                object.__setattr__(self, side, " ".join(getattr(self, side).split()))
        if not self.more or self.less == "":
            raise PcclipError("rank: the attribute text is empty; say what more (and less) of it looks like")
        if self.less and self.more.casefold() == self.less.casefold():
            raise PcclipError(f"rank: more and less are both {self.more!r}; say how they differ")

    @property
    def label(self) -> str:
        """The name under which votes on it are kept."""
        return f"{self.more} / {self.less}" if self.less else self.more

    def attribute(self) -> Attribute:
        """The texts that every estimator needs; `less` is empty where there is none."""
        other = f"shows {self.less}" if self.less else "does not"
        swapped = f"shows {self.less}" if self.less else "does not show it"
        return Attribute(
            more=_PHOTO.format(self.more),
            less=_PHOTO.format(self.less) if self.less else "",
            comparison=f"The first image shows {self.more}, while the second image {other}.",
            comparison_swapped=f"The first image {swapped}, while the second image shows {self.more}.",
        )


def attribute_axis(
    model: Encoder, attribute: Attribute, estimator: str, paraphrases: Sequence[tuple[str, str]] = ()
) -> Float[np.ndarray, " d"]:
    """The axis of one attribute, of length one; larger projections mean more of it. Zero, so that everything is tied,
    where more and less are the same to the model.

    one_sided: f(comparison), the paper's comparative prompt; a constant offset of the text tower stays in it, but a
        ranking within one set of images does not see what all of them share.
    antisymmetric: f(comparison) - f(comparison_swapped), which cancels that offset.
    two_prompt: f(more) - f(less), two plain descriptions; without less, likeness to more alone.
    ensemble: the mean of the above two, more and less in several templates, and the paraphrases in the same ones.

    Args:
        paraphrases: other ways to say more and less ('a huge beast', 'a tiny creature'), for the ensemble.

    Raises:
        PcclipError: no such estimator.
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
    said = [*([(more, less)] if less else []), *paraphrases]  # what has no opposite is no pair
    pairs = [(form.format(high), form.format(low)) for high, low in said for form in _TEMPLATES]
    return paraphrase_axis(model, [*pairs, (attribute.comparison, attribute.comparison_swapped)])


def agreeing(model: Encoder, query: Query, paraphrases: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    """Those paraphrases whose own axis goes the way of the words that were typed, and not against it."""
    if not paraphrases:
        return []
    typed = attribute_axis(model, query.attribute(), "ensemble")
    texts = model.encode_texts([_PHOTO.format(text) for pair in paraphrases for text in pair])
    along = (texts[0::2] - texts[1::2]) @ typed
    return [pair for pair, cosine in zip(paraphrases, along, strict=True) if cosine > 0]


def paraphrase_axis(model: Encoder, paraphrases: list[tuple[str, str]]) -> Float[np.ndarray, " d"]:
    """Mean of f(the first has more) - f(the first has less) over several ways to say it, of length one or zero."""
    texts = model.encode_texts([text for pair in paraphrases for text in pair])
    return _apart((texts[0::2] - texts[1::2]).mean(axis=0))


def text_axis(model: Encoder, more: str, less: str | None = None) -> Float[np.ndarray, " d"]:
    """f(more) - f(less), of length one or zero; what they share cancels. Without `less`, likeness to `more` alone."""
    texts = model.encode_texts([more, less] if less else [more])
    return _apart(texts[0] - texts[1]) if less else unit(texts)[0]


def query_axis(
    model: Encoder, query: Query, estimator: str, paraphrases: Sequence[tuple[str, str]] = ()
) -> Float[np.ndarray, " d"]:
    """The axis of what a person typed. Raises PcclipError where more and less are the same to the model."""
    axis = attribute_axis(model, query.attribute(), estimator, paraphrases)
    if not axis.any():
        raise PcclipError("more and less are the same to this model; say how they differ")
    return axis


def _apart(difference: Float[np.ndarray, " d"]) -> Float[np.ndarray, " d"]:
    """Scaled to length one; zero where it is no more than rounding."""
    return unit(difference[None])[0] if np.linalg.norm(difference) > _SAME else np.zeros_like(difference)


def examples_axis(
    matrix: Float[np.ndarray, "n d"],
    most: Float[np.ndarray, "a d"],
    least: Float[np.ndarray, "b d"],
    prior: Float[np.ndarray, " d"] | None = None,
) -> Float[np.ndarray, " d"]:
    """The axis of length one on which examples of the most lie above examples of the least, even one of each.

    Args:
        matrix: the photos that are ranked.
        most, least: vectors of the examples; one of the two may be empty.
        prior: the text axis.

    Raises:
        PcclipError: no examples at all.
    """
    differences = example_differences(matrix, most, least)
    return vote_axis(differences, np.ones(len(differences)), prior, matrix).axis


def example_differences(
    matrix: Float[np.ndarray, "n d"], most: Float[np.ndarray, "a d"], least: Float[np.ndarray, "b d"]
) -> Float[np.ndarray, "m d"]:
    """What examples say, as votes that the first has more: each against the mean of the other side's.

    Where only one side is given, against the mean photo. Raises PcclipError when there are no examples.
    """
    if not len(most) and not len(least):
        raise PcclipError("no examples; name one photo with much of the attribute, one with little, or both")
    high = (most if len(most) else matrix).mean(axis=0)
    low = (least if len(least) else matrix).mean(axis=0)
    if len(most) == len(least) == 1:
        return most - least
    return np.concatenate([most - low, high - least])


def ridge_axis(
    matrix: Float[np.ndarray, "n d"],
    rows: Int[np.ndarray, " m"],
    values: Float[np.ndarray, " m"],
    groups: Sequence | None = None,
) -> tuple[Float[np.ndarray, " d"], float]:
    """The ceiling: the axis of length one whose projections follow the true values best, and the penalty chosen for it.

    With enough tune images, of the kind that is tested on, no text axis should beat it. The penalty is the one of the
    smallest leave-one-out error (in closed form) on the given images, which are to be tune images. Where images share
    one value because they share a class, give the classes as `groups`: each counts once, by the mean of its images, so
    that a whole class is left out at a time; else the values of a class left out would be known from its other images
    and the penalty chosen far too small. Images without a value (NaN) are left out.

    Raises:
        PcclipError: fewer than three images (or groups) with a value, or all values or all vectors equal.
    """
    x, y = _known(matrix, rows, values, groups)
    if len(y) < 3 or np.ptp(y) == 0:
        raise PcclipError(
            f"a supervised axis needs three different things with values that differ; {len(y)} have "
            "one; leave this attribute out"
        )
    x, y = x - x.mean(axis=0), y - y.mean()
    power, directions = np.linalg.eigh(x.T @ x)
    power, x = np.maximum(power, 0), x @ directions
    if power.max() == 0:
        raise PcclipError("a supervised axis needs image vectors that differ; these are all the same: embed them again")
    best = (np.inf, 0.0, np.zeros(len(power)))
    for penalty in _PENALTIES * power.max():
        weights = (x.T @ y) / (power + penalty)
        own = 1 / len(y) + np.einsum("nd,d,nd->n", x, 1 / (power + penalty), x)  # each value's share in its estimate
        error = float((((y - x @ weights) / (1 - own)) ** 2).mean())
        if error < best[0]:
            best = (error, float(penalty), weights)
    return unit((directions @ best[2])[None])[0].astype(matrix.dtype), best[1]


def _known(matrix, rows, values, groups) -> tuple[Float[np.ndarray, "k d"], Float[np.ndarray, " k"]]:
    """Vectors and values of the images that have one, or their means by group, in float64."""
    values = np.asarray(values, dtype=np.float64)
    has = np.isfinite(values)
    x, y = matrix[np.asarray(rows)[has]].astype(np.float64), values[has]
    if groups is None:
        return x, y
    codes, names = pd.factorize(np.asarray(groups)[has])
    counts = np.bincount(codes, minlength=len(names))
    sums = np.zeros((len(names), x.shape[1]))
    np.add.at(sums, codes, x)
    return sums / counts[:, None], np.bincount(codes, y, minlength=len(names)) / counts
