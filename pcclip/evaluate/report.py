"""Stage 04: base beside finetuned on held-out concepts, the same texts for both; per-item predictions kept.

Writes 04_evaluate/predictions.parquet and differences.csv (paired, finetuned minus base), and metrics.csv in the run's
folder: task, dataset, model, metric, value, ci_low, ci_high, n.
"""

from collections.abc import Callable

import numpy as np
import pandas as pd

from pcclip import statistics
from pcclip.axes import ESTIMATORS, attribute_axis, paraphrase_axis
from pcclip.comparisons import generate, verdicts
from pcclip.comparisons.attributes import load_bank
from pcclip.comparisons.llm import Template
from pcclip.data import ImageSet
from pcclip.embed import FOLDER as EMBED
from pcclip.embed import Vectors, shared_inputs
from pcclip.errors import PcclipError
from pcclip.evaluate import tasks
from pcclip.finetune.trainer import FOLDER as FINETUNE
from pcclip.models import load_model
from pcclip.models.encoder import DualEncoder
from pcclip.params import Config
from pcclip.progress import say, track
from pcclip.stage import Stage, atomic, built_on, read_parquet, write_parquet

FOLDER, METRICS, PREDICTIONS, DIFFERENCES = "04_evaluate", "metrics.csv", "predictions.parquet", "differences.csv"
_FORMAT = 1
_MEASURES = {"accuracy": statistics.accuracy, "spearman": statistics.spearman,
             "pairwise_accuracy": statistics.pairwise_accuracy}
_METRICS_OF = {"ranking": ("spearman", "pairwise_accuracy")}
_KEYS = ["task", "dataset"]


def stage(config: Config, images: ImageSet | None = None) -> Stage:
    """Raises PcclipError when an earlier stage has not finished."""
    asks = {"attributes": load_bank(config.generate.attributes).hash} if config.generate.attributes else {}
    return Stage(config.folder / FOLDER, {
        "format": _FORMAT, "evaluate": config.evaluate.model_dump(), **asks,
        **built_on((config.source_folder / generate.FOLDER, config.source_folder / EMBED, config.folder / FINETUNE),
                   shared_inputs(config, images))})


