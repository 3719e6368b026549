"""Compositional benchmarks in stage 04: does a model know which text is of which image when the words are the same?

Beside every model stands 'MODEL, blind': the same texts scored with the mean of all images of the benchmark in place of
each item's own image, so by the text tower alone (the prior of P(text) that 2306.01879 warns of). Where the blind model
does as well, the benchmark tells nothing of images. On sets of two images and two texts it is never right: a text that
wins for one image wins for the other. SugarCrepe++'s text-only task has no image to leave out, and no blind row.
A text-to-image model (evaluate.teacher) matches images and texts too, with no
blind row, as it has no vectors of images.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Int

from pcclip.benchmarks.benchmark import Benchmark
from pcclip.benchmarks.compositionality import draw, measures
from pcclip.config import Config
from pcclip.embedding.stage import embedded_sets
from pcclip.embedding.vectors import Vectors
from pcclip.encoders.diffusion import load_teacher
from pcclip.encoders.dual_encoder import Encoder
from pcclip.errors import PcclipError
from pcclip.evaluation.diffusion_matcher import COLUMNS, MODEL, DiffusionMatcher
from pcclip.evaluation.predictions import Predictions
from pcclip.runs.progress import say


@dataclass(frozen=True)
class MatchItems:
    """The items of a set whose images have vectors, as arrays; beside Benchmark, as vectors may lack unreadable images.

    Attributes:
        benchmark: the set, with these items only.
        image_rows: rows of the image vectors.
        texts: the distinct texts.
        text_rows: the texts of each item, as rows of `texts`.
        present: whether an item has a text at this place.
        units: first and second of predictions: the images that the bootstrap draws, as rows of `unit_names`.
    """

    benchmark: Benchmark
    image_rows: Int[np.ndarray, "m i"]
    texts: list[str]
    text_rows: Int[np.ndarray, "m k"]
    present: Bool[np.ndarray, "m k"]
    units: pd.DataFrame
    unit_names: list[str]


def score(
    config: Config, benchmarks: Mapping[str, Benchmark], encoders: Mapping[str, Encoder], predictions: Predictions
) -> pd.DataFrame:
    """Score every model, with the images and blind, on every set, its parts and its further subsets.

    Returns the cost of the text-to-image model, a row for each set; no rows without evaluate.teacher.
    """
    settings, costs = config.evaluate.teacher, [pd.DataFrame(columns=COLUMNS)]
    teacher = load_teacher(settings.spec, settings.precision) if settings and benchmarks else None
    for name, benchmark, vectors in embedded_sets(config, benchmarks, encoders):
        items = match_items(benchmark, vectors)
        say(f"{name}: {len(items.image_rows)} items, {len(items.texts)} texts, {len(vectors.ids)} images")
        for model, encoder in encoders.items():
            add_model(items, vectors.seen_by(model).matrix, encoder, model, predictions)
        if settings and teacher:
            sample = match_items(draw(benchmark, settings, config.seed), vectors)
            matcher, images = DiffusionMatcher(teacher, settings, config.seed), benchmark.only_images(benchmark.max_bad)
            add_teacher(sample, matcher, (images, vectors), config.embed.workers, predictions)
            costs.append(matcher.cost(name))
    return pd.concat(costs[1:] or costs)


def match_items(benchmark: Benchmark, vectors: Vectors) -> MatchItems:
    """The items whose images have vectors. Raises PcclipError when there is none."""
    columns = benchmark.columns("image_")
    items = benchmark.items[vectors.has(*(benchmark.items[column] for column in columns))].reset_index(drop=True)
    if items.empty:
        raise PcclipError(f"compositional set {benchmark.name}: no item has all its images; see the bad images above")
    text_table = items[benchmark.columns("text_")]
    codes, texts = pd.factorize(text_table.to_numpy().ravel())
    text_rows, present = codes.reshape(text_table.shape), (text_table != "").to_numpy()
    if not present.all():  # an empty text is never scored, and so never encoded
        texts = np.where(texts == "", texts[text_rows[0, 0]], texts)
    image_rows = np.stack([vectors.rows(items[column]) for column in columns], axis=1)
    kept = replace(benchmark, items=items)
    return MatchItems(kept, image_rows, list(texts), text_rows, present, *_units(kept, columns))


def add_model(
    items: MatchItems, matrix: Float[np.ndarray, "n d"], encoder: Encoder, model: str, predictions: Predictions
) -> None:
    """Add one model's scores, with the images and blind; each text is encoded once."""
    texts = encoder.encode_texts(items.texts)
    margins = measures.margins(
        items.benchmark.form, measures.similarities(matrix, items.image_rows, texts, items.text_rows), items.present
    )
    if items.benchmark.form == "triples":
        margins |= measures.of_texts(texts, items.text_rows)
    _add(items, margins, model, predictions)
    mean_image = matrix[np.unique(items.image_rows)].mean(axis=0)  # blind: the same scores whatever the image is
    scores = np.asarray(texts @ mean_image, dtype=float)[items.text_rows]
    alike = scores[:, None].repeat(items.image_rows.shape[1], axis=1)
    _add(items, measures.margins(items.benchmark.form, alike, items.present), f"{model}, blind", predictions)


