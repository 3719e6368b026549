"""Searching by arithmetic: image + step of a text, among a pool of images."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from pcclip.arithmetic.differences import shuffled
from pcclip.arithmetic.texts import Remembered
from pcclip.config import Config
from pcclip.data.image_set import ImageSet
from pcclip.embedding.vectors import Vectors
from pcclip.runs.progress import say
from pcclip.stats.intervals import Estimate, bootstrap_means
from pcclip.stats.vectors import unit

ALPHAS = (0.0, 0.1, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 4.0, float("inf"))  # 0: the image alone; inf: the text alone
RANK, RECALLS = "rank share", (1, 5, 10)
_TIE = 1e-6
_COLUMNS = ["start", "text", "position", "id", "path", "cosine"]


def rank_share(
    matrix: Float[np.ndarray, "n d"],
    pool: np.ndarray,
    target: np.ndarray,
    start: np.ndarray,
    steps: Float[np.ndarray, "m d"],
) -> Float[np.ndarray, " m"]:
    """Rank of the target image when searching with start + step, as a share of the pool: 0 found first, 1 last.

    The start image itself is not a candidate, and a tie counts half. f(d_12) should lie along u1 - u2, so u2 + f(d_12)
    should find image 1.
    """
    scores = unit(matrix[start] + steps) @ matrix[pool].T
    return ranks(scores, *_columns(pool, target, start)) / max(1, len(pool) - 2)


def ranks(
    scores: Float[np.ndarray, "m n"], target: Int[np.ndarray, " m"], start: Int[np.ndarray, " m"]
) -> Float[np.ndarray, " m"]:
    """Candidates ahead of the target (a tie counts half), the start being none; `target` and `start` are columns."""
    rows = np.arange(len(scores))
    own = scores[rows, target][:, None]
    ahead = (scores > own + _TIE) + 0.5 * (np.abs(scores - own) <= _TIE)
    ahead[rows, target] = ahead[rows, start] = 0
    return ahead.sum(axis=1)


def forms(model: Remembered, pairs: pd.DataFrame, seed: int) -> dict[str, Float[np.ndarray, "m d"]]:
    """The steps from the second image of a pair to the first that texts know of, unit vectors, with a control."""
    right, reverse = model.encode_texts(list(pairs.difference)), model.encode_texts(list(pairs.swapped))
    one, two = model.encode_texts(list(pairs.first_caption)), model.encode_texts(list(pairs.second_caption))
    return {
        "f(d)": right,
        "f(d) - f(swapped)": unit(right - reverse),
        "f(caption 1) - f(caption 2)": unit(one - two),
        "f(caption 1)": one,
        "f(d) of another pair": right[shuffled(len(pairs), seed)],
    }


def sweep(
    matrix: Float[np.ndarray, "n d"],
    pool: np.ndarray,
    target: np.ndarray,
    start: np.ndarray,
    steps: dict[str, Float[np.ndarray, "m d"]],
    draws: int,
    seed: int,
    alphas: Sequence[float] = ALPHAS,
) -> dict[tuple[str, float, str], Estimate]:
    """How well u_start + alpha * step finds the target, for each form of step and each alpha.

    Args:
        matrix: unit image vectors; pool, target and start are rows of it, and both of a pair are in the pool.
        steps: by form, unit vectors.
        draws, seed: of the bootstrap over images.

    Returns:
        (form, alpha, metric) -> Estimate; metrics are the rank as a share of the pool (0 first, 0.5 chance) and
        recall@1, 5 and 10.
    """
    to, of = _columns(pool, target, start)
    alone, values = matrix[start] @ matrix[pool].T, {}
    for form, step in steps.items():
        text = step @ matrix[pool].T
        for alpha in alphas:
            rank = ranks(text if np.isinf(alpha) else alone + alpha * text, to, of)
            values[form, float(alpha), RANK] = rank / max(1, len(pool) - 2)
            values |= {(form, float(alpha), f"recall@{k}"): rank < k for k in RECALLS}
    return bootstrap_means(values, np.stack([target, start], axis=1), draws, seed)


def sweep_table(found: dict[str, dict[tuple[str, float, str], Estimate]]) -> pd.DataFrame:
    """Columns model, form, alpha, metric, value, ci_low, ci_high, n of the sweeps of several models."""
    return pd.DataFrame(
        [
            {
                "model": model,
                "form": form,
                "alpha": alpha,
                "metric": metric,
                "value": one.value,
                "ci_low": one.interval[0],
                "ci_high": one.interval[1],
                "n": one.n,
            }
            for model, swept in found.items()
            for (form, alpha, metric), one in swept.items()
        ]
    )


def changes(config: Config, images: ImageSet, vectors: Vectors, model: Remembered) -> pd.DataFrame:
    """The held-out photos nearest to image + text difference, for each change asked for in the parameters."""
    table, found = vectors.of(images.held_out), []
    for change in config.arithmetic.changes:
        starts = np.flatnonzero(table.concept == change.start)
        if not len(starts):
            say(f"arithmetic: no held-out photo of {change.start!r} with this seed, so that change is left out")
            continue
        step = config.arithmetic.strength * model.encode_texts([change.text])[0]
        best = nearest(vectors, table, int(starts[0]), step, config.arithmetic.neighbours)
        found.append(best.assign(start=table["id"][starts[0]], text=change.text)[_COLUMNS])
    return pd.concat(found, ignore_index=True) if found else pd.DataFrame(columns=_COLUMNS, dtype=str)


def nearest(
    vectors: Vectors, table: pd.DataFrame, start: int, step: Float[np.ndarray, " d"], count: int
) -> pd.DataFrame:
    """Columns position, id, path, cosine of the photos of `table` nearest to its row `start` + step, without itself."""
    matrix = vectors.matrix[vectors.rows(table["id"])]
    cosine = (unit((matrix[start] + step)[None]) @ matrix.T)[0]
    cosine[start] = -np.inf
    best = np.argsort(-cosine, kind="stable")[: min(count, len(table) - 1)]
    return pd.DataFrame(
        {
            "position": np.arange(1, len(best) + 1),
            "id": table["id"].iloc[best].to_numpy(),
            "path": table.path.iloc[best].to_numpy(),
            "cosine": cosine[best],
        }
    )


def neighbours_of(changed: pd.DataFrame, model: str) -> tuple[Sequence[str], Sequence[str]]:
    """Paths and captions for a contact sheet of one model's changes, row by row."""
    rows = changed[changed.model == model]
    return list(rows.path), [f"{r.start.split('/')[-1]} -> {r.id.split('/')[-1]}" for r in rows.itertuples()]


def _columns(pool: np.ndarray, *rows: np.ndarray) -> list[Int[np.ndarray, " m"]]:
    """Where in the pool each of these rows is."""
    column = {row: k for k, row in enumerate(pool)}
    return [np.array([column[row] for row in some], dtype=np.int64) for some in rows]
