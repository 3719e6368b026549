"""Sets of relative attributes in stage 04: does an axis made of texts order public images as people do?

Every estimator of every model makes its axis of the same texts. Images with values are ranked (task relative_values),
pairs are decided (task relative_pairs: right when the image that has more lies farther along the axis; equal pairs are
not scored). Each model sees by its own image tower. The ceiling is a linear axis fitted to the values or pairs of the
tune split, in the base's image vectors. Where a value is that of a class (AwA2, PubFig, OSR), the bootstrap draws
classes: first and second of the predictions name the class, not the image.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Int

from pcclip.benchmarks.benchmark import Benchmark
from pcclip.benchmarks.relative_attributes import shipped_texts
from pcclip.config import Attribute, Config
from pcclip.embedding.stage import benchmark_vectors
from pcclip.embedding.vectors import Vectors
from pcclip.encoders.dual_encoder import Encoder
from pcclip.errors import PcclipError
from pcclip.evaluation.differences import ranking_items, verdict_items
from pcclip.evaluation.predictions import Predictions, Task
from pcclip.ranking.axes import ESTIMATORS, attribute_axis, ridge_axis
from pcclip.runs.progress import say

FOLDER = "relative"  # below the run's folder: vectors of each set
_FEWEST = 3  # different values, or decided pairs, without which no axis is fitted
Axis = Float[np.ndarray, " d"]


class Question(NamedTuple):
    """Test items of one attribute: the task, the part before the attribute in the data set's name ('' or 'PART/'), the
    items for an axis and a model, the supervised axis or None, and the names of what the bootstrap draws."""

    task: str
    part: str
    items: Callable[[Axis, str], pd.DataFrame]
    supervised: Axis | None
    units: list[str]


def check(config: Config, benchmark: Benchmark) -> None:
    """Raises PcclipError when the parameters have texts for an attribute that the set lacks."""
    for attribute, texts in config.evaluate.relative[benchmark.name].attributes.items():
        if (texts.column or attribute) not in benchmark.attributes:
            raise PcclipError(
                f"evaluate.relative.{benchmark.name}.attributes.{attribute}: {benchmark.name} has no such attribute; "
                f"it has: {', '.join(benchmark.attributes)}"
            )


def attribute_texts(config: Config, name: str) -> dict[str, Attribute]:
    """The texts of a set's attributes: from the parameters, else from texts.csv."""
    return config.evaluate.relative[name].attributes or shipped_texts(name)


def score(
    config: Config, benchmarks: Mapping[str, Benchmark], encoders: Mapping[str, Encoder], predictions: Predictions
) -> None:
    """Score every estimator of every model on every attribute of every set, and the supervised axis."""
    for name, benchmark in benchmarks.items():
        images = benchmark.only_images(config.evaluate.relative[name].max_bad)
        vectors = benchmark_vectors(config, config.home / FOLDER / name, images, encoders)
        score_set(benchmark, vectors, attribute_texts(config, name), encoders, predictions)


def score_set(
    benchmark: Benchmark,
    vectors: Vectors,
    texts: Mapping[str, Attribute],
    encoders: Mapping[str, Encoder],
    predictions: Predictions,
) -> None:
    """Score one set with the vectors of its images."""
    columns = {attribute: text.column or attribute for attribute, text in texts.items()}
    columns = {attribute: column for attribute, column in columns.items() if column in benchmark.attributes}
    say(f"{benchmark.name}: {len(vectors.ids)} images, {len(columns)} of {len(benchmark.attributes)} attributes")
    questions = _rankings if benchmark.values is not None else _decisions
    for attribute, column in columns.items():
        axes = {
            (model, estimator): attribute_axis(encoder, texts[attribute], estimator)
            for model, encoder in encoders.items()
            for estimator in ESTIMATORS
        }
        for question in questions(benchmark, vectors, column):
            dataset = f"{benchmark.name}/{question.part}{attribute}"
            for (model, estimator), axis in axes.items():
                items = question.items(axis, model)
                predictions.add(Task(question.task, f"{dataset}/{estimator}"), model, items, question.units)
            if question.supervised is not None:
                items = question.items(question.supervised, "base")
                predictions.add(Task(question.task, f"{dataset}/supervised"), "supervised", items, question.units)


def _rankings(benchmark: Benchmark, vectors: Vectors, column: str) -> Iterator[Question]:
    """The ranking of the test images by the values of an attribute; none where all values are equal.

    Where test classes are not among the tuned ones, whole classes are left out in choosing the supervised axis.
    """
    assert benchmark.values is not None
    table = benchmark.images.assign(value=benchmark.values[column])
    table = vectors.of(table[table.value.notna()])
    tune, test = (table[table["split"] == split] for split in ("tune", "test"))
    if test.value.nunique() < 2:
        return
    tuned_classes, test_classes = (
        set(benchmark.images.group[benchmark.images["split"] == split]) - {""} for split in ("tune", "test")
    )
    grouped = bool(tuned_classes) and not tuned_classes & test_classes
    supervised = None
    if (tune.groupby("group").value.first() if grouped else tune.value).nunique() >= _FEWEST:
        groups = list(tune.group) if grouped else None
        supervised, _ = ridge_axis(vectors.matrix, vectors.rows(tune["id"]), tune.value, groups)
    rows = vectors.rows(test["id"])
    units, places = list(vectors.ids), rows
    if test_classes:
        places, classes = pd.factorize(test.group)
        units = list(classes)
    yield Question(
        "relative_values",
        "",
        lambda axis, model: ranking_items(axis, vectors.seen_by(model).matrix, rows, test.value).assign(
            first=places, second=places
        ),
        supervised,
        units,
    )


def _decisions(benchmark: Benchmark, vectors: Vectors, column: str) -> Iterator[Question]:
    """The decisions on the ordered test pairs of an attribute, part by part."""
    pairs = benchmark.items[benchmark.items.attribute == column]
    pairs = pairs[vectors.has(pairs["first"], pairs["second"])]
    for part, own in pairs.groupby("part", sort=False):
        tune, test = own[own["split"] == "tune"], own[(own["split"] == "test") & (own.more != "equal")]
        if test.empty:
            continue
        rows = vectors.rows(test["first"]), vectors.rows(test["second"])
        more = (test.more == "first").to_numpy()
        yield Question(
            "relative_pairs",
            f"{part}/" if part else "",
            _items_of_pairs(vectors, *rows, more),
            _axis_of_pairs(tune, vectors),
            list(vectors.ids),
        )


def _items_of_pairs(
    vectors: Vectors, first: Int[np.ndarray, " m"], second: Int[np.ndarray, " m"], more: Bool[np.ndarray, " m"]
) -> Callable[[Axis, str], pd.DataFrame]:
    """The items of decisions on these pairs, as a function of an axis and of a model's name."""

    def items(axis: Axis, model: str) -> pd.DataFrame:
        return verdict_items(axis, vectors.seen_by(model).matrix, first, second, more)

    return items


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
