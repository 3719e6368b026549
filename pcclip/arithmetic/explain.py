"""What changed between two images, in words: a bank of difference sentences, ranked for the pair.

A sentence's score is cos(g(1) - g(2), f(s) - f(s swapped)), which no constant offset of the text vectors can fool.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from pcclip.arithmetic.texts import Remembered
from pcclip.comparisons.attributes import load_bank
from pcclip.comparisons.stage import kept
from pcclip.embedding.vectors import Vectors
from pcclip.errors import PcclipError
from pcclip.stats.intervals import Estimate, bootstrap_means, jackknife
from pcclip.stats.vectors import cosines, image_differences, unit

COLUMNS = ["pair", "first", "second", "model", "position", "of", "text", "source", "score", "own"]


@dataclass(frozen=True)
class Bank:
    """Sentences about a first and a second image, each with its swapped twin and where it is from."""

    texts: list[str]
    twins: list[str]
    sources: list[str]

    def directions(self, model: Remembered) -> Float[np.ndarray, "s d"]:
        """f(s) - f(s swapped), unit."""
        return unit(model.encode_texts(self.texts) - model.encode_texts(self.twins))


def bank_of(comparisons: pd.DataFrame, attributes: str | None, limit: int, seed: int) -> Bank:
    """01's kept sentences of held-out pairs, at most `limit` of them, and the phrases of an attribute bank, both ways.

    Empty where there is neither.
    """
    rows = kept(comparisons, "held_out")
    rows = rows[rows.swapped != ""].drop_duplicates("difference")
    rows = rows.sample(limit, random_state=seed).sort_index() if len(rows) > limit else rows
    texts, twins, sources = list(rows.difference), list(rows.swapped), ["a pair of 01"] * len(rows)
    for attribute in load_bank(attributes).attributes if attributes else []:
        for more, less in attribute.held_out or attribute.paraphrases:
            texts += [more, less]
            twins += [less, more]
            sources += [attribute.name] * 2
    return Bank(texts, twins, sources)


def scores(
    model: Remembered,
    matrix: Float[np.ndarray, "n d"],
    first: Int[np.ndarray, " m"],
    second: Int[np.ndarray, " m"],
    bank: Bank,
) -> Float[np.ndarray, "m s"]:
    """Of every sentence for every pair of images; exchanging the images changes the sign."""
    return image_differences(matrix, first, second) @ bank.directions(model).T


def explain(model: Remembered, vectors: Vectors, first: str, second: str, bank: Bank, shown: int = 3) -> pd.DataFrame:
    """The sentences that say best, and worst, how image `first` differs from `second` (ids).

    Columns position (1 is best), of (how many), text, source, score. Raises PcclipError for an image without a vector
    or an empty bank.
    """
    if not bank.texts:
        raise PcclipError("no sentence to explain with: 01 kept none of a held-out pair; give an attribute bank")
    [score] = scores(model, vectors.matrix, vectors.rows([first]), vectors.rows([second]), bank)
    order = np.argsort(-score, kind="stable")
    ends = np.unique(np.r_[: min(shown, len(order)), max(0, len(order) - shown) : len(order)])
    at = order[ends]
    return pd.DataFrame(
        {
            "position": ends + 1,
            "of": len(order),
            "text": [bank.texts[k] for k in at],
            "source": [bank.sources[k] for k in at],
            "score": score[at],
        }
    )


def explanations(
    models: dict[str, Remembered],
    vectors: Vectors,
    comparisons: pd.DataFrame,
    bank: Bank,
    pairs: int,
    seed: int,
    shown: int = 3,
) -> pd.DataFrame:
    """`explain` for some of 01's held-out pairs, by every model: columns COLUMNS; own: the pair's own sentence.

    They are drawn among the pairs whose own sentence is in the bank, where there are any.
    """
    rows = _with_vectors(comparisons, vectors)
    own = rows.difference.isin(bank.texts)
    rows = rows[own] if own.any() else rows
    rows = rows.sample(min(pairs, len(rows)) if bank.texts else 0, random_state=seed)
    found = [
        explain(model, vectors.seen_by(which), row.first, row.second, bank, shown).assign(
            pair=k, first=row.first, second=row.second, model=which, own=lambda t, row=row: t.text == row.difference
        )
        for k, row in enumerate(rows.itertuples())
        for which, model in models.items()
    ]
    return pd.concat(found, ignore_index=True)[COLUMNS] if found else pd.DataFrame(columns=COLUMNS)


def own_rank(
    model: Remembered, vectors: Vectors, comparisons: pd.DataFrame, bank: Bank, draws: int, seed: int
) -> dict[tuple[str, str], Estimate]:
    """Where each pair's own sentence comes in the bank: share of the other sentences ahead of it, 0.5 is chance."""
    rows = _with_vectors(comparisons, vectors)
    place = {text: k for k, text in enumerate(bank.texts)}
    rows = rows[rows.difference.isin(list(place))]
    if len(bank.texts) < 2 or not len(rows):
        return {}
    first, second = vectors.rows(rows["first"]), vectors.rows(rows["second"])
    score = scores(model, vectors.matrix, first, second, bank)
    own = np.array([place[text] for text in rows.difference])
    values = {}
    for control, sign in (("none", 1), ("images exchanged", -1)):
        mine = sign * score[np.arange(len(rows)), own][:, None]
        ahead = (sign * score > mine + 1e-6) + 0.5 * (np.abs(sign * score - mine) <= 1e-6)
        values[control] = (ahead.sum(axis=1) - 0.5) / (len(bank.texts) - 1)
    found = bootstrap_means(values, np.stack([first, second], axis=1), draws, seed)
    return {("explanation, rank of the own sentence", control): one for control, one in found.items()}


