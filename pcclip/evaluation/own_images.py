"""Stage 04 on the run's own held-out images: difference tasks, zero-shot, retrieval, rankings and verdicts.

Each task is a function that yields (Task, items) for one model, which sees the images by its own
image tower.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from pcclip.comparisons import stage as comparisons_stage, verdicts
from pcclip.comparisons.attributes import load_bank
from pcclip.comparisons.llm import Template
from pcclip.comparisons.sentences import inside
from pcclip.config import Attribute, Config
from pcclip.data.image_set import ImageSet, units
from pcclip.embedding import stage as embedding_stage
from pcclip.embedding.vectors import Vectors
from pcclip.encoders.dual_encoder import Encoder
from pcclip.encoders.huggingface import FrozenPeer
from pcclip.errors import PcclipError
from pcclip.evaluation.class_differences import released_pairs
from pcclip.evaluation.differences import difference_items, structure_items, verdict_items
from pcclip.evaluation.predictions import Predictions, Task, item_table
from pcclip.evaluation.retrieval import recall_ranks
from pcclip.evaluation.zero_shot import classify
from pcclip.finetuning import stage as finetuning_stage
from pcclip.ranking.axes import ESTIMATORS, attribute_axis, paraphrase_axis, ridge_axis
from pcclip.runs.progress import track
from pcclip.runs.stage import built_on

Scored = Iterator[tuple[Task, pd.DataFrame]]
_INSTRUCTION = "Tell {more} from {less}."  # what conditional embeddings are conditioned on


@dataclass(frozen=True)
class HeldOut:
    """Everything that the tasks on a run's held-out images read; one argument in place of four."""

    config: Config
    images: ImageSet
    vectors: Vectors
    comparisons: pd.DataFrame

    @cached_property
    def table(self) -> pd.DataFrame:
        """The held-out images that have a vector."""
        return self.vectors.of(self.images.held_out)

    @cached_property
    def units(self) -> list[str]:
        """What intervals draw for each image that has a vector."""
        unit_of = units(self.images, self.config.data)
        return [unit_of.get(image, image) for image in self.vectors.ids]

    @cached_property
    def pairs(self) -> dict[tuple[str, str], pd.DataFrame]:
        """Held-out pairs with sentences and swapped twins, by (data set, protocol).

        There are template sentences, and the sentences that a language model wrote. CUB's written sentences have the
        released protocol too: five draws of 5000 pairs.
        """
        name, config = self.images.name, self.config
        template = comparisons_stage.template_pairs(self.table, config.evaluate.pairs, config.seed)
        sets = {(f"{name}/template", ""): template}
        written = comparisons_stage.kept(self.comparisons, "held_out")
        written = written[self.vectors.has(written["first"], written["second"]) & (written.swapped != "").to_numpy()]
        if len(written) and set(written.model_hash) != {Template.identity}:
            sets[f"{name}/llm", ""] = written
            if name == "cub":
                sets[f"{name}/llm", "as_released"] = released_pairs(written)
        return sets

    @cached_property
    def rankings(self) -> list[tuple[str, Attribute, str, pd.DataFrame]]:
        """Attribute, its texts, its column, and the images with a known value; at least two values differ."""
        attributes = self.config.evaluate.attributes.items()
        return [
            (attribute, texts, column, self.table[self.table[column].notna()])
            for attribute, texts, column in ((name, texts, texts.column or name) for name, texts in attributes)
            if self.table[column].nunique() >= 2
        ]


def inputs(config: Config, images: ImageSet | None) -> dict[str, Any]:
    """What the scores depend on: the earlier stages and the bank of attributes."""
    values = built_on(
        (
            config.source_folder / comparisons_stage.FOLDER,
            config.source_folder / embedding_stage.FOLDER,
            config.tuned_folder / finetuning_stage.FOLDER,
        ),
        embedding_stage.shared_inputs(config, images),
    )
    if config.generate.attributes:
        values["attributes"] = load_bank(config.generate.attributes).hash
    return values


def check_attributes(config: Config, images: ImageSet) -> None:
    """Raise PcclipError when evaluate.attributes or evaluate.fixed names an attribute that the image set lacks."""
    named = {f"attributes.{name}": texts.column or name for name, texts in config.evaluate.attributes.items()}
    for key, column in {**named, "fixed": config.evaluate.fixed}.items():
        if column and column not in images.attributes:
            raise PcclipError(
                f"evaluate.{key}: {images.name} has no such attribute; it has: {', '.join(images.attributes) or 'none'}"
            )


def score(held_out: HeldOut, models: Mapping[str, Encoder], predictions: Predictions) -> None:
    """Score every model on every task, and the supervised axes."""
    for name, model in track(models.items(), len(models), "models"):
        vectors = held_out.vectors.seen_by(name)
        for scored in (_differences, _structures, _zero_shot, _retrieval, _rankings, _verdicts):
            for task, items in scored(held_out, vectors, model):
                predictions.add(task, name, items, vectors.ids, held_out.units)
        if isinstance(model, FrozenPeer) and model.conditional:
            for task, items in _rankings(held_out, vectors, model, conditional=True):
                predictions.add(task, f"{name} conditional", items, vectors.ids, held_out.units)
    for task, items in _supervised_rankings(held_out):
        predictions.add(task, "supervised", items, held_out.vectors.ids, held_out.units)


def _in_rows(pairs: pd.DataFrame, vectors: Vectors) -> pd.DataFrame:
    """The pairs with rows of the vectors in place of the images' ids."""
    return pairs.assign(**{side: vectors.rows(pairs[side]) for side in ("first", "second")})


