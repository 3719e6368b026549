"""Comparative prompting: each class text is moved by texts about how the class differs from those it is confused with.

As published (PC-CLIP, section 4), for pairs (a, b) with a text d_ab on how a differs from b:
    f'_b = mean over a of ( f(a) - f(d_ab) ),    t_b = normalise( alpha f(b) + (1 - alpha) f'_b ),
and classes in no pair keep their text. The released code takes three pairs from the confusions on the test images, as run
the finetuned model's for both, and alpha 0.9. Corrected, the pairs are chosen on one half of the tune images and alpha
on the other half, and both are the same for every model. The centred form subtracts the vector of a text that names
no difference from each f(d_ab), so that what all such texts share does not move the classes.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from jaxtyping import Float, Int
from sklearn.metrics import confusion_matrix

from pcclip.errors import PcclipError
from pcclip.evaluation.zero_shot import Encode, classify
from pcclip.stats import metrics
from pcclip.stats.vectors import unit

NULL = "The first image shows a thing, while the second image shows a thing."
VARIANTS = (("released", "as_released"), ("released", "corrected"), ("centred", "corrected"))  # (form, protocol)
ALPHAS = (1.0, 0.95, 0.9, 0.85, 0.8, 0.7, 0.6, 0.5)  # 1 is plain zero-shot
RELEASED_ALPHA, CONFUSED_PAIRS = 0.9, 3  # what run.py passes; the 0.8 of a function is never used
SWEEP = ["model", "alpha", "value", "plain", "split", "chosen"]
KEYS = ["form", "protocol", "model"]
TESTED = ["dataset", *KEYS, "n", "plain", "comparative", "helped", "hurt", "difference", "ci_low", "ci_high"] + [
    "detectable",
    "p_mcnemar",
    "p_bootstrap",
    "test",
    "p_holm",
]

Images = tuple[Int[np.ndarray, " _"], Int[np.ndarray, " _"]]  # rows of the image vectors, and each image's class


@dataclass(frozen=True)
class ClassVectors:
    """One model's unit vectors of the texts; not Vectors, whose rows are images.

    Attributes:
        names: of the c classes.
        classes: of the class texts, (c, d).
        differences: (a, b) -> the vector of d_ab, (d,), a and b being class indexes.
        null: of a comparison that names no difference, (d,).
    """

    names: Sequence[str]
    classes: Float[np.ndarray, "c d"]
    differences: Mapping[tuple[int, int], Float[np.ndarray, " d"]]
    null: Float[np.ndarray, " d"]


@dataclass(frozen=True)
class Choice:
    """The pairs and alpha that are fixed before a test image is scored; a class of its own as tables need both.

    Attributes:
        pairs: (k, 2), class indexes (a, b): d_ab changes the text of b.
        alpha: the weight of the class's own text.
        sweep: the accuracy of each model at each alpha (SWEEP); empty where alpha was not chosen.
    """

    pairs: Int[np.ndarray, "k 2"]
    alpha: float
    sweep: pd.DataFrame = field(default_factory=lambda: pd.DataFrame(columns=SWEEP), repr=False)


def class_vectors(
    encode: Encode, classes: Float[np.ndarray, "c d"], names: Sequence[str], differences: pd.DataFrame
) -> ClassVectors:
    """Encode one model's texts about pairs of classes.

    Args:
        encode: texts to unit vectors.
        classes: the model's class vectors, (c, d), of one prompt or of an ensemble.
        names: the classes, in that order.
        differences: first, second (of `names`), difference, swapped, as class_texts.class_differences writes them.
    """
    index = {name: k for k, name in enumerate(names)}
    pairs = [(index[a], index[b]) for a, b in zip(differences["first"], differences["second"], strict=True)]
    null, *vectors = encode([NULL, *differences.difference, *differences.swapped])
    both_orders = [*pairs, *((b, a) for a, b in pairs)]
    return ClassVectors(list(names), np.asarray(classes), dict(zip(both_orders, vectors, strict=True)), null)


def comparative_items(
    models: Mapping[str, ClassVectors],
    matrices: Mapping[str, Float[np.ndarray, "n d"]],
    tune: Images,
    test: Images,
    variant: tuple[str, str],
) -> tuple[pd.DataFrame, Choice]:
    """Classify the test images with plain and with comparative prompting, for every model.

    Args:
        models: vectors of each model's texts, by the model's name; 'base' among them.
        matrices: unit image vectors of each model's image tower, (n, d).
        tune, test: rows of the matrices and the class of each image.
        variant: one of VARIANTS.

    Returns:
        Items of every model with the columns of `differences`, model and prompting ('plain' or 'comparative'); and the
        choice, which all models share.

    Raises:
        PcclipError: an error of `choose` or `classify`.
    """
    form, protocol = variant
    if protocol == "corrected":
        choice = choose(models, matrices, tune, form)
    else:
        chooser = pair_chooser(models)
        rates = confusions(models[chooser].classes, matrices[chooser], *test)
        choice = Choice(confused_pairs(rates, both_ways=False), RELEASED_ALPHA)
    tables = [
        classify(matrices[model], texts, *test).assign(model=model, prompting=prompting)
        for model, prompting, texts in _prompted(models, choice, form)
    ]
    return pd.concat(tables, ignore_index=True), choice


def _prompted(
    models: Mapping[str, ClassVectors], choice: Choice, form: str
) -> Iterator[tuple[str, str, Float[np.ndarray, "c d"]]]:
    """The vectors of the class texts, by model and prompting ('plain' or 'comparative')."""
    for model, vectors in models.items():
        yield model, "plain", vectors.classes
        yield model, "comparative", blended(vectors, compared(vectors, choice.pairs, form), choice)


def pair_chooser(models: Iterable[str]) -> str:
    """The model whose confusions give every model its pairs as released: run.py passes the finetuned model's list to both."""
    return "finetuned" if "finetuned" in models else "base"


