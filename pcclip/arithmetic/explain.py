"""What changed between two images, in words: a bank of difference sentences, ranked for the pair.

A sentence's score is cos(g(1) - g(2), f(s) - f(s swapped)), which a constant offset of the text vectors cannot change.
The bank is a table: text, twin (the sentence with the images exchanged), source.
"""

from collections.abc import Mapping

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from pcclip.arithmetic.differences import HeldOut
from pcclip.arithmetic.texts import TextMemory
from pcclip.comparisons.attributes import load_bank
from pcclip.comparisons.stage import FOLDER as GENERATE
from pcclip.comparisons.stage import TABLE, kept
from pcclip.config import Config
from pcclip.embedding.vectors import Vectors
from pcclip.errors import PcclipError
from pcclip.runs.files import read_parquet
from pcclip.stats.vectors import image_differences, unit

COLUMNS = ["pair", "first", "second", "model", "position", "of", "text", "source", "score", "own"]
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


def photos_of(table: pd.DataFrame, vectors: Vectors, images: pd.DataFrame) -> tuple[list[str], list[str]]:
    """Paths and captions of both photos of each explained pair; `images` has id and caption."""
    caption_of = dict(zip(images["id"], images.caption, strict=True))
    ids = list(table.drop_duplicates("pair")[["first", "second"]].to_numpy().ravel())
    return [vectors.paths[row] for row in vectors.rows(ids)], [caption_of.get(image, image) for image in ids]


def _with_vectors(comparisons: pd.DataFrame, vectors: Vectors) -> pd.DataFrame:
    return comparisons[vectors.has(comparisons["first"], comparisons["second"])].reset_index(drop=True)
