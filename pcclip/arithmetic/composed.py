"""Composed image retrieval in stage 05: an image and a text of the wanted change, scored by recall@k.

The query is u + alpha * step. A step is f(text), or f(text) - f(before) where the set names the replaced content
(SIMAT's own form), or f("The first image shows TEXT, while the second image shows BEFORE."), which finetuning taught.
alpha 0 is the image alone and inf the text alone: the two baselines. Nothing is chosen on the scored queries; every
alpha is a row.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float

from pcclip.arithmetic.retrieval import Sweep
from pcclip.arithmetic.texts import TextMemory
from pcclip.benchmarks.benchmark import Benchmark
from pcclip.benchmarks.registry import load_benchmarks, missing_benchmarks
from pcclip.comparisons.sentences import from_captions
from pcclip.config import Config
from pcclip.embedding.stage import embedded_sets
from pcclip.embedding.vectors import Vectors
from pcclip.errors import PcclipError
from pcclip.runs.progress import say
from pcclip.stats.intervals import Estimate, bootstrap_means, estimate_table
from pcclip.stats.vectors import by_rows, unit

FAMILY = "composed_retrieval"  # in pcclip.benchmarks
_SUBSET_RECALLS = (1, 2, 3)


def load(config: Config) -> dict[str, Benchmark]:
    """The sets of arithmetic.composed. Raises PcclipError when one is missing."""
    return load_benchmarks(config, FAMILY)


def inputs(config: Config) -> dict:
    """The sets' identities, for the stage's key. Raises PcclipError when a set is missing."""
    sets = load(config)
    return {"sets": {name: benchmark.identity() for name, benchmark in sets.items()}} if sets else {}


def check(config: Config) -> None:
    """Raise PcclipError, which lists the missing files, when a set of arithmetic.composed is incomplete."""
    if lines := missing_benchmarks(config, [FAMILY]):
        raise PcclipError("; ".join(lines))


def table(
    config: Config, sets: Mapping[str, Benchmark], models: Mapping[str, TextMemory], alphas: Sequence[float]
) -> pd.DataFrame:
    """Every model, by its own image tower, on every set and gallery. 'base' is one of the models.

    Columns dataset, model, form, alpha, metric, and an estimate's.
    """
    estimates: dict[tuple, Estimate] = {}
    encoders, bootstrap = (
        {name: model.model for name, model in models.items()},
        (config.evaluate.bootstrap, config.seed),
    )
    for name, benchmark, vectors in embedded_sets(config, sets, encoders):
        queries = benchmark.items
        say(f"{name}: {len(queries)} composed queries, {len(vectors.ids)} images")
        for gallery, part in queries.groupby("gallery", sort=True):
            ids = list(vectors.of(benchmark.images[benchmark.images.gallery == gallery])["id"])
            dataset = name if queries.gallery.nunique() == 1 else f"{name}/{gallery}"
            for model_name, model in models.items():
                shown = Vectors(ids, ids, vectors.seen_by(model_name).matrix[vectors.rows(ids)])
                recalls = scored(replace(benchmark, items=part), shown, model, alphas, bootstrap)
                estimates |= {(dataset, model_name, *key): estimate for key, estimate in recalls.items()}
    return estimate_table(estimates, ["dataset", "model", "form", "alpha", "metric"])


def scored(
    benchmark: Benchmark, gallery: Vectors, model: TextMemory, alphas: Sequence[float], bootstrap: tuple[int, int]
) -> Sweep:
    """(form, alpha, metric) -> weighted recall@k of the queries whose start and an answer are in the gallery.

    Args:
        benchmark: with the queries of this gallery as its items.
        gallery: vectors of the images that are searched, by the model's image tower.
        bootstrap: resamples and seed; starting images are resampled.
    """
    row_of, matrix = {image: row for row, image in enumerate(gallery.ids)}, gallery.matrix
    right = _mask(benchmark.items.right, row_of)
    known = benchmark.items.start.isin(row_of).to_numpy() & right.any(axis=1)
    queries, right, recalls = benchmark.items[known], right[known], Sweep()
    start, weight = queries.start.map(row_of).to_numpy(dtype=np.int64), queries.weight.to_numpy(dtype=float)
    candidates, members = np.ones_like(right), _mask(queries.members, row_of)
    if not benchmark.start_is_candidate:
        candidates[np.arange(len(queries)), start] = False
    searched = {"": (candidates, benchmark.recalls)}
    if members.any(axis=1).all():
        searched["subset "] = candidates & members, _SUBSET_RECALLS
    for form, step in steps(model, queries).items() if len(queries) else ():
        for alpha in map(float, alphas):
            query, values = step if np.isinf(alpha) else matrix[start] + alpha * step, {"weight": weight}
            for prefix, (images, counts) in searched.items():
                rank = by_rows(partial(_ranks, matrix), len(matrix), query, images & right, images & ~right)
                values |= {f"{prefix}recall@{k}": weight * (rank < k) for k in counts}
            sums = bootstrap_means(values, start[:, None], *bootstrap)
            total = sums.pop("weight")
            for metric, own in sums.items():
                recalls[form, alpha, metric] = Estimate(own.value / total.value, own.draws / total.draws, own.n)
    return recalls


def steps(model: TextMemory, queries: pd.DataFrame) -> dict[str, Float[np.ndarray, "m d"]]:
    """Unit steps of each form that these queries allow."""
    text, before = list(queries.text), list(queries.before)
    forms = {"f(text)": model.encode_texts(text)}
    if all(before):
        forms["f(text) - f(before)"] = unit(forms["f(text)"] - model.encode_texts(before))
        forms["f(difference)"] = model.encode_texts([from_captions(a, b) for a, b in zip(text, before, strict=True)])
    return forms


def _ranks(
    matrix: Float[np.ndarray, "n d"],
    query: Float[np.ndarray, "m d"],
    right: Bool[np.ndarray, "m n"],
    wrong: Bool[np.ndarray, "m n"],
) -> Float[np.ndarray, " m"]:
    """Number of wrong images ahead of the best right one, or tied with it; inf without a right image."""
    scores = query @ matrix.T
    best = np.where(right, scores, -np.inf).max(axis=1, keepdims=True)
    return np.where(np.isfinite(best[:, 0]), ((scores >= best - 1e-6) & wrong).sum(axis=1), np.inf)


def _mask(ids: pd.Series, row_of: Mapping[str, int]) -> Bool[np.ndarray, "m n"]:
    """Whether each image is among the ids of each query."""
    mask = np.zeros((len(ids), len(row_of)), dtype=bool)
    for row, images in zip(mask, ids, strict=True):
        row[[row_of[image] for image in images if image in row_of]] = True
    return mask
