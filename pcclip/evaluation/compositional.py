"""Compositional benchmarks in stage 04: does a model know which text is of which image when the words are the same?

Beside every model stands 'MODEL, blind': the same texts scored with the mean of all images of the benchmark in place of
each item's own, so by what the text tower alone makes of them (the prior of P(text) that 2306.01879 warns of). Where it
does as well, the benchmark tells nothing of images. On sets of two images and two texts it is never right: a text that
wins for one image wins for the other. SugarCrepe++'s text-only task has no image to leave out, and no blind row.
Where the run's language model can say how likely a text is (generate.backend: transformers), it is one more of the
blind: the likelier text is its answer. A text-to-image model (evaluate.teacher) matches images and texts too, with no
blind row, as it has no vectors of images.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from pcclip.benchmarks.classification import LabelledSet
from pcclip.benchmarks.compositionality import CompositionalSet, columns, load_compositional, missing
from pcclip.benchmarks.compositionality import measures as matching
from pcclip.config import Config
from pcclip.embedding.stage import embed_pictures
from pcclip.embedding.vectors import Vectors
from pcclip.encoders.diffusion import Teacher, load_teacher
from pcclip.encoders.dual_encoder import Encoder
from pcclip.errors import PcclipError
from pcclip.evaluation import diffusion_matcher as denoising
from pcclip.evaluation import toy_relation as relation
from pcclip.evaluation.predictions import Predictions
from pcclip.evaluation.zero_shot import Encode
from pcclip.runs.progress import say

FOLDER = "compositional"  # below the run's folder: vectors of each set
BLIND = "{}, blind"  # the name of a model's row without the images
LIKELIHOOD = "transformers"  # the backend that says how likely a text is


@dataclass(frozen=True)
class Asked:
    """The items of a set whose images have vectors.

    Attributes:
        found: the set, with these items only.
        shown: rows of the image vectors, (items, images).
        texts: the distinct texts; told: which of them, (items, texts); there: where there is one.
        units: first and second of predictions: what the bootstrap draws, and as rows of `names`.
    """

    found: CompositionalSet
    shown: np.ndarray
    texts: list[str]
    told: np.ndarray
    there: np.ndarray
    units: pd.DataFrame
    names: list[str]


def load(config: Config) -> dict[str, CompositionalSet]:
    """The sets of the parameters, and those of the drawn pictures where these are the run's own.

    Raises PcclipError when one is not there, or has too many bad rows.
    """
    return {name: _load(config, name) for name in config.evaluate.compositional} | relation.sets(config)


def lacking(config: Config, name: str) -> list[str]:
    """One line for each thing of a set that is not there. PcclipError when all is there and cannot be scored."""
    lines = missing(name, config.evaluate.compositional[name].path)
    if not lines:
        _load(config, name)
    return [f"compositional set {name}: {line}" for line in lines]


def score(
    config: Config, sets: Mapping[str, CompositionalSet], models: Mapping[str, Encoder], predictions: Predictions
) -> pd.DataFrame:
    """Score every model, with the images and blind, on every set, its parts and its further subsets.

    Returns what the text-to-image model cost, a row for each set; none where it was not asked for.
    """
    every, cost, settings = {}, [pd.DataFrame(columns=denoising.COLUMNS)], config.evaluate.teacher
    teacher = load_teacher(settings.spec, settings.precision) if settings and sets else None
    for name, whole in sets.items():
        named = config.evaluate.compositional.get(name)
        pictures = whole.pictures(named.max_bad if named else 0.0)
        vectors = embed_pictures(config, config.home / FOLDER / name, pictures, models)
        asked = ask(whole, vectors)
        say(f"{name}: {len(asked.found.items)} items, {len(asked.texts)} texts, {len(vectors.ids)} images")
        for which, model in models.items():
            add(asked, vectors.seen_by(which).matrix, model.encode_texts, which, predictions)
        if teacher:
            some = ask(whole.drawn(settings.limit, config.seed), vectors)
            cost.append(add_teacher(config, teacher, name, some, pictures, vectors, predictions))
        every[name] = asked
    if every and config.generate.backend == LIKELIHOOD:
        from pcclip.comparisons.llm.transformers_model import log_likelihoods

        texts = list(dict.fromkeys(text for asked in every.values() for text in asked.texts))
        likely = dict(zip(texts, log_likelihoods(config.generate, texts), strict=True))
        for asked in every.values():
            add_blind(asked, [likely[text] for text in asked.texts], "language model", predictions)
    return pd.concat(cost[1:] or cost)


def ask(whole: CompositionalSet, vectors: Vectors) -> Asked:
    """The items whose images have vectors, with their rows. Raises PcclipError when there is none."""
    images = columns(whole.items, "image_")
    items = whole.items[vectors.has(*(whole.items[column] for column in images))].reset_index(drop=True)
    if items.empty:
        raise PcclipError(f"compositional set {whole.name}: no item has all its images; see the bad images above")
    found = CompositionalSet(whole.name, whole.form, whole.images, items, whole.left_out)
    codes, texts = pd.factorize(items[found.texts].to_numpy().ravel())
    told = codes.reshape(len(items), -1)
    there = (items[found.texts] != "").to_numpy()
    if not there.all():  # an empty text is never scored, and so never encoded
        texts = np.where(texts == "", texts[told[0, 0]], texts)
    shown = np.stack([vectors.rows(items[column]) for column in images], axis=1)
    return Asked(found, shown, list(texts), told, there, *_units(found, images))


def add(asked: Asked, matrix: np.ndarray, encode: Encode, which: str, predictions: Predictions) -> None:
    """One model's items, with the images and blind; each text is encoded once."""
    texts, measure = encode(asked.texts), matching.MEASURES[asked.found.form]
    seen = measure(matching.similarities(matrix, asked.shown, texts, asked.told), asked.there)
    if asked.found.form == "triples":
        seen |= matching.of_texts(texts, asked.told)
    for end, margin in seen.items():
        _add(asked, f"{asked.found.name}{end}", margin, which, predictions)
    add_blind(asked, texts @ matrix[np.unique(asked.shown)].mean(axis=0), which, predictions)