def _differences(held_out: HeldOut, vectors: Vectors, model: Encoder) -> Scored:
    for (dataset, protocol), pairs in held_out.pairs.items():
        rows = _in_rows(pairs, vectors)
        for task, items in difference_items(model.encode_texts, vectors.matrix, rows, protocol).items():
            yield (task, dataset, protocol), items


def _structures(held_out: HeldOut, vectors: Vectors, model: Encoder) -> Scored:
    """Template pairs in every sentence structure."""
    name, count = held_out.images.name, held_out.config.evaluate.structures
    pairs = _in_rows(held_out.pairs[f"{name}/template", ""].head(count), vectors)
    phrases = {f"{side}_phrase": pairs[f"{side}_caption"].map(inside) for side in ("first", "second")}
    return structure_items(name, model.encode_texts, vectors.matrix, pairs.assign(**phrases))


def _zero_shot(held_out: HeldOut, vectors: Vectors, model: Encoder) -> Scored:
    classes, labelled = held_out.images.classes, held_out.table[held_out.table.label.notna()]
    if classes and len(labelled):
        texts = model.encode_texts([held_out.config.evaluate.zero_shot_prompt.format(name) for name in classes])
        labels = np.array([classes.index(label) for label in labelled.label])
        yield (
            ("zero_shot", held_out.images.name, ""),
            classify(vectors.matrix, texts, vectors.rows(labelled["id"]), labels),
        )


def _retrieval(held_out: HeldOut, vectors: Vectors, model: Encoder) -> Scored:
    """Captions of held-out images among all their captions, and the images by their captions: recall at 1, 5 and 10.

    Equal captions are one text, which is right for each of its images.
    """
    captions = held_out.images.captions.merge(held_out.table[["id"]], on="id")
    codes, texts = pd.factorize(captions.caption)
    image_codes, images = pd.factorize(captions["id"])
    if len(texts) < 2:
        return
    matrix, rows = model.encode_texts(list(texts)), vectors.rows(images)
    pairs = pd.DataFrame({"image": image_codes, "text": codes})
    of_images, of_texts = (list(pairs.groupby(a)[b].agg(set)) for a, b in (("image", "text"), ("text", "image")))
    ranks = {
        "captions": (recall_ranks(vectors.matrix[rows], matrix, of_images), rows),
        "images": (recall_ranks(matrix, vectors.matrix[rows], of_texts), rows[[min(own) for own in of_texts]]),
    }
    for sought, (rank, shown) in ranks.items():
        for k in (1, 5, 10):
            yield (
                (f"recall_at_{k}", f"{held_out.images.name}/{sought}", ""),
                item_table(shown, shown, rank, k, rank <= k),
            )


def _rankings(held_out: HeldOut, vectors: Vectors, model: Encoder, conditional: bool = False) -> Scored:
    """Rankings by each attribute; conditional ones of a frozen peer that reads the attribute before each photo and text."""
    for attribute, texts, column, known in held_out.rankings:
        rows, values = vectors.rows(known["id"]), known[column].to_numpy(dtype=float)
        reader, matrix = model, vectors.matrix[rows]
        if conditional and isinstance(model, FrozenPeer):
            reader = model.conditioned(_INSTRUCTION.format(more=texts.more, less=texts.less))
            matrix = reader.encode_images(list(known.path))
        for estimator in ESTIMATORS:
            yield (
                ("ranking", f"{held_out.images.name}/{attribute}/{estimator}", ""),
                item_table(rows, rows, matrix @ attribute_axis(reader, texts, estimator), values, None),
            )


def _supervised_rankings(held_out: HeldOut) -> Scored:
    """Rankings by a ridge axis fitted to the true values of the training images: a ceiling for text axes.

    The axis lives in the base's image vectors, whatever image towers other models have. Values that are all positive
    are fitted as logarithms.
    """
    images, vectors = held_out.images, held_out.vectors
    columns = [column for _, _, column, _ in held_out.rankings]
    for row, (attribute, _, column, known) in enumerate(held_out.rankings):
        training = vectors.of(images.train[images.train[column].notna()])
        if column in columns[:row] or training[column].nunique() < 3:
            continue
        values = training[column].to_numpy(dtype=float)
        values = np.log(values) if (values > 0).all() else values
        axis, _ = ridge_axis(vectors.matrix, vectors.rows(training["id"]), values, list(training.concept))
        rows, truth = vectors.rows(known["id"]), known[column].to_numpy(dtype=float)
        yield (
            ("ranking", f"{images.name}/{attribute}/supervised", ""),
            item_table(rows, rows, vectors.matrix[rows] @ axis, truth, None),
        )


def _verdicts(held_out: HeldOut, vectors: Vectors, model: Encoder) -> Scored:
    """Agreement with the language model's sure verdicts on held-out pairs, by trained and by held-out wordings."""
    config = held_out.config
    if not config.generate.attributes:
        return
    sure = verdicts.load(config).query("split == 'held_out' and verdict in ['first', 'second']")
    sure = sure[vectors.has(sure["first"], sure["second"])]
    for attribute in load_bank(config.generate.attributes).attributes:
        own = sure[sure.attribute == attribute.name]
        for wording, paraphrases in (("trained_wording", attribute.paraphrases), ("new_wording", attribute.held_out)):
            if len(own) and paraphrases:
                axis = paraphrase_axis(model, paraphrases)
                first, second = (vectors.rows(own[side]) for side in ("first", "second"))
                yield (
                    ("verdict_agreement", f"{held_out.images.name}/{attribute.name}/{attribute.split}/{wording}", ""),
                    verdict_items(axis, vectors.matrix, first, second, (own.verdict == "first").to_numpy()),
                )
