"""Every measure of the geometry for every model, with controls and intervals, and what the measures share.

Measures that depend on the image tower alone have the model 'images', which stands for the base's tower, as finetuning
the text tower leaves it unchanged. A model with an image tower of its own adds 'images, MODEL'.
"""

from collections.abc import Mapping
from functools import partial

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Shaped

from pcclip.arithmetic import analogies
from pcclip.arithmetic.differences import (
    MEASURE,
    HeldOut,
    Values,
    additivity,
    alignment,
    antisymmetry,
    shuffled,
    sides,
)
from pcclip.arithmetic.retrieval import rank_share
from pcclip.arithmetic.texts import TextMemory
from pcclip.comparisons.sentences import from_captions
from pcclip.stats import metrics
from pcclip.stats.intervals import Estimate, bootstrap_means, estimate_table, jackknife
from pcclip.stats.random_streams import stream
from pcclip.stats.vectors import by_rows, cosines, image_differences, unit

Measures = dict[tuple[str, str, str], Estimate]  # (metric, model, control)
OneModel = dict[tuple[str, str], Estimate]  # (metric, control)
Rows = Bool[np.ndarray, " n"] | slice  # of the vectors that are measured


def measure(held_out: HeldOut, models: Mapping[str, TextMemory]) -> Measures:
    """All measures of all models."""
    parts = [(tower, _image_measures(images)) for tower, images in held_out.by_tower(models).items()]
    parts += [
        (name, measures_of(held_out.seen_by(name), model))
        for name, model in models.items()
        for measures_of in (_difference_measures, _sum_measures, _word_measures, _modality_measures)
    ]
    return {
        (metric, name, control): estimate
        for name, measures in parts
        for (metric, control), estimate in measures.items()
    }


def table(measures: Measures) -> pd.DataFrame:
    """One row for each metric, model and control, in the order measured: columns metric, model, control and an estimate's."""
    return estimate_table(measures, ["metric", "model", "control"])


def item_table(held_out: HeldOut, models: Mapping[str, TextMemory], strength: float) -> pd.DataFrame:
    """Cosines and retrieval ranks of every pair: columns first, second, measure, value, model, first_unit, second_unit.

    Args:
        strength: length of the text step that is added to an image for retrieval.
    """
    parts = []
    for name, model in models.items():
        own = held_out.seen_by(name)
        pairs, matrix, (first, second) = own.pairs, own.vectors.matrix, own.sides.T
        v = image_differences(matrix, first, second)
        right, reverse = model.encode_texts(list(pairs.difference)), model.encode_texts(list(pairs.swapped))
        captions = _caption_differences(own, model)
        values = {
            "image difference": cosines(right, v),
            "image difference, reversed text": cosines(reverse, v),
            "caption difference": cosines(right, captions),
            "caption difference, reversed text": cosines(reverse, captions),
            "retrieval rank, image alone": rank_share(matrix, own.rows, first, second, 0 * right),
            "retrieval rank, image + text": rank_share(matrix, own.rows, first, second, strength * right),
        }
        units = dict(zip(("first_unit", "second_unit"), own.units.T, strict=True))
        parts += [
            pairs[["first", "second"]].assign(measure=metric, value=column.astype(float), model=name, **units)
            for metric, column in values.items()
        ]
    return pd.concat(parts, ignore_index=True)


def summary(items: pd.DataFrame, draws: int, seed: int) -> pd.DataFrame:
    """Mean of each measure and model of `item_table`, with a 95% interval from resampled units."""
    groups = metrics.in_units(items.assign(correct=items["value"])).groupby(["measure", "model"], sort=False)
    return estimate_table({key: metrics.accuracy(part, draws, seed) for key, part in groups}, ["measure", "model"])


# ---- a cloud of vectors


def modality_gap(images: Float[np.ndarray, "n d"], texts: Float[np.ndarray, "m d"]) -> float:
    """Distance of the two means (Liang et al., 2022): 0 to 2 for unit vectors."""
    return float(np.linalg.norm(images.mean(axis=0) - texts.mean(axis=0)))


