"""The public sets of stage 04: what is loaded, what is missing, and how every model is scored on each family."""

from collections.abc import Mapping
from functools import partial
from typing import Any

import pandas as pd

from pcclip.benchmarks.classification.sets import missing as missing_labelled
from pcclip.comparisons.llm import backend_identity
from pcclip.config import Config
from pcclip.encoders.diffusion import identify_teacher, missing_teacher
from pcclip.encoders.dual_encoder import Encoder
from pcclip.errors import PcclipError
from pcclip.evaluation import change_captions, class_texts, compositional, labelled, relative_attributes
from pcclip.evaluation.predictions import Predictions

Sets = dict[str, dict[str, Any]]  # family, as the block of the evaluate parameters -> name -> set


def load(config: Config) -> Sets:
    """Load every set that the parameters name. Raises PcclipError when one is missing or cannot be scored."""
    return {
        "labelled": labelled.load(config),
        "changes": change_captions.load(config),
        "relative": relative_attributes.load(config),
        "compositional": compositional.load(config),
    }


def inputs(config: Config, sets: Sets) -> dict[str, Any]:
    """Everything that the scores depend on: the content of the sets, and the models that write or score texts."""
    settings = config.evaluate
    values: dict[str, Any] = {
        "sets": {f"{family} {name}": one_set.identity() for family in sets for name, one_set in sets[family].items()}
    }
    if any(labelled_set.texts == "llm" for labelled_set in settings.labelled.values()):
        values["class_texts"] = class_texts.inputs(config.generate)
    if settings.relative:
        values["relative_texts"] = {
            name: {
                attribute: texts.model_dump() for attribute, texts in relative_attributes.texts(config, name).items()
            }
            for name in settings.relative
        }
    if settings.teacher:
        values["teacher"] = identify_teacher(settings.teacher.spec)
    if sets["compositional"] and config.generate.backend == compositional.LIKELIHOOD:
        values["likelihoods"] = backend_identity(config.generate)
    return values


def missing(config: Config) -> list[str]:
    """One line for each set or text-to-image model that the parameters name and that is missing or unusable."""
    settings, checks = config.evaluate, []
    for name, labelled_set in settings.labelled.items():
        checks.append(partial(_missing_labelled, name, labelled_set.path))
    for family, module in (
        ("changes", change_captions),
        ("relative", relative_attributes),
        ("compositional", compositional),
    ):
        checks += [partial(module.lacking, config, name) for name in getattr(settings, family)]
    if settings.teacher:
        checks.append(partial(missing_teacher, settings.teacher.spec))
    lines = []
    for check in checks:
        try:
            lines += check()
        except PcclipError as error:
            lines.append(str(error))
    return lines


def score(
    config: Config, sets: Sets, models: Mapping[str, Encoder], predictions: Predictions
) -> dict[str, pd.DataFrame]:
    """Score every model on every set, add the items to the predictions, and return further tables by file name."""
    tables = labelled.score(config, sets["labelled"], models, predictions)
    change_captions.score(config, sets["changes"], models, predictions)
    relative_attributes.score(config, sets["relative"], models, predictions)
    cost = compositional.score(config, sets["compositional"], models, predictions)
    return {
        "class_texts.parquet": tables.texts,
        "comparative.csv": tables.sweep,
        "comparative_gains.csv": tables.gains,
        "comparative_classes.csv": tables.classes,
        "comparative_pairs.csv": tables.pairs,
        "teacher.csv": cost,
    }


def _missing_labelled(name: str, path: str) -> list[str]:
    return [f"labelled set {name}: {line}" for line in missing_labelled(name, path)]
