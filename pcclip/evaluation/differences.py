"""The tasks. Each scores one model and returns a tidy table of items; nothing here is averaged.

Columns of an item: first, second (the images it rests on, as rows of the vectors; equal for single-image tasks),
score, reference (what the score is held against) and correct.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Int

from pcclip.encoders.dual_encoder import Encoder
from pcclip.stats.vectors import beats, cosines, image_differences, zero_shot


def differences(
    model: Encoder,
    matrix: Float[np.ndarray, "n d"],
    first: Int[np.ndarray, " m"],
    second: Int[np.ndarray, " m"],
    texts: Sequence[str],
    twins: Sequence[str],
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Difference classification (cos(v, f(d)) > 0, as released) and order (the text beats its swapped twin).

    The first is fooled by a constant offset of the text vectors, the second is not. Returns one table for each.
    """
    v = image_differences(matrix, first, second)
    right, reverse = cosines(model.encode_texts(texts), v), cosines(model.encode_texts(twins), v)
    return (
        _items(first, second, right, np.zeros_like(right), beats(right, 0.0)),
        _items(first, second, right, reverse, beats(right, reverse)),
    )


def zero_shot_items(
    model: Encoder,
    matrix: Float[np.ndarray, "n d"],
    rows: Int[np.ndarray, " m"],
    labels: Sequence[str],
    classes: Sequence[str],
    prompt: str,
) -> pd.DataFrame:
    """Zero-shot classification into `classes`; score is the index found, reference the index that is right."""
    texts = model.encode_texts([prompt.format(name) for name in classes])
    found = zero_shot(matrix[rows], texts)
    right = np.array([list(classes).index(label) for label in labels])
    return _items(rows, rows, found.astype(float), right.astype(float), found == right)


def ranking_items(
    axis: Float[np.ndarray, " d"],
    matrix: Float[np.ndarray, "n d"],
    rows: Int[np.ndarray, " m"],
    values: Float[np.ndarray, " m"],
) -> pd.DataFrame:
    """Images with their projection on an attribute axis (score) and the attribute's true value (reference)."""
    return _items(rows, rows, matrix[rows] @ axis, np.asarray(values, dtype=float), None)


def verdict_items(
    axis: Float[np.ndarray, " d"],
    matrix: Float[np.ndarray, "n d"],
    first: Int[np.ndarray, " m"],
    second: Int[np.ndarray, " m"],
    first_has_more: Bool[np.ndarray, " m"],
) -> pd.DataFrame:
    """Pairs with the projection of u1 - u2 on an attribute axis; correct when its sign is the verdict's."""
    score = (matrix[first] - matrix[second]) @ axis
    return _items(
        first, second, score, np.where(first_has_more, 1.0, -1.0), np.where(first_has_more, score > 0, score < 0)
    )


def _items(first, second, score, reference, correct) -> pd.DataFrame:
    return pd.DataFrame(
        {"first": first, "second": second, "score": score.astype(float), "reference": reference, "correct": correct}
    )
