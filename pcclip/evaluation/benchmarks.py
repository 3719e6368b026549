"""The public sets of stage 04: they are loaded, and every model is scored on them, family by family."""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from pcclip.benchmarks.benchmark import Benchmark
from pcclip.benchmarks.registry import load_benchmarks, missing_benchmarks
from pcclip.benchmarks.relative_attributes import shipped_texts
from pcclip.comparisons.structures import STRUCTURES
from pcclip.config import Config
from pcclip.encoders.diffusion import identify_teacher, missing_teacher
from pcclip.encoders.dual_encoder import Encoder
from pcclip.errors import PcclipError
from pcclip.evaluation import change_captions, class_texts, compositional, labelled, relative_attributes, toy_relation
from pcclip.evaluation.predictions import Predictions

Sets = dict[str, dict[str, Benchmark]]  # by family and name
FAMILIES = ("classification", "change_captions", "relative_attributes", "compositionality")  # in the order of the rows


def load(config: Config) -> Sets:
    """Every set that the parameters name, and the sets of drawn pictures where data.source is shapes.

    Raises PcclipError when one is missing or cannot be scored.
    """
    sets = {family: load_benchmarks(config, family) for family in FAMILIES}
    for benchmark in sets["change_captions"].values():
        change_captions.check(benchmark)
    sets["compositionality"] |= toy_relation.load(config)
    return sets


def missing(config: Config) -> list[str]:
    """One line for each set or text-to-image model that the parameters name and that is missing or unusable."""
    lines = missing_benchmarks(config, FAMILIES)
    if not lines:
        try:
            load(config)
        except PcclipError as error:
            lines.append(str(error))
    return lines + (missing_teacher(config.evaluate.teacher.spec) if config.evaluate.teacher else [])


def inputs(config: Config, sets: Sets) -> dict[str, Any]:
    """Everything that the scores depend on: the content of the sets, and the models that write or score texts."""
    settings = config.evaluate
    values: dict[str, Any] = {
        "sets": {family: {name: benchmark.identity() for name, benchmark in sets[family].items()} for family in sets},
        "relative_texts": {
            f"{name}/{attribute}": texts.model_dump()
            for name in settings.relative
            for attribute, texts in shipped_texts(name).items()
        },
    }
    if any(labelled_set.texts == "llm" for labelled_set in settings.labelled.values()):
        values["class_texts"] = class_texts.inputs(config.generate)
    if settings.labelled and settings.structures:
        values["structures"] = [structure.template for structure in STRUCTURES]
    if settings.teacher:
        values["teacher"] = identify_teacher(settings.teacher.spec)
    return values


def score(
    config: Config, sets: Sets, encoders: Mapping[str, Encoder], predictions: Predictions
) -> dict[str, pd.DataFrame]:
    """Score every model on every set, add the items to the predictions, and return further tables by file name."""
    tables = labelled.score(config, sets["classification"], encoders, predictions)
    change_captions.score(config, sets["change_captions"], encoders, predictions)
    relative_attributes.score(config, sets["relative_attributes"], encoders, predictions)
    return tables | {"teacher.csv": compositional.score(config, sets["compositionality"], encoders, predictions)}