def confused_items(
    models: Mapping[str, ClassVectors],
    matrices: Mapping[str, Float[np.ndarray, "n d"]],
    test: Images,
    choice: Choice,
) -> pd.DataFrame:
    """The released subset mode (the paper's Table 3): only the classes of the pairs are candidates, and only their images.

    Arguments and columns as in `comparative_items`; no rows where no class is confused with another.
    """
    classes = np.unique(choice.pairs)
    if not len(classes):
        return pd.DataFrame(columns=["model", "prompting"])
    own = np.isin(test[1], classes)
    images = test[0][own], np.searchsorted(classes, test[1][own])
    tables = [
        classify(matrices[model], texts[classes], *images).assign(model=model, prompting=prompting)
        for model, prompting, texts in _prompted(models, choice, "released")
    ]
    return pd.concat(tables, ignore_index=True)


def choose(
    models: Mapping[str, ClassVectors], matrices: Mapping[str, Float[np.ndarray, "n d"]], tune: Images, form: str
) -> Choice:
    """Choose pairs by the base model's confusions on one half of the tune images, and alpha on the other half.

    Alpha has the highest mean accuracy over models, so that none is favoured; of equal means the largest alpha wins,
    which is nearest to plain zero-shot.

    Raises:
        PcclipError: a confused pair without a text.
    """
    pair_images, alpha_images = halves(*tune)
    pairs = confused_pairs(confusions(models["base"].classes, matrices["base"], *pair_images))
    pairs = np.concatenate([pairs, pairs[:, ::-1]])
    moved = {name: compared(vectors, pairs, form) for name, vectors in models.items()}
    accuracies = [
        (
            name,
            alpha,
            classify(matrices[name], blended(vectors, moved[name], Choice(pairs, alpha)), *alpha_images).correct.mean(),
        )
        for name, vectors in models.items()
        for alpha in ALPHAS
    ]
    sweep = pd.DataFrame(accuracies, columns=SWEEP[:3])
    sweep = sweep.assign(plain=sweep.groupby("model").value.transform("first"), split="tune")
    means = sweep.groupby("alpha").value.mean().round(12).sort_index(ascending=False)
    alpha = float(means.idxmax())
    return Choice(pairs, alpha, sweep.assign(chosen=sweep.alpha == alpha))


def halves(rows: Int[np.ndarray, " m"], labels: Int[np.ndarray, " m"]) -> tuple[Images, Images]:
    """Split images into two parts with equally many of each class; the larger part is the first.

    Alpha must not be chosen on the images that chose the pairs.
    """
    order = np.argsort(labels, kind="stable")
    even, odd = (np.sort(order[start::2]) for start in (0, 1))
    return (rows[even], labels[even]), (rows[odd], labels[odd])


def confusions(
    classes: Float[np.ndarray, "c d"],
    matrix: Float[np.ndarray, "n d"],
    rows: Int[np.ndarray, " m"],
    labels: Int[np.ndarray, " m"],
) -> Float[np.ndarray, "c c"]:
    """Fraction of each class's images (row) that plain zero-shot gives to each class (column); 0 without images."""
    predicted = classify(matrix, classes, rows, labels).score.to_numpy(dtype=np.int64)
    counts = confusion_matrix(labels, predicted, labels=range(len(classes)))
    return counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)


