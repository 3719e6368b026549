"""Zero-shot classification: images go to the class whose texts are nearest.

A class's texts are its name in the paper's one template or in a set that was made for ImageNet, or with a description.
Images are scored in blocks, so that only the vectors and one block of scores are in memory.
"""

from collections.abc import Callable, Mapping, Sequence
from itertools import chain

import numpy as np
import pandas as pd
from jaxtyping import Float, Int
from scipy.sparse import csr_matrix

from pcclip.benchmarks.benchmark import Benchmark
from pcclip.errors import PcclipError
from pcclip.evaluation.class_texts import EXTENDED
from pcclip.evaluation.predictions import item_table
from pcclip.stats.intervals import in_parts
from pcclip.stats.vectors import unit
from pcclip.torchvision_shim import declare_missing

Encode = Callable[[Sequence[str]], Float[np.ndarray, "n d"]]
Prompts = tuple[str, list[list[str]]]  # an ensemble, 'vectors' or 'scores' (see `class_texts`), and each class's texts
VARIANTS = {  # name -> templates, ensemble
    "single": ("single", "vectors"),
    "simple7": ("simple7", "vectors"),
    "official80": ("official80", "vectors"),
    "official80_scores": ("official80", "scores"),
}


def prompt_sets(
    labelled: Benchmark,
    descriptions: Sequence[Sequence[str]] | None = None,
    variants: Sequence[str] = tuple(VARIANTS),
) -> dict[str, Prompts]:
    """Every way to prompt for the classes of a set, by 'VARIANT/PROTOCOL'.

    'single' and 'extended' have both protocols: as_released puts the data set's raw class names into the prompt and
    uses one description a class; corrected uses readable names and averages all descriptions. The other variants are
    not in the release and are 'corrected' only.

    Args:
        labelled: the set, for its class names.
        descriptions: of each class, in the order of `labelled.classes`; without them there is no 'extended'.
        variants: of VARIANTS.
    """
    released, classes, sets = labelled.released or labelled.classes, labelled.classes, {}
    for variant in variants:
        wording, ensemble = VARIANTS[variant]
        if variant == "single":
            sets["single/as_released"] = ensemble, templated(released, wording)
        sets[f"{variant}/corrected"] = ensemble, templated(classes, wording)
    if descriptions is not None:
        first_texts = [texts[:1] for texts in descriptions]
        sets["extended/as_released"] = "vectors", described(released, first_texts)
        sets["extended/corrected"] = "vectors", described(classes, descriptions)
    return sets


def templated(classes: Sequence[str], templates: str) -> list[list[str]]:
    """Every class in every template of a set, one list of texts a class.

    Args:
        classes: names as they go into the text.
        templates: 'single' (the paper's), 'official80' (of CLIP's authors, for ImageNet) or 'simple7' (seven that
            they selected from those); the latter two as open_clip ships them.
    """
    if templates == "single":
        return [[f"This is a photo of a {name}"] for name in classes]
    declare_missing()
    from open_clip import OPENAI_IMAGENET_TEMPLATES, SIMPLE_IMAGENET_TEMPLATES

    fillers = {"official80": OPENAI_IMAGENET_TEMPLATES, "simple7": SIMPLE_IMAGENET_TEMPLATES}[templates]
    return [[fill(name) for fill in fillers] for name in classes]


def described(classes: Sequence[str], descriptions: Sequence[Sequence[str]]) -> list[list[str]]:
    """The paper's extended prompts: its template with a description behind it, one list of texts a class.

    Args:
        classes: names as they go into the text.
        descriptions: of each class, in the order of `classes`; one text or more a class.
    """
    return [[EXTENDED.format(name, text) for text in texts] for name, texts in zip(classes, descriptions, strict=True)]


def zero_shot_tasks(
    encode: Encode,
    prompts: Mapping[str, Prompts],
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
    texts = [[text for texts in class_prompts for text in texts] for _, class_prompts in prompts.values()]
    codes, vectors = encoded(encode, [*chain(*texts)], matrix.shape[1])
    codes_of = np.split(codes, np.cumsum([len(own) for own in texts])[:-1])
    return {
        name: classify(matrix, _ensembled(vectors, own, class_prompts, ensemble), rows, labels)
        for (name, (ensemble, class_prompts)), own in zip(prompts.items(), codes_of, strict=True)
    }


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
        PcclipError: vectors that are not numbers.
    """
    codes, vectors = encoded(encode, [text for texts in prompts for text in texts])
    return _ensembled(vectors, codes, prompts, ensemble)


def classify(
    matrix: Float[np.ndarray, "n d"],
    texts: Float[np.ndarray, "c _"],
    rows: Int[np.ndarray, " m"],
    labels: Int[np.ndarray, " _"],
) -> pd.DataFrame:
    """Items with the columns of `differences`: score is the index of the predicted class, reference the right class's.

    Of tied classes, such as classes with equal texts, the lowest index wins.

    Args:
        matrix: unit image vectors.
        texts: one vector a class.
        rows, labels: the images to classify, and the index of each one's class.

    Raises:
        PcclipError: vectors of different widths, or vectors that are not numbers.
    """
    check_vectors(texts, matrix.shape[1])
    distinct, columns = np.unique(texts, axis=0, return_inverse=True)  # a product may round equal columns differently
    predicted = np.empty(len(rows), dtype=np.int64)
    for part in in_parts(np.arange(len(rows)), sum(texts.shape)):
        images = matrix[rows[part]]
        scores = images @ texts.T if len(distinct) == len(texts) else (images @ distinct.T)[:, columns.ravel()]
        if not np.isfinite(scores).all():
            raise PcclipError("image vectors hold values that are not numbers; embed the images again")
        predicted[part] = scores.argmax(axis=1)
    return item_table(rows, rows, predicted, labels, predicted == labels)


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


def _ensembled(
    vectors: Float[np.ndarray, "m d"], codes: Int[np.ndarray, " n"], prompts: Sequence[Sequence[str]], ensemble: str
) -> Float[np.ndarray, "c d"]:
    """One vector a class, where the texts of `prompts`, one after the other, have vectors[codes]."""
    sizes = np.array([len(texts) for texts in prompts])
    shares = np.repeat(1 / sizes, sizes).astype(vectors.dtype)
    mean = csr_matrix((shares, codes, np.concatenate([[0], sizes.cumsum()])), (len(prompts), len(vectors))) @ vectors
    return unit(mean) if ensemble == "vectors" else mean
