"""Difference-based classification of labelled images: does the text fit the difference of two images' vectors?

First what is said of two classes (Differences), then pairs of images with their texts (a table: first, second,
difference, swapped, seed; it is the same for every model), then one model's items on them, scored in three ways.
Where the protocol is as_released, the pairs are those of the released code: five seeds, 100 random test images each,
all pairs of them that differ in kind. Corrected: one seeded draw of pairs without repeats, in random order.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float, Int

from pcclip.errors import PcclipError
from pcclip.evaluation import differences as tasks
from pcclip.evaluation.protocols import PROTOCOLS
from pcclip.evaluation.zero_shot import Encode, encoded
from pcclip.stats.vectors import unit

TASKS = ("difference_classification", "difference_order", "difference_centred")
_SEEDS, _IMAGES, _GIVEN = range(5), 100, 5000  # as released: draws, images a draw, pairs a draw where pairs are given
_COLUMNS = ["first", "second", "difference", "swapped"]
_EQUAL = 1e-5  # differences of unit vectors that are no longer are rounding, as of one image encoded twice
_BLOCK = 8192

_LARGE, _SMALL = ("camel", "leopard", "lion", "wolf"), ("hamster", "rabbit", "shrew", "squirrel")
_LARGE_ROWS, _SMALL_ROWS = (15, 42, 43, 97), (36, 65, 74, 80)
# Flowers of one colour in every usual form; left out are those that are often violet, pink or white too: canterbury
# bells, monkshood, balloon flower, love in the mist, morning glory, bolero deep blue. Yellow: those that the released
# code names in its comments and that the set has.
_BLUE = ("stemless gentian", "grape hyacinth", "alpine sea holly", "globe thistle")
_YELLOW = ("yellow iris", "daffodil", "sunflower")
_BLUE_ROWS, _YELLOW_ROWS = (2, 7), (4, 6, 10, 19)


@dataclass(frozen=True)
class Differences:
    """What is said of images of two classes.

    Attributes:
        comparable: True for classes (of the first image, of the second) that are compared; symmetric.
        texts: (class of the first, class of the second) -> the difference, and the same with the images exchanged.
        seeds: of the draws where the protocol is as_released.
    """

    comparable: Bool[np.ndarray, "c c"]
    texts: Callable[[int, int], tuple[str, str]]
    seeds: Sequence[int] = _SEEDS


def every_class(classes: int, text: Callable[[int, int], str]) -> Differences:
    """Any two of so many classes. `text` says what differs between images of two classes, given by index."""
    return Differences(~np.eye(classes, dtype=bool), lambda a, b: (text(a, b), text(b, a)))


def class_names(classes: Sequence[str]) -> Differences:
    """Any two classes, told apart by their names."""
    return every_class(
        len(classes), lambda a, b: f"The first image shows a {classes[a]}, while the second image shows a {classes[b]}."
    )


def class_pairs(
    classes: Sequence[str] | Sequence[int], table: pd.DataFrame, seeds: Sequence[int] = _SEEDS
) -> Differences:
    """Classes for which texts were written.

    Args:
        classes: their names, or their numbers where the table has those.
        table: first, second (classes), difference, swapped; where it has two classes in both orders, each has its own.
        seeds: of the draws where the protocol is as_released.

    Raises:
        PcclipError: a column is missing, a text is empty, there is none, a name is no class, two classes come twice
            in the same order, or a class is compared with itself.
    """
    _check_texts(table)
    names = {name: row for row, name in enumerate(classes)}
    if unknown := sorted({*table["first"], *table["second"]} - names.keys()):
        raise PcclipError(f"texts for {unknown[0]!r}, which is no class; write them for the names of this set")
    first, second = ([names[name] for name in table[column]] for column in ("first", "second"))
    if table.duplicated(["first", "second"]).any():
        raise PcclipError("two texts for the same two classes in the same order; keep one of them")
    if same := [classes[a] for a, b in zip(first, second, strict=True) if a == b]:
        raise PcclipError(f"texts that compare {same[0]!r} with itself; leave them out")
    said = dict(zip(zip(second, first, strict=True), zip(table.swapped, table.difference, strict=True), strict=True))
    said |= dict(zip(zip(first, second, strict=True), zip(table.difference, table.swapped, strict=True), strict=True))
    comparable = np.zeros((len(classes), len(classes)), dtype=bool)
    comparable[tuple(np.array([*said], dtype=int).reshape(-1, 2).T)] = True
    return Differences(comparable, lambda a, b: said[a, b], seeds)


def cifar100_size(classes: Sequence[str], protocol: str) -> Differences:
    """Four large animals against four small ones of CIFAR-100. Corrected: 'whiel' in the released text.

    Raises:
        PcclipError: a class is missing, or as_released and the classes are not in the order of the fine labels.
    """
    groups = [_named(classes, names, "CIFAR-100 size") for names in (_LARGE, _SMALL)]
    while_ = "while"
    if _released(protocol):
        while_ = "whiel"
        if groups != [list(_LARGE_ROWS), list(_SMALL_ROWS)]:
            raise PcclipError("CIFAR-100 size: classes are not in the order of the fine labels; give all 100 in it")
    return _opposites(
        len(classes),
        *groups,
        f"The first image contains a larger animal, {while_} the second contains a smaller animal.",
        "The first image contains a smaller animal, while the second contains a larger animal.",
    )


def flowers_colour(classes: Sequence[str], protocol: str) -> Differences:
    """Blue flowers against yellow ones of Flowers102.

    Corrected: blue and yellow species, chosen by name; the release has white, pink and orange ones under wrong numbers.

    Raises:
        PcclipError: a class is missing.
    """
    if _released(protocol):
        if len(classes) <= max(_YELLOW_ROWS):
            raise PcclipError(f"Flowers102 colour: {len(classes)} classes; give all 102 in their order")
        groups = [list(_BLUE_ROWS), list(_YELLOW_ROWS)]
    else:
        groups = [_named(classes, names, "Flowers102 colour") for names in (_BLUE, _YELLOW)]
    return _opposites(
        len(classes),
        *groups,
        "The first flower is blue, while the second is yellow.",
        "The first flower is yellow, while the second is blue.",
    )


def awa2_size(
    classes: Sequence[str], labels: Int[np.ndarray, " m"], binary: pd.DataFrame, protocol: str
) -> Differences:
    """Animals of AwA2 that are big against those that are not.

    Corrected: attributes of the animals shown, the column 'big', and the grammar of one text; the release takes
    attributes of the first animals of the table for the test animals in alphabetical order, takes the column 'small'
    for 'big', and draws the same pairs five times, as one draw does here.

    Args:
        classes: names of all classes.
        labels: of the images that are compared, indices into classes.
        binary: one row a class, 0 or 1 in a column for each attribute, all in the order of the set's own files.
        protocol: of PROTOCOLS.

    Raises:
        PcclipError: the table does not fit the classes, or its columns are not in the order of the set's own files.
    """
    if len(binary) != len(classes) or list(binary.columns[14:16]) != ["big", "small"]:
        raise PcclipError(
            f"AwA2 size: needs attributes of {len(classes)} classes whose 15th and 16th are 'big' and "
            "'small'; give the binary table of the set's own files"
        )
    big, animal = binary["big"].to_numpy() == 1, "an animal that is small"
    if _released(protocol):
        shown = sorted(np.unique(labels), key=lambda row: classes[row])
        big, animal = np.zeros(len(classes), dtype=bool), "an animal is small"
        big[shown] = binary.iloc[: len(shown), 15] == 1
    return _opposites(
        len(classes),
        np.flatnonzero(big),
        np.flatnonzero(~big),
        "The first image contains an animal that is large, while the second image contains an animal that is small.",
        f"The first image contains {animal}, while the second image contains an animal that is large.",
        seeds=(0,),
    )


def image_pairs(
    differences: Differences,
    rows: Int[np.ndarray, " m"],
    labels: Int[np.ndarray, " m"],
    protocol: str,
    seed: int = 0,
    count: int = 5000,
) -> pd.DataFrame:
    """Pairs of images with what is said of their classes: first, second, difference, swapped, seed.

    Args:
        differences: what is compared.
        rows: the images, as rows of the vectors; as_released in the order of the data set.
        labels: the class of each.
        protocol: as_released has draws of its own (see above); corrected takes `count` pairs, or all there are.
        seed: of the corrected draw.
        count: of the corrected draw.

    Raises:
        PcclipError: a label that is no class, or there is no pair to compare.
    """
    rows, labels = np.asarray(rows, dtype=np.int64), np.asarray(labels, dtype=np.int64)
    classes = len(differences.comparable)
    if len(rows) != len(labels) or (len(labels) and not 0 <= labels.min() <= labels.max() < classes):
        raise PcclipError(
            f"{len(rows)} images and {len(labels)} labels of {classes} classes; give each image the index of its class"
        )
    if _released(protocol):
        drawn = [(*_released_draw(differences.comparable, labels, k), k) for k in differences.seeds]
    else:
        drawn = [(*_draw(differences.comparable, labels, seed, count), seed)]
    first, second = (np.concatenate([draw[side] for draw in drawn]) for side in (0, 1))
    if not len(first):
        raise PcclipError("no two of these images are of classes that are compared; give images of more classes")
    codes, kinds = pd.factorize(labels[first] * classes + labels[second])
    texts = np.array([differences.texts(*divmod(int(kind), classes)) for kind in kinds], dtype=object)
    return pd.DataFrame(
        {
            "first": rows[first],
            "second": rows[second],
            "difference": texts[codes, 0],
            "swapped": texts[codes, 1],
            "seed": np.concatenate([np.full(len(draw[0]), draw[2]) for draw in drawn]),
        }
    )


def given_pairs(table: pd.DataFrame, protocol: str, seed: int = 0, count: int | None = None) -> pd.DataFrame:
    """Pairs of images that have texts of their own, as CUB's: first, second, difference, swapped, seed.

    Args:
        table: first and second (rows of the vectors), difference, swapped.
        protocol: as_released draws 5000 of the pairs with each of five seeds; corrected takes each pair once.
        seed: of the corrected draw, where there are more than `count`.
        count: None for all of them.

    Raises:
        PcclipError: a column is missing, a text is empty, or there is none.
    """
    _check_texts(table)
    table = table[_COLUMNS].reset_index(drop=True)
    if _released(protocol):
        return pd.concat(
            [table.iloc[_released_order(len(table), k)[:_GIVEN]].assign(seed=k) for k in _SEEDS], ignore_index=True
        )
    if count is not None and count < len(table):
        table = table.iloc[np.sort(np.random.default_rng(seed).choice(len(table), count, replace=False))]
    return table.reset_index(drop=True).assign(seed=seed)


def difference_items(encode: Encode, matrix: Float[np.ndarray, "n d"], pairs: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """One model's items on pairs, a table for each of TASKS, v being the unit difference of the image vectors.

    difference_classification, cos(v, f(d)) > 0: as released; fooled by an offset that all texts share.
    difference_order, cos(v, f(d)) > cos(v, f(d swapped)): not fooled. The same decision as the training-free
        cos(v, f(d) - f(d swapped)) > 0.
    difference_centred, cos(v, f(d) - mean) > 0: the mean of the distinct texts of these pairs, swapped ones included,
        taken off; training-free too. It sees texts only, so that it is fair where a single text is not.

    The columns are those of `tasks`, seed (of the draw, where pairs have one) and equal (the two images have the same
    vector: there is no difference to fit, the item counts as wrong). A tie is wrong.

    Raises:
        PcclipError: vectors of different widths, or vectors that are not numbers.
    """
    codes, vectors = encoded(encode, [*pairs.difference, *pairs.swapped], matrix.shape[1])
    first, second, parts = pairs["first"].to_numpy(), pairs["second"].to_numpy(), []
    mean = vectors.mean(axis=0, dtype=np.float64).astype(vectors.dtype)
    plain = SimpleNamespace(encode_texts=vectors.__getitem__)  # a model for `tasks` whose texts are numbers of vectors
    centred = SimpleNamespace(encode_texts=lambda numbers: _difference(vectors[numbers], mean))
    for start in range(0, len(pairs), _BLOCK):
        part, end = slice(start, start + _BLOCK), min(start + _BLOCK, len(pairs))
        texts = first[part], second[part], codes[start:end], codes[len(pairs) + start : len(pairs) + end]
        classified, ordered = tasks.differences(plain, matrix, *texts)
        parts.append((classified, ordered, tasks.differences(centred, matrix, *texts)[0]))
        equal = ~_difference(matrix[first[part]], matrix[second[part]]).any(axis=1)
        for items in parts[-1]:
            items["correct"] &= ~equal
            items["equal"] = equal
    drawn = {"seed": pairs.seed.to_numpy()} if "seed" in pairs else {}
    found = {
        task: pd.concat(tables, ignore_index=True).assign(**drawn)
        for task, tables in zip(TASKS, zip(*parts, strict=True), strict=True)
    }
    if not np.isfinite(found[TASKS[0]].score).all():
        raise PcclipError("image vectors hold values that are not numbers; embed the images again")
    return found


def _opposites(
    classes: int, one: Sequence[int], other: Sequence[int], difference: str, swapped: str, seeds: Sequence[int] = _SEEDS
) -> Differences:
    """Classes of one group against those of another, with one text for all and its reverse."""
    comparable, leads = np.zeros((classes, classes), dtype=bool), set(np.asarray(one).tolist())
    comparable[np.ix_(one, other)] = comparable[np.ix_(other, one)] = True
    return Differences(comparable, lambda a, b: (difference, swapped) if a in leads else (swapped, difference), seeds)


def _draw(
    comparable: Bool[np.ndarray, "c c"], labels: Int[np.ndarray, " m"], seed: int, count: int
) -> tuple[Int[np.ndarray, " k"], Int[np.ndarray, " k"]]:
    """Unordered pairs, every one as likely, each at most once; either image comes first. Never lists them all."""
    rng = np.random.default_rng(seed)
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
    """All pairs, in order, of 100 random images whose class is compared with any, that are comparable."""
    pool = np.flatnonzero(comparable.any(axis=1)[labels])
    chosen = pool[_released_order(len(pool), seed)[:_IMAGES]]
    i, j = np.triu_indices(len(chosen), 1)
    kept = comparable[labels[chosen[i]], labels[chosen[j]]]
    return chosen[i][kept], chosen[j][kept]


def _released_order(n: int, seed: int) -> Int[np.ndarray, " n"]:
    return torch.randperm(n, generator=torch.Generator().manual_seed(seed)).numpy()


def _difference(vectors: Float[np.ndarray, "n d"], others: Float[np.ndarray, "*n d"]) -> Float[np.ndarray, "n d"]:
    """Unit differences; zero where the vectors differ by no more than rounding."""
    found = vectors - others
    found[np.linalg.norm(found, axis=1) <= _EQUAL] = 0
    return unit(found)


def _named(classes: Sequence[str], names: Sequence[str], where: str) -> list[int]:
    rows = {name.lower(): row for row, name in enumerate(classes)}
    if missing := [name for name in names if name not in rows]:
        raise PcclipError(f"{where}: no class {missing[0]!r}; give the readable names of the set's classes")
    return [rows[name] for name in names]


def _released(protocol: str) -> bool:
    if protocol not in PROTOCOLS:
        raise PcclipError(f"no protocol {protocol!r}; known: {', '.join(PROTOCOLS)}")
    return protocol == "as_released"


def _check_texts(table: pd.DataFrame) -> None:
    if missing := [column for column in _COLUMNS if column not in table]:
        raise PcclipError(f"a table of texts needs the columns {', '.join(_COLUMNS)}; it has no {missing[0]}")
    if table.empty:
        raise PcclipError("a table of texts without a row; write the texts first")
    for column in ("difference", "swapped"):
        empty = int((table[column].isna() | (table[column].astype(str).str.strip() == "")).sum())
        if empty:
            raise PcclipError(f"{empty} of {len(table)} texts are empty in {column!r}; leave those rows out first")