def confused_pairs(
    rates: Float[np.ndarray, "c c"], k: int = CONFUSED_PAIRS, both_ways: bool = True
) -> Int[np.ndarray, "k 2"]:
    """Return the k pairs of classes that are confused most often, the worst first; fewer where fewer are confused.

    Args:
        rates: of `confusions`.
        k: the number of pairs.
        both_ways: add the rates of both directions and return (a, b) with a < b; otherwise return (a, b) for images of
            b that are taken for a.
    """
    strength = rates.T - np.diag(rates.diagonal())  # [a, b]: images of b that are taken for a
    if both_ways:
        strength = np.triu(strength + strength.T)
    order = np.argsort(-strength, axis=None, kind="stable")[:k]
    order = order[strength.ravel()[order] > 0]
    return np.stack(np.unravel_index(order, strength.shape), axis=1)


def compared(vectors: ClassVectors, pairs: Int[np.ndarray, "k 2"], form: str) -> Float[np.ndarray, "c d"]:
    """f'_b of every class b of the pairs (a, b), the mean of f(a) - f(d_ab); zeros for other classes.

    Centred, f(d_ab) - null gets the length of f(a) - f(b), which it stands for. Raises PcclipError for a pair without
    a text.
    """
    sums, counts = np.zeros(vectors.classes.shape), np.zeros((len(vectors.classes), 1))
    for a, b in np.asarray(pairs).reshape(-1, 2).tolist():
        if (a, b) not in vectors.differences:
            names = vectors.names
            raise PcclipError(f"no text says how {names[a]!r} differs from {names[b]!r}; have it written")
        text = vectors.differences[a, b]
        if form == "centred":
            text = text - vectors.null
            length = np.linalg.norm(text)
            wanted = np.linalg.norm(vectors.classes[a] - vectors.classes[b])
            text = text * (wanted / length if length > 1e-6 else 0.0)
        sums[b] += vectors.classes[a] - text
        counts[b] += 1
    return sums / np.maximum(counts, 1)


def blended(vectors: ClassVectors, moved: Float[np.ndarray, "c d"], choice: Choice) -> Float[np.ndarray, "c d"]:
    """normalise( alpha f(b) + (1 - alpha) f'_b ) for each class b of the pairs (a, b); other classes unchanged.

    Alpha 1 returns the class vectors bit for bit.
    """
    classes = np.array(vectors.classes)
    changed = np.unique(np.asarray(choice.pairs).reshape(-1, 2)[:, 1])
    if choice.alpha != 1:
        classes[changed] = unit(choice.alpha * classes[changed] + (1 - choice.alpha) * moved[changed])
    return classes


# gains over plain prompting


def tested(items: pd.DataFrame, draws: int, seed: int) -> pd.DataFrame:
    """Test each model with comparative prompting against itself with plain prompting.

    Args:
        items: of `comparative_items`, with columns dataset, form and protocol.
        draws, seed: of the bootstrap.

    Returns:
        A row for each data set, form, protocol and model (columns TESTED): n, plain and comparative (accuracies),
        helped (images newly right), hurt (newly wrong), and the paired difference with its interval and p values as
        stats.metrics.compare gives them; p_holm is adjusted for all rows.
    """
    tables = []
    for key, part in items.groupby(KEYS, sort=False):
        as_models = part.drop(columns="model").rename(columns={"prompting": "model"})
        table = metrics.compare(as_models.assign(task="comparative_prompting"), "comparative", "plain", draws, seed)
        counts = pd.DataFrame([_counts(own) for _, own in part.groupby("dataset", sort=False)])
        tables.append(table.drop(columns="n").assign(**dict(zip(KEYS, key, strict=True))).join(counts))
    if not tables:
        return pd.DataFrame(columns=TESTED)
    table = pd.concat(tables, ignore_index=True)
    return table.assign(p_holm=metrics.holm(metrics.deciding(table).to_numpy()))[TESTED]


def _counts(items: pd.DataFrame) -> dict[str, int | float]:
    """Accuracies of the same images by both promptings, and how many became right (helped) or wrong (hurt)."""
    was_right, is_right = (
        items.correct[items.prompting == prompting].to_numpy(dtype=bool) for prompting in ("plain", "comparative")
    )
    return {
        "n": len(was_right),
        "plain": was_right.mean(),
        "comparative": is_right.mean(),
        "helped": int((is_right & ~was_right).sum()),
        "hurt": int((was_right & ~is_right).sum()),
    }
