"""Stage 04: base beside finetuned on held-out concepts, the same texts for both; per-item predictions kept.

Writes 04_evaluate/predictions.parquet, differences.csv (paired, finetuned minus base, with p values), judge.csv,
teacher.csv and, of labelled sets (labelled.Told), class_texts.parquet, comparative.csv, comparative_gains.csv,
comparative_classes.csv and comparative_pairs.csv; and metrics.csv in the run's folder with columns task, dataset,
protocol, model, metric, value, ci_low, ci_high, n.
"""

from dataclasses import dataclass
from functools import partial

import numpy as np
import pandas as pd

from pcclip.benchmarks import change_captions as changes
from pcclip.benchmarks.classification import LabelledSet
from pcclip.benchmarks.classification.sets import missing as missing_set
from pcclip.benchmarks.compositionality import CompositionalSet
from pcclip.benchmarks.relative_attributes import RelativeSet
from pcclip.comparisons import stage as generate
from pcclip.comparisons import verdicts
from pcclip.comparisons.attributes import load_bank
from pcclip.comparisons.llm import Template, backend_identity
from pcclip.comparisons.prompts import load_prompt
from pcclip.comparisons.sentences import sides
from pcclip.config import Config
from pcclip.data.image_set import ImageSet
from pcclip.embedding.stage import FOLDER as EMBED
from pcclip.embedding.stage import shared_inputs
from pcclip.embedding.vectors import Vectors
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
from pcclip.runs.files import atomic, read_parquet, write_parquet
from pcclip.runs.progress import say, track
from pcclip.runs.stage import Stage, built_on, read_manifest
from pcclip.stats import metrics as statistics

FOLDER, METRICS, PREDICTIONS, DIFFERENCES = "04_evaluate", "metrics.csv", "predictions.parquet", "differences.csv"
PAGE = "report.html"  # html.py writes it
SWEEP, GAINS, CLASSES, WHY = (f"comparative{end}.csv" for end in ("", "_gains", "_classes", "_pairs"))
TEXTS, COST, TEACHER = "class_texts.parquet", "judge.csv", "teacher.csv"
_FORMAT = 5


@dataclass(frozen=True)
class Sets:
    """The sets that the parameters name beside the run's own images, by name."""

    labelled: dict[str, LabelledSet]
    changes: dict[str, changes.ChangeSet]
    relative: dict[str, RelativeSet]
    compositional: dict[str, CompositionalSet]


def load_sets(config: Config) -> Sets:
    """Raises PcclipError when one is not there, or not fit to be scored."""
    return Sets(labelled.load(config), changed.load(config), relative.load(config), compositional.load(config))


def stage(config: Config, images: ImageSet | None = None, sets: Sets | None = None) -> Stage:
    """Raises PcclipError when an earlier stage has not finished, or a named set or model is not there."""
    asks = {"attributes": load_bank(config.generate.attributes).hash} if config.generate.attributes else {}
    settings = config.evaluate
    if settings.judge or any(s.texts == "llm" for s in settings.labelled.values()):
        prompts = [load_prompt("class_differences").hash, load_prompt("describe_class", slots=("first",)).hash]
        sampling = config.generate.model_dump(include={"temperature", "top_p", "max_tokens", "min_yield"})
        asks["language_model"] = [
            backend_identity(config.generate),
            prompts,
            sampling,
            class_texts.FORMAT,
            judged.FORMAT,
        ]
    if settings.relative:
        asks["relative_texts"] = {
            name: {attribute: one.model_dump() for attribute, one in relative.texts(config, name).items()}
            for name in settings.relative
        }
    if settings.teacher:
        asks["teacher"] = identify_teacher(settings.teacher.spec)
    unused = {"teacher"} if settings.teacher is None else set()  # older runs stay done
    if config.finetune.sds and config.finetune.sds.baseline:
        asks["baseline"] = True
    sets = sets or load_sets(config)
    if sets.compositional and config.generate.backend == compositional.LIKELIHOOD:
        asks["likelihoods"] = backend_identity(config.generate)
    given = {
        **sets.labelled,
        **sets.changes,
        **{f"relative {name}": one for name, one in sets.relative.items()},
        **sets.compositional,
    }
    return Stage(
        config.folder / FOLDER,
        {
            "format": _FORMAT,
            "evaluate": settings.model_dump(exclude=unused),
            **asks,
            "sets": {name: found.identity() for name, found in given.items()},
            "peers": {name: identify(spec) for name, spec in settings.peers.items()},
            **built_on(
                (config.source_folder / generate.FOLDER, config.source_folder / EMBED, config.tuned_folder / FINETUNE),
                shared_inputs(config, images),
            ),
        },
    )