def add_blind(asked: Asked, scores: Sequence[float], which: str, predictions: Predictions) -> None:
    """The items of one who scores each text whatever the image is."""
    alike = np.asarray(scores, dtype=float)[asked.told][:, None].repeat(asked.shown.shape[1], axis=1)
    for end, margin in matching.MEASURES[asked.found.form](alike, asked.there).items():
        _add(asked, f"{asked.found.name}{end}", margin, BLIND.format(which), predictions)


def add_teacher(
    config: Config,
    teacher: Teacher,
    name: str,
    asked: Asked,
    pictures: LabelledSet,
    vectors: Vectors,
    predictions: Predictions,
) -> pd.DataFrame:
    """The items of the text-to-image model; returns what it cost (denoising.COLUMNS).

    Raises PcclipError when an image cannot be read any more.
    """
    found = denoising.Matching(teacher, config.evaluate.teacher, config.seed)
    place = {image: row for row, image in enumerate(pictures.table["id"])}
    rows = np.array([place[vectors.ids[row]] for row in asked.shown.ravel()]).reshape(asked.shown.shape)
    texts = [
        [asked.texts[k] for k, is_there in zip(*item, strict=True) if is_there]
        for item in zip(asked.told, asked.there, strict=True)
    ]
    s = np.full((*rows.shape, asked.told.shape[1]), -np.inf)
    for (item, column), scores in found.of_images(
        pictures.images, rows, texts, asked.found.form == "groups", config.embed.workers, name
    ):
        s[item, column, asked.there[item]] = scores
    for end, margin in matching.MEASURES[asked.found.form](s, asked.there).items():
        _add(asked, f"{asked.found.name}{end}", margin, denoising.ROW, predictions)
    return found.cost(name)


def _add(asked: Asked, task: str, margin: np.ndarray, which: str, predictions: Predictions) -> None:
    """The whole set and its subsets. score is the margin, reference the number of the group of a macro average."""
    groups = pd.factorize(asked.found.items.group.replace("", None))[0].astype(float)
    table = asked.units.assign(score=margin, reference=np.where(groups < 0, np.nan, groups), correct=margin > 0)
    for subset, rows in subsets(asked.found.items).items():
        name = asked.found.name + (f"/{subset}" if subset else "")
        part = table.iloc[rows]
        if part.reference.nunique() < 2:  # the macro average of one group is the accuracy
            part = part.assign(reference=np.nan)
        predictions.add(task, name, which, part, asked.names)


def subsets(items: pd.DataFrame) -> dict[str, np.ndarray]:
    """The rows of the whole set (''), of each part and of each tag, by name."""
    found = {"": np.arange(len(items))}
    for names in (items.tags.explode(), items.part):
        named = names[names.notna() & (names != "")]
        found |= {name: np.unique(rows.to_numpy()) for name, rows in named.groupby(named).groups.items()}
    return found


def _units(found: CompositionalSet, images: list[str]) -> tuple[pd.DataFrame, list[str]]:
    """What is drawn: the photograph of an item with one image; the item where two images come together and with no
    other; else both photographs, and then an item counts as often as both are drawn."""
    photo = found.images.set_index("id").photo
    shown = [found.items[column].map(photo).to_numpy() for column in images]
    if len(shown) == 2 and len({*shown[0], *shown[1]}) == 2 * len(shown[0]):
        shown = [np.array([f"{first} + {second}" for first, second in zip(*shown, strict=True)], dtype=object)]
    codes, names = pd.factorize(np.concatenate(shown))
    return pd.DataFrame({"first": codes[: len(shown[0])], "second": codes[-len(shown[0]) :]}), list(names)


def _load(config: Config, name: str) -> CompositionalSet:
    settings = config.evaluate.compositional[name]
    return load_compositional(name, settings.path, settings.limit, settings.max_bad, config.seed)
