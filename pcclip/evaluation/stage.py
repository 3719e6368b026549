"""Stage 04: compare the base with the finetuned model on held-out concepts and public sets. Both read the same texts.

Files in 04_evaluate:
    predictions.parquet   every scored item
    differences.csv       finetuned - base, paired, with p values
    specificity.csv       every attribute question against every known attribute
    class_texts.parquet   the language model's texts about classes
    comparative.csv, comparative_gains.csv   comparative prompting
    teacher.csv, published.csv, left_out.csv
In the run's folder: metrics.csv (task, dataset, protocol, model, metric, value, ci_low, ci_high, n, detectable, tied).
"""

from functools import partial

import pandas as pd

from pcclip.config import Config
from pcclip.data.image_set import ImageSet
from pcclip.data.rows import by_reason
from pcclip.embedding.vectors import Vectors
from pcclip.encoders.dual_encoder import Encoder
from pcclip.evaluation import benchmarks, left_out, models, own_images, published, specificity
from pcclip.evaluation.predictions import FOLDER, Predictions, summarise
from pcclip.runs.files import write_csv, write_parquet
from pcclip.runs.progress import begin, next_part, say
from pcclip.runs.stage import Stage, once, read_output

METRICS, PREDICTIONS, DIFFERENCES = "metrics.csv", "predictions.parquet", "differences.csv"
PAGE = "report.html"  # report.py writes it
COMPARATIVE, GAINS = "comparative.csv", "comparative_gains.csv"
TEXTS, TEACHER = "class_texts.parquet", "teacher.csv"
__all__ = ["FOLDER", "check_attributes", "evaluate", "lacking", "load_models", "read", "stage", "summarise"]
_FORMAT = 9  # raise it when results change: every run is then evaluated again

load_models, check_attributes = models.load_models, own_images.check_attributes


def stage(config: Config, images: ImageSet | None = None, sets: benchmarks.Sets | None = None) -> Stage:
    """The stage; its key is a hash of everything that the results depend on.

    Raises:
        PcclipError: an earlier stage has not finished, or a named set or model is missing.
    """
    return Stage(
        config.folder / FOLDER,
        {
            "format": _FORMAT,
            "evaluate": config.evaluate.model_dump(),
            **own_images.inputs(config, images),
            **models.inputs(config),
            **benchmarks.inputs(config, sets or benchmarks.load(config)),
        },
    )


def lacking(config: Config) -> list[str]:
    """One line for each set or model of the parameters that is missing or cannot be read."""
    return benchmarks.missing(config) + models.lacking(config)


@once
def evaluate(
    config: Config, images: ImageSet, vectors: Vectors, comparisons: pd.DataFrame, encoders: dict[str, Encoder]
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Run the stage, or read its tables when it is done.

    Args:
        vectors: of the images by each image tower in `encoders` (embedding.stage.own_vectors).
        comparisons: the table of stage 01.
        encoders: by name, from `load_models`.

    Returns:
        Metrics, one row for each task, dataset, protocol, model and metric; and paired differences, finetuned - base,
        as stats.metrics.compare gives them.

    Raises:
        PcclipError: `stage` raises it, an attribute is missing, or another image tower made the vectors.
    """
    sets = benchmarks.load(config)
    evaluation = stage(config, images, sets)
    if evaluation.done():
        say(f"{FOLDER}: done already, read from {evaluation.folder}")
        return read(config, f"../{METRICS}"), read(config, DIFFERENCES)
    check_attributes(config, images)
    vectors.check(encoders)
    with evaluation.work():
        (config.folder / METRICS).unlink(missing_ok=True)  # a killed stage must not leave the figures of another one
        predictions = Predictions()
        begin("04", 1 + sum(map(len, sets.values())))
        next_part(images.name)
        held_out = own_images.HeldOut(config, images, vectors, comparisons)
        own_images.score(held_out, encoders, predictions)
        tables = benchmarks.score(config, sets, encoders, predictions)
        begin("", 0)
        excluded = left_out.of_sets(config, sets)
        items = predictions.table()
        metrics, paired = summarise(items, config.evaluate.bootstrap, config.seed)
        tables[specificity.TABLE] = specificity.score(held_out, encoders)
        specific = specificity.as_metrics(tables[specificity.TABLE], images.name)
        metrics = pd.concat([metrics, specific[list(metrics.columns)]], ignore_index=True)
        tables |= {PREDICTIONS: items, DIFFERENCES: paired, left_out.TABLE: excluded, f"../{METRICS}": metrics}
        if config.evaluate.published:
            tables[published.TABLE] = published.beside(metrics, config.evaluate.published)
        for name, table in tables.items():
            write = write_parquet if name.endswith(".parquet") else partial(write_csv, float_format="%.6f")
            write(evaluation.folder / name, table)
        evaluation.finish(list(tables), {"predictions": len(items), "left_out": by_reason(excluded)})
    return read(config, f"../{METRICS}"), read(config, DIFFERENCES)


def read(config: Config, name: str) -> pd.DataFrame:
    """Read a table of the finished stage by its file name, such as GAINS. Raises PcclipError as `read_output`."""
    return read_output(config.folder / FOLDER, name)
