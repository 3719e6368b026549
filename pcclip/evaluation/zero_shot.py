"""Zero-shot classification: images go to the class whose texts are nearest.

Images are scored in blocks, so that only the vectors and one block of scores are in memory.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Float, Int
from scipy.sparse import csr_matrix

from pcclip.benchmarks.benchmark import Benchmark
from pcclip.errors import PcclipError
from pcclip.evaluation import templates
from pcclip.stats.vectors import unit

Encode = Callable[[Sequence[str]], Float[np.ndarray, "n d"]]
ENSEMBLES = ("vectors", "scores")
VARIANTS = {  # name -> templates, ensemble
    "single": ("single", "vectors"),
    "simple7": ("simple7", "vectors"),
    "official80": ("official80", "vectors"),
    "official80_scores": ("official80", "scores"),
}
_BLOCK = 4096


class PromptSet(NamedTuple):
    """One way to prompt: 'VARIANT/PROTOCOL', one of ENSEMBLES, and the texts of each class."""

    name: str
    ensemble: str
    prompts: list[list[str]]


def prompt_sets(
    labelled: Benchmark,
    descriptions: Sequence[Sequence[str]] | None = None,
    variants: Sequence[str] = tuple(VARIANTS),
) -> list[PromptSet]:
    """Every way to prompt for the classes of a set.

    'single' and 'extended' have both protocols: as_released puts the data set's raw class names into the prompt and
    uses one description a class; corrected uses readable names and averages all descriptions. The other variants are
    not in the release and are 'corrected' only.

    Args:
        labelled: the set, for its class names.
        descriptions: of each class, in the order of `labelled.classes`; without them there is no 'extended'.
        variants: of VARIANTS.

    Raises:
        PcclipError: an unknown variant, or descriptions that do not fit the classes.
    """
    return list(_prompt_sets(labelled, descriptions, variants))


def zero_shot_tasks(
    encode: Encode,
    prompts: Sequence[PromptSet],
    matrix: Float[np.ndarray, "n d"],
    rows: Int[np.ndarray, " m"],
    labels: Int[np.ndarray, " m"],
) -> dict[str, pd.DataFrame]:
    """Classify images with each set of prompts; returns the items by the name of the prompt set.

    Every distinct text is encoded once.

    Args:
        encode: texts to unit vectors.
        prompts: of `prompt_sets`.
        matrix: unit image vectors.
        rows, labels: the images to classify (rows of the matrix), and the index of each one's class.

    Raises:
        PcclipError: as `classify`.
    """
    items: dict[str, pd.DataFrame] = {}
    every_text = [text for prompt_set in prompts for texts in prompt_set.prompts for text in texts]
    codes, vectors = encoded(encode, every_text, matrix.shape[1])
    start = 0
    for name, ensemble, class_prompts in prompts:
        end = start + sum(map(len, class_prompts))
        items[name] = classify(matrix, _ensembled(vectors, codes[start:end], class_prompts, ensemble), rows, labels)
        start = end
    return items


def class_texts(
    encode: Encode, prompts: Sequence[Sequence[str]], ensemble: str = "vectors"
) -> Float[np.ndarray, "c d"]:
    """One vector a class from its texts.

    Args:
        encode: texts to unit vectors.
        prompts: the texts of each class, one or more.
        ensemble: 'vectors' (per-class ensembling as in CLIP: the mean of a class's unit vectors, of length one), or
            'scores' (the mean unscaled: an image's score is its mean cosine with the class's texts).

    Raises:
        PcclipError: an unknown ensemble, a class without texts, or vectors that are not numbers.
    """
    codes, vectors = encoded(encode, [text for texts in prompts for text in texts])
    return _ensembled(vectors, codes, prompts, ensemble)


def classify(
    matrix: Float[np.ndarray, "n d"],
    texts: Float[np.ndarray, "c _"],
    rows: Int[np.ndarray, " m"],
    labels: Int[np.ndarray, " _"],
    block: int = _BLOCK,
) -> pd.DataFrame:
    """Items with the columns of `differences`: score is the index of the predicted class, reference the right class's.

    Of tied classes, such as classes with equal texts, the lowest index wins.

    Args:
        matrix: unit image vectors.
        texts: one vector a class.
        rows, labels: the images to classify, and the index of each one's class.
        block: images scored at once.

    Raises:
        PcclipError: a label that is no class, vectors of different widths, or vectors that are not numbers.
    """
    rows, labels = np.asarray(rows, dtype=np.int64), np.asarray(labels, dtype=np.int64)
    if len(rows) != len(labels):
        raise PcclipError(f"{len(rows)} images and {len(labels)} labels; give one label an image")
    if len(labels) and not 0 <= labels.min() <= labels.max() < len(texts):
        raise PcclipError(
            f"labels run from {labels.min()} to {labels.max()}, classes from 0 to {len(texts) - 1}; "
            "give the texts of all classes, in the order of the labels"
        )
    check_vectors(texts, matrix.shape[1])
    distinct, columns = np.unique(texts, axis=0, return_inverse=True)  # a product may round equal columns differently
    predicted = np.empty(len(rows), dtype=np.int64)
    for start in range(0, len(rows), block):
        part = slice(start, start + block)
        images = matrix[rows[part]]
        scores = images @ texts.T if len(distinct) == len(texts) else (images @ distinct.T)[:, columns.ravel()]
        if not np.isfinite(scores).all():
            raise PcclipError("image vectors hold values that are not numbers; embed the images again")
        predicted[part] = scores.argmax(axis=1)
    return pd.DataFrame(
        {
            "first": rows,
            "second": rows,
            "score": predicted.astype(float),
            "reference": labels.astype(float),
            "correct": predicted == labels,
        }
    )


def encoded(
    encode: Encode, texts: Sequence[str], width: int | None = None
) -> tuple[Int[np.ndarray, " n"], Float[np.ndarray, "m d"]]:
    """Encode each distinct text once; returns the number of each text's vector, and the vectors.

    Raises:
        PcclipError: vectors that are not `width` wide or not numbers.
    """
    codes, distinct = pd.factorize(np.array(texts, dtype=object))
    vectors = np.asarray(encode(list(distinct)))
    check_vectors(vectors, width)
    return codes, vectors


def check_vectors(texts: Float[np.ndarray, "n d"], width: int | None = None) -> None:
    """Raise PcclipError unless text vectors are numbers and, when it is given, as wide as image vectors."""
    if width is not None and texts.shape[1] != width:
        raise PcclipError(f"text vectors are {texts.shape[1]} wide, image vectors {width}; embed with this model")
    if not np.isfinite(texts).all():
        raise PcclipError("text vectors hold values that are not numbers; finetune with a smaller finetune.lr")


def _prompt_sets(
    labelled: Benchmark, descriptions: Sequence[Sequence[str]] | None, variants: Sequence[str]
) -> Iterator[PromptSet]:
    released = labelled.released or labelled.classes
    for variant in variants:
        if variant not in VARIANTS:
            raise PcclipError(f"no zero-shot variant {variant!r}; known: {', '.join(VARIANTS)}")
        wording, ensemble = VARIANTS[variant]
        if variant == "single":
            yield PromptSet("single/as_released", ensemble, templates.prompts(released, wording))
        yield PromptSet(f"{variant}/corrected", ensemble, templates.prompts(labelled.classes, wording))
    if descriptions is not None:
        every = templates.described(labelled.classes, descriptions)
        first_texts = templates.described(released, [texts[:1] for texts in descriptions])
        yield PromptSet("extended/as_released", "vectors", first_texts)
        yield PromptSet("extended/corrected", "vectors", every)


def _ensembled(
    vectors: Float[np.ndarray, "m d"], codes: Int[np.ndarray, " n"], prompts: Sequence[Sequence[str]], ensemble: str
) -> Float[np.ndarray, "c d"]:
    """One vector a class, where the texts of `prompts`, one after the other, have vectors[codes]."""
    sizes = np.array([len(texts) for texts in prompts])
    if ensemble not in ENSEMBLES:
        raise PcclipError(f"no ensemble {ensemble!r}; known: {', '.join(ENSEMBLES)}")
    if not sizes.all():
        raise PcclipError(f"class {int(sizes.argmin())} has no text; give every class at least one")
    shares = np.repeat(1 / sizes, sizes).astype(vectors.dtype)
    mean = csr_matrix((shares, codes, np.concatenate([[0], sizes.cumsum()])), (len(prompts), len(vectors))) @ vectors
    return unit(mean) if ensemble == "vectors" else mean
