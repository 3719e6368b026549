"""What changed between two images, in words: a bank of difference sentences, ranked for the pair.

A sentence's score is cos(g(1) - g(2), f(s) - f(s swapped)), which a constant offset of the text vectors cannot change.
The bank is a table: text, twin (the sentence with the images exchanged), source.
"""

from collections.abc import Mapping

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Int, Shaped

from pcclip.arithmetic.differences import HeldOut
from pcclip.arithmetic.geometry import Measures
from pcclip.arithmetic.texts import TextMemory
from pcclip.comparisons.attributes import load_bank
from pcclip.comparisons.stage import FOLDER as GENERATE
from pcclip.comparisons.stage import TABLE, kept
from pcclip.config import Config
from pcclip.embedding.vectors import Vectors
from pcclip.errors import PcclipError
from pcclip.runs.files import read_parquet
from pcclip.stats.intervals import Estimate, bootstrap_means, jackknife
from pcclip.stats.vectors import cosines, image_differences, unit

COLUMNS = ["pair", "first", "second", "model", "position", "of", "text", "source", "score", "own"]
BINS = 8  # of equal count, for calibration
_TIE = 1e-6
EXPLAINED = 3  # explained
_SHOWN = 3  # sentences of either end
_SENTENCES = 200  # of 01, in a bank


def held_out_comparisons(config: Config) -> pd.DataFrame:
    """01's kept comparisons of held-out pairs."""
    return kept(read_parquet(config.source_folder / GENERATE / TABLE).to_pandas(), "held_out")


def sentence_bank(config: Config) -> pd.DataFrame:
    """`bank_of` for a run's comparisons and attribute bank."""
    return bank_of(held_out_comparisons(config), config.generate.attributes, _SENTENCES, config.seed)


def bank_of(comparisons: pd.DataFrame, attributes: str | None, limit: int, seed: int) -> pd.DataFrame:
    """Columns text, twin, source: sentences of comparisons that have a twin, and phrases of an attribute bank.

    Args:
        comparisons: columns difference, swapped.
        attributes: name of an attribute bank; both directions of its phrases are added.
        limit: largest number of sentences from comparisons.
    """
    rows = comparisons[comparisons.swapped != ""].drop_duplicates("difference")
    rows = rows.sample(limit, random_state=seed).sort_index() if len(rows) > limit else rows
    sentences = [(row.difference, row.swapped, "a pair of 01") for row in rows.itertuples()]
    for attribute in load_bank(attributes).attributes if attributes else []:
        for more, less in attribute.held_out or attribute.paraphrases:
            sentences += [(more, less, attribute.name), (less, more, attribute.name)]
    return pd.DataFrame(sentences, columns=["text", "twin", "source"], dtype=str)


def scores(
    model: TextMemory,
    matrix: Float[np.ndarray, "n d"],
    first: Int[np.ndarray, " m"],
    second: Int[np.ndarray, " m"],
    bank: pd.DataFrame,
) -> Float[np.ndarray, "m s"]:
    """Score of every sentence for every pair of rows; exchanging the images changes the sign."""
    directions = unit(model.encode_texts(list(bank.text)) - model.encode_texts(list(bank.twin)))
    return image_differences(matrix, first, second) @ directions.T


def explain(
    model: TextMemory, vectors: Vectors, pair: tuple[str, str], bank: pd.DataFrame, shown: int = _SHOWN
) -> pd.DataFrame:
    """The sentences with the highest and the lowest scores for how the first image of `pair` differs from the second.

    Args:
        vectors: of the model's image tower.
        pair: ids of the two images.
        shown: sentences of either end.

    Returns:
        Columns position (1 is the best), of (size of the bank), text, source, score.

    Raises:
        PcclipError: an image without a vector, or an empty bank.
    """
    if bank.empty:
        raise PcclipError("no sentence to explain with: 01 kept none of a held-out pair; give an attribute bank")
    first, second = (vectors.rows([image]) for image in pair)
    [score] = scores(model, vectors.matrix, first, second, bank)
    order = np.argsort(-score, kind="stable")
    ends = np.unique(np.r_[: min(shown, len(order)), max(0, len(order) - shown) : len(order)])
    rows = order[ends]
    sentences = bank[["text", "source"]].iloc[rows].reset_index(drop=True).assign(score=score[rows])
    sentences.insert(0, "position", ends + 1)
    sentences.insert(1, "of", len(order))
    return sentences


def explanations(
    held_out: HeldOut, models: Mapping[str, TextMemory], comparisons: pd.DataFrame, bank: pd.DataFrame
) -> pd.DataFrame:
    """`explain` by every model for EXPLAINED random pairs of 01: columns COLUMNS; own marks the pair's own sentence.

    The pairs are drawn among pairs whose own sentence is in the bank, where there are any.
    """
    rows = _with_vectors(comparisons, held_out.vectors)
    in_bank = rows.difference.isin(bank.text)
    rows = rows[in_bank] if in_bank.any() else rows
    rows = rows.sample(0 if bank.empty else min(EXPLAINED, len(rows)), random_state=held_out.seed)
    parts = []
    for number, row in enumerate(rows.itertuples()):
        for name, model in models.items():
            part = explain(model, held_out.vectors.seen_by(name), (row.first, row.second), bank)
            part = part.assign(pair=number, first=row.first, second=row.second, model=name)
            parts.append(part.assign(own=part.text == row.difference))
    return pd.concat(parts, ignore_index=True)[COLUMNS] if parts else pd.DataFrame(columns=COLUMNS)


