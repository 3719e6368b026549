"""The held-out images and pairs of stage 05, and what f does to the text of a difference.

f is the text tower, g the image tower, d the sentence about the difference of a pair. Every function of vectors returns
the measure and its controls, as name -> one value per row. `shuffle` is a permutation of the rows, which gives each row
another row's text.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import pandas as pd
from jaxtyping import Float, Int, Shaped

from pcclip.comparisons.stage import template_pairs
from pcclip.config import Config
from pcclip.data.image_set import ImageSet, units
from pcclip.embedding.vectors import Vectors
from pcclip.stats.random_streams import stream
from pcclip.stats.vectors import cosines, unit

MEASURE = "none"  # the control of a row that is the measure itself
IMAGES = "images"  # the model of measures that involve no text
Values = dict[str, Float[np.ndarray, " m"]]


@dataclass(frozen=True)
class HeldOut:
    """The held-out images with their vectors, pairs and triples of them, and how intervals are drawn.

    A class of its own because every measure of the stage is taken on exactly these.

    Attributes:
        vectors: unit image vectors by each model's image tower.
        table: the held-out images that have a vector (id, path, caption, concept).
        pairs: first, second (ids), captions, difference, swapped, as `template_pairs` makes them.
        triples: rows of `pairs` (a, b), and for each a row of `table` (c).
        quadruples: number of image analogies.
        draws: bootstrap resamples.
        seed: of every random draw.
        unit_of: what intervals draw for each image id (data.image_set.units); the image itself where it is not there.
    """

    vectors: Vectors
    table: pd.DataFrame
    pairs: pd.DataFrame
    triples: tuple[Int[np.ndarray, " t"], Int[np.ndarray, " t"]]
    quadruples: int
    draws: int
    seed: int
    unit_of: Mapping[str, str] = field(default_factory=dict)

    @property
    def sides(self) -> Int[np.ndarray, "m 2"]:
        """Rows of the image vectors of both images of each pair."""
        return np.stack([self.vectors.rows(self.pairs[side]) for side in ("first", "second")], axis=1)

    @property
    def unit_of_row(self) -> Shaped[np.ndarray, " n"]:
        """What intervals draw for each row of the image vectors."""
        return np.array([self.unit_of.get(image, image) for image in self.vectors.ids])

    @property
    def units(self) -> Shaped[np.ndarray, "m 2"]:
        """What intervals draw for each pair."""
        return self.unit_of_row[self.sides]

    @property
    def image_units(self) -> Shaped[np.ndarray, "n 1"]:
        """What intervals draw for each image of `table`."""
        return self.unit_of_row[self.rows][:, None]

    @property
    def rows(self) -> Int[np.ndarray, " n"]:
        """Rows of the image vectors of `table`."""
        return self.vectors.rows(self.table["id"])

    def seen_by(self, model: str) -> "HeldOut":
        """The same with the vectors of this model's image tower."""
        return replace(self, vectors=self.vectors.seen_by(model))

    def by_tower(self, models: Iterable[str]) -> dict[str, "HeldOut"]:
        """The same by image tower: 'images' for the base's, 'images, MODEL' for a model with a tower of its own."""
        tuned = [model for model in models if model in self.vectors.others]
        return {IMAGES: self, **{f"{IMAGES}, {model}": self.seen_by(model) for model in tuned}}


def held_out_pairs(config: Config, images: ImageSet, vectors: Vectors) -> HeldOut:
    """The pairs and triples that a run's parameters ask for."""
    settings, table = config.arithmetic, vectors.of(images.held_out)
    pairs = template_pairs(table, settings.pairs, config.seed)
    triples = draw_triples(table, pairs, settings.triples, config.seed)
    draws, unit_of = config.evaluate.bootstrap, units(images, config.data)
    return HeldOut(vectors, table, pairs, triples, settings.quadruples, draws, config.seed, unit_of)