def photos_of(table: pd.DataFrame, vectors: Vectors, images: pd.DataFrame) -> tuple[list[str], list[str]]:
    """Paths and captions of both photos of each pair that `explanations` explains; `images` has id and caption."""
    captions = dict(zip(images["id"], images.caption, strict=True))
    pairs = table.drop_duplicates("pair")
    ids = [image for row in pairs.itertuples() for image in (row.first, row.second)]
    return [vectors.paths[k] for k in vectors.rows(ids)], [captions.get(image, image) for image in ids]


def two_way(
    v: Float[np.ndarray, "m d"], right: Float[np.ndarray, "m d"], reverse: Float[np.ndarray, "m d"], temperature: float
) -> tuple[Float[np.ndarray, " m"], Float[np.ndarray, " m"]]:
    """(confidence, right or not) of choosing between a text and its swapped twin.

    The confidence is that of softmax(cosines / temperature), 0.5 to 1: what the training loss would make of them.
    """
    margin = (cosines(v, right) - cosines(v, reverse)).astype(np.float64)
    sure = 1 / (1 + np.exp(-np.abs(margin) / temperature))
    return sure, np.where(np.abs(margin) < 1e-9, 0.5, margin > 0)


def calibration(
    confidence: Float[np.ndarray, " m"],
    correct: Float[np.ndarray, " m"],
    members: np.ndarray,
    draws: int,
    seed: int,
    bins: int = 8,
) -> tuple[pd.DataFrame, Estimate]:
    """How often a choice is right, against how sure it was.

    Returns:
        A row per bin of equal count: confidence (mean), accuracy, ci_low, ci_high, n; and the expected calibration
        error, the mean distance of the two over the bins (0 for a model that is as often right as it is sure), with the
        jackknife's interval: in a resample, with noise added to noise, distances would be larger.
    """
    order = np.argsort(confidence, kind="stable")
    bin_of, rows = np.empty(len(order), dtype=np.int64), []
    for k, part in enumerate(np.array_split(order, min(bins, len(order)))):
        bin_of[part] = k
        found = bootstrap_means({"confidence": confidence[part], "accuracy": correct[part]}, members[part], draws, seed)
        sure, right = found["confidence"], found["accuracy"]
        rows.append([sure.value, right.value, *right.interval, len(part)])
    over = confidence - correct
    error = jackknife(
        lambda kept: float(np.abs(np.bincount(bin_of[kept], over[kept], len(rows))).sum() / kept.sum()), members, seed
    )
    return pd.DataFrame(rows, columns=["confidence", "accuracy", "ci_low", "ci_high", "n"]), error


def _with_vectors(comparisons: pd.DataFrame, vectors: Vectors) -> pd.DataFrame:
    rows = kept(comparisons, "held_out")
    return rows[vectors.has(rows["first"], rows["second"])].reset_index(drop=True)
