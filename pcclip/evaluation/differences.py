"""Score one model on pairs of images: difference tasks and attribute verdicts, each a table with a row for each item.

Columns of an item: first, second (rows of the image vectors), score, reference (the value that the score is compared
with) and correct. Nothing here is averaged.
"""

from collections.abc import Iterator

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Int

from pcclip.comparisons.structures import STRUCTURES
from pcclip.errors import PcclipError
from pcclip.evaluation.predictions import Task, item_table
from pcclip.evaluation.protocols import SCORED_AS_RELEASED
from pcclip.evaluation.zero_shot import Encode, encoded
from pcclip.stats.intervals import in_parts
from pcclip.stats.vectors import beats, cosines, image_differences, unit

TASKS = ("difference_classification", "difference_order", "difference_centred")
_EQUAL = 1e-5  # a shorter difference of unit vectors is rounding, as of one image encoded twice


def difference_items(
    encode: Encode, matrix: Float[np.ndarray, "n d"], pairs: pd.DataFrame, protocol: str = ""
) -> dict[str, pd.DataFrame]:
    """Does the text d of a difference fit v, the unit difference of two image vectors?

    difference_classification: cos(v, f(d)) > 0, as released; a constant that all texts share can decide it.
    difference_order: cos(v, f(d)) > cos(v, f(d swapped)), in which such a constant cancels. The same decision as
        cos(v, f(d) - f(d swapped)) > 0.
    difference_centred: cos(v, f(d) - mean) > 0, where the mean is that of the distinct texts of these pairs, swapped
        ones included.

    Args:
        encode: texts to unit vectors.
        matrix: unit image vectors.
        pairs: first, second (rows of the matrix), difference, swapped.
        protocol: as_released leaves out the tasks that the release lacks.

    Returns:
        The items of each of TASKS. A tie is wrong, and so is a pair whose two images have the same vector.

    Raises:
        PcclipError: vectors of different widths, or vectors that are not numbers.
    """
    codes, vectors = encoded(encode, [*pairs.difference, *pairs.swapped], matrix.shape[1])
    centred = _differences(vectors, vectors.mean(axis=0, dtype=np.float64).astype(vectors.dtype))
    tables: dict[str, list[pd.DataFrame]] = {task: [] for task in TASKS}
    for block in in_parts(np.arange(len(pairs)), matrix.shape[1]):
        first, second = pairs["first"].to_numpy()[block], pairs["second"].to_numpy()[block]
        texts, twins = codes[: len(pairs)][block], codes[len(pairs) :][block]
        v = image_differences(matrix, first, second)
        differ = _differences(matrix[first], matrix[second]).any(axis=1)
        right, reverse = cosines(vectors[texts], v), cosines(vectors[twins], v)
        for task, score, reference in (
            ("difference_classification", right, np.zeros_like(right)),
            ("difference_order", right, reverse),
            ("difference_centred", cosines(centred[texts], v), np.zeros_like(right)),
        ):
            tables[task].append(item_table(first, second, score, reference, beats(score, reference) & differ))
    tasks = SCORED_AS_RELEASED if protocol == "as_released" else TASKS
    items = {task: pd.concat(tables[task], ignore_index=True) for task in tasks}
    if not np.isfinite(items[TASKS[0]].score).all():
        raise PcclipError("image vectors hold values that are not numbers; embed the images again")
    return items


def structure_items(
    name: str, encode: Encode, matrix: Float[np.ndarray, "n d"], pairs: pd.DataFrame
) -> Iterator[tuple[Task, pd.DataFrame]]:
    """Classification and order in every sentence structure, then two controls; nothing without pairs.

    `images shuffled` scores the sentences on the image differences of other pairs, as a floor. `captions subtracted`
    asks whether cos(v, f(caption 1) - f(caption 2)) > 0, without a sentence: difference_order with caption 1 as the
    text and caption 2 as its twin. Both are listed as difference_classification.

    Args:
        name: of the image set.
        encode: texts to unit vectors.
        matrix: unit image vectors.
        pairs: first, second (rows of the matrix); first_phrase and second_phrase, which a structure puts into its
            sentence; first_caption and second_caption, which are subtracted; difference, swapped.
    """
    if pairs.empty:
        return
    phrases = [pairs.first_phrase, pairs.second_phrase]
    for structure in STRUCTURES:
        texts, twins = (list(map(structure.sentence, *sides)) for sides in (phrases, phrases[::-1]))
        items = difference_items(encode, matrix, pairs.assign(difference=texts, swapped=twins))
        for task in TASKS[:2]:
            yield (task, f"{name}/structures/{structure.split}/{structure.name}", ""), items[task]
    shuffled = pairs.assign(**{side: np.roll(pairs[side], 1) for side in ("first", "second")})
    captions = pairs.assign(difference=pairs.first_caption, swapped=pairs.second_caption)
    for control, table, task in (
        ("images shuffled", shuffled, "difference_classification"),
        ("captions subtracted", captions, "difference_order"),
    ):
        items = difference_items(encode, matrix, table)[task]
        yield ("difference_classification", f"{name}/structures/{control}", ""), items


def verdict_items(
    axis: Float[np.ndarray, " d"],
    matrix: Float[np.ndarray, "n d"],
    first: Int[np.ndarray, " m"],
    second: Int[np.ndarray, " m"],
    first_has_more: Bool[np.ndarray, " m"],
) -> pd.DataFrame:
    """Score each pair by the projection of u1 - u2 on an axis; correct when its sign is that of the verdict."""
    score = (matrix[first] - matrix[second]) @ axis
    sign = np.where(first_has_more, 1.0, -1.0)
    return item_table(first, second, score, sign, sign * score > 0)


def _differences(vectors: Float[np.ndarray, "n d"], others: Float[np.ndarray, "*n d"]) -> Float[np.ndarray, "n d"]:
    """Unit differences; zero where the vectors differ by no more than rounding."""
    difference = vectors - others
    difference[np.linalg.norm(difference, axis=1) <= _EQUAL] = 0
    return unit(difference)