def own_rank(
    held_out: HeldOut, model: TextMemory, comparisons: pd.DataFrame, bank: pd.DataFrame
) -> dict[str, Estimate]:
    """Rank of each pair's own sentence in the bank, by control: fraction of other sentences ahead, 0.5 is chance."""
    rows, vectors = _with_vectors(comparisons, held_out.vectors), held_out.vectors
    row_of = {text: row for row, text in enumerate(bank.text)}
    rows = rows[rows.difference.isin(bank.text)]
    if len(bank) < 2 or not len(rows):
        return {}
    first, second = vectors.rows(rows["first"]), vectors.rows(rows["second"])
    score = scores(model, vectors.matrix, first, second, bank)
    own = np.array([row_of[text] for text in rows.difference])
    values = {}
    for control, sign in (("none", 1), ("images exchanged", -1)):
        own_score = sign * score[np.arange(len(rows)), own][:, None]
        ahead = (sign * score > own_score + _TIE) + 0.5 * (np.abs(sign * score - own_score) <= _TIE)
        values[control] = (ahead.sum(axis=1) - 0.5) / (len(bank) - 1)
    return bootstrap_means(values, np.stack([first, second], axis=1), held_out.draws, held_out.seed)


def own_ranks(
    held_out: HeldOut, models: Mapping[str, TextMemory], comparisons: pd.DataFrame, bank: pd.DataFrame
) -> Measures:
    """`own_rank` of every model by its own image tower."""
    return {
        ("explanation, rank of the own sentence", name, control): estimate
        for name, model in models.items()
        for control, estimate in own_rank(held_out.seen_by(name), model, comparisons, bank).items()
    }


def photos_of(table: pd.DataFrame, vectors: Vectors, images: pd.DataFrame) -> tuple[list[str], list[str]]:
    """Paths and captions of both photos of each explained pair; `images` has id and caption."""
    caption_of = dict(zip(images["id"], images.caption, strict=True))
    ids = list(table.drop_duplicates("pair")[["first", "second"]].to_numpy().ravel())
    return [vectors.paths[row] for row in vectors.rows(ids)], [caption_of.get(image, image) for image in ids]


def explained_pairs(config: Config, table: pd.DataFrame) -> pd.DataFrame:
    """The explained pairs with 01's sentences, for the arrows of the map."""
    comparisons = held_out_comparisons(config).drop_duplicates(["first", "second"])
    return table.drop_duplicates("pair")[["first", "second"]].merge(comparisons, on=["first", "second"])


# ---- calibration


def two_way(
    v: Float[np.ndarray, "m d"], right: Float[np.ndarray, "m d"], reverse: Float[np.ndarray, "m d"], temperature: float
) -> tuple[Float[np.ndarray, " m"], Float[np.ndarray, " m"]]:
    """(confidence, correct) of choosing between a text and its swapped twin; correct is 0.5 for a tie.

    The confidence is the larger value of softmax(cosines / temperature), as in the training loss: 0.5 to 1.
    """
    margin = (cosines(v, right) - cosines(v, reverse)).astype(np.float64)
    confidence = 1 / (1 + np.exp(-np.abs(margin) / temperature))
    return confidence, np.where(np.abs(margin) < 1e-9, 0.5, margin > 0)


def calibration(
    confidence: Float[np.ndarray, " m"],
    correct: Float[np.ndarray, " m"],
    members: Shaped[np.ndarray, "m k"],
    draws: int,
    seed: int,
) -> tuple[pd.DataFrame, Estimate]:
    """How often a choice is correct, against its confidence.

    Args:
        members: the images of each choice.
        draws, seed: of the bootstrap.

    Returns:
        A row per bin of equal count (confidence as its mean, accuracy, ci_low, ci_high, n), and the expected
        calibration error: the mean distance of confidence and accuracy over the bins. Its interval is from the
        jackknife, because noise would enlarge the distances in a resample.
    """
    order = np.argsort(confidence, kind="stable")
    bin_of, rows = np.empty(len(order), dtype=np.int64), []
    for number, part in enumerate(np.array_split(order, min(BINS, len(order)))):
        bin_of[part] = number
        means = bootstrap_means({"confidence": confidence[part], "accuracy": correct[part]}, members[part], draws, seed)
        accuracy = means["accuracy"]
        rows.append([means["confidence"].value, accuracy.value, *accuracy.interval, len(part)])
    excess = confidence - correct

    def error(kept_rows: Bool[np.ndarray, " m"]) -> float:
        sums = np.bincount(bin_of[kept_rows], excess[kept_rows], len(rows))
        return float(np.abs(sums).sum() / kept_rows.sum())

    curve = pd.DataFrame(rows, columns=["confidence", "accuracy", "ci_low", "ci_high", "n"])
    return curve, jackknife(error, members, seed)


def calibrations(
    held_out: HeldOut, models: Mapping[str, TextMemory], temperature: float
) -> tuple[pd.DataFrame, Measures]:
    """`calibration` of every model in choosing between a pair's text and its twin: the curves and the errors."""
    curves, errors = [], {}
    pairs, members = held_out.pairs, held_out.sides
    for name, model in models.items():
        v = image_differences(held_out.vectors.seen_by(name).matrix, *members.T)
        right, reverse = model.encode_texts(list(pairs.difference)), model.encode_texts(list(pairs.swapped))
        choices = two_way(v, right, reverse, temperature)
        curve, error = calibration(*choices, members, held_out.draws, held_out.seed)
        curves.append(curve.assign(model=name))
        errors["calibration error, two texts", name, "none"] = error
    return pd.concat(curves, ignore_index=True), errors


def _with_vectors(comparisons: pd.DataFrame, vectors: Vectors) -> pd.DataFrame:
    return comparisons[vectors.has(comparisons["first"], comparisons["second"])].reset_index(drop=True)
