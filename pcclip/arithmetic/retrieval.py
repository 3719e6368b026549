"""Searching by arithmetic: image + step of a text, among the held-out images."""

from collections.abc import Mapping, Sequence
from difflib import get_close_matches

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from pcclip.arithmetic.differences import HeldOut, shuffled
from pcclip.arithmetic.texts import TextMemory
from pcclip.config import Config
from pcclip.data.image_set import ImageSet
from pcclip.embedding.vectors import Vectors
from pcclip.errors import PcclipError
from pcclip.runs.progress import say
from pcclip.stats.intervals import Estimate, bootstrap_means, estimate_table
from pcclip.stats.vectors import by_rows, unit

RANK, RECALLS = "rank share", (1, 5, 10)
CHANGE_COLUMNS = ["start", "text", "position", "id", "path", "cosine", "model"]
Sweep = dict[tuple[str, float, str], Estimate]  # (form, alpha, metric)
_TIE = 1e-6


def rank_share(
    matrix: Float[np.ndarray, "n d"],
    pool: Int[np.ndarray, " p"],
    target: Int[np.ndarray, " m"],
    start: Int[np.ndarray, " m"],
    steps: Float[np.ndarray, "m d"],
) -> Float[np.ndarray, " m"]:
    """Rank of the target image in the pool when searching with start + step: 0 is first, 1 is last.

    The start image is no candidate, and a tie counts half. f(d_12) should point along u1 - u2, so that a search with
    u2 + f(d_12) should find image 1.
    """
    queries, candidates, columns = unit(matrix[start] + steps), matrix[pool].T, _columns(pool, target, start)
    ahead = by_rows(lambda query, *column: ranks(query @ candidates, *column), len(pool), queries, *columns)
    return ahead / max(1, len(pool) - 2)


def ranks(
    scores: Float[np.ndarray, "m p"], target: Int[np.ndarray, " m"], start: Int[np.ndarray, " m"]
) -> Float[np.ndarray, " m"]:
    """Number of candidates ahead of the target, where a tie counts half; `target` and `start` are columns of scores."""
    rows = np.arange(len(scores))
    own = scores[rows, target][:, None]
    ahead = (scores > own + _TIE) + 0.5 * (np.abs(scores - own) <= _TIE)
    ahead[rows, target] = ahead[rows, start] = 0
    return ahead.sum(axis=1)


def steps_of(model: TextMemory, pairs: pd.DataFrame, seed: int) -> dict[str, Float[np.ndarray, "m d"]]:
    """Unit steps from the second image of each pair to the first, by form, and the control of another pair's step."""
    right, reverse = model.encode_texts(list(pairs.difference)), model.encode_texts(list(pairs.swapped))
    first, second = (model.encode_texts(list(pairs[f"{side}_caption"])) for side in ("first", "second"))
    return {
        "f(d)": right,
        "f(d) - f(swapped)": unit(right - reverse),
        "f(caption 1) - f(caption 2)": unit(first - second),
        "f(caption 1)": first,
        "f(d) of another pair": right[shuffled(len(pairs), seed)],
    }


def sweep(held_out: HeldOut, model: TextMemory, alphas: Sequence[float]) -> Sweep:
    """How well u_start + alpha * step finds the target, for each form of step and each alpha.

    Args:
        held_out: with the vectors of the model's image tower.
        alphas: 0 is the image alone, inf the text alone.

    Returns:
        (form, alpha, metric) -> estimate; metrics are the rank share (0 first, 0.5 chance) and recall@1, 5 and 10.
    """
    matrix, pool, values = held_out.vectors.matrix, held_out.rows, {}
    candidates, columns = matrix[pool].T, _columns(pool, *held_out.sides.T)

    def ranks_by_alpha(image: np.ndarray, step: np.ndarray, *column: np.ndarray) -> np.ndarray:
        image_scores, text_scores = image @ candidates, step @ candidates
        return np.stack(
            [ranks(text_scores if np.isinf(a) else image_scores + a * text_scores, *column) for a in map(float, alphas)]
        )

    for form, step in steps_of(model, held_out.pairs, held_out.seed).items():
        by_alpha = by_rows(ranks_by_alpha, len(pool), matrix[held_out.sides[:, 1]], step, *columns)
        for alpha, rank in zip(map(float, alphas), by_alpha, strict=True):
            values[form, alpha, RANK] = rank / max(1, len(pool) - 2)
            for k in RECALLS:
                values[form, alpha, f"recall@{k}"] = (rank < k).astype(float)
    return bootstrap_means(values, held_out.units, held_out.draws, held_out.seed)


def sweeps(held_out: HeldOut, models: Mapping[str, TextMemory], alphas: Sequence[float]) -> dict[str, Sweep]:
    """`sweep` of every model by its own image tower."""
    return {name: sweep(held_out.seen_by(name), model, alphas) for name, model in models.items()}


def table(by_model: Mapping[str, Sweep]) -> pd.DataFrame:
    """The sweeps of several models: columns model, form, alpha, metric, value, ci_low, ci_high, n."""
    estimates = {(model, *key): value for model, sweep in by_model.items() for key, value in sweep.items()}
    return estimate_table(estimates, ["model", "form", "alpha", "metric"])


def check_changes(config: Config, images: ImageSet) -> None:
    """Raise PcclipError when a change starts from a concept that the image set lacks."""
    concepts = sorted(set(images.table.concept))
    for change in config.arithmetic.changes:
        if change.start not in concepts:
            near = get_close_matches(change.start, concepts, n=3) or concepts[:10]
            raise PcclipError(f"arithmetic.changes: {images.name} has no {change.start!r}; it has: {', '.join(near)}")


def change_table(config: Config, held_out: HeldOut, models: Mapping[str, TextMemory]) -> pd.DataFrame:
    """The held-out photos nearest to image + text difference, for each of arithmetic.changes: CHANGE_COLUMNS."""
    settings, table, parts = config.arithmetic, held_out.table, []
    for change in settings.changes:
        starts = np.flatnonzero(table.concept == change.start)
        if not len(starts):
            say(f"arithmetic: no held-out photo of {change.start!r} with this seed, so that change is left out")
            continue
        start = int(starts[0])
        for name, model in models.items():
            step = settings.strength * model.encode_texts([change.text])[0]
            photos = nearest(held_out.vectors.seen_by(name), table, start, step, settings.neighbours)
            parts.append(photos.assign(start=table["id"][start], text=change.text, model=name)[CHANGE_COLUMNS])
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=CHANGE_COLUMNS, dtype=str)


def nearest(
    vectors: Vectors, table: pd.DataFrame, start: int, step: Float[np.ndarray, " d"], count: int
) -> pd.DataFrame:
    """The photos of `table` nearest to its row `start` plus `step`, other than that row.

    Columns position, id, path, cosine.
    """
    matrix = vectors.matrix[vectors.rows(table["id"])]
    cosine = (unit((matrix[start] + step)[None]) @ matrix.T)[0]
    cosine[start] = -np.inf
    best = np.argsort(-cosine, kind="stable")[: min(count, len(table) - 1)]
    photos = table.iloc[best].reset_index(drop=True).assign(position=np.arange(1, len(best) + 1), cosine=cosine[best])
    return photos[["position", "id", "path", "cosine"]]


def _columns(pool: Int[np.ndarray, " p"], *rows: Int[np.ndarray, " m"]) -> list[Int[np.ndarray, " m"]]:
    """Position in the pool of each of these rows."""
    column_of = pd.Series(np.arange(len(pool)), pool)
    return [column_of[part].to_numpy() for part in rows]