def effective_rank(vectors: Float[np.ndarray, "n d"], rows: Rows = slice(None)) -> float:
    """exp of the entropy of the variance's shares along the principal components (Roy and Vetterli, 2007).

    k for equal variance in k directions.
    """
    centred = (vectors[rows] - vectors[rows].mean(axis=0)).astype(np.float64)
    gram = centred @ centred.T if len(centred) < centred.shape[1] else centred.T @ centred
    power = np.maximum(np.linalg.eigvalsh(gram), 0)
    shares = power[power > 1e-12 * power.sum()] / max(power.sum(), 1e-300)
    return float(np.exp(-(shares * np.log(shares)).sum()))


# ---- the measures of one model


def _means(held_out: HeldOut, metric: str, values: Mapping[str, np.ndarray], members: np.ndarray) -> OneModel:
    """Bootstrapped means of a measure and its controls; `members` are the units of each item."""
    estimates = bootstrap_means(values, members, held_out.draws, held_out.seed)
    return {(metric, control): estimate for control, estimate in estimates.items()}


def _difference_measures(held_out: HeldOut, model: TextMemory) -> OneModel:
    pairs, rows, matrix = held_out.pairs, held_out.sides, held_out.vectors.matrix
    right, reverse = model.encode_texts(list(pairs.difference)), model.encode_texts(list(pairs.swapped))
    shuffle = shuffled(len(pairs), held_out.seed)
    captions = model.encode_texts(list(held_out.table.caption))
    u, t = unit(matrix - matrix[held_out.rows].mean(axis=0)), unit(captions - captions.mean(axis=0))
    row_of = {image: row for row, image in enumerate(held_out.table["id"])}
    first, second = ([row_of[image] for image in pairs[side]] for side in ("first", "second"))
    values: dict[str, Values] = {
        "alignment, image difference": alignment(image_differences(matrix, *rows.T), right, reverse, shuffle),
        "alignment, caption difference": alignment(_caption_differences(held_out, model), right, reverse, shuffle),
        "f(d) with one image": sides(right, u[rows[:, 0]], u[rows[:, 1]], shuffle),
        "f(d) with one caption": sides(right, t[first], t[second], shuffle),
        "antisymmetry": antisymmetry(right, reverse, shuffle),
    }
    return {
        key: estimate
        for metric, controls in values.items()
        for key, estimate in _means(held_out, metric, controls, held_out.units).items()
    }


def _sum_measures(held_out: HeldOut, model: TextMemory) -> OneModel:
    rows, third = held_out.triples
    if not len(rows):
        return {}
    pairs, c = held_out.pairs.iloc[rows], held_out.table.caption.iloc[third]
    ab, ba = model.encode_texts(list(pairs.difference)), model.encode_texts(list(pairs.swapped))
    bc = model.encode_texts([from_captions(b, third) for b, third in zip(pairs.second_caption, c, strict=True)])
    ac = model.encode_texts([from_captions(a, third) for a, third in zip(pairs.first_caption, c, strict=True)])
    values = additivity(ab, bc, ac, ba, shuffled(len(rows), held_out.seed))
    return _means(held_out, "additivity, texts", values, _triple_units(held_out))


def _word_measures(held_out: HeldOut, model: TextMemory) -> OneModel:
    """Analogies of words. An item depends on its two nouns, so nouns are resampled."""
    values, members = [], []
    for name, (_, _, nouns) in analogies.WORDS.items():
        quadruples = analogies.word_quadruples(len(nouns))
        solved: dict[str, np.ndarray] = {**analogies.solved(model.encode_texts(analogies.word_texts(name)), quadruples)}
        solved["chance"] = np.full(len(quadruples), analogies.chance(2 * len(nouns)))
        values.append(solved)
        members.append(np.array([f"{name} {noun}" for noun in nouns])[quadruples[:, [0, 2]] % len(nouns)])
    together = {method: np.concatenate([solved[method] for solved in values]) for method in values[0]}
    return _means(held_out, "analogies, all words", together, np.concatenate(members))