def draw_triples(
    table: pd.DataFrame, pairs: pd.DataFrame, count: int, seed: int
) -> tuple[Int[np.ndarray, " t"], Int[np.ndarray, " t"]]:
    """Rows of `pairs` (a, b), and for each the row of a third image c in `table`, of another concept than a and b."""
    rng, concept = stream("triples", seed), table.concept.to_numpy()
    concept_of = dict(zip(table["id"], concept, strict=True))
    rows, third = [], []
    for row in rng.permutation(len(pairs))[:count]:
        pair = [concept_of[pairs["first"].iloc[row]], concept_of[pairs["second"].iloc[row]]]
        others = np.flatnonzero(~np.isin(concept, pair))
        if len(others):
            rows.append(row)
            third.append(rng.choice(others))
    return np.array(rows, dtype=np.int64), np.array(third, dtype=np.int64)


def shuffled(count: int, seed: int) -> Int[np.ndarray, " m"]:
    """A permutation that leaves no row in its place (for more than one row)."""
    order = stream("shuffled pairs", seed).permutation(count)
    shuffle = np.empty(count, dtype=np.int64)
    shuffle[order] = np.roll(order, 1)
    return shuffle


def alignment(
    target: Float[np.ndarray, "m d"],
    right: Float[np.ndarray, "m d"],
    reverse: Float[np.ndarray, "m d"],
    shuffle: Int[np.ndarray, " m"],
) -> Values:
    """Cosine of f(d) with a difference of images or captions: 1 along it, 0 for a text that knows nothing.

    Controls: the reversed text, the text of another pair, and f(d) - f(d swapped), which needs no training: it cancels
    the constant that f adds to every text.
    """
    return {
        MEASURE: cosines(right, target),
        "reversed": cosines(reverse, target),
        "shuffled": cosines(right[shuffle], target),
        "f(d) - f(swapped)": cosines(unit(right - reverse), target),
    }


def antisymmetry(
    right: Float[np.ndarray, "m d"], reverse: Float[np.ndarray, "m d"], shuffle: Int[np.ndarray, " m"]
) -> Values:
    """Cosine of f(d) with f(d swapped): -1 where exchanging the images reverses f(d), 1 where it changes nothing.

    Controls: the swapped text of another pair, which shares only what all texts share; both after subtracting the mean
    text vector.
    """
    mean = (right.mean(axis=0) + reverse.mean(axis=0)) / 2
    centred, centred_reverse = unit(right - mean), unit(reverse - mean)
    return {
        MEASURE: cosines(right, reverse),
        "shuffled": cosines(right, reverse[shuffle]),
        "centred": cosines(centred, centred_reverse),
        "centred, shuffled": cosines(centred, centred_reverse[shuffle]),
    }


def additivity(
    ab: Float[np.ndarray, "m d"],
    bc: Float[np.ndarray, "m d"],
    ac: Float[np.ndarray, "m d"],
    ba: Float[np.ndarray, "m d"],
    shuffle: Int[np.ndarray, " m"],
) -> Values:
    """Cosine of d(a, b) + d(b, c) with d(a, c).

    Controls: each leg alone and the better leg, which share an image with d(a, c) (0.5 each for orthogonal images; a
    leg near 1 means that f reads only that image); the first leg reversed; d(a, c) of another triple.
    """
    total, first, second = unit(ab + bc), cosines(ab, ac), cosines(bc, ac)
    return {
        MEASURE: cosines(total, ac),
        "first leg alone": first,
        "second leg alone": second,
        "better leg alone": np.maximum(first, second),
        "first leg reversed": cosines(unit(ba + bc), ac),
        "shuffled": cosines(total, ac[shuffle]),
    }


def sides(
    right: Float[np.ndarray, "m d"],
    first: Float[np.ndarray, "m d"],
    second: Float[np.ndarray, "m d"],
    shuffle: Int[np.ndarray, " m"],
) -> Values:
    """Cosine of f(d) with the centred vectors of the first and of the second image (or caption) alone.

    A difference adds the first and removes the second, so that the two should be equal and opposite. 0 for the second
    means that f(d) is about the first image only.
    """
    return {
        "the first": cosines(right, first),
        "the second": cosines(right, second),
        "another's first": cosines(right[shuffle], first),
    }
