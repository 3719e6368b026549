"""Labelled sets in stage 04: every task of PC-CLIP's evaluation, as released and corrected, for all models alike.

Image vectors are cached once per set and image tower, and every model sees by its own (Vectors.seen_by). Whatever is
chosen is chosen on the set's tune images: confused classes on one half, alpha on the other. Texts about classes
are templates, or are written by the run's language model and kept in its log.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from itertools import combinations

import numpy as np
import pandas as pd
from jaxtyping import Float

from pcclip.benchmarks.benchmark import Benchmark
from pcclip.benchmarks.classification import FAMILY, awa2
from pcclip.benchmarks.registry import set_root, vectors_folder
from pcclip.comparisons.llm import lazy_backend
from pcclip.comparisons.verdicts import named
from pcclip.config import Config, Labelled
from pcclip.embedding.stage import embedded_sets
from pcclip.embedding.vectors import Vectors
from pcclip.encoders.dual_encoder import Encoder
from pcclip.errors import PcclipError
from pcclip.evaluation import class_differences, class_texts, comparative, zero_shot
from pcclip.evaluation.class_differences import Contrast
from pcclip.evaluation.differences import difference_items, structure_items
from pcclip.evaluation.predictions import Predictions
from pcclip.evaluation.protocols import PROTOCOLS
from pcclip.runs.progress import say
from pcclip.stats.random_streams import stream

CLASS_PAIRS = 100  # pairs of classes that get a text, those confused most often on the tune images first
IMAGE_PAIRS = 2000  # of the corrected difference classification
DESCRIPTIONS = 2  # of each class, in extended prompts
_TEXTS = ["first", "second", "difference", "swapped", "source", "verdict"]
_COLUMNS = {  # of each table that `score` returns
    "class_texts.parquet": [*_TEXTS, "dataset"],
    "comparative.csv": ["dataset", "form", "protocol", *comparative.SWEEP],
    "comparative_gains.csv": comparative.TESTED,
}
Tables = dict[str, list[pd.DataFrame]]  # parts of the tables, by file name


@dataclass(frozen=True)
class ClassifiedImages:
    """A set with the vectors of its images; beside Benchmark, as vectors may lack unreadable images.

    Attributes:
        tune, test: rows of the vectors, and each one's class.
    """

    benchmark: Benchmark
    settings: Labelled
    vectors: Vectors
    tune: comparative.Images
    test: comparative.Images

    def seen_by(self, model: str) -> Float[np.ndarray, "n d"]:
        """The image vectors by the image tower of this model."""
        return self.vectors.seen_by(model).matrix

    @property
    def class_names(self) -> list[str]:
        """The class of each image that has a vector: what intervals draw where texts compare classes."""
        label_of = dict(zip(self.benchmark.images["id"], self.benchmark.images.label, strict=True))
        return [self.benchmark.classes[int(label_of[image])] for image in self.vectors.ids]

    @property
    def unseen(self) -> bool:
        """Whether tune and test images are of different classes by the set's own splits, as AwA2's are.

        A small draw of another set, or one without tune images, can look the same; its classes are all candidates.
        """
        return self.benchmark.name == "awa2"


def score(
    config: Config, benchmarks: Mapping[str, Benchmark], encoders: Mapping[str, Encoder], predictions: Predictions
) -> dict[str, pd.DataFrame]:
    """Score every model on every labelled set. Returns the further tables by file name.

    class_texts.parquet: the texts about classes (dataset, first, second or '', text, swapped or '', source, verdict).
    comparative.csv: the accuracy at each alpha of comparative prompting; `chosen` marks the alpha that was used.
    comparative_gains.csv: comparative against plain prompting, tested.
    """
    parts: Tables = {name: [] for name in _COLUMNS}
    for name, benchmark, vectors in embedded_sets(config, benchmarks, encoders):
        images = classified_images(config.evaluate.labelled[name], benchmark, vectors)
        say(f"{name}: {len(images.test[0])} test, {len(images.tune[0])} tune images, {len(benchmark.classes)} classes")
        _score_set(config, images, encoders, predictions, parts)
    tables = {
        name: pd.concat(parts[name] or [pd.DataFrame(columns=columns)], ignore_index=True)
        for name, columns in _COLUMNS.items()
    }
    tables["comparative_gains.csv"] = comparative.tested(
        tables["comparative_gains.csv"], config.evaluate.bootstrap, config.seed
    )
    texts = tables.pop("class_texts.parquet").fillna("")
    return {"class_texts.parquet": texts, **{name: table[_COLUMNS[name]] for name, table in tables.items()}}


def classified_images(settings: Labelled, benchmark: Benchmark, vectors: Vectors) -> ClassifiedImages:
    """The images that have a vector. Raises PcclipError when no test image has one."""
    table = vectors.of(benchmark.images)
    parts = [table[table["split"] == split] for split in ("tune", "test")]
    if parts[1].empty:
        raise PcclipError(f"labelled set {benchmark.name}: no test image; unpack it again")
    rows = [(vectors.rows(part["id"]), part.label.to_numpy(dtype=np.int64)) for part in parts]
    return ClassifiedImages(benchmark, settings, vectors, *rows)


def _score_set(
    config: Config,
    images: ClassifiedImages,
    encoders: Mapping[str, Encoder],
    predictions: Predictions,
    parts: Tables,
) -> None:
    """All tasks of one set; parts of the tables are appended to `parts`."""
    name, tasks, ids = images.benchmark.name, images.settings.tasks, images.vectors.ids
    descriptions, written, released = None, pd.DataFrame(columns=_TEXTS), pd.DataFrame(columns=_TEXTS)
    if "extended" in tasks:
        writing = _writing(config, images, encoders["base"])
        table = class_texts.descriptions(images.benchmark.classes, writing, DESCRIPTIONS)
        descriptions = [list(table.description[table["class"] == each]) for each in images.benchmark.classes]
        table = table.rename(columns={"class": "first", "description": "difference"})
        parts["class_texts.parquet"].append(table[["first", "difference", "source", "verdict"]].assign(dataset=name))
    if {"differences", "comparative", "distances"} & set(tasks):
        written = _written(config, images, _corrected_pairs(config, images, encoders["base"]), encoders["base"])
        released = _written(config, images, _released_pairs(images, encoders), encoders["base"])
        parts["class_texts.parquet"] += [table.assign(dataset=name) for table in (written, released)]
    image_pairs = list(_image_pairs(config, images, written)) if "differences" in tasks else []
    for model, encoder in encoders.items():
        if "zero_shot" in tasks or "extended" in tasks:
            _zero_shot(images, model, encoder, descriptions, predictions)
        for subject, protocol, pairs in image_pairs:
            for task, items in difference_items(encoder.encode_texts, images.seen_by(model), pairs, protocol).items():
                predictions.add((task, f"{name}/{subject}", protocol), model, items, ids, images.class_names)
            if subject == "class names":
                captioned = _captioned(images, pairs.head(config.evaluate.structures))
                for key, items in structure_items(name, encoder.encode_texts, images.seen_by(model), captioned):
                    predictions.add(key, model, items, ids, images.class_names)
        for protocol in PROTOCOLS if "distances" in tasks else ():
            encode = partial(encoder.encode_texts, normalise=protocol == "corrected")
            items = class_differences.distance_items(encode, images.benchmark.classes, written, protocol)
            predictions.add(("embedding_distance", name, protocol), model, items, images.benchmark.classes)
    if "comparative" in tasks:
        _comparative(images, encoders, {"corrected": written, "as_released": released}, predictions, parts)


def _zero_shot(
    images: ClassifiedImages,
    model: str,
    encoder: Encoder,
    descriptions: list[list[str]] | None,
    predictions: Predictions,
) -> None:
    """Every way to prompt. Where test classes have no tune images, they alone are the candidates, as in zero-shot
    learning and as released."""
    benchmark, (rows, labels) = images.benchmark, images.test
    if images.unseen:
        classes = np.unique(labels)
        benchmark = replace(
            benchmark,
            classes=[benchmark.classes[k] for k in classes],
            released=[benchmark.released[k] for k in classes] if benchmark.released else None,
        )
        labels = np.searchsorted(classes, labels)
        descriptions = [descriptions[k] for k in classes] if descriptions else None
    variants = tuple(zero_shot.VARIANTS) if "zero_shot" in images.settings.tasks else ()
    prompt_sets = zero_shot.prompt_sets(benchmark, descriptions, variants)
    tasks = zero_shot.zero_shot_tasks(encoder.encode_texts, prompt_sets, images.seen_by(model), rows, labels)
    for key, items in tasks.items():
        variant, protocol = key.split("/")
        task = "extended_prompts" if variant == "extended" else "zero_shot"
        for name in (task, "worst_group") if key == "single/corrected" else (task,):
            predictions.add((name, f"{benchmark.name}/{variant}", protocol), model, items, images.vectors.ids)


def _image_pairs(
    config: Config, images: ClassifiedImages, written: pd.DataFrame
) -> Iterator[tuple[str, str, pd.DataFrame]]:
    """The subject of a comparison, the protocol, and the image pairs with their texts, the same for every model."""
    for subject, protocol, contrast in _contrasts(images, written):
        pairs = class_differences.image_pairs(contrast, images.test, protocol, config.seed, IMAGE_PAIRS)
        if len(pairs):
            yield subject, protocol, pairs
        else:  # a small draw may lack the classes of a question
            say(
                f"{images.benchmark.name}/{subject}, {protocol}: no two of these images are of classes that are compared"
            )


def _captioned(images: ClassifiedImages, pairs: pd.DataFrame) -> pd.DataFrame:
    """The pairs with both classes as phrases ('an owl') and as captions ('A photo of an owl'), for structure_items."""
    phrases = pd.Series([named(name) for name in images.class_names])
    first, second = (phrases[pairs[side]].to_numpy() for side in ("first", "second"))
    return pairs.assign(
        first_phrase=first,
        second_phrase=second,
        first_caption="A photo of " + first,
        second_caption="A photo of " + second,
    )


def _contrasts(images: ClassifiedImages, written: pd.DataFrame) -> Iterator[tuple[str, str, Contrast]]:
    """The subject, the protocol, and the texts that compare classes."""
    name, classes = images.benchmark.name, images.benchmark.classes
    yield "class names", "corrected", class_differences.class_names(classes)
    by_language_model = written[written.source == "llm"]
    if len(by_language_model):
        yield "llm texts", "corrected", class_differences.class_pairs(classes, by_language_model)
    for protocol in PROTOCOLS:
        if name == "cifar100":
            yield "size", protocol, class_differences.cifar100_size(classes, protocol)
        elif name == "flowers":
            yield "colour", protocol, class_differences.flowers_colour(classes, protocol)
        elif name == "awa2":
            binary = awa2.binary_attributes(set_root(name, images.settings))
            text = awa2.difference_texts(images.benchmark, binary, protocol)
            yield "attributes", protocol, class_differences.every_class(len(classes), text)
            yield "size", protocol, class_differences.awa2_size(classes, images.test[1], binary, protocol)


def _comparative(
    images: ClassifiedImages,
    encoders: Mapping[str, Encoder],
    texts: Mapping[str, pd.DataFrame],
    predictions: Predictions,
    parts: Tables,
) -> None:
    """Every variant of comparative prompting; `texts` about pairs of classes, by protocol."""
    name, benchmark = images.benchmark.name, images.benchmark
    if len(images.tune[0]) < 2 or images.unseen:
        say(f"{name}: no tune images of the test classes, so nothing to choose comparative prompting on")
        return
    names = {"corrected": benchmark.classes, "as_released": benchmark.released or benchmark.classes}
    vectors = {
        protocol: {
            model: comparative.class_vectors(
                encoder.encode_texts, _plain_texts(encoder, names[protocol]), benchmark.classes, texts[protocol]
            )
            for model, encoder in encoders.items()
        }
        for protocol in names
    }
    matrices = {model: images.seen_by(model) for model in encoders}
    for form, protocol in comparative.VARIANTS:
        items, choice = comparative.comparative_items(
            vectors[protocol], matrices, images.tune, images.test, (form, protocol)
        )
        keys = {"dataset": name, "form": form, "protocol": protocol}
        for (model, prompting), part in items.groupby(["model", "prompting"], sort=False):
            if prompting == "comparative" or form == "released":  # plain items are the same for every form
                task = "comparative_prompting", f"{name}/{form if prompting == 'comparative' else 'plain'}", protocol
                predictions.add(task, model, part, images.vectors.ids)
        parts["comparative_gains.csv"].append(items.drop(columns=["score", "reference"]).assign(**keys))
        if protocol == "corrected":
            parts["comparative.csv"].append(choice.sweep.assign(**keys))
            continue
        confused = comparative.confused_items(vectors[protocol], matrices, images.test, choice)
        for (model, prompting), part in confused.groupby(["model", "prompting"], sort=False):
            dataset = f"{name}/confused" + (", plain" if prompting == "plain" else "")
            predictions.add(("comparative_prompting", dataset, protocol), model, part, images.vectors.ids)


def _corrected_pairs(config: Config, images: ClassifiedImages, base: Encoder) -> list[tuple[int, int]]:
    """All pairs of classes, or those that the base confuses most on the tune images that choose pairs."""
    candidates = np.unique(images.test[1]).tolist() if images.unseen else range(len(images.benchmark.classes))
    pairs = list(combinations(candidates, 2))
    if len(pairs) <= CLASS_PAIRS:
        return pairs
    confused = np.empty((0, 2), dtype=int)
    if not images.unseen:
        tune = comparative.halves(*images.tune)[0] if len(images.tune[0]) > 1 else images.tune
        rates = comparative.confusions(_plain_texts(base, images.benchmark.classes), images.seen_by("base"), *tune)
        confused = comparative.confused_pairs(rates, CLASS_PAIRS)
    rest = stream("class pairs", config.seed).permutation(np.array(pairs))
    return list(dict.fromkeys(map(tuple, [*confused.tolist(), *rest.tolist()])))[:CLASS_PAIRS]


def _released_pairs(images: ClassifiedImages, encoders: Mapping[str, Encoder]) -> list[tuple[int, int]]:
    """The pairs of the released protocol, which looks at test images."""
    if "comparative" not in images.settings.tasks or images.unseen:
        return []
    model, names = comparative.pair_chooser(encoders), images.benchmark.released or images.benchmark.classes
    confusions = comparative.confusions(_plain_texts(encoders[model], names), images.seen_by(model), *images.test)
    return sorted({tuple(sorted(pair)) for pair in comparative.confused_pairs(confusions, both_ways=False).tolist()})


def _plain_texts(encoder: Encoder, names: list[str]) -> Float[np.ndarray, "c d"]:
    """Vectors of the paper's prompt with each class name."""
    return zero_shot.class_texts(encoder.encode_texts, zero_shot.templated(names, "single"))


def _writing(config: Config, images: ClassifiedImages, base: Encoder) -> class_texts.Writing:
    settings = config.generate
    if images.settings.texts == "template":
        settings = settings.model_copy(update={"backend": "template"})
    return class_texts.Writing(
        settings, partial(lazy_backend, settings), vectors_folder(config, FAMILY), base, images.settings.things
    )


def _written(config: Config, images: ClassifiedImages, pairs: list[tuple[int, int]], base: Encoder) -> pd.DataFrame:
    """The texts about these pairs of classes, by templates or by the run's language model."""
    names = [(images.benchmark.classes[a], images.benchmark.classes[b]) for a, b in pairs]
    return class_texts.class_differences(names, _writing(config, images, base))[_TEXTS]