def add_teacher(
    items: MatchItems,
    matcher: DiffusionMatcher,
    shown: tuple[Benchmark, Vectors],
    workers: int,
    predictions: Predictions,
) -> None:
    """Add the scores of the text-to-image model. Raises PcclipError when an image cannot be read any more.

    Args:
        shown: the images as they were embedded, and their vectors, whose rows `items` has.
        workers: decoding threads.
    """
    images, vectors = shown
    rows = pd.Index(images.images["id"]).get_indexer(vectors.ids)[items.image_rows]
    texts = [
        [items.texts[k] for k, present in zip(*of_item, strict=True) if present]
        for of_item in zip(items.text_rows, items.present, strict=True)
    ]
    scores = np.full((*rows.shape, items.text_rows.shape[1]), -np.inf)
    between_images = items.benchmark.form == "groups"
    for (row, column), of_texts in matcher.image_scores(images, rows, texts, between_images, workers):
        scores[row, column, items.present[row]] = of_texts
    _add(items, measures.margins(items.benchmark.form, scores, items.present), MODEL, predictions)


def subsets(items: pd.DataFrame) -> dict[str, np.ndarray]:
    """The rows of the whole set (''), of each part and of each tag, by name."""
    rows_of = {"": np.arange(len(items))}
    for names in (items.tags.explode(), items.part):
        named = names[names.notna() & (names != "")]
        rows_of |= {name: np.unique(rows.to_numpy()) for name, rows in named.groupby(named).groups.items()}
    return rows_of


def _add(items: MatchItems, margins: measures.Margins, model: str, predictions: Predictions) -> None:
    """Add the whole set and its subsets: score is the margin, reference the number of the group of a macro average."""
    name, table = items.benchmark.name, items.benchmark.items
    groups = pd.factorize(table.group.replace("", None))[0].astype(float)
    scored = items.units.assign(reference=np.where(groups < 0, np.nan, groups))
    for end, margin in margins.items():
        for subset, rows in subsets(table).items():
            part = scored.assign(score=margin, correct=margin > 0).iloc[rows]
            if part.reference.nunique() < 2:  # the macro average of one group is the accuracy
                part = part.assign(reference=np.nan)
            task = f"{name}{end}", f"{name}/{subset}" if subset else name, ""
            predictions.add(task, model, part, items.unit_names)


def _units(benchmark: Benchmark, columns: list[str]) -> tuple[pd.DataFrame, list[str]]:
    """What the bootstrap draws: the photograph of an item with one image; the item where its two images come together
    only; else both photographs, and then an item counts as often as both are drawn."""
    photo = benchmark.images.set_index("id").photo
    shown = [benchmark.items[column].map(photo).to_numpy() for column in columns]
    if len(shown) == 2 and len({*shown[0], *shown[1]}) == 2 * len(shown[0]):
        shown = [np.array([f"{first} + {second}" for first, second in zip(*shown, strict=True)], dtype=object)]
    codes, names = pd.factorize(np.concatenate(shown))
    return pd.DataFrame({"first": codes[: len(shown[0])], "second": codes[-len(shown[0]) :]}), list(names)
