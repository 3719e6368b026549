"""Attribute axes: a direction in the embedding space made from texts; a photo's score is its vector's projection."""

import numpy as np
from jaxtyping import Float

from pcclip.models.encoder import DualEncoder
from pcclip.params import Attribute

ESTIMATORS = ("one_sided", "antisymmetric", "two_prompt")


def attribute_axis(model: DualEncoder, attribute: Attribute, estimator: str) -> Float[np.ndarray, " d"]:
    """The axis of one attribute; larger projections mean more of it.

    one_sided: f(comparison), the paper's comparative prompt; a constant offset of the text tower stays in it, but a
        ranking within one set of images does not see what all of them share.
    antisymmetric: f(comparison) - f(comparison_swapped), which cancels that offset.
    two_prompt: f(more) - f(less), two plain descriptions.
    """
    if estimator == "one_sided":
        return model.encode_texts([attribute.comparison])[0]
    if estimator == "antisymmetric":
        texts = model.encode_texts([attribute.comparison, attribute.comparison_swapped])
        return texts[0] - texts[1]
    if estimator == "two_prompt":
        return text_axis(model, attribute.more, attribute.less)
    raise ValueError(f"unknown estimator {estimator!r}; known: {', '.join(ESTIMATORS)}")


def paraphrase_axis(model: DualEncoder, paraphrases: list[tuple[str, str]]) -> Float[np.ndarray, " d"]:
    """Mean of f(the first has more) - f(the first has less) over several ways to say it."""
    texts = model.encode_texts([text for pair in paraphrases for text in pair])
    return (texts[0::2] - texts[1::2]).mean(axis=0)


def text_axis(model: DualEncoder, more: str, less: str | None = None) -> Float[np.ndarray, " d"]:
    """f(more) - f(less): what the two texts share cancels; without `less`, likeness to `more` alone."""
    texts = model.encode_texts([more, less] if less else [more])
    return texts[0] - texts[1] if less else texts[0]