def _modality_measures(held_out: HeldOut, model: TextMemory) -> OneModel:
    u, t = held_out.vectors.matrix[held_out.rows], model.encode_texts(list(held_out.table.caption))
    seed, images = held_out.seed, held_out.image_units
    half = stream("half of the vectors", seed).permutation(len(u)) % 2 == 0
    centred_u, centred_t = unit(u - u.mean(axis=0)), unit(t - t.mean(axis=0))
    finds = {
        MEASURE: _finds_image(u, t),
        "centred": _finds_image(centred_u, centred_t),
        "chance": np.full(len(u), 1 / len(u)),
    }
    return {
        ("modality gap", MEASURE): jackknife(lambda rows: modality_gap(u[rows], t[rows]), images, seed),
        ("modality gap", "two halves of the images"): jackknife(
            lambda rows: modality_gap(u[rows & half], u[rows & ~half]), images, seed
        ),
        ("modality gap", "captions of the other half"): jackknife(
            lambda rows: modality_gap(u[rows & half], t[rows & ~half]), images, seed
        ),
        **_means(held_out, "caption finds its image", finds, images),
        **_spread("text differences", model.encode_texts(list(held_out.pairs.difference)), held_out),
    }


def _spread(name: str, differences: Float[np.ndarray, "m d"], held_out: HeldOut) -> OneModel:
    """The effective rank of the differences of all pairs."""
    return {
        (f"effective rank, {name}", MEASURE): jackknife(
            partial(effective_rank, differences), held_out.units, held_out.seed
        )
    }


def _image_measures(held_out: HeldOut) -> OneModel:
    matrix, seed, pairs = held_out.vectors.matrix, held_out.seed, held_out.sides
    u, images = matrix[held_out.rows], held_out.image_units
    measures = _spread("image differences", image_differences(matrix, *pairs.T), held_out)
    rows, third = held_out.triples
    if len(rows):
        (a, b), c = pairs[rows].T, held_out.rows[third]
        ab, bc, ac = (image_differences(matrix, *legs) for legs in ((a, b), (b, c), (a, c)))
        values = additivity(ab, bc, ac, -ab, shuffled(len(rows), seed))
        measures |= _means(held_out, "additivity, images", values, _triple_units(held_out))
    quadruples = analogies.image_quadruples(held_out.table.concept, held_out.quadruples, seed)
    if len(quadruples):
        codes, sizes = np.unique(held_out.table.concept, return_inverse=True, return_counts=True)[1:]
        solved: dict[str, np.ndarray] = {**analogies.solved(u, quadruples, codes)}
        solved["chance"] = np.array([analogies.chance(len(u), float(sizes[codes[d]] - 1)) for d in quadruples[:, 3]])
        measures |= _means(held_out, "analogies, images", solved, images[quadruples[:, :3], 0])
    return measures


def _caption_differences(held_out: HeldOut, model: TextMemory) -> Float[np.ndarray, "m d"]:
    """Unit f(caption 1) - f(caption 2) of every pair."""
    first, second = (model.encode_texts(list(held_out.pairs[f"{side}_caption"])) for side in ("first", "second"))
    return unit(first - second)


def _triple_units(held_out: HeldOut) -> Shaped[np.ndarray, "t 3"]:
    rows, third = held_out.triples
    return np.concatenate([held_out.units[rows], held_out.image_units[third]], axis=1)


def _finds_image(images: Float[np.ndarray, "n d"], texts: Float[np.ndarray, "n d"]) -> Bool[np.ndarray, " n"]:
    """Whether each text is nearer to its own image than to any other; a tie does not count."""

    def finds(text: np.ndarray, row: np.ndarray) -> np.ndarray:
        scores = text @ images.T
        return np.count_nonzero(scores >= np.take_along_axis(scores, row[:, None], 1) - 1e-6, axis=1) == 1

    return by_rows(finds, len(images), texts, np.arange(len(texts)))
