"""Stage 04: compare the base with the finetuned model on held-out concepts and public sets, by the same texts.

Writes to 04_evaluate: predictions.parquet (per item), differences.csv (paired, finetuned - base, with p values),
teacher.csv, specificity.csv (every question against every truth), published.csv (evaluate.published), left_out.csv,
class_texts.parquet and, of comparative prompting, comparative.csv and comparative_gains.csv; and to the run's folder
metrics.csv with columns task, dataset, protocol, model, metric, value, ci_low, ci_high, n, detectable, tied.
"""

from pathlib import Path

import pandas as pd

from pcclip.config import Config
from pcclip.data.image_set import ImageSet
from pcclip.data.rows import by_reason
from pcclip.embedding.vectors import Vectors
from pcclip.encoders.dual_encoder import Encoder
from pcclip.evaluation import benchmarks, left_out, models, own_images, published, specificity
from pcclip.evaluation.predictions import FOLDER, Predictions, summarise
from pcclip.runs.files import atomic, write_parquet
from pcclip.runs.progress import begin, next_part, say
from pcclip.runs.stage import Stage, read_output

METRICS, PREDICTIONS, DIFFERENCES = "metrics.csv", "predictions.parquet", "differences.csv"
PAGE = "report.html"  # report.py writes it
COMPARATIVE, GAINS = "comparative.csv", "comparative_gains.csv"
TEXTS, TEACHER = "class_texts.parquet", "teacher.csv"
__all__ = ["FOLDER", "check_attributes", "evaluate", "lacking", "load_models", "predict", "read", "stage", "summarise"]
_FORMAT = 9  # a higher number computes every run's results again

load_models, check_attributes = models.load_models, own_images.check_attributes


def stage(config: Config, images: ImageSet | None = None, sets: benchmarks.Sets | None = None) -> Stage:
    """Describe the stage, with the key made of all that its results depend on.

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
    """One line for each set and model that the parameters name and that is missing or unusable."""
    return benchmarks.missing(config) + models.lacking(config)


def evaluate(
    config: Config, images: ImageSet, vectors: Vectors, comparisons: pd.DataFrame, encoders: dict[str, Encoder]
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Run the stage, or read its tables when it is done.

    Args:
        vectors: of the images, by every image tower among the encoders (embedding.stage.own_vectors).
        comparisons: the table of stage 01.
        encoders: of `load_models`, by name.

    Returns:
        Metrics, one row for each task, dataset, protocol, model and metric; and paired differences, finetuned - base,
        as stats.metrics.compare gives them.

    Raises:
        PcclipError: an error of `stage`, a missing attribute, or vectors of other image towers.
    """
    sets = benchmarks.load(config)
    own_stage = stage(config, images, sets)
    if own_stage.done():
        say(f"{FOLDER}: done already, read from {own_stage.folder}")
        return read(config, f"../{METRICS}"), read(config, DIFFERENCES)
    check_attributes(config, images)
    vectors.check(encoders)
    with own_stage.work():
        (config.folder / METRICS).unlink(missing_ok=True)
        predictions = Predictions()
        begin("04", 1 + sum(map(len, sets.values())))
        next_part(images.name)
        held_out = own_images.HeldOut(config, images, vectors, comparisons)
        own_images.score(held_out, encoders, predictions)
        tables = benchmarks.score(config, sets, encoders, predictions)
        begin("", 0)
        unused = left_out.of_sets(config, sets)
        items = predictions.table()
        metrics, paired = summarise(items, config.evaluate.bootstrap, config.seed)
        tables[specificity.TABLE] = specificity.score(held_out, encoders)
        specific = specificity.as_metrics(tables[specificity.TABLE], images.name)
        metrics = pd.concat([metrics, specific[list(metrics.columns)]], ignore_index=True)
        tables |= {PREDICTIONS: items, DIFFERENCES: paired, left_out.TABLE: unused, f"../{METRICS}": metrics}
        if config.evaluate.published:
            tables[published.TABLE] = published.beside(metrics, config.evaluate.published)
        for name, table in tables.items():
            _write(own_stage.folder / name, table)
        own_stage.finish(list(tables), {"predictions": len(items), "left_out": by_reason(unused)})
    return read(config, f"../{METRICS}"), read(config, DIFFERENCES)


def predict(
    config: Config, images: ImageSet, vectors: Vectors, comparisons: pd.DataFrame, encoders: dict[str, Encoder]
) -> pd.DataFrame:
    """Per-item predictions on the run's own held-out images, with predictions.COLUMNS; nothing is written."""
    predictions = Predictions()
    own_images.score(own_images.HeldOut(config, images, vectors, comparisons), encoders, predictions)
    return predictions.table()


def read(config: Config, name: str) -> pd.DataFrame:
    """Read a table of the finished stage by its file name, such as GAINS. Raises PcclipError as `read_output`."""
    return read_output(config.folder / FOLDER, name)


def _write(path: Path, table: pd.DataFrame) -> None:
    if path.suffix == ".parquet":
        write_parquet(path, table)
        return
    with atomic(path) as temporary:
        table.to_csv(temporary, index=False, float_format="%.6f")
