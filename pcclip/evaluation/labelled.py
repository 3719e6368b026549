"""Labelled sets in stage 04: every task of PC-CLIP's evaluation, as released and corrected, for all models alike.

Image vectors are cached once per set and image tower, and every model sees by its own (Vectors.seen_by). What is chosen
is chosen on the set's tune images: confused classes on one half of them, alpha on the other. Texts about classes are
templates, or are written by the run's language model and journalled.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from itertools import product

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from pcclip.benchmarks.classification import LabelledSet, awa2
from pcclip.benchmarks.classification.sets import folder_of, load_labelled
from pcclip.comparisons.llm import Template, backend_identity, start_backend
from pcclip.config import Config, Labelled
from pcclip.embedding.stage import embed_pictures
from pcclip.embedding.vectors import Vectors
from pcclip.encoders.dual_encoder import Encoder
from pcclip.errors import PcclipError
from pcclip.evaluation import class_differences, class_texts, comparative, templates, zero_shot
from pcclip.evaluation import linear_probe as probe
from pcclip.evaluation.differences import difference_items
from pcclip.evaluation.predictions import Predictions
from pcclip.evaluation.protocols import PROTOCOLS, SCORED_AS_RELEASED
from pcclip.runs.progress import say

FOLDER = "labelled"  # below the run's folder: vectors of each set, and the journals of texts about classes
_RELEASED_SEEDS = range(5)  # of the linear probe
_SWEEP = ["dataset", "form", "protocol", *comparative.SWEEP]


@dataclass(frozen=True)
class Ready:
    """A set with everything its tasks read."""

    name: str
    settings: Labelled
    images: LabelledSet
    vectors: Vectors
    tune: tuple[Int[np.ndarray, " t"], Int[np.ndarray, " t"]]  # rows of the vectors, and each one's class
    test: tuple[Int[np.ndarray, " m"], Int[np.ndarray, " m"]]

    def seen_by(self, which: str) -> Float[np.ndarray, "n d"]:
        """The image vectors of this model."""
        return self.vectors.seen_by(which).matrix

    @property
    def unseen(self) -> bool:
        """Whether tune and test images are of different classes by the set's own splits, as AwA2's are.

        A small draw of another set, or one without tune images, can look the same; its classes are all candidates.
        """
        return self.name == "awa2"


@dataclass(frozen=True)
class Told:
    """What is told of the labelled sets beside the predictions.

    Attributes:
        sweep: the accuracy at each alpha of comparative prompting (_SWEEP); `chosen` marks the alpha that was used.
        texts: about classes: dataset, first, second or '', text, swapped or '', source, verdict.
        gains: comparative against plain prompting, tested (comparative.TESTED).
        classes: gains by class, for each corrected form and model (dataset, form, model and comparative.BY_CLASS).
        pairs: gains by chosen pair, for each corrected form and model (dataset, form, model and comparative.BY_PAIR).
    """

    sweep: pd.DataFrame
    texts: pd.DataFrame
    gains: pd.DataFrame
    classes: pd.DataFrame
    pairs: pd.DataFrame


def load(config: Config) -> dict[str, LabelledSet]:
    """The labelled sets of the parameters. Raises PcclipError when one is not there."""
    return {
        name: load_labelled(name, settings.path, settings.limit, settings.tune_limit, config.seed)
        for name, settings in config.evaluate.labelled.items()
    }


def score(
    config: Config, sets: Mapping[str, LabelledSet], models: Mapping[str, Encoder], predictions: Predictions
) -> Told:
    """Score every model on every labelled set, and tell what was tried, written and gained."""
    texts, found = [], {name: [] for name in ("sweep", "items", "classes", "pairs")}
    for name, images in sets.items():
        ready = _ready(config, name, images, models)
        say(f"{name}: {len(ready.test[0])} test and {len(ready.tune[0])} tune images, {len(images.classes)} classes")
        tasks, described, differences = ready.settings.tasks, None, _no_pairs()
        if "extended" in tasks:
            described, told = _descriptions(config, ready, models["base"])
            texts.append(told.assign(dataset=name))
        if {"differences", "comparative", "distances"} & set(tasks):
            differences, released = _class_pairs(config, ready, models)
            texts += [table.assign(dataset=name) for table in (differences, released)]
        pairs = list(_image_pairs(config, ready, differences)) if "differences" in tasks else []
        for which, model in models.items():
            if "zero_shot" in tasks or "extended" in tasks:
                _zero_shot(ready, which, model, described, predictions)
            for what, protocol, table in pairs:
                for task, items in difference_items(model.encode_texts, ready.seen_by(which), table).items():
                    if protocol == "corrected" or task in SCORED_AS_RELEASED:
                        predictions.add(task, f"{name}/{what}", which, items, ready.vectors.ids, protocol)
            if "distances" in tasks:
                for protocol in PROTOCOLS:
                    items = class_differences.distance_items(model.encode_texts, images.classes, differences, protocol)
                    predictions.add("embedding_distance", name, which, items, images.classes, protocol)
        if "comparative" in tasks:
            for part, tables in _comparative(ready, models, differences, released, predictions).items():
                found[part] += tables
        if "probe" in tasks and len(ready.tune[0]) and not ready.unseen:
            for which, protocol in product(["base", *ready.vectors.others], PROTOCOLS):  # one for each image tower
                seeds = [config.seed] if protocol == "corrected" else _RELEASED_SEEDS
                items = probe.probe_items(
                    ready.seen_by(which), *ready.tune, *ready.test, ready.settings.shots, seeds, protocol
                )
                predictions.add(
                    "linear_probe", f"{name}/{ready.settings.shots}-shot", which, items, ready.vectors.ids, protocol
                )
    told = pd.concat(texts, ignore_index=True) if texts else _no_pairs().assign(dataset=[])
    compared = (
        pd.concat(found["items"], ignore_index=True) if found["items"] else pd.DataFrame(columns=comparative.KEYS)
    )
    return Told(
        _joined(found["sweep"], _SWEEP),
        told.fillna(""),
        comparative.tested(compared, config.evaluate.bootstrap, config.seed),
        _joined(found["classes"], ["dataset", "form", "model", *comparative.BY_CLASS]),
        _joined(found["pairs"], ["dataset", "form", "model", *comparative.BY_PAIR]),
    )


def _ready(config: Config, name: str, images: LabelledSet, models: Mapping[str, Encoder]) -> Ready:
    vectors = embed_pictures(config, config.home / FOLDER / name, images, models)
    table = vectors.of(images.table)
    split = {}
    for side in ("tune", "test"):
        part = table[table["split"] == side]
        split[side] = (vectors.rows(part["id"]), part.label.to_numpy(dtype=np.int64))
    if not len(split["test"][0]):
        raise PcclipError(f"labelled set {name}: no test image; unpack it again")
    return Ready(name, config.evaluate.labelled[name], images, vectors, split["tune"], split["test"])


def _joined(tables: list[pd.DataFrame], columns: list[str]) -> pd.DataFrame:
    return pd.concat(tables or [pd.DataFrame(columns=columns)], ignore_index=True)[columns]


def _zero_shot(ready: Ready, which: str, model: Encoder, described, predictions: Predictions) -> None:
    """All ways to prompt. Where test classes have no tune images, they alone are the candidates, as in zero-shot
    learning and as released."""
    images, (rows, labels), seen = ready.images, ready.test, described
    if ready.unseen:
        classes = np.unique(labels)
        images = replace(
            images,
            classes=[images.classes[k] for k in classes],
            released=[images.released[k] for k in classes] if images.released else None,
        )
        labels = np.searchsorted(classes, labels)
        seen = [described[k] for k in classes] if described else None
    variants = tuple(zero_shot.VARIANTS) if "zero_shot" in ready.settings.tasks else ()
    found = zero_shot.zero_shot_tasks(model.encode_texts, images, ready.seen_by(which), rows, labels, seen, variants)
    for name, items in found.items():
        variant, protocol, *_ = name.split("/")
        task = "extended_prompts" if variant == "extended" else "zero_shot"
        predictions.add(task, f"{ready.name}/{variant}", which, items, ready.vectors.ids, protocol)
        if name == "single/corrected":
            predictions.add("worst_group", f"{ready.name}/{variant}", which, items, ready.vectors.ids, protocol)


def _image_pairs(config: Config, ready: Ready, written: pd.DataFrame) -> Iterator[tuple[str, str, pd.DataFrame]]:
    """What is compared, the protocol, and the image pairs with their texts, the same for every model."""
    classes, (rows, labels), draw = (
        ready.images.classes,
        ready.test,
        {"seed": config.seed, "count": ready.settings.pairs},
    )
    asked = [("class names", "corrected", class_differences.class_names(classes))]
    told = written[written.source == "llm"]
    if len(told):
        asked.append(("llm texts", "corrected", class_differences.class_pairs(classes, told)))
    for protocol in PROTOCOLS:
        if ready.name == "cifar100":
            asked.append(("size", protocol, class_differences.cifar100_size(classes, protocol)))
        if ready.name == "flowers":
            asked.append(("colour", protocol, class_differences.flowers_colour(classes, protocol)))
        if ready.name == "awa2":
            binary = awa2.binary(folder_of(ready.name, ready.settings.path))
            say_what = awa2.difference_texts(ready.images, binary, protocol)
            asked += [
                ("attributes", protocol, class_differences.every_class(len(classes), say_what)),
                ("size", protocol, class_differences.awa2_size(classes, labels, binary, protocol)),
            ]
    for what, protocol, differences in asked:
        try:
            yield what, protocol, class_differences.image_pairs(differences, (rows, labels), protocol, **draw)
        except class_differences.NoPairs as error:
            say(f"{ready.name}/{what}, {protocol}: {error}")  # a small draw may lack the classes of a question


def _comparative(
    ready: Ready,
    models: Mapping[str, Encoder],
    differences: pd.DataFrame,
    released: pd.DataFrame,
    predictions: Predictions,
) -> dict[str, list[pd.DataFrame]]:
    """Score every variant of comparative prompting. Return tables for the fields of Told, and the items."""
    tables = {name: [] for name in ("sweep", "items", "classes", "pairs")}
    if len(ready.tune[0]) < 2 or ready.unseen:
        say(f"{ready.name}: no tune images of the test classes, so nothing to choose comparative prompting on")
        return tables
    vectors = _class_vectors(ready.images, models, differences, released)
    matrices = {model: ready.seen_by(model) for model in models}
    for form, protocol in comparative.VARIANTS:
        items, choices = comparative.comparative_items(
            vectors[protocol], matrices, ready.tune, ready.test, (form, protocol)
        )
        keys = {"dataset": ready.name, "form": form, "protocol": protocol}
        for (model, prompting), part in items.groupby(["model", "prompting"], sort=False):
            dataset = f"{ready.name}/{form if prompting == 'comparative' else 'plain'}"
            if prompting == "comparative" or form == "released":  # plain items are the same for every form
                predictions.add("comparative_prompting", dataset, model, part, ready.vectors.ids, protocol)
        tables["items"].append(items.drop(columns=["score", "reference"]).assign(**keys))
        if protocol == "as_released":
            continue
        tables["sweep"].append(choices["base"].sweep.assign(**keys))
        for model, part in items.groupby("model", sort=False):
            own, choice, matrix = vectors[protocol][model], choices[model], matrices[model]
            by_class = comparative.by_class(part, choice, own.names)
            by_pair = comparative.by_pair(part, choice, own, matrix)
            tables["classes"].append(by_class.assign(**keys, model=model))
            tables["pairs"].append(by_pair.assign(**keys, model=model))
    return tables


def _class_vectors(
    images: LabelledSet, models: Mapping[str, Encoder], differences: pd.DataFrame, released: pd.DataFrame
) -> dict[str, dict[str, comparative.ClassVectors]]:
    """What every model makes of classes and texts, by protocol."""

    def vectors(table: pd.DataFrame, names: list[str]) -> dict[str, comparative.ClassVectors]:
        prompts = templates.prompts(names, "single")
        return {
            which: comparative.class_vectors(
                model.encode_texts, zero_shot.class_texts(model.encode_texts, prompts), images.classes, table
            )
            for which, model in models.items()
        }

    return {
        "corrected": vectors(differences, images.classes),
        "as_released": vectors(released, images.released or images.classes),
    }


def _class_pairs(config: Config, ready: Ready, models: Mapping[str, Encoder]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Texts about pairs of classes: those for all that is corrected, and those of the released protocol.

    The former are of all pairs, or of those that the base confuses most on the tune images that choose pairs; the
    latter of those that each model confuses most on the test images, which the released protocol looks at.
    """
    images, settings, (rows, labels) = ready.images, ready.settings, ready.test
    among = np.unique(labels) if ready.unseen else np.arange(len(images.classes))
    chosen = [(a, b) for k, a in enumerate(among) for b in among[k + 1 :]]

    def confusions(which: str, names: list[str], rows, labels):
        texts = zero_shot.class_texts(models[which].encode_texts, templates.prompts(names, "single"))
        return comparative.confusions(texts, ready.seen_by(which), rows, labels)

    if len(chosen) > settings.class_pairs:
        tune = comparative.halves(*ready.tune)[0] if len(ready.tune[0]) > 1 else ready.tune
        seen = (
            []
            if ready.unseen
            else comparative.confused_pairs(confusions("base", images.classes, *tune), settings.class_pairs)
        )
        rest = np.random.default_rng(config.seed).permutation(np.array(chosen))
        chosen = list(dict.fromkeys(map(tuple, [*seen, *rest])))[: settings.class_pairs]
    peeking = models if "comparative" in settings.tasks and not ready.unseen else []
    peeked = {
        tuple(sorted(pair))
        for which in peeking
        for pair in comparative.confused_pairs(
            confusions(which, images.released or images.classes, rows, labels), both_ways=False
        )
    }
    return tuple(
        _written(config, ready, [(images.classes[a], images.classes[b]) for a, b in wanted], models["base"])
        for wanted in (chosen, sorted(peeked))
    )


def _written(config: Config, ready: Ready, pairs: list[tuple[str, str]], base: Encoder) -> pd.DataFrame:
    template = ready.settings.texts == "template"
    identity = Template.identity if template else backend_identity(config.generate)
    table, _ = class_texts.class_differences(
        pairs,
        config.generate,
        partial(start_backend, config.generate),
        identity,
        config.home / FOLDER,
        base,
        ready.settings.things,
    )
    return table[["first", "second", "difference", "swapped", "source", "verdict"]]


def _descriptions(config: Config, ready: Ready, base: Encoder) -> tuple[list[list[str]], pd.DataFrame]:
    table, _ = class_texts.descriptions(
        ready.images.classes,
        ready.settings.things,
        config.generate,
        partial(start_backend, config.generate),
        backend_identity(config.generate),
        config.home / FOLDER,
        base,
        ready.settings.descriptions,
    )
    told = table.rename(columns={"class": "first", "description": "difference"})
    return class_texts.per_class(table, ready.images.classes), told[["first", "difference", "source", "verdict"]]


def _no_pairs() -> pd.DataFrame:
    return pd.DataFrame(columns=["first", "second", "difference", "swapped", "source", "verdict"])
