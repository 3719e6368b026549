"""Composed image retrieval in stage 05: an image and a text of the wanted change, scored by recall@k.

The query is u + alpha * step. A step is f(text), or f(text) - f(before) where the set names the replaced content
(SIMAT's own form), or f("The first image shows TEXT, while the second image shows BEFORE."), which finetuning taught.
alpha 0 is the image alone and inf the text alone: the two baselines. Nothing is chosen on the scored queries; every
alpha is a row.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Int

from pcclip.arithmetic.retrieval import Sweep
from pcclip.arithmetic.texts import TextMemory
from pcclip.benchmarks.benchmark import Benchmark
from pcclip.benchmarks.registry import load_benchmarks, missing_benchmarks
from pcclip.comparisons.sentences import from_captions
from pcclip.config import Config
from pcclip.embedding.stage import benchmark_vectors
from pcclip.embedding.vectors import Vectors
from pcclip.errors import PcclipError
from pcclip.runs.progress import say
from pcclip.stats.intervals import Estimate, bootstrap_means, estimate_table
from pcclip.stats.vectors import unit

FAMILY = "composed_retrieval"  # in pcclip.benchmarks
FOLDER = "composed"  # in the run's folder: the vectors of each set
_ROWS = 512  # queries scored at once
_SUBSET_RECALLS = (1, 2, 3)


@dataclass(frozen=True)
class Search:
    """Queries of one gallery, as rows of its images.

    A class of its own because a benchmark's queries name images, and scoring needs their rows.

    Attributes:
        matrix: unit vectors of the gallery.
        start: row of each query's image.
        right: whether an image answers a query.
        candidates: whether an image may be retrieved for a query.
        members: whether an image is in the query's subset; None where the set has no subsets.
        weight: of each query.
        recalls: the k of recall@k.
    """

    matrix: Float[np.ndarray, "n d"]
    start: Int[np.ndarray, " m"]
    right: Bool[np.ndarray, "m n"]
    candidates: Bool[np.ndarray, "m n"]
    members: Bool[np.ndarray, "m n"] | None
    weight: Float[np.ndarray, " m"]
    recalls: tuple[int, ...]


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

    Columns dataset, model, form, alpha, metric, value, ci_low, ci_high, n.
    """
    estimates: dict[tuple, Estimate] = {}
    for name, benchmark in sets.items():
        queries, pictures = benchmark.items, benchmark.only_images(benchmark.max_bad)
        encoders = {model_name: model.model for model_name, model in models.items()}
        vectors = benchmark_vectors(config, config.home / FOLDER / name, pictures, encoders)
        say(f"{name}: {len(queries)} composed queries, {len(vectors.ids)} images")
        for gallery, part in queries.groupby("gallery", sort=True):
            images = vectors.of(benchmark.images[benchmark.images.gallery == gallery])
            part = answerable(part, images)
            dataset = name if queries.gallery.nunique() == 1 else f"{name}/{gallery}"
            for model_name, model in models.items() if len(part) else ():
                search = search_of(benchmark, part, images, vectors.seen_by(model_name))
                recalls = scored(search, steps(model, part), alphas, config.evaluate.bootstrap, config.seed)
                estimates |= {(dataset, model_name, *key): estimate for key, estimate in recalls.items()}
    return estimate_table(estimates, ["dataset", "model", "form", "alpha", "metric"])


def answerable(queries: pd.DataFrame, images: pd.DataFrame) -> pd.DataFrame:
    """The queries whose start and at least one answer are among the images."""
    ids = set(images["id"])
    known = [
        start in ids and any(image in ids for image in right)
        for start, right in zip(queries.start, queries.right, strict=True)
    ]
    return queries[known]


def search_of(benchmark: Benchmark, queries: pd.DataFrame, images: pd.DataFrame, vectors: Vectors) -> Search:
    """The search for these queries, all of them answerable, in a gallery of these images."""
    row_of = {image: row for row, image in enumerate(images["id"])}
    start = np.array([row_of[image] for image in queries.start])
    candidates = np.ones((len(queries), len(images)), dtype=bool)
    if not benchmark.start_is_candidate:
        candidates[np.arange(len(queries)), start] = False
    return Search(
        vectors.matrix[vectors.rows(images["id"])],
        start,
        _mask(queries.right, row_of),
        candidates,
        _mask(queries.members, row_of) if queries.members.str.len().gt(0).all() else None,
        queries.weight.to_numpy(dtype=float),
        benchmark.recalls,
    )


def scored(
    search: Search, forms: Mapping[str, Float[np.ndarray, "m d"]], alphas: Sequence[float], draws: int, seed: int
) -> Sweep:
    """(form, alpha, metric) -> weighted recall@k; the bootstrap resamples starting images."""
    recalls: Sweep = {}
    for form, step in forms.items():
        for alpha in map(float, alphas):
            query = step if np.isinf(alpha) else search.matrix[search.start] + alpha * step
            rank = _ranks(search, query, search.candidates)
            values = {f"recall@{k}": rank < k for k in search.recalls}
            if search.members is not None:
                rank = _ranks(search, query, search.candidates & search.members)
                values |= {f"subset recall@{k}": rank < k for k in _SUBSET_RECALLS}
            means = _weighted_means(values, search, draws, seed)
            recalls |= {(form, alpha, metric): estimate for metric, estimate in means.items()}
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
    search: Search, query: Float[np.ndarray, "m d"], candidates: Bool[np.ndarray, "m n"]
) -> Float[np.ndarray, " m"]:
    """Number of wrong candidates ahead of the best right one, or tied with it; inf without a right candidate."""
    ranks = []
    for start in range(0, len(query), _ROWS):
        rows = slice(start, start + _ROWS)
        right, wrong = (candidates[rows] & answers for answers in (search.right[rows], ~search.right[rows]))
        scores = query[rows] @ search.matrix.T
        best = np.where(right, scores, -np.inf).max(axis=1, keepdims=True)
        ahead = ((scores >= best - 1e-6) & wrong).sum(axis=1)
        ranks.append(np.where(right.any(axis=1), ahead, np.inf))
    return np.concatenate(ranks)


def _weighted_means(values: Mapping[str, np.ndarray], search: Search, draws: int, seed: int) -> dict[str, Estimate]:
    weighted = {metric: search.weight * column for metric, column in values.items()}
    sums = bootstrap_means({**weighted, "weight": search.weight}, search.start[:, None], draws, seed)
    total = sums.pop("weight")
    return {
        metric: Estimate(estimate.value / total.value, estimate.draws / total.draws, estimate.n)
        for metric, estimate in sums.items()
    }


def _mask(ids: pd.Series, row_of: Mapping[str, int]) -> Bool[np.ndarray, "m n"]:
    """Whether each image is among the ids of each query."""
    mask = np.zeros((len(ids), len(row_of)), dtype=bool)
    for row, images in zip(mask, ids, strict=True):
        row[[row_of[image] for image in images if image in row_of]] = True
    return mask