def evaluate(
    config: Config, images: ImageSet, vectors: Vectors, comparisons: pd.DataFrame, models: dict[str, DualEncoder]
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Run the stage, or read it when done. `models` are those of `load_models`.

    Returns metrics (one row per task, dataset, model, metric) and paired differences, finetuned minus base.
    """
    this = stage(config, images)
    if this.done():
        say(f"{FOLDER}: done already, read from {this.folder}")
        return pd.read_csv(config.folder / METRICS), pd.read_csv(this.folder / DIFFERENCES)
    check_attributes(config, images)
    with this.work():
        (config.folder / METRICS).unlink(missing_ok=True)
        predictions = predict(config, images, vectors, comparisons, models)
        metrics, paired = summarise(predictions, config.evaluate.bootstrap, config.seed)
        write_parquet(this.folder / PREDICTIONS, predictions)
        for table, path in ((paired, this.folder / DIFFERENCES), (metrics, config.folder / METRICS)):
            with atomic(path) as temporary:
                table.to_csv(temporary, index=False, float_format="%.6f")
        this.finish([PREDICTIONS, DIFFERENCES, f"../{METRICS}"], {"predictions": len(predictions)})
    return pd.read_csv(config.folder / METRICS), pd.read_csv(this.folder / DIFFERENCES)


def load_models(config: Config) -> dict[str, DualEncoder]:
    """'base', 'finetuned' (weights averaged by evaluate.alpha), and 'alpha=A' for each of evaluate.alphas."""
    mixed = {f"alpha={alpha:g}": alpha for alpha in config.evaluate.alphas}
    return {"base": load_model(config.model), "finetuned": load_model(str(config.folder), config.evaluate.alpha),
            **{name: load_model(str(config.folder), alpha) for name, alpha in mixed.items()}}


def read_predictions(config: Config) -> pd.DataFrame:
    return read_parquet(config.folder / FOLDER / PREDICTIONS).to_pandas()


def check_attributes(config: Config, images: ImageSet) -> None:
    """Raise PcclipError when an attribute is asked for that the image set does not have."""
    for attribute, texts in config.evaluate.attributes.items():
        if (texts.column or attribute) not in images.attributes:
            known = ", ".join(images.attributes) or "none"
            raise PcclipError(f"evaluate.attributes.{attribute}: {images.name} has no such attribute; it has: {known}")


def predict(config, images, vectors, comparisons, models) -> pd.DataFrame:
    """Per-item predictions of every task for every model: columns task, dataset, model, item and those of tasks.py."""
    name, found = images.name, []
    table = vectors.of(images.held_out)
    sets = {f"{name}/template": generate.template_pairs(table, config.evaluate.pairs, config.seed)}
    written = generate.kept(comparisons, "held_out")
    written = written[vectors.has(written["first"], written["second"]) & (written.swapped != "").to_numpy()]
    if len(written) and set(written.model_hash) != {Template.identity}:
        sets[f"{name}/llm"] = written
    labelled = table[table.label.notna()]

    def add(task: str, dataset: str, model: str, items: pd.DataFrame):
        items = items.assign(task=task, dataset=dataset, model=model, item=np.arange(len(items)))
        found.append(items.assign(first=[vectors.ids[i] for i in items["first"]],
                                  second=[vectors.ids[i] for i in items["second"]]))

    for which, model in track(models.items(), len(models), "models"):
        for dataset, pairs in sets.items():
            classified, ordered = tasks.differences(
                model, vectors.matrix, vectors.rows(pairs["first"]), vectors.rows(pairs["second"]),
                list(pairs.difference), list(pairs.swapped))
            add("difference_classification", dataset, which, classified)
            add("difference_order", dataset, which, ordered)
        if images.classes and len(labelled):
            add("zero_shot", name, which, tasks.zero_shot_items(
                model, vectors.matrix, vectors.rows(labelled["id"]), list(labelled.label), images.classes,
                config.evaluate.zero_shot_prompt))
        _add_rankings(config, images.name, table, vectors, which, model, add)
        if config.generate.attributes:
            _add_verdicts(config, images.name, vectors, which, model, add)
    columns = ["task", "dataset", "model", "item", "first", "second", "score", "reference", "correct"]
    return pd.concat(found, ignore_index=True)[columns].astype({"correct": "boolean"})


def summarise(predictions: pd.DataFrame, draws: int, seed: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Metrics with 95% intervals, and paired differences finetuned - base, from per-item predictions."""
    metrics, paired = [], []
    for (task, dataset), items in predictions.groupby(_KEYS, sort=False):
        for metric in _METRICS_OF.get(task, ("accuracy",)):
            measure: Callable = _MEASURES[metric]
            found = {which: measure(part, draws, seed) for which, part in items.groupby("model", sort=False)}
            for which, estimate in found.items():
                low, high = estimate.interval
                metrics.append({"task": task, "dataset": dataset, "model": which, "metric": metric,
                                "value": estimate.value, "ci_low": low, "ci_high": high, "n": estimate.n})
            if {"base", "finetuned"} <= set(found):
                value, low, high = statistics.paired_difference(found["finetuned"], found["base"])
                paired.append({"task": task, "dataset": dataset, "metric": metric, "finetuned_minus_base": value,
                               "ci_low": low, "ci_high": high, "n": found["base"].n})
    return pd.DataFrame(metrics), pd.DataFrame(paired)


def _add_rankings(config, name, table, vectors, which, model, add) -> None:
    for attribute, texts in config.evaluate.attributes.items():
        column = texts.column or attribute
        known = table[table[column].notna()]
        if known[column].nunique() < 2:
            continue
        rows = vectors.rows(known["id"])
        for estimator in ESTIMATORS:
            items = tasks.ranking_items(attribute_axis(model, texts, estimator), vectors.matrix, rows, known[column])
            add("ranking", f"{name}/{attribute}/{estimator}", which, items)


def _add_verdicts(config, name, vectors, which, model, add) -> None:
    """Agreement with the language model's own sure verdicts on held-out pairs, by trained and by held-out wordings."""
    bank, table = load_bank(config.generate.attributes), verdicts.load(config)
    sure = table[(table.split == "held_out") & table.verdict.isin(["first", "second"])]
    sure = sure[vectors.has(sure["first"], sure["second"])]
    for attribute in bank.attributes:
        part = sure[sure.attribute == attribute.name]
        for wording, paraphrases in (("trained_wording", attribute.paraphrases), ("new_wording", attribute.held_out)):
            if len(part) and paraphrases:
                axis = paraphrase_axis(model, paraphrases)
                items = tasks.verdict_items(axis, vectors.matrix, vectors.rows(part["first"]),
                                            vectors.rows(part["second"]), (part.verdict == "first").to_numpy())
                add("verdict_agreement", f"{name}/{attribute.name}/{attribute.split}/{wording}", which, items)
