"""Sets of relative attributes in stage 04: does an axis made of texts order public images as people do?

Every estimator of every model makes its axis of the same texts. Images with values are ranked (task relative_values),
pairs are decided (task relative_pairs: right when the image that has more lies farther along the axis; equal pairs are
not scored). Each model sees by its own image tower. The ceiling is a linear axis fitted to the values or pairs of the
tune split, in the base's image vectors. Where a value is that of a class (AwA2, PubFig, OSR), the bootstrap draws
classes: first and second of the predictions name the class, not the image.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from pcclip.benchmarks.benchmark import Benchmark
from pcclip.benchmarks.relative_attributes import shipped_texts
from pcclip.config import Attribute, Config
from pcclip.embedding.stage import embedded_sets
from pcclip.embedding.vectors import Vectors
from pcclip.encoders.dual_encoder import Encoder
from pcclip.evaluation.differences import verdict_items
from pcclip.evaluation.predictions import SUPERVISED, Predictions, item_table
from pcclip.ranking.axes import ESTIMATORS, attribute_axis, ridge_axis
from pcclip.runs.progress import say

_FEWEST = 3  # different values, or decided pairs, without which no axis is fitted
Axis = Float[np.ndarray, " d"]


class Question(NamedTuple):
    """Test items of one attribute, where the two kinds of sets differ.

    Attributes:
        part: of the pairs, as the authors name it, with a slash; or ''.
        items: the items for an axis and image vectors.
        supervised: the ceiling's axis, where one can be fitted.
        drawn: first and second of the predictions: what the bootstrap draws, as positions in `units`.
        units: their names.
    """

    part: str
    items: Callable[[Axis, Float[np.ndarray, "n d"]], pd.DataFrame]
    supervised: Axis | None
    drawn: dict[str, Int[np.ndarray, " m"]]
    units: Sequence[str]


def score(
    config: Config, benchmarks: Mapping[str, Benchmark], encoders: Mapping[str, Encoder], predictions: Predictions
) -> None:
    """Score every estimator of every model on every attribute of every set, and the supervised axis."""
    for name, benchmark, vectors in embedded_sets(config, benchmarks, encoders):
        score_set(benchmark, vectors, shipped_texts(name), encoders, predictions)


def score_set(
    benchmark: Benchmark,
    vectors: Vectors,
    texts: Mapping[str, Attribute],
    encoders: Mapping[str, Encoder],
    predictions: Predictions,
) -> None:
    """Score one set with the vectors of its images."""
    attributes = [attribute for attribute in texts if attribute in benchmark.attributes]
    say(f"{benchmark.name}: {len(vectors.ids)} images, {len(attributes)} of {len(benchmark.attributes)} attributes")
    ranked = benchmark.values is not None
    task, questions = ("relative_values", _rankings) if ranked else ("relative_pairs", _decisions)
    for attribute in attributes:
        axes = {
            (model, estimator): attribute_axis(encoder, texts[attribute], estimator)
            for model, encoder in encoders.items()
            for estimator in ESTIMATORS
        }
        for question in questions(benchmark, vectors, attribute):
            supervised = {} if question.supervised is None else {(SUPERVISED, SUPERVISED): question.supervised}
            for (model, estimator), axis in (axes | supervised).items():
                items = question.items(axis, vectors.seen_by(model).matrix).assign(**question.drawn)
                dataset = f"{benchmark.name}/{question.part}{attribute}/{estimator}"
                predictions.add((task, dataset, ""), model, items, question.units)


def _rankings(benchmark: Benchmark, vectors: Vectors, attribute: str) -> Iterator[Question]:
    """The ranking of the test images by the values of an attribute; none where all values are equal.

    Where test classes are not among the tuned ones, whole classes are left out in choosing the supervised axis.
    """
    assert benchmark.values is not None
    table = benchmark.images.assign(value=benchmark.values[attribute])
    table = vectors.of(table[table.value.notna()])
    tune, test = (table[table["split"] == split] for split in ("tune", "test"))
    if test.value.nunique() < 2:
        return
    by_split = benchmark.images.groupby("split").group.agg(set)
    tuned_classes, test_classes = (set(by_split.get(split, ())) - {""} for split in ("tune", "test"))
    grouped = bool(tuned_classes) and not tuned_classes & test_classes
    supervised = None
    if (tune.groupby("group").value.first() if grouped else tune.value).nunique() >= _FEWEST:
        rows, groups = vectors.rows(tune["id"]), list(tune.group) if grouped else None
        supervised, _ = ridge_axis(vectors.matrix, rows, tune.value, groups)
    rows = vectors.rows(test["id"])
    drawn, units = pd.factorize(test.group) if test_classes else (rows, vectors.ids)
    yield Question(
        "",
        lambda axis, matrix: item_table(rows, rows, matrix[rows] @ axis, test.value.to_numpy(), None),
        supervised,
        {"first": drawn, "second": drawn},
        list(units),
    )


def _decisions(benchmark: Benchmark, vectors: Vectors, attribute: str) -> Iterator[Question]:
    """The decisions on the ordered test pairs of an attribute, part by part."""
    pairs = benchmark.items[benchmark.items.attribute == attribute]
    pairs = pairs[vectors.has(pairs["first"], pairs["second"])]
    for part, own in pairs.groupby("part", sort=False):
        tune, test = own[own["split"] == "tune"], own[(own["split"] == "test") & (own.more != "equal")]
        if len(test):
            rows = {side: vectors.rows(test[side]) for side in ("first", "second")}
            items = partial(verdict_items, first_has_more=(test.more == "first").to_numpy(), **rows)
            yield Question(f"{part}/" if part else "", items, _axis_of_pairs(tune, vectors), rows, vectors.ids)


def _axis_of_pairs(tune: pd.DataFrame, vectors: Vectors) -> Axis | None:
    """Ridge regression of 1, -1 or 0 (the first has more, the second, neither) on differences of image vectors.

    Every other pair is turned round, as which image was shown first says nothing. The penalty has the smallest error on
    pairs left out one at a time. None where fewer than _FEWEST pairs are decided, or all in one direction.
    """
    if (tune.more != "equal").sum() < _FEWEST:
        return None
    turned = np.where(np.arange(len(tune)) % 2, -1, 1)
    step = vectors.matrix[vectors.rows(tune["first"])] - vectors.matrix[vectors.rows(tune["second"])]
    verdicts = turned * tune.more.map({"first": 1, "second": -1, "equal": 0}).to_numpy()
    if not np.ptp(verdicts):
        return None
    return ridge_axis(step * turned[:, None].astype(step.dtype), np.arange(len(tune)), verdicts)[0]
