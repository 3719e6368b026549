"""Change captioning in stage 04: does the difference of two images find the text that a person wrote about it?"""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from pcclip.benchmarks.change_captions import ChangeSet, load_changes, missing
from pcclip.benchmarks.classification import unlabelled
from pcclip.config import Changes, Config
from pcclip.embedding.stage import embed_pictures
from pcclip.embedding.vectors import Vectors
from pcclip.encoders.dual_encoder import Encoder
from pcclip.errors import PcclipError
from pcclip.evaluation import retrieval
from pcclip.evaluation.predictions import Predictions
from pcclip.runs.progress import say

FOLDER = "changes"  # below the run's folder: vectors of each set


def load(config: Config) -> dict[str, ChangeSet]:
    """The sets of image pairs of the parameters. Raises PcclipError when one is not there, or not fit to be scored."""
    return {name: _load(config, name) for name in config.evaluate.changes}


def lacking(config: Config, name: str) -> list[str]:
    """One line for each thing of a set that is not there. PcclipError when all is there and cannot be scored."""
    lines = missing(name, config.evaluate.changes[name].path)
    if not lines:
        _load(config, name)
    return lines


def score(
    config: Config, sets: Mapping[str, ChangeSet], models: Mapping[str, Encoder], predictions: Predictions
) -> None:
    """Score every model on every set: retrieval of the right text, or the verdict for sets that ask which has more."""
    for name, found in sets.items():
        settings = config.evaluate.changes[name]
        pairs = _test_pairs(found, settings, config.seed)
        vectors = _embedded(config, found, pairs, models)
        pairs = pairs[vectors.has(pairs["first"], pairs["second"])].reset_index(drop=True)
        say(f"{name}: {len(pairs)} test pairs")
        first, second = vectors.rows(pairs["first"]), vectors.rows(pairs["second"])
        for which, model in models.items():
            matrix = vectors.seen_by(which).matrix
            if "answer" in pairs:
                for form, items in zip(
                    ("one_sided", "antisymmetric"),
                    retrieval.worded_verdicts(
                        model.encode_texts,
                        matrix,
                        first,
                        second,
                        list(pairs.text),
                        list(pairs.swapped),
                        (pairs.answer == "first").to_numpy(),
                    ),
                    strict=True,
                ):
                    predictions.add("which_has_more", f"{name}/{form}", which, items, vectors.ids)
                continue
            for form, kept in _forms(pairs):
                items = retrieval.retrieval_items(
                    model.encode_texts,
                    matrix,
                    first[kept],
                    second[kept],
                    list(pairs.text[kept]),
                    found.orientation,
                    distractors=settings.distractors,
                    seed=config.seed,
                    twins=list(pairs.swapped[kept]) if form == "antisymmetric" else None,
                )
                predictions.add(
                    "change_retrieval", f"{name}/{form}/1 of {settings.distractors + 1}", which, items, vectors.ids
                )


def _load(config: Config, name: str) -> ChangeSet:
    """A set whose test pairs, were all their images readable, can be scored as asked."""
    settings = config.evaluate.changes[name]
    found = load_changes(name, settings.path, settings.max_bad)
    pairs = _test_pairs(found, settings, config.seed)
    if pairs.empty:
        raise PcclipError(f"change set {name}: no usable test pair; fetch what is missing")
    for form, kept in [] if "answer" in pairs else _forms(pairs):
        try:
            retrieval.check_distractors(
                *(pairs[side][kept] for side in ("first", "second", "text")), settings.distractors
            )
        except PcclipError as error:
            raise PcclipError(f"evaluate.changes.{name}.distractors, {form}: {error}") from None
    return found


def _forms(pairs: pd.DataFrame) -> list[tuple[str, np.ndarray]]:
    """What the texts of pairs are retrieved by, and which pairs that can be asked of: those with a twin, or all."""
    twins = (pairs.swapped != "").to_numpy()
    return [("one_sided", np.ones(len(pairs), dtype=bool)), *([("antisymmetric", twins)] if twins.any() else [])]


def _test_pairs(found: ChangeSet, settings: Changes, seed: int) -> pd.DataFrame:
    pairs = found.pairs[found.pairs["split"] == "test"]
    return (
        pairs.sample(settings.limit, random_state=seed).sort_index()
        if (settings.limit and settings.limit < len(pairs))
        else pairs
    )


def _embedded(config: Config, found: ChangeSet, pairs: pd.DataFrame, models: Mapping[str, Encoder]) -> Vectors:
    """The vectors of the images of these pairs."""
    images = found.images[found.images["id"].isin({*pairs["first"], *pairs["second"]})]
    given = unlabelled(found.name, images, config.evaluate.changes[found.name].max_bad)
    return embed_pictures(config, config.home / FOLDER / found.name, given, models)
