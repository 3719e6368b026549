"""Composed image retrieval in stage 05: an image, a text of what should be different, recall@k of the right images.

The query is u + alpha * step. A step is f(text), f(text) - f(before) where the set says what is replaced (SIMAT's own
form), or f("The first image shows TEXT, while the second image shows BEFORE."), which is what finetuning taught. alpha
0 is the image alone and inf the text alone: the two baselines. Nothing is chosen on the queries that are scored; every
alpha is a row.
"""

from collections.abc import Iterator, Mapping

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float

from pcclip.arithmetic.texts import Remembered
from pcclip.benchmarks.benchmark import Benchmark
from pcclip.benchmarks.registry import load_benchmarks
from pcclip.comparisons.sentences import from_captions
from pcclip.config import Config
from pcclip.embedding.stage import benchmark_vectors
from pcclip.embedding.vectors import Vectors
from pcclip.runs.progress import say
from pcclip.stats.intervals import Estimate, bootstrap_means
from pcclip.stats.vectors import unit

__all__ = ["COLUMNS", "FOLDER", "load", "score", "scored", "steps"]

FOLDER = "composed"  # below the run's folder: vectors of each set
COLUMNS = ["dataset", "model", "form", "alpha", "metric", "value", "ci_low", "ci_high", "n"]
_ROWS = 512
_SUBSET = (1, 2, 3)


def load(config: Config) -> dict[str, Benchmark]:
    """The sets of the parameters. Raises PcclipError when one is not there."""
    return load_benchmarks(config, "composed_retrieval")


def score(
    config: Config, sets: Mapping[str, Benchmark], models: Mapping[str, Remembered], alphas: list[float]
) -> pd.DataFrame:
    """Every model, by its own image tower, on every set and gallery: columns COLUMNS. `alphas` as in retrieval.sweep.

    'base' is one of the models.
    """
    rows = []
    for name, given in sets.items():
        queries, pictures = given.items, given.only_images(given.max_bad)
        vectors = benchmark_vectors(
            config, config.home / FOLDER / name, pictures, {which: model.model for which, model in models.items()}
        )
        say(f"{name}: {len(queries)} composed queries, {len(vectors.ids)} images")
        for gallery, part in queries.groupby("gallery", sort=True):
            images = given.images[given.images.gallery == gallery]
            where = name if queries.gallery.nunique() == 1 else f"{name}/{gallery}"
            for which, model in models.items():
                found = scored(
                    vectors.seen_by(which),
                    vectors.of(images),
                    part,
                    model,
                    given,
                    alphas,
                    config.evaluate.bootstrap,
                    config.seed,
                )
                rows += [
                    [where, which, form, alpha, metric, one.value, *one.interval, one.n]
                    for (form, alpha, metric), one in found.items()
                ]
    return pd.DataFrame(rows, columns=COLUMNS)


def scored(
    vectors: Vectors,
    images: pd.DataFrame,
    queries: pd.DataFrame,
    model: Remembered,
    given: Benchmark,
    alphas: list[float],
    draws: int,
    seed: int,
) -> dict[tuple[str, float, str], Estimate]:
    """(form, alpha, metric) -> weighted recall@k in one gallery, the bootstrap being over starting images."""
    place = {image: k for k, image in enumerate(images["id"])}
    known = [
        start in place and any(image in place for image in right)
        for start, right in zip(queries.start, queries.right, strict=True)
    ]
    queries = queries[known]
    if queries.empty:
        return {}
    gallery = vectors.matrix[vectors.rows(images["id"])]
    start = np.array([place[image] for image in queries.start])
    weight = queries.weight.to_numpy(dtype=float)
    right = _mask(queries.right, place)
    barred = None if given.start_is_candidate else start
    members = _mask(queries.members, place) if queries.members.str.len().gt(0).all() else None
    found = {}
    for form, step in steps(model, queries).items():
        for alpha in alphas:
            query = step if np.isinf(alpha) else gallery[start] + alpha * step
            hits = _hits(query, gallery, right, barred, None, given.recalls)
            values = {f"recall@{k}": row for k, row in zip(given.recalls, hits, strict=True)}
            if members is not None:
                hits = _hits(query, gallery, right, barred, members, _SUBSET)
                values |= {f"subset recall@{k}": row for k, row in zip(_SUBSET, hits, strict=True)}
            found |= {
                (form, float(alpha), name): one for name, one in _weighted(values, weight, start, draws, seed).items()
            }
    return found


def steps(model: Remembered, queries: pd.DataFrame) -> dict[str, Float[np.ndarray, "m d"]]:
    """The forms of a step that these queries have, unit vectors."""
    text, found = list(queries.text), {"f(text)": model.encode_texts(list(queries.text))}
    if (queries.before != "").all():
        before = list(queries.before)
        found["f(text) - f(before)"] = unit(found["f(text)"] - model.encode_texts(before))
        found["f(difference)"] = model.encode_texts([from_captions(a, b) for a, b in zip(text, before, strict=True)])
    return found


def _hits(
    query: Float[np.ndarray, "m d"],
    gallery: Float[np.ndarray, "n d"],
    right: Bool[np.ndarray, "m n"],
    barred: np.ndarray | None,
    members: Bool[np.ndarray, "m n"] | None,
    recalls: tuple[int, ...],
) -> Bool[np.ndarray, "k m"]:
    """Whether a right image is among the first k; one that is tied with a wrong one comes after it.

    Where no right image is a candidate it is not, however small the gallery.
    """
    ranks = []
    for rows in _parts(len(query)):
        scores, wanted = query[rows] @ gallery.T, right[rows].copy()
        if barred is not None:
            scores[np.arange(len(scores)), barred[rows]] = -np.inf
            wanted[np.arange(len(scores)), barred[rows]] = False
        if members is not None:
            scores = np.where(members[rows], scores, -np.inf)
            wanted &= members[rows]
        best = np.where(wanted, scores, -np.inf).max(axis=1, keepdims=True)
        ahead = ((scores >= best - 1e-6) & ~wanted & np.isfinite(scores)).sum(axis=1)
        ranks.append(np.where(wanted.any(axis=1), ahead, np.inf))
    rank = np.concatenate(ranks)
    return np.stack([rank < k for k in recalls])


def _weighted(values: dict, weight: np.ndarray, start: np.ndarray, draws: int, seed: int) -> dict[str, Estimate]:
    sums = bootstrap_means(
        {**{name: weight * row for name, row in values.items()}, "": weight}, start[:, None], draws, seed
    )
    total = sums.pop("")
    return {name: Estimate(one.value / total.value, one.draws / total.draws, one.n) for name, one in sums.items()}


def _mask(ids_of: pd.Series, place: dict[str, int]) -> Bool[np.ndarray, "m n"]:
    mask = np.zeros((len(ids_of), len(place)), dtype=bool)
    for row, ids in zip(mask, ids_of, strict=True):
        row[[place[image] for image in ids if image in place]] = True
    return mask


def _parts(count: int) -> Iterator[slice]:
    for start in range(0, count, _ROWS):
        yield slice(start, start + _ROWS)
