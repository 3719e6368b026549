"""Comparative prompting: class texts moved by what is said of how a class differs from those it is taken for.

As published, for pairs (a, b) with a text d_ab on how a differs from b:
    f'_b = mean over a of ( f(a) - f(d_ab) ),    t_b = normalise( alpha f(b) + (1 - alpha) f'_b ),
other classes as they are. Released with three pairs by hand for each data set, read off the confusions of the test
images and others for each model, and a fixed alpha. Here pairs come from one half of the tune split and alpha from the
other, and both are the same for every model. Beyond the paper (FORMS): a null text's vector taken off, or the swapped
text's, which takes off whatever both share; all pairs, weighted by how often they are confused; and the two nearest
classes of an image compared directly.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from jaxtyping import Float, Int
from scipy.sparse import csr_matrix

from pcclip.errors import PcclipError
from pcclip.evaluation.protocols import PROTOCOLS
from pcclip.evaluation.zero_shot import classify
from pcclip.stats.vectors import cosines, unit

NULL = "The first image shows a thing, while the second image shows a thing."
MODES = ("all", "confused")
ALPHAS = (1.0, 0.95, 0.9, 0.85, 0.8, 0.7, 0.6, 0.5)
STRENGTHS = (0.0, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0)
RELEASED_ALPHA, RELEASED_PAIRS = 0.8, 3
_BLOCK = 4096

Images = tuple[Int[np.ndarray, " m"], Int[np.ndarray, " m"]]  # rows of the image vectors, and each one's class
Seen = Float[np.ndarray, "n d"] | Mapping[str, Float[np.ndarray, "n d"]]  # image vectors, of all models or by model


@dataclass(frozen=True)
class Form:
    """One way to compare.

    Attributes:
        pairs: 'confused' (the k most confused on tune) or 'all' that have a text.
        text: 'plain' (f(d_ab) as it is, as released), 'centred' (less the vector of a text that says nothing) or
            'antisymmetric' (less the swapped text's); the latter two get the length of f(a) - f(b), which they stand
            for.
        temperatures: of the softmax over a of how often a and b are confused, which weighs the pairs of b; one of
            them is chosen. Infinity is equal weights.
        rerank: class texts stay as they are, and an image's two nearest classes a, b are told apart by
            <u, f(a) - f(b)> + strength <u, f(d_ab) - f(d_ba)>.
    """

    pairs: str = "confused"
    text: str = "plain"
    temperatures: tuple[float, ...] = (np.inf,)
    rerank: bool = False

    @property
    def values(self) -> tuple[float, ...]:
        """What alpha, or the strength of a rerank, is chosen from; the first leaves zero-shot as it is."""
        return STRENGTHS if self.rerank else ALPHAS


FORMS = {
    "released": Form(),
    "centred": Form(text="centred"),
    "antisymmetric": Form(text="antisymmetric"),
    "weighted": Form("all", "antisymmetric", (0.01, 0.03, 0.1, np.inf)),
    "rerank": Form("all", "antisymmetric", rerank=True),
}


@dataclass(frozen=True)
class ClassVectors:
    """What one model makes of the class texts and of the texts of differences: unit vectors.

    Attributes:
        names: of the c classes.
        classes: (c, d).
        pairs: (p, 2), class indexes (a, b), each pair one way round.
        right, swapped: (p, d), of d_ab and of d_ba.
        null: (d,), of a comparison that says nothing.
    """

    names: Sequence[str]
    classes: Float[np.ndarray, "c d"]
    pairs: Int[np.ndarray, "p 2"]
    right: Float[np.ndarray, "p d"]
    swapped: Float[np.ndarray, "p d"]
    null: Float[np.ndarray, " d"]

    def position(self, ordered: Int[np.ndarray, "k 2"]) -> Int[np.ndarray, " k"]:
        """Where in right, then swapped, the text of each ordered pair is; -1 for none."""
        c, p = len(self.classes), len(self.pairs)
        where = np.full(c * c, -1, dtype=np.int64)
        where[self.pairs @ (c, 1)], where[self.pairs @ (1, c)] = np.arange(p), np.arange(p, 2 * p)
        return where[np.asarray(ordered, dtype=np.int64).reshape(-1, 2) @ (c, 1)]


def class_vectors(
    encode: Callable[[Sequence[str]], Float[np.ndarray, "n d"]],
    classes: Float[np.ndarray, "c d"],
    names: Sequence[str],
    differences: pd.DataFrame,
) -> ClassVectors:
    """One model's vectors.

    Args:
        encode: its texts to unit vectors.
        classes: its class vectors, of one prompt or of an ensemble.
        names: the classes, in that order.
        differences: first, second (of `names`), difference, swapped, as `comparisons.class_texts` writes them.

    Raises:
        PcclipError: not one vector for each name, or a difference of classes that are not there.
    """
    if len(classes) != len(names):
        raise PcclipError(f"{len(classes)} class vectors for {len(names)} classes; give one each, in the same order")
    index = {name: k for k, name in enumerate(names)}
    unknown = set(differences["first"]) | set(differences["second"])
    if unknown := sorted(unknown - set(index)):
        raise PcclipError(f"a text of differences is of {unknown[0]!r}, which is no class here; have them written anew")
    pairs = np.array([differences[side].map(index) for side in ("first", "second")], dtype=np.int64).T
    texts = encode([NULL, *differences.difference, *differences.swapped])
    return ClassVectors(
        list(names),
        np.asarray(classes),
        pairs.reshape(-1, 2),
        texts[1 : 1 + len(pairs)],
        texts[1 + len(pairs) :],
        texts[0],
    )


@dataclass(frozen=True)
class Chosen:
    """What is fixed before a test image is scored.

    Attributes:
        form, mode, base, split: how, which classes are scored, whose confusions, and of which images.
        names: of the classes.
        pairs: (k, 2), (a, b): the text of b is changed by how a differs from it.
        weights: (k,), summing to one over the pairs of each b.
        scored: the classes an image may go to; images of others are left out.
        value: alpha, or the strength of a rerank.
        temperature: of the weights.
        sweep: temperature, value, model, accuracy, plain (without comparing), on the images that it was chosen on.
    """

    form: str
    mode: str
    base: str
    split: str
    names: Sequence[str]
    pairs: Int[np.ndarray, "k 2"]
    weights: Float[np.ndarray, " k"]
    scored: Int[np.ndarray, " s"]
    value: float
    temperature: float
    sweep: pd.DataFrame = field(repr=False)


def comparative(
    models: Mapping[str, ClassVectors],
    matrix: Seen,
    tune: Images,
    test: Images,
    form: str = "released",
    mode: str = "all",
    protocol: str = "corrected",
    base: str = "base",
    k: int = RELEASED_PAIRS,
    values: Sequence[float] | None = None,
) -> tuple[pd.DataFrame, dict[str, Chosen]]:
    """Zero-shot with and without comparing, of every model.

    As released, the pairs are those that each model confuses most on the very images it is tested on, one class of a
    pair is changed, and alpha is fixed; corrected, pairs are chosen on one half of tune and alpha on the other, are the
    same for every model, and both classes of a pair are changed.

    Args:
        models: all that are compared, by name.
        matrix: unit image vectors, (n, d); by model, where they are of several image towers.
        tune, test: rows of the matrix and the index of each one's class.
        form: of FORMS.
        mode: 'all' classes and images, or only the 'confused' classes and their images.
        base: the model whose confusions choose the pairs.
        k: how many confused pairs.
        values: what alpha, or the strength of a rerank, is chosen from; as released its first is taken.

    Returns:
        Items of every model with the columns of `tasks`, model and prompting ('plain' or 'comparative'); and what was
        chosen for each model.

    Raises:
        PcclipError: what `choose` raises, an unknown protocol, or any form but 'released' as released.
    """
    if protocol not in PROTOCOLS:
        raise PcclipError(f"no protocol {protocol!r}; known: {', '.join(PROTOCOLS)}")
    if protocol == "corrected":
        confused, rest = halves(*tune)
        chosen = dict.fromkeys(models, choose(models, matrix, *rest, form, mode, base, k, values, confused=confused))
    elif form != "released":
        raise PcclipError(f"the form {form!r} is not in the release; use protocol = corrected")
    else:
        chosen = {
            which: choose(
                {which: vectors},
                matrix,
                *test,
                form,
                mode,
                which,
                k,
                [(values or (RELEASED_ALPHA,))[0]],
                both_ways=False,
                split="test",
            )
            for which, vectors in models.items()
        }
    found = []
    for which, vectors in models.items():
        seen = _seen_by(which, matrix)
        for prompting, items in (
            ("plain", plain(chosen[which], vectors, seen, *test)),
            ("comparative", apply(chosen[which], vectors, seen, *test)),
        ):
            found.append(items.assign(model=which, prompting=prompting))
    return pd.concat(found, ignore_index=True), chosen


def choose(
    models: Mapping[str, ClassVectors],
    matrix: Seen,
    rows: Int[np.ndarray, " m"],
    labels: Int[np.ndarray, " m"],
    form: str = "released",
    mode: str = "all",
    base: str = "base",
    k: int = RELEASED_PAIRS,
    values: Sequence[float] | None = None,
    both_ways: bool = True,
    split: str = "tune",
    confused: Images | None = None,
) -> Chosen:
    """Pairs by the base model's confusions, alpha (or strength, and temperature) by the models' mean accuracy.

    Every model counts alike, so that none is favoured; of values that do equally well the one nearest to plain
    zero-shot is taken. Give tune images.

    Args:
        models: all that are compared, with texts for the same pairs.
        matrix, rows, labels: the images to choose alpha on; the matrix as in `comparative`.
        form, mode, base, k, values: as in `comparative`.
        both_ways: change both classes of a confused pair; else only the one whose images are taken for the other's.
        split: what those images are called in the tables.
        confused: the images whose confusions choose the pairs and their weights; None for the same ones.

    Raises:
        PcclipError: an unknown form or mode, no base model, no images, a confused pair without a text, models with
            texts for different pairs, a base that confuses nothing (mode 'confused'), values out of range, or what
            `classify` raises.
    """
    this, vectors = _checked(models, form, mode, base, k, split, len(rows), values)
    rates = confusions(vectors.classes, _seen_by(base, matrix), *(confused or (rows, labels)))
    worst = confused_pairs(rates, k, both_ways)
    scored = np.unique(worst) if mode == "confused" else np.arange(len(rates))
    if not np.isin(labels, scored).any():
        raise PcclipError(f"{base} confuses no two classes on the {split} images; use mode = all, or more images")
    ordered = worst if this.pairs == "confused" else vectors.pairs
    if both_ways:
        ordered = np.concatenate([ordered, ordered[:, ::-1]])
    ordered = ordered[np.isin(ordered, scored).all(axis=1)]
    silent = ordered[vectors.position(ordered) < 0]
    if len(silent):
        a, b = (vectors.names[k] for k in silent[0])
        raise PcclipError(f"no text says how {a!r} differs from {b!r}; have it written")
    values = sorted(this.values if values is None else values, reverse=not this.rerank)
    images, swept = _kept(vectors, scored, rows, labels), []
    for which, one in models.items():
        seen = _seen_by(which, matrix)
        before = _classified(one.classes, scored, seen, *images).correct.mean()
        for temperature in this.temperatures:
            guesses = _guesses(this, one, ordered, _weights(ordered, rates, temperature), scored, seen, *images, values)
            swept += [
                (temperature, value, which, items.correct.mean(), before)
                for value, items in zip(values, guesses, strict=True)
            ]
    sweep = pd.DataFrame(swept, columns=["temperature", "value", "model", "accuracy", "plain"])
    temperature, value = _best(sweep, this.temperatures, values)
    return Chosen(
        form,
        mode,
        base,
        split,
        list(vectors.names),
        ordered,
        _weights(ordered, rates, temperature),
        scored,
        float(value),
        temperature,
        sweep,
    )


def apply(
    chosen: Chosen,
    vectors: ClassVectors,
    matrix: Float[np.ndarray, "n d"],
    rows: Int[np.ndarray, " m"],
    labels: Int[np.ndarray, " m"],
) -> pd.DataFrame:
    """Items of one model by what was chosen: score is the class found, reference the right one."""
    [items] = _guesses(
        FORMS[chosen.form],
        vectors,
        chosen.pairs,
        chosen.weights,
        chosen.scored,
        matrix,
        *_kept(vectors, chosen.scored, rows, labels),
        [chosen.value],
    )
    return items


def plain(
    chosen: Chosen,
    vectors: ClassVectors,
    matrix: Float[np.ndarray, "n d"],
    rows: Int[np.ndarray, " m"],
    labels: Int[np.ndarray, " m"],
) -> pd.DataFrame:
    """Items of plain zero-shot on the same classes and images as `apply`."""
    return _classified(vectors.classes, chosen.scored, matrix, *_kept(vectors, chosen.scored, rows, labels))


def halves(rows: Int[np.ndarray, " m"], labels: Int[np.ndarray, " m"]) -> tuple[Images, Images]:
    """The images in two parts with as many of each class, so that alpha is not chosen on images that chose the pairs.

    The larger part is the first. Raises PcclipError for fewer than two images.
    """
    rows, labels = np.asarray(rows, dtype=np.int64), np.asarray(labels, dtype=np.int64)
    if len(rows) < 2:
        raise PcclipError(f"{len(rows)} tune images to choose pairs and alpha on; read the set with its tune split")
    order = np.argsort(labels, kind="stable")
    one, other = (np.sort(order[start::2]) for start in (0, 1))
    return (rows[one], labels[one]), (rows[other], labels[other])


def confusions(
    classes: Float[np.ndarray, "c d"],
    matrix: Float[np.ndarray, "n d"],
    rows: Int[np.ndarray, " m"],
    labels: Int[np.ndarray, " m"],
) -> Float[np.ndarray, "c c"]:
    """How often an image of a class (row) goes to a class (column) in plain zero-shot; zeros without images."""
    c, labels = len(classes), np.asarray(labels, dtype=np.int64)
    found = classify(matrix, classes, rows, labels).score.to_numpy(dtype=np.int64)
    counts = np.bincount(labels * c + found, minlength=c * c).reshape(c, c)
    return counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)


def confused_pairs(rates: Float[np.ndarray, "c c"], k: int, both_ways: bool = True) -> Int[np.ndarray, "k 2"]:
    """The k pairs most often confused, the worst first, ties in the classes' order; fewer when fewer are confused.

    Both ways together as (a, b) with a < b; else (a, b) with b the class whose images are taken for a's. Texts are
    needed for these only, unless the form takes all pairs.
    """
    strength = rates.T - np.diag(rates.diagonal())  # [a, b]: images of b that are taken for a's
    if both_ways:
        strength = np.triu(strength + strength.T)
    order = np.argsort(-strength, axis=None, kind="stable")[:k]
    order = order[strength.ravel()[order] > 0]
    return np.stack(np.unravel_index(order, strength.shape), axis=1)


def compared(
    vectors: ClassVectors, ordered: Int[np.ndarray, "k 2"], weights: Float[np.ndarray, " k"], text: str
) -> Float[np.ndarray, "c d"]:
    """f'_b of every class that is the second of a pair, the weighted mean of f(a) less the text; zeros elsewhere."""
    (a, b), (c, _) = np.asarray(ordered).reshape(-1, 2).T, vectors.classes.shape
    position, p = vectors.position(ordered), len(vectors.pairs)
    texts = np.concatenate([vectors.right, vectors.swapped])
    twins, scale = (position + p) % max(1, 2 * p), weights
    if text != "plain":
        other = texts[twins] if text == "antisymmetric" else vectors.null[None]
        length = np.linalg.norm(texts[position] - other, axis=1)
        wanted = np.linalg.norm(vectors.classes[a] - vectors.classes[b], axis=1)
        scale = weights * np.divide(wanted, length, out=np.zeros(len(a)), where=length > 1e-6)

    def summed(values, columns, source):
        return csr_matrix((values, (b, columns)), (c, len(source))) @ source

    said = summed(scale, position, texts)
    if text == "antisymmetric":
        said = said - summed(scale, twins, texts)
    elif text == "centred":
        said = said - np.bincount(b, scale, c)[:, None] * vectors.null
    return summed(weights, a, vectors.classes) - said


def blended(
    vectors: ClassVectors, moved: Float[np.ndarray, "c d"], ordered: Int[np.ndarray, "k 2"], alpha: float
) -> Float[np.ndarray, "c d"]:
    """normalise( alpha f(b) + (1 - alpha) f'_b ) of the classes that are the second of a pair; others untouched."""
    classes = np.array(vectors.classes)
    changed = np.unique(np.asarray(ordered).reshape(-1, 2)[:, 1])
    if alpha != 1:
        classes[changed] = unit(alpha * classes[changed] + (1 - alpha) * moved[changed])
    return classes


def _seen_by(which: str, matrix: Seen) -> Float[np.ndarray, "n d"]:
    return matrix[which] if isinstance(matrix, Mapping) else matrix


def _checked(models, form, mode, base, k, split, images, values) -> tuple[Form, ClassVectors]:
    """The form and the base model's vectors. Raises PcclipError for what cannot be."""
    if form not in FORMS or mode not in MODES:
        raise PcclipError(f"no form {form!r} or mode {mode!r}; forms: {', '.join(FORMS)}; modes: {', '.join(MODES)}")
    if base not in models:
        raise PcclipError(f"no model {base!r} to choose pairs by; there are: {', '.join(models)}")
    if not images:
        raise PcclipError(f"no {split} images to choose pairs and alpha on; read the set with its {split} split")
    if k < 1 or (
        values is not None
        and (not len(values) or not all(0 <= value <= (np.inf if FORMS[form].rerank else 1) for value in values))
    ):
        raise PcclipError(f"k = {k}, values = {values}; ask for one pair or more, alphas from 0 to 1, strengths from 0")
    if any(
        not np.array_equal(one.pairs, models[base].pairs) or len(one.classes) != len(models[base].classes)
        for one in models.values()
    ):
        raise PcclipError("the models have texts for different classes or pairs; encode the same tables with each")
    return FORMS[form], models[base]


def _guesses(
    form: Form, vectors: ClassVectors, ordered, weights, scored, matrix, rows, labels, values
) -> list[pd.DataFrame]:
    """Items for each value of alpha, or of the strength."""
    if form.rerank:
        return _reranked(vectors, scored, matrix, rows, labels, values)
    moved = compared(vectors, ordered, weights, form.text)
    return [_classified(blended(vectors, moved, ordered, alpha), scored, matrix, rows, labels) for alpha in values]


def _classified(classes, scored, matrix, rows, labels) -> pd.DataFrame:
    """Items of `classify` among the scored classes, with their indexes among all."""
    place = np.searchsorted(scored, labels)
    items = classify(matrix, classes[scored], rows, place)
    return items.assign(
        **{name: scored[items[name].to_numpy(dtype=np.int64)].astype(float) for name in ("score", "reference")}
    )


def _reranked(vectors: ClassVectors, scored, matrix, rows, labels, values) -> list[pd.DataFrame]:
    """Items for each strength. Pairs without a text, and ties, stay as they are."""
    items = _classified(vectors.classes, scored, matrix, rows, labels)
    first, p = items.score.to_numpy(dtype=np.int64), len(vectors.pairs)
    if len(scored) < 2 or not p or not len(rows):
        return [items] * len(values)
    second, margin, said = np.empty(len(rows), dtype=np.int64), np.empty(len(rows)), np.zeros(len(rows))
    for start in range(0, len(rows), _BLOCK):
        part = slice(start, start + _BLOCK)
        images, here = matrix[rows[part]], np.arange(len(rows[part]))
        scores = images @ vectors.classes[scored].T
        own = np.searchsorted(scored, first[part])
        best, scores[here, own] = scores[here, own], -np.inf
        next_best = scores.argmax(axis=1)
        second[part], margin[part] = scored[next_best], np.maximum(best - scores[here, next_best], 0)
        position = vectors.position(np.stack([first[part], second[part]], axis=1))
        text, sign = position % p, np.where(position < 0, 0, np.where(position < p, 1, -1))
        said[part] = sign * cosines(images, vectors.right[text] - vectors.swapped[text])
    found = [np.where(margin + strength * said < 0, second, first) for strength in values]
    return [items.assign(score=guess.astype(float), correct=guess == labels) for guess in found]


def _kept(vectors: ClassVectors, scored, rows, labels) -> Images:
    """Images of the scored classes. Raises PcclipError for labels that are no classes."""
    rows, labels = np.asarray(rows, dtype=np.int64), np.asarray(labels, dtype=np.int64)
    if len(rows) != len(labels) or not np.isin(labels, np.arange(len(vectors.classes))).all():
        raise PcclipError(
            f"labels must be one for each of {len(rows)} images, from 0 to {len(vectors.classes) - 1}; "
            "give the vectors of all classes, in the order of the labels"
        )
    keep = np.isin(labels, scored)
    return rows[keep], labels[keep]


def _weights(ordered, rates, temperature: float) -> Float[np.ndarray, " k"]:
    """Of each pair among those of its second class, summing to one."""
    a, b = ordered.T
    logits = (rates[a, b] + rates[b, a]) / (2 * temperature)
    logits = logits - pd.Series(logits).groupby(b).transform("max").to_numpy()
    return np.exp(logits) / np.bincount(b, np.exp(logits), len(rates))[b]


def _best(sweep: pd.DataFrame, temperatures: Sequence[float], values: Sequence[float]) -> tuple[float, float]:
    """The first value and temperature, in their order, with the highest mean accuracy over models."""
    mean = sweep.groupby(["value", "temperature"]).accuracy.mean().round(12)
    return max(
        ((temperature, value) for value in values for temperature in temperatures), key=lambda both: mean[both[::-1]]
    )
