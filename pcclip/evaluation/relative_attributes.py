"""Sets of relative attributes in stage 04: does an axis made of texts order public images as people do?

Every estimator of every model is asked with the same texts. Images with values are ranked (task relative_values), pairs
are decided (task relative_pairs: right when the image that has more lies farther along the axis; equal pairs are not
asked). Each model sees by its own image tower. The ceiling is a linear axis fitted to the values or pairs of the tune
split, in the base's image vectors. Where a value is that of a class (AwA2, PubFig, OSR), the bootstrap draws classes:
first and second of the predictions name the class, not the image.
"""

from collections.abc import Iterator, Mapping

import numpy as np
import pandas as pd

from pcclip.benchmarks.classification import unlabelled
from pcclip.benchmarks.relative_attributes import RelativeSet
from pcclip.benchmarks.relative_attributes.sets import load_relative, missing, texts_of
from pcclip.config import Attribute, Config
from pcclip.embedding.stage import embed_pictures
from pcclip.embedding.vectors import Vectors
from pcclip.encoders.dual_encoder import Encoder
from pcclip.errors import PcclipError
from pcclip.evaluation import differences as tasks
from pcclip.evaluation.predictions import Predictions
from pcclip.ranking.axes import ESTIMATORS, attribute_axis, ridge_axis
from pcclip.runs.progress import say

FOLDER = "relative"  # below the run's folder: vectors of each set
VALUES, PAIRS = "relative_values", "relative_pairs"
_TUNED = 3  # different values, or pairs, without which no axis is fitted


def load(config: Config) -> dict[str, RelativeSet]:
    """The sets of the parameters. Raises PcclipError when one is not there, or lacks an attribute that is asked for."""
    found = {}
    for name, settings in config.evaluate.relative.items():
        found[name] = load_relative(
            name, settings.path, settings.limit, settings.tune_limit, config.seed, settings.max_bad
        )
        for attribute, texts in settings.attributes.items():
            if (texts.column or attribute) not in found[name].attributes:
                raise PcclipError(
                    f"evaluate.relative.{name}.attributes.{attribute}: {name} has no such attribute; it "
                    f"has: {', '.join(found[name].attributes)}"
                )
    return found


def lacking(config: Config, name: str) -> list[str]:
    """One line for each thing of a set that is not there. Raises PcclipError when there is no such set."""
    return [f"relative set {name}: {line}" for line in missing(name, config.evaluate.relative[name].path)]


def texts(config: Config, name: str) -> dict[str, Attribute]:
    """What is asked of a set: the texts of the parameters, else the shipped ones."""
    return config.evaluate.relative[name].attributes or texts_of(name)


def score(
    config: Config, sets: Mapping[str, RelativeSet], models: Mapping[str, Encoder], predictions: Predictions
) -> None:
    """Score every estimator of every model on every attribute of every set, and the supervised axis."""
    for name, found in sets.items():
        vectors = _embedded(config, found, models)
        asked = [
            (attribute, one)
            for attribute, one in texts(config, name).items()
            if (one.column or attribute) in found.attributes
        ]
        say(f"{name}: {len(vectors.ids)} images, {len(asked)} of {len(found.attributes)} attributes")
        axes = {
            (attribute, which, estimator): attribute_axis(model, one, estimator)
            for attribute, one in asked
            for which, model in models.items()
            for estimator in ESTIMATORS
        }
        for attribute, one in asked:
            given = _valued if found.values.shape[1] else _paired
            for task, dataset, items_of, ceiling, drawn in given(found, vectors, one.column or attribute):
                own = f"{name}/{dataset}{attribute}"
                for which in models:
                    for estimator in ESTIMATORS:
                        predictions.add(
                            task, f"{own}/{estimator}", which, items_of(axes[attribute, which, estimator], which), drawn
                        )
                if ceiling is not None:
                    predictions.add(task, f"{own}/supervised", "supervised", items_of(ceiling, "base"), drawn)


def _valued(found: RelativeSet, vectors: Vectors, column: str) -> Iterator[tuple]:
    """Task, '', the items of an axis and a model, the supervised axis or None, and what is drawn, of valued images.

    Where tested classes are not among the tuned ones, the supervised axis is chosen by classes left out whole too.
    """
    table = found.images.assign(value=found.values[column])
    table = vectors.of(table[table.value.notna()])
    tune, test = (table[table["split"] == side] for side in ("tune", "test"))
    if test.value.nunique() < 2:
        return
    sides = [set(found.images.group[found.images["split"] == side]) - {""} for side in ("tune", "test")]
    ceiling, grouped = None, bool(sides[0]) and not sides[0] & sides[1]
    if (tune.groupby("group").value.first() if grouped else tune.value).nunique() >= _TUNED:
        ceiling, _ = ridge_axis(
            vectors.matrix, vectors.rows(tune["id"]), tune.value, list(tune.group) if grouped else None
        )
    rows, values = vectors.rows(test["id"]), test.value
    places, drawn = pd.factorize(test.group) if sides[1] else (rows, vectors.ids)
    yield (
        VALUES,
        "",
        lambda axis, which: tasks.ranking_items(axis, vectors.seen_by(which).matrix, rows, values).assign(
            first=places, second=places
        ),
        ceiling,
        drawn,
    )


def _paired(found: RelativeSet, vectors: Vectors, column: str) -> Iterator[tuple]:
    """Task, 'PART/', the items of an axis and a model, the supervised axis or None, and what is drawn, by part."""
    pairs = found.pairs[found.pairs.attribute == column]
    pairs = pairs[vectors.has(pairs["first"], pairs["second"])]
    for part, own in pairs.groupby("part", sort=False):
        tune, test = own[own["split"] == "tune"], own[(own["split"] == "test") & (own.more != "equal")]
        if test.empty:
            continue
        first, second = vectors.rows(test["first"]), vectors.rows(test["second"])
        more = (test.more == "first").to_numpy()
        yield (
            PAIRS,
            f"{part}/" if part else "",
            lambda axis, which, first=first, second=second, more=more: tasks.verdict_items(
                axis, vectors.seen_by(which).matrix, first, second, more
            ),
            _axis_of_pairs(tune, vectors),
            vectors.ids,
        )


def _axis_of_pairs(tune: pd.DataFrame, vectors: Vectors) -> np.ndarray | None:
    """Ridge regression of 1, -1 or 0 (the first has more, the second, neither) on differences of image vectors.

    Every other pair is turned round, as which image was shown first says nothing. Its penalty has the smallest error on
    pairs left out one at a time.
    """
    if (tune.more != "equal").sum() < _TUNED:
        return None
    turned = np.where(np.arange(len(tune)) % 2, -1, 1)
    step = vectors.matrix[vectors.rows(tune["first"])] - vectors.matrix[vectors.rows(tune["second"])]
    verdicts = turned * tune.more.map({"first": 1, "second": -1, "equal": 0}).to_numpy()
    return (
        ridge_axis(step * turned[:, None].astype(step.dtype), np.arange(len(tune)), verdicts)[0]
        if (np.ptp(verdicts))
        else None
    )


def _embedded(config: Config, found: RelativeSet, models: Mapping[str, Encoder]) -> Vectors:
    given = unlabelled(found.name, found.images, config.evaluate.relative[found.name].max_bad)
    return embed_pictures(config, config.home / FOLDER / found.name, given, models)