def evaluate(
    config: Config, images: ImageSet, vectors: Vectors, comparisons: pd.DataFrame, models: dict[str, Encoder]
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Run the stage, or read it when done. `models` are those of `load_models`, `vectors` those of `own_vectors`.

    Returns metrics (one row per task, dataset, protocol, model, metric) and paired differences, finetuned minus base,
    as `statistics.compare` gives them.
    """
    sets = load_sets(config)
    this = stage(config, images, sets)
    if this.done():
        say(f"{FOLDER}: done already, read from {this.folder}")
        return _read(config.folder / METRICS), _read(this.folder / DIFFERENCES)
    check_attributes(config, images)
    vectors.check(models)
    with this.work():
        (config.folder / METRICS).unlink(missing_ok=True)
        predictions, cost = _predicted(config, images, vectors, comparisons, models)
        told = labelled.score(config, sets.labelled, models, predictions)
        changed.score(config, sets.changes, models, predictions)
        relative.score(config, sets.relative, models, predictions)
        matched = compositional.score(config, sets.compositional, models, predictions)
        items = predictions.table()
        metrics, paired = summarise(items, config.evaluate.bootstrap, config.seed)
        for name, table in ((PREDICTIONS, items), (TEXTS, told.texts)):
            write_parquet(this.folder / name, table)
        for table, path in (
            (paired, this.folder / DIFFERENCES),
            (metrics, config.folder / METRICS),
            (told.sweep, this.folder / SWEEP),
            (told.gains, this.folder / GAINS),
            (told.classes, this.folder / CLASSES),
            (told.pairs, this.folder / WHY),
            (cost, this.folder / COST),
            (matched, this.folder / TEACHER),
        ):
            with atomic(path) as temporary:
                table.to_csv(temporary, index=False, float_format="%.6f")
        this.finish(
            [PREDICTIONS, DIFFERENCES, SWEEP, GAINS, CLASSES, WHY, TEXTS, COST, TEACHER, f"../{METRICS}"],
            {"predictions": len(items)},
        )
    return _read(config.folder / METRICS), _read(this.folder / DIFFERENCES)


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


def lacking(config: Config) -> list[str]:
    """One line for each labelled set, other set and peer that is named and is not there or cannot be used."""
    asked, lines = config.evaluate, []
    looks = [
        lambda name=name, path=one.path: [f"labelled set {name}: {line}" for line in missing_set(name, path)]
        for name, one in asked.labelled.items()
    ]
    looks += [partial(changed.lacking, config, name) for name in asked.changes]
    looks += [partial(relative.lacking, config, name) for name in asked.relative]
    looks += [partial(compositional.lacking, config, name) for name in asked.compositional]
    looks += [partial(missing_teacher, asked.teacher.spec)] if asked.teacher else []
    looks += [lambda spec=spec: identify(spec) and [] for spec in asked.peers.values()]
    for look in looks:
        try:
            lines += look()
        except PcclipError as error:
            lines.append(str(error))
    return lines


def _check_split(config: Config, name: str, spec: str) -> None:
    """Raise PcclipError when the run of a peer had other images or another seed, and so another split."""
    folder = saved.folder_of(spec)
    manifest = folder and read_manifest(folder)
    told = manifest["inputs"] if manifest else {}
    for key, value in shared_inputs(config, None).items():
        if key in ("images", "seed") and told.get(key, value) != value:
            raise PcclipError(
                f"evaluate.peers.{name}: {spec} was finetuned with other {key}, and may have seen what "
                "is held out here; finetune it on this run's split"
            )


def read_predictions(config: Config) -> pd.DataFrame:
    return read_parquet(config.folder / FOLDER / PREDICTIONS).to_pandas()


def read_sweep(config: Config) -> pd.DataFrame:
    """The comparative-prompting sweep of the labelled sets: what was tried on the tune images, and what was chosen."""
    return _read(config.folder / FOLDER / SWEEP)


def read_gains(config: Config) -> pd.DataFrame:
    """Comparative against plain prompting, tested, for each model (gains.tested)."""
    return _read(config.folder / FOLDER / GAINS)


def read_classes(config: Config) -> pd.DataFrame:
    """Where comparing helps and where it hurts (gains.by_class), by corrected form and model."""
    return _read(config.folder / FOLDER / CLASSES)


def read_why(config: Config) -> pd.DataFrame:
    """Whether the text of each pair of classes points where their images differ (gains.by_pair), by model."""
    return _read(config.folder / FOLDER / WHY)


def read_cost(config: Config) -> pd.DataFrame:
    """What the judge cost; empty without one."""
    return _read(config.folder / FOLDER / COST)


def read_teacher(config: Config) -> pd.DataFrame:
    """What evaluate.teacher cost on each compositional set (denoising.COLUMNS)."""
    return _read(config.folder / FOLDER / TEACHER)


def check_attributes(config: Config, images: ImageSet) -> None:
    """Raise PcclipError when an attribute is asked for that the image set does not have."""
    for attribute, texts in config.evaluate.attributes.items():
        if (texts.column or attribute) not in images.attributes:
            known = ", ".join(images.attributes) or "none"
            raise PcclipError(f"evaluate.attributes.{attribute}: {images.name} has no such attribute; it has: {known}")


def predict(config, images, vectors, comparisons, models) -> pd.DataFrame:
    """Per-item predictions of the run's own held-out images, as predictions.Predictions has them.

    Each model sees the images by its own image tower (vectors.seen_by).
    """
    return _predicted(config, images, vectors, comparisons, models)[0].table()


def summarise(predictions: pd.DataFrame, draws: int, seed: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Metrics with 95% intervals, and paired differences finetuned - base, from per-item predictions."""
    both = {"base", "finetuned"} <= set(predictions.model)
    return rankings.measured(predictions, draws, seed), (
        statistics.compare(predictions, "finetuned", "base", draws, seed) if both else pd.DataFrame(columns=["task"])
    )


def _predicted(config, images, vectors, comparisons, models) -> tuple[Predictions, pd.DataFrame]:
    """Every task on the run's own held-out images, for every model; and what a judge cost."""
    name, predictions = images.name, Predictions()
    table = vectors.of(images.held_out)
    sets = _pair_sets(config, name, table, vectors, comparisons)
    known = table[table.label.notna()]
    for which, model in track(models.items(), len(models), "models"):
        own = vectors.seen_by(which)
        for (dataset, protocol), pairs in sets.items():
            rows = {side: own.rows(pairs[side]) for side in ("first", "second")}
            for task, items in class_differences.difference_items(
                model.encode_texts, own.matrix, pairs.assign(**rows)
            ).items():
                if protocol != "as_released" or task in SCORED_AS_RELEASED:
                    predictions.add(task, dataset, which, items, own.ids, protocol)
        if images.classes and len(known):
            predictions.add(
                "zero_shot",
                name,
                which,
                tasks.zero_shot_items(
                    model,
                    own.matrix,
                    own.rows(known["id"]),
                    list(known.label),
                    images.classes,
                    config.evaluate.zero_shot_prompt,
                ),
                own.ids,
            )
        _add_rankings(config, name, table, own, which, model, predictions)
        relation.probe(config, images, own, which, model, predictions)
        if config.generate.attributes:
            _add_verdicts(config, name, own, which, model, predictions)
    _add_ceilings(config, images, table, vectors, predictions)
    return predictions, _judged(config, sets, images, vectors, models, predictions)


def _pair_sets(config, name, table, vectors, comparisons) -> dict[tuple[str, str], pd.DataFrame]:
    """The held-out pairs with their sentences and swapped twins, by data set and protocol.

    They are template sentences and what the language model wrote. CUB's written ones have the released protocol too:
    five draws of 5000 pairs.
    """
    sets = {(f"{name}/template", ""): generate.template_pairs(table, config.evaluate.pairs, config.seed)}
    written = generate.kept(comparisons, "held_out")
    written = written[vectors.has(written["first"], written["second"]) & (written.swapped != "").to_numpy()]
    if len(written) and set(written.model_hash) != {Template.identity}:
        sets[f"{name}/llm", ""] = written
        if name == "cub":
            sets[f"{name}/llm", "as_released"] = class_differences.given_pairs(written, "as_released")
    return sets


def _ranked(config: Config, table: pd.DataFrame):
    """Attribute, its texts, its column, and the images whose value is known, where these differ."""
    for attribute, texts in config.evaluate.attributes.items():
        column = texts.column or attribute
        known = table[table[column].notna()]
        if known[column].nunique() >= 2:
            yield attribute, texts, column, known


def _add_rankings(config, name, table, vectors, which, model, predictions) -> None:
    for attribute, texts, column, known in _ranked(config, table):
        rows = vectors.rows(known["id"])
        for estimator in ESTIMATORS:
            items = tasks.ranking_items(attribute_axis(model, texts, estimator), vectors.matrix, rows, known[column])
            predictions.add("ranking", f"{name}/{attribute}/{estimator}", which, items, vectors.ids)


def _add_ceilings(config, images, table, vectors, predictions) -> None:
    """The ranking by an axis fitted to the true values of the training images: what no text is expected to beat.

    It is of the base's image vectors, whatever image towers the other rows see by.
    """
    done = set()
    for attribute, _, column, known in _ranked(config, table):
        taught = vectors.of(images.train[images.train[column].notna()])
        if column in done or taught[column].nunique() < 3:
            continue
        done.add(column)
        values = taught[column].to_numpy(dtype=float)
        values = np.log(values) if (values > 0).all() else values
        axis, _ = ridge_axis(vectors.matrix, vectors.rows(taught["id"]), values, list(taught.concept))
        items = tasks.ranking_items(axis, vectors.matrix, vectors.rows(known["id"]), known[column])
        predictions.add("ranking", f"{images.name}/{attribute}/supervised", "supervised", items, vectors.ids)


def _judged(config, sets, images, vectors, models, predictions) -> pd.DataFrame:
    """Ask the language model which image each of some held-out sentences is about, and score all models on the same.

    The sentences are those that 01 had written, where there are any: a template repeats the caption. Returns the cost.
    """
    settings = config.evaluate.judge
    if settings is None:
        return pd.DataFrame(columns=["judge"])
    from pcclip.evaluation import llm_judge as judge

    (source, _), pairs = next(reversed([item for item in sets.items() if item[0][1] == ""]))
    pairs = pairs.head(settings.pairs)
    dataset = f"{source}, first {len(pairs)}"
    about = [sides(text)[0].removeprefix("shows ") for text in pairs.difference]
    prices = None if settings.price_in is None else (settings.price_in, settings.price_out)
    first, second = vectors.rows(pairs["first"]), vectors.rows(pairs["second"])
    captions = images.table.set_index("id").caption
    ask, shown = (
        (judge.judge_images, vectors.paths)
        if settings.sees == "images"
        else (judge.judge_captions, [captions.get(image, "") for image in vectors.ids])
    )
    items, cost = ask(
        config.generate, first, second, shown, about, np.ones(len(pairs), dtype=bool), config.home / FOLDER, prices
    )
    predictions.add("difference_order", dataset, "judge", items, vectors.ids)
    for which, model in models.items():
        _, ordered = tasks.differences(
            model, vectors.seen_by(which).matrix, first, second, list(pairs.difference), list(pairs.swapped)
        )
        predictions.add("difference_order", dataset, which, ordered, vectors.ids)
    return cost


def _add_verdicts(config, name, vectors, which, model, predictions) -> None:
    """Agreement with the language model's own sure verdicts on held-out pairs, by trained and by held-out wordings."""
    bank, table = load_bank(config.generate.attributes), verdicts.load(config)
    sure = table[(table.split == "held_out") & table.verdict.isin(["first", "second"])]
    sure = sure[vectors.has(sure["first"], sure["second"])]
    for attribute in bank.attributes:
        part = sure[sure.attribute == attribute.name]
        for wording, paraphrases in (("trained_wording", attribute.paraphrases), ("new_wording", attribute.held_out)):
            if len(part) and paraphrases:
                axis = paraphrase_axis(model, paraphrases)
                items = tasks.verdict_items(
                    axis,
                    vectors.matrix,
                    vectors.rows(part["first"]),
                    vectors.rows(part["second"]),
                    (part.verdict == "first").to_numpy(),
                )
                predictions.add(
                    "verdict_agreement",
                    f"{name}/{attribute.name}/{attribute.split}/{wording}",
                    which,
                    items,
                    vectors.ids,
                )


def _read(path) -> pd.DataFrame:
    """A table of this stage. An empty protocol is text, not a missing number."""
    table = pd.read_csv(path)
    return table.assign(protocol=table.protocol.fillna("")) if "protocol" in table else table
