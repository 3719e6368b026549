"""Stage 05: does the embedding space obey arithmetic, before and after finetuning?

Alignment: where f(d) points, against the image difference and the caption difference, right way round and reversed.
Retrieval: does image + f(difference) land on the image that was meant?
"""

from collections.abc import Sequence
from difflib import get_close_matches

import numpy as np
import pandas as pd
from jaxtyping import Float

from pcclip import statistics
from pcclip.comparisons.generate import template_pairs
from pcclip.data import ImageSet
from pcclip.embed import FOLDER as EMBED
from pcclip.embed import Vectors, shared_inputs
from pcclip.errors import PcclipError
from pcclip.finetune.trainer import FOLDER as FINETUNE
from pcclip.models.encoder import DualEncoder
from pcclip.params import Config
from pcclip.progress import say
from pcclip.scores import cosines, image_differences, unit
from pcclip.stage import Stage, built_on, read_parquet, write_parquet

FOLDER, ITEMS, CHANGES = "05_arithmetic", "items.parquet", "changes.parquet"
_FORMAT = 1


def stage(config: Config, images: ImageSet | None = None) -> Stage:
    return Stage(config.folder / FOLDER, {
        "format": _FORMAT, "arithmetic": config.arithmetic.model_dump(), "alpha": config.evaluate.alpha,
        "bootstrap": config.evaluate.bootstrap,
        **built_on((config.source_folder / EMBED, config.folder / FINETUNE), shared_inputs(config, images))})


def analyze(
    config: Config, images: ImageSet, vectors: Vectors, models: dict[str, DualEncoder]
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Run the stage, or read it when done.

    Returns:
        items: one row per held-out pair, model and measure (columns first, second, model, measure, value);
        changes: the photos nearest to image + text difference (columns model, start, text, position, id, path, cosine).
    """
    this = stage(config, images)
    if this.done():
        say(f"{FOLDER}: done already, read from {this.folder}")
        return tuple(read_parquet(this.folder / name).to_pandas() for name in (ITEMS, CHANGES))
    with this.work():
        pairs = template_pairs(vectors.of(images.held_out), config.arithmetic.pairs, config.seed)
        items = pd.concat([measures(model, vectors, images, pairs, config.arithmetic.strength).assign(model=which)
                           for which, model in models.items()], ignore_index=True)
        changed = pd.concat([changes(config, images, vectors, model).assign(model=which)
                             for which, model in models.items()], ignore_index=True)
        write_parquet(this.folder / ITEMS, items)
        write_parquet(this.folder / CHANGES, changed)
        this.finish([ITEMS, CHANGES], {"pairs": len(pairs), "changes": len(config.arithmetic.changes)})
    return items, changed


def measures(
    model: DualEncoder, vectors: Vectors, images: ImageSet, pairs: pd.DataFrame, strength: float
) -> pd.DataFrame:
    """Every measure of every pair: cosines with the image and the caption difference, and the target's rank share."""
    first, second = vectors.rows(pairs["first"]), vectors.rows(pairs["second"])
    v = image_differences(vectors.matrix, first, second)
    right, reverse = model.encode_texts(list(pairs.difference)), model.encode_texts(list(pairs.swapped))
    captions = unit(model.encode_texts(list(pairs.first_caption)) - model.encode_texts(list(pairs.second_caption)))
    pool = vectors.rows(vectors.of(images.held_out)["id"])
    values = {
        "image difference": cosines(right, v),
        "image difference, reversed text": cosines(reverse, v),
        "caption difference": cosines(right, captions),
        "caption difference, reversed text": cosines(reverse, captions),
        "retrieval rank, image alone": rank_share(vectors.matrix, pool, first, second, 0 * right),
        "retrieval rank, image + text": rank_share(vectors.matrix, pool, first, second, strength * right),
    }
    return pd.concat([pd.DataFrame({"first": pairs["first"], "second": pairs["second"], "measure": name,
                                    "value": value.astype(float)}) for name, value in values.items()])


def rank_share(
    matrix: Float[np.ndarray, "n d"], pool: np.ndarray, target: np.ndarray, start: np.ndarray,
    steps: Float[np.ndarray, "m d"],
) -> Float[np.ndarray, " m"]:
    """Rank of the target image when searching with start + step, as a share of the pool: 0 found first, 1 last.

    The start image itself is not a candidate. f(d_12) should lie along u1 - u2, so u2 + f(d_12) should find image 1.
    """
    scores = unit(matrix[start] + steps) @ matrix[pool].T
    own = scores[pool[None] == target[:, None]]
    scores[pool[None] == start[:, None]] = -np.inf
    return (scores > own[:, None]).sum(axis=1) / max(1, len(pool) - 2)


def changes(config: Config, images: ImageSet, vectors: Vectors, model: DualEncoder) -> pd.DataFrame:
    """The held-out photos nearest to image + text difference, for each change asked for in the parameters."""
    table = vectors.of(images.held_out)
    matrix, found = vectors.matrix[vectors.rows(table["id"])], []
    for change in config.arithmetic.changes:
        starts = np.flatnonzero(table.concept == change.start)
        if not len(starts):
            say(f"{FOLDER}: no held-out photo of {change.start!r} with this seed, so that change is left out")
            continue
        step = config.arithmetic.strength * model.encode_texts([change.text])[0]
        cosine = unit((matrix[starts[0]] + step)[None]) @ matrix.T
        cosine[0, starts[0]] = -np.inf
        best = np.argsort(-cosine[0], kind="stable")[: config.arithmetic.neighbours]
        found.append(pd.DataFrame({
            "start": table["id"][starts[0]], "text": change.text, "position": np.arange(1, len(best) + 1),
            "id": table["id"][best].to_numpy(), "path": table.path[best].to_numpy(), "cosine": cosine[0, best]}))
    columns = ["start", "text", "position", "id", "path", "cosine"]
    return pd.concat(found, ignore_index=True) if found else pd.DataFrame(columns=columns, dtype=str)


def check_changes(config: Config, images: ImageSet) -> None:
    """Raise PcclipError when a change starts from a concept that the image set does not have."""
    known = sorted(set(images.table.concept))
    for change in config.arithmetic.changes:
        if change.start not in known:
            near = get_close_matches(change.start, known, n=3) or known[:10]
            raise PcclipError(f"arithmetic.changes: {images.name} has no {change.start!r}; it has: {', '.join(near)}")


def summary(items: pd.DataFrame, draws: int, seed: int) -> pd.DataFrame:
    """Mean of each measure and model with a 95% interval from resampled images: one row per measure and model."""
    rows = []
    for (measure, model), part in items.groupby(["measure", "model"], sort=False):
        values, first, second = (part[name].to_numpy() for name in ("value", "first", "second"))
        estimate = statistics.mean(values, first, second, draws, seed)
        low, high = estimate.interval
        rows.append({"measure": measure, "model": model, "value": estimate.value, "ci_low": low, "ci_high": high,
                     "n": estimate.n})
    return pd.DataFrame(rows)


def neighbours_of(changed: pd.DataFrame, model: str) -> tuple[Sequence[str], Sequence[str]]:
    """Paths and captions for a contact sheet of one model's changes, row by row."""
    rows = changed[changed.model == model]
    return list(rows.path), [f"{r.start.split('/')[-1]} -> {r.id.split('/')[-1]}" for r in rows.itertuples()]
