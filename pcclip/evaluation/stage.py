"""Stage 04: compare the base with the finetuned model on held-out concepts and public sets, by the same texts.

Writes to 04_evaluate: predictions.parquet (per item), differences.csv (paired, finetuned - base, with p values),
judge.csv, teacher.csv, class_texts.parquet and, of comparative prompting, comparative.csv, comparative_gains.csv,
comparative_classes.csv and comparative_pairs.csv; and to the run's folder metrics.csv with columns task, dataset,
protocol, model, metric, value, ci_low, ci_high, n.
"""

from pathlib import Path

import pandas as pd

from pcclip.config import Config
from pcclip.data.image_set import ImageSet
from pcclip.embedding.vectors import Vectors
<<<<<<< HEAD
from pcclip.encoders import identify, load_model, saved
from pcclip.encoders.diffusion import identify_teacher, missing_teacher
from pcclip.encoders.dual_encoder import Encoder
from pcclip.errors import PcclipError
from pcclip.evaluation import change_captions as changed
from pcclip.evaluation import class_differences, class_texts, compositional, judged, labelled, rankings
from pcclip.evaluation import differences as tasks
from pcclip.evaluation import relative_attributes as relative
from pcclip.evaluation import toy_relation as relation
from pcclip.evaluation.predictions import Predictions
from pcclip.evaluation.protocols import SCORED_AS_RELEASED
from pcclip.finetuning.both_towers import BASELINE
from pcclip.finetuning.stage import FOLDER as FINETUNE
from pcclip.ranking.axes import ESTIMATORS, attribute_axis, paraphrase_axis, ridge_axis
=======
from pcclip.encoders.dual_encoder import Encoder
from pcclip.evaluation import benchmarks, models, own_images
from pcclip.evaluation.predictions import FOLDER, Predictions, summarise
>>>>>>> 4599d1a (Stage 04 loops over the run's own images and the public sets; comparative prompting keeps three variants)
from pcclip.runs.files import atomic, read_parquet, write_parquet
from pcclip.runs.progress import say
from pcclip.runs.stage import Stage

METRICS, PREDICTIONS, DIFFERENCES = "metrics.csv", "predictions.parquet", "differences.csv"
PAGE = "report.html"  # report.py writes it
COMPARATIVE, GAINS, CLASSES, PAIRS = (f"comparative{end}.csv" for end in ("", "_gains", "_classes", "_pairs"))
TEXTS, JUDGE, TEACHER = "class_texts.parquet", "judge.csv", "teacher.csv"
__all__ = ["FOLDER", "check_attributes", "evaluate", "lacking", "load_models", "predict", "read", "stage", "summarise"]
_FORMAT = 6  # a higher number computes every run's results again

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


<<<<<<< HEAD
def evaluate(
    config: Config, images: ImageSet, vectors: Vectors, comparisons: pd.DataFrame, models: dict[str, Encoder]
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Run the stage, or read it when done. `models` are those of `load_models`, `vectors` those of `own_vectors`.
=======
def lacking(config: Config) -> list[str]:
    """One line for each set and model that the parameters name and that is missing or unusable."""
    return benchmarks.missing(config) + models.lacking(config)
>>>>>>> 4599d1a (Stage 04 loops over the run's own images and the public sets; comparative prompting keeps three variants)


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
        held_out = own_images.HeldOut(config, images, vectors, comparisons)
        tables = own_images.score(held_out, encoders, predictions)
        tables |= benchmarks.score(config, sets, encoders, predictions)
        items = predictions.table()
        metrics, paired = summarise(items, config.evaluate.bootstrap, config.seed)
        tables |= {PREDICTIONS: items, DIFFERENCES: paired, f"../{METRICS}": metrics}
        for name, table in tables.items():
            _write(own_stage.folder / name, table)
        own_stage.finish(list(tables), {"predictions": len(items)})
    return read(config, f"../{METRICS}"), read(config, DIFFERENCES)


<<<<<<< HEAD
def load_models(config: Config) -> dict[str, Encoder]:
    """'base', 'finetuned' (weights averaged by evaluate.alpha), 'alpha=A' for each of evaluate.alphas, and the peers;
    'captions', trained without the teacher, where finetune.sds.baseline asks for it.

    Image towers that are equal are held once. Raises PcclipError when a peer was finetuned on other images or another
    split, so that it may have seen what is held out here.
    """
    mixed = {f"alpha={alpha:g}": alpha for alpha in config.evaluate.alphas}
    tuned = str(config.tuned_folder)
    models = {
        "base": load_model(config.model),
        "finetuned": load_model(tuned, config.evaluate.alpha),
        **{name: load_model(tuned, alpha) for name, alpha in mixed.items()},
    }
    for name, spec in config.evaluate.peers.items():
        _check_split(config, name, spec)
        models[name] = load_model(spec)
    if config.finetune.sds and config.finetune.sds.baseline:
        models[BASELINE] = load_model(str(config.tuned_folder / FINETUNE / BASELINE), config.evaluate.alpha)
    towers = {}
    for model in models.values():
        model.image_tower = towers.setdefault(model.image_fingerprint(), model.image_tower)
    return models
=======
def predict(
    config: Config, images: ImageSet, vectors: Vectors, comparisons: pd.DataFrame, encoders: dict[str, Encoder]
) -> pd.DataFrame:
    """Per-item predictions on the run's own held-out images, with predictions.COLUMNS; nothing is written."""
    predictions = Predictions()
    own_images.score(own_images.HeldOut(config, images, vectors, comparisons), encoders, predictions)
    return predictions.table()
>>>>>>> 4599d1a (Stage 04 loops over the run's own images and the public sets; comparative prompting keeps three variants)


def read(config: Config, name: str) -> pd.DataFrame:
    """Read a table of the finished stage by its file name, such as GAINS. An empty protocol is '', not missing."""
    path = config.folder / FOLDER / name
    if path.suffix == ".parquet":
        return read_parquet(path).to_pandas()
    table = pd.read_csv(path)
    return table.assign(protocol=table.protocol.fillna("")) if "protocol" in table else table


def _write(path: Path, table: pd.DataFrame) -> None:
    if path.suffix == ".parquet":
        write_parquet(path, table)
        return
    with atomic(path) as temporary:
        table.to_csv(temporary, index=False, float_format="%.6f")
