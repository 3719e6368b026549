"""Texts that compare classes of a labelled set, and the pairs of images that difference-based classification scores.

A Contrast says which classes are compared and by which text. `image_pairs` draws pairs of images of such classes; the
table (first, second, difference, swapped, seed) is the same for every model, and differences.difference_items scores
it. Pairs as released: five seeds, 100 random test images each, all pairs of these that a Contrast compares. Corrected:
one seeded draw of pairs without repeats, in random order.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Int

from pcclip.evaluation.comparative import Images
from pcclip.evaluation.predictions import item_table
from pcclip.evaluation.zero_shot import Encode, encoded
from pcclip.stats.random_streams import stream, torch_stream
from pcclip.stats.vectors import beats, cosines, unit

DISTANCE_PROMPT = "A photo of a {}"  # the released code's
_SEEDS, _IMAGES, _GIVEN = range(5), 100, 5000  # as released: draws, images a draw, pairs a draw of pairs with texts

_LARGE, _SMALL = ("camel", "leopard", "lion", "wolf"), ("hamster", "rabbit", "shrew", "squirrel")
# Flowers that have one colour in every usual form. Left out because they are often violet, pink or white too:
# canterbury bells, monkshood, balloon flower, love in the mist, morning glory, bolero deep blue. The yellow flowers
# are those that the released code names in its comments and that the set has.
_BLUE = ("stemless gentian", "grape hyacinth", "alpine sea holly", "globe thistle")
_YELLOW = ("yellow iris", "daffodil", "sunflower")
_BLUE_ROWS, _YELLOW_ROWS = [2, 7], [4, 6, 10, 19]


@dataclass(frozen=True)
class Contrast:
    """Which classes are compared, and the texts; a class of its own because a text is a function of two classes.

    Attributes:
        comparable: True for (class of the first image, class of the second) that are compared; symmetric.
        texts: (class of the first, class of the second) -> the difference, and the same with the images exchanged.
        seeds: of the draws of the protocol as_released.
    """

    comparable: Bool[np.ndarray, "c c"]
    texts: Callable[[int, int], tuple[str, str]]
    seeds: Sequence[int] = _SEEDS


def every_class(classes: int, text: Callable[[int, int], str]) -> Contrast:
    """Compare any two of `classes` classes; text(a, b) says how an image of class a differs from one of class b."""
    return Contrast(~np.eye(classes, dtype=bool), lambda a, b: (text(a, b), text(b, a)))


def class_names(classes: Sequence[str]) -> Contrast:
    """Compare any two classes by a text that has their names."""
    return every_class(
        len(classes), lambda a, b: f"The first image shows a {classes[a]}, while the second image shows a {classes[b]}."
    )


def class_pairs(classes: Sequence[str], table: pd.DataFrame) -> Contrast:
    """Compare the classes for which texts were written.

    Args:
        classes: their names.
        table: first, second (names of classes), difference, swapped; each two classes once.
    """
    index = {name: row for row, name in enumerate(classes)}
    texts = {(index[row.first], index[row.second]): (row.difference, row.swapped) for row in table.itertuples()}
    texts |= {(b, a): pair[::-1] for (a, b), pair in texts.items()}
    comparable = np.array([[(a, b) in texts for b in range(len(classes))] for a in range(len(classes))])
    return Contrast(comparable, lambda a, b: texts[a, b])


def cifar100_size(classes: Sequence[str], protocol: str) -> Contrast:
    """Four large animals against four small ones of CIFAR-100. Corrected: 'whiel' in the released text."""
    conjunction = "whiel" if protocol == "as_released" else "while"
    texts = (
        f"The first image contains a larger animal, {conjunction} the second contains a smaller animal.",
        "The first image contains a smaller animal, while the second contains a larger animal.",
    )
    return _opposites(len(classes), [_indexes(classes, names) for names in (_LARGE, _SMALL)], texts)


def flowers_colour(classes: Sequence[str], protocol: str) -> Contrast:
    """Blue flowers against yellow ones of Flowers102.

    Corrected: species chosen by name; the release has white, pink and orange ones under wrong numbers.
    """
    groups = [_indexes(classes, names) for names in (_BLUE, _YELLOW)]
    texts = (
        "The first flower is blue, while the second is yellow.",
        "The first flower is yellow, while the second is blue.",
    )
    return _opposites(len(classes), [_BLUE_ROWS, _YELLOW_ROWS] if protocol == "as_released" else groups, texts)


def awa2_size(classes: Sequence[str], labels: Int[np.ndarray, " m"], binary: pd.DataFrame, protocol: str) -> Contrast:
    """Animals of AwA2 that are big against animals that are not.

    Corrected: each animal's own attributes, the column 'big', and the grammar of one text. The release gives the test
    animals, in alphabetical order, the attributes of the first animals of the table, takes the column 'small' for
    'big', and draws the same pairs five times, which are one draw here.

    Args:
        classes: names of all classes.
        labels: class indexes of the images that are compared.
        binary: one row a class, 0 or 1 in a column for each attribute, all in the order of the set's own files.
        protocol: of PROTOCOLS.
    """
    big, animal = binary["big"].to_numpy() == 1, "an animal that is small"
    if protocol == "as_released":
        shown = sorted(np.unique(labels), key=lambda row: classes[row])
        big, animal = np.zeros(len(classes), dtype=bool), "an animal is small"
        big[shown] = binary.iloc[: len(shown), 15] == 1
    texts = (
        "The first image contains an animal that is large, while the second image contains an animal that is small.",
        f"The first image contains {animal}, while the second image contains an animal that is large.",
    )
    return _opposites(len(classes), [np.flatnonzero(big).tolist(), np.flatnonzero(~big).tolist()], texts, seeds=(0,))


def image_pairs(contrast: Contrast, images: Images, protocol: str, seed: int = 0, count: int = 5000) -> pd.DataFrame:
    """Pairs of images with the texts of their classes: first, second, difference, swapped, seed.

    Empty where no two images are of classes that are compared.

    Args:
        contrast: the classes that are compared.
        images: rows of the vectors (as_released in the order of the data set), and the class of each.
        protocol: as_released draws as the module says; corrected takes `count` pairs, or all there are.
        seed, count: of the corrected draw.
    """
    (rows, labels), classes = images, len(contrast.comparable)
    if protocol == "as_released":
        draws = [(*_released_draw(contrast.comparable, labels, k), k) for k in contrast.seeds]
    else:
        draws = [(*_draw(contrast.comparable, labels, seed, count), seed)]
    first, second = (np.concatenate([draw[side] for draw in draws]) for side in (0, 1))
    codes, kinds = pd.factorize(labels[first] * classes + labels[second])
    texts = np.array([contrast.texts(*divmod(int(kind), classes)) for kind in kinds], dtype=object).reshape(-1, 2)
    return pd.DataFrame(
        {
            "first": rows[first],
            "second": rows[second],
            "difference": texts[codes, 0],
            "swapped": texts[codes, 1],
            "seed": np.concatenate([np.full(len(draw[0]), draw[2]) for draw in draws]),
        }
    )


def released_pairs(table: pd.DataFrame) -> pd.DataFrame:
    """Draw 5000 of the pairs with each of five seeds, as released for images with texts of their own (CUB).

    Args:
        table: first and second (images), difference, swapped.
    """
    draws = [table.iloc[_released_order(len(table), seed)[:_GIVEN]].assign(seed=seed) for seed in _SEEDS]
    return pd.concat(draws, ignore_index=True)[["first", "second", "difference", "swapped", "seed"]]


def distance_items(
    encode: Encode, classes: Sequence[str], pairs: pd.DataFrame, protocol: str, prompt: str = DISTANCE_PROMPT
) -> pd.DataFrame:
    """Cosine distance of the text of a difference to the difference of two class texts, f(a) - f(b).

    Args:
        encode: texts to unit vectors; as_released to vectors before normalisation, because the release subtracts the
            class texts as they are and normalises their difference.
        classes: names, put into `prompt`.
        pairs: first, second (names of classes a and b), difference (how a differs from b), swapped.
        protocol: 'as_released' takes f(difference); 'corrected' takes f(difference) - f(swapped), in which whatever
            all texts of differences share cancels.

    Returns:
        One item a pair with the columns of `differences`, first and second being class indexes: score is 1 - cos,
        reference 1 + cos, the distance to f(b) - f(a), and an item is correct when the score is the smaller. The
        paper's figures are the means of both. A text without a direction is at distance 1 from everything.

    Raises:
        PcclipError: vectors that are not numbers.
    """
    index = {name: label for label, name in enumerate(classes)}
    first, second = (pairs[side].map(index).to_numpy() for side in ("first", "second"))

    def vectors(texts: Sequence[str]) -> Float[np.ndarray, "m d"]:
        codes, distinct = encoded(encode, texts)
        return distinct[codes]

    class_vectors = vectors([prompt.format(name) for name in classes])
    text_vectors = unit(vectors(list(pairs.difference)))
    if protocol == "corrected":
        text_vectors = unit(text_vectors - unit(vectors(list(pairs.swapped))))
    cosine = cosines(text_vectors, unit(class_vectors[first] - class_vectors[second])).astype(float)
    return item_table(first, second, 1 - cosine, 1 + cosine, beats(cosine, 0.0))


def _opposites(
    classes: int, groups: Sequence[Sequence[int]], texts: tuple[str, str], seeds: Sequence[int] = _SEEDS
) -> Contrast:
    """Compare classes of one group with classes of the other, by one text and its reverse."""
    comparable, leading = np.zeros((classes, classes), dtype=bool), set(groups[0])
    comparable[np.ix_(groups[0], groups[1])] = comparable[np.ix_(groups[1], groups[0])] = True
    return Contrast(comparable, lambda a, b: texts if a in leading else texts[::-1], seeds)


def _draw(
    comparable: Bool[np.ndarray, "c c"], labels: Int[np.ndarray, " m"], seed: int, count: int
) -> tuple[Int[np.ndarray, " k"], Int[np.ndarray, " k"]]:
    """Draw unordered pairs uniformly without repeats, then the order of each; never lists all pairs."""
    rng = stream("class pairs", seed)
    order, sizes = np.argsort(labels, kind="stable"), np.bincount(labels, minlength=len(comparable))
    starts = sizes.cumsum() - sizes
    a, b = np.nonzero(np.triu(comparable))
    ends = (sizes[a] * sizes[b]).cumsum()
    total = int(ends[-1]) if len(ends) else 0
    picks = rng.choice(total, min(count, total), replace=False) if total else np.empty(0, dtype=np.int64)
    kind = np.searchsorted(ends, picks, side="right")
    i, j = np.divmod(ends[kind] - 1 - picks, sizes[b[kind]])
    pairs = order[starts[a[kind]] + i], order[starts[b[kind]] + j]
    turned = rng.random(len(picks)) < 0.5
    return np.where(turned, *pairs[::-1]), np.where(turned, *pairs)


def _released_draw(
    comparable: Bool[np.ndarray, "c c"], labels: Int[np.ndarray, " m"], seed: int
) -> tuple[Int[np.ndarray, " k"], Int[np.ndarray, " k"]]:
    """All comparable pairs, in order, of 100 random images whose class is compared with some class."""
    pool = np.flatnonzero(np.asarray(comparable.any(axis=1))[labels])
    chosen = pool[_released_order(len(pool), seed)[:_IMAGES]]
    i, j = np.triu_indices(len(chosen), 1)
    kept = comparable[labels[chosen[i]], labels[chosen[j]]]
    return chosen[i][kept], chosen[j][kept]


def _released_order(n: int, seed: int) -> Int[np.ndarray, " n"]:
    import torch

    return torch.randperm(n, generator=torch_stream(seed)).numpy()


def _indexes(classes: Sequence[str], names: Sequence[str]) -> list[int]:
    """Numbers of the classes of these names, whatever their case."""
    lower = [name.lower() for name in classes]
    return [lower.index(name) for name in names]
