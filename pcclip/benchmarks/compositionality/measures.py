"""Measures of compositional benchmarks, from similarities of images and texts.

Each measure is a margin for each item, right minus wrong; an item is right where it is above 0. So every inequality is
strict, as in the benchmarks' own code: a tie is no win. (CLIP_benchmark takes the argmax instead, where a tie is won by
the first of the tied texts, which is the right one.)
"""

import numpy as np
from jaxtyping import Bool, Float, Int

from pcclip.errors import PcclipError
from pcclip.stats.vectors import by_rows, cosines

Margins = dict[str, Float[np.ndarray, " m"]]  # by the end of the task's name


def similarities(
    images: Float[np.ndarray, "n d"],
    image_rows: Int[np.ndarray, "m i"],
    texts: Float[np.ndarray, "t d"],
    text_rows: Int[np.ndarray, "m k"],
) -> Float[np.ndarray, "m i k"]:
    """Cosines of each item's images with each of its texts; rows are of the unit vectors."""
    scores = np.empty((*image_rows.shape, text_rows.shape[1]), dtype=np.float64)
    for i in range(image_rows.shape[1]):
        for k in range(text_rows.shape[1]):
            scores[:, i, k] = _cosines(images, image_rows[:, i], texts, text_rows[:, k])
    return scores


def margins(form: str, scores: Float[np.ndarray, "m i k"], present: Bool[np.ndarray, "m k"]) -> Margins:
    """The measures of a form (compositionality.FORMS) from each item's scores; `present`: whether a text is there."""
    if form == "groups":
        return of_groups(scores)
    return of_choices(scores, present) if form == "choices" else of_triples(scores)


def of_groups(s: Float[np.ndarray, "m 2 2"]) -> Margins:
    """Two images, two texts, text k of image k: Winoground's three scores, and GroupMatch.

    text: each image prefers its own text (chance 1/4); image: each text prefers its own image (1/4); group: both (1/6).
    group_match (Test-Time Matching, 2510.07632): the right pairing has the larger sum, s00 + s11 > s01 + s10 (1/2). As
    s00 + s11 - s01 - s10 = <u0 - u1, t0 - t1>, that is whether the images differ in the same direction as the texts:
    difference classification of PC-CLIP, on another set.
    """
    text = np.minimum(s[:, 0, 0] - s[:, 0, 1], s[:, 1, 1] - s[:, 1, 0])
    image = np.minimum(s[:, 0, 0] - s[:, 1, 0], s[:, 1, 1] - s[:, 0, 1])
    return {
        "_text": text,
        "_image": image,
        "_group": np.minimum(text, image),
        "_group_match": (s[:, 0, 0] + s[:, 1, 1]) - (s[:, 0, 1] + s[:, 1, 0]),
    }


def of_choices(s: Float[np.ndarray, "m 1 k"], present: Bool[np.ndarray, "m k"]) -> Margins:
    """One image and k texts, the first of which is right: it has to beat every other present one (chance 1/k).

    Raises PcclipError when there is one text only.
    """
    if s.shape[2] < 2:
        raise PcclipError("a choice between texts needs two or more of each image; this set has one")
    return {"": s[:, 0, 0] - np.where(present[:, 1:], s[:, 0, 1:], -np.inf).max(axis=1)}


def of_triples(s: Float[np.ndarray, "m 1 3"]) -> Margins:
    """One image, two right texts and a wrong one: both right ones have to beat it (SugarCrepe++'s ITT; chance 1/3)."""
    return {"_itt": np.minimum(s[:, 0, 0], s[:, 0, 1]) - s[:, 0, 2]}


def of_texts(texts: Float[np.ndarray, "t d"], text_rows: Int[np.ndarray, "m 3"]) -> Margins:
    """The same texts without the image: the right two are nearer to each other than to the wrong one (TOT; 1/3)."""
    first, second, wrong = text_rows.T
    same = _cosines(texts, first, texts, second)
    return {"_tot": same - np.maximum(_cosines(texts, first, texts, wrong), _cosines(texts, second, texts, wrong))}


def _cosines(
    a: Float[np.ndarray, "n d"],
    a_rows: Int[np.ndarray, " m"],
    b: Float[np.ndarray, "t d"],
    b_rows: Int[np.ndarray, " m"],
) -> Float[np.ndarray, " m"]:
    """Cosines of rows of two matrices, some at a time."""
    return by_rows(lambda first, second: cosines(a[first], b[second]), a.shape[1], a_rows, b_rows)
