"""How fast an order learns from votes: a simulated voter knows the true values, and errs in one answer of ten.

For each seed half of the groups of photos (say, concepts) are voted on. Judged are these photos, which are those that a
person wants in order, and the other half, which were never voted on. The voter answers a tie where values are equal.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float
from scipy.stats import kendalltau

from pcclip.errors import PcclipError
from pcclip.ranking.posterior import Ballot, Order, learnt_order, next_pair
from pcclip.runs.progress import Meter
from pcclip.stats.random_streams import stream

VOTES = (0, 1, 2, 5, 10, 20, 40)  # numbers of votes after which the order is judged
WRONG = 0.1  # chance that the voter prefers the other photo


def learning_curve(
    matrix: Float[np.ndarray, "n d"],
    values: Float[np.ndarray, " n"],
    groups: Sequence | np.ndarray,
    text: Float[np.ndarray, " d"],
    seeds: Sequence[int] = range(10),
) -> pd.DataFrame:
    """Pairwise accuracy after each number of votes in VOTES, with and without the text direction as the prior.

    Args:
        matrix: unit vectors of the photos.
        values: their true values.
        groups: their groups; photos of one group stay on one side of the split.
        text: the text direction, of length one.
        seeds: each gives one split and one voter.

    Returns:
        Columns prior ('text', 'none'), asked ('next_pair', 'random'), photos ('voted', 'other'), votes, seed and
        accuracy: the fraction of judged pairs with different values that the scores order correctly, where a tied score
        counts half. Without text and votes it is 0.5.

    Raises:
        PcclipError: fewer than four groups, a half whose values are all equal, or a half that runs out of pairs.
    """
    values = np.asarray(values, dtype=float)
    rows, meter = [], Meter(4 * len(seeds), "learning curves")
    for seed in seeds:
        voted = _voted_half(np.asarray(groups), values, seed)
        for prior_name, prior in (("text", text), ("none", None)):
            for strategy in ("next_pair", "random"):
                rng = stream("votes of a voter", seed)
                for count, order in _voting(matrix[voted], values[voted], prior, strategy, rng):
                    scores = {"voted": np.zeros(voted.sum()), "other": np.zeros((~voted).sum())}
                    if order is not None:
                        direction = order.axis.direction[: matrix.shape[1]]
                        scores = {"voted": order.scores, "other": matrix[~voted] @ direction}
                    for photos, judged in (("voted", voted), ("other", ~voted)):
                        accuracy = pairwise_accuracy(scores[photos], values[judged])
                        rows.append((prior_name, strategy, photos, count, seed, accuracy))
                meter.add()
    return pd.DataFrame(rows, columns=["prior", "asked", "photos", "votes", "seed", "accuracy"])


def _voted_half(groups: np.ndarray, values: Float[np.ndarray, " n"], seed: int) -> Bool[np.ndarray, " n"]:
    """True for the photos of a random half of the groups."""
    names = np.unique(groups)
    if len(names) < 4:
        raise PcclipError(f"a learning curve needs four groups of photos, not {len(names)}; give more photos")
    voted = np.isin(groups, stream("groups voted on", seed).permutation(names)[: len(names) // 2])
    if np.ptp(values[voted]) == 0 or np.ptp(values[~voted]) == 0:
        raise PcclipError("a learning curve needs values that differ in both halves; give more photos")
    return voted


def _voting(
    matrix: Float[np.ndarray, "n d"],
    values: Float[np.ndarray, " n"],
    prior: Float[np.ndarray, " d"] | None,
    strategy: str,
    rng: np.random.Generator,
) -> Iterator[tuple[int, Order | None]]:
    """The number of votes and the order (None without text and preferences) at each number in VOTES.

    Args:
        strategy: 'next_pair' asks about the most informative pair, 'random' about any.
    """
    pairs: list[tuple[int, int]] = []
    outcomes: list[float] = []
    for count in range(max(VOTES) + 1):
        order = None
        asked_pairs = {(min(pair), max(pair)) for pair in pairs}
        if (count in VOTES or strategy == "next_pair") and (prior is not None or {*outcomes} - {0.5}):
            votes = Ballot(np.array(pairs, dtype=np.int64).reshape(-1, 2), np.array(outcomes), asked_pairs)
            order = learnt_order(matrix, votes, matrix[:0], prior)
        if count in VOTES:
            yield count, order
        if count < max(VOTES):
            first, second = next_pair(order if strategy == "next_pair" else None, len(matrix), asked_pairs, rng)
            sign = np.sign(values[first] - values[second]) * (1 if rng.random() >= WRONG else -1)
            pairs.append((first, second))
            outcomes.append(float(sign + 1) / 2)


def pairwise_accuracy(scores: Float[np.ndarray, " n"], values: Float[np.ndarray, " n"]) -> float:
    """Fraction of the pairs with different values that the scores order correctly; a tied score counts half.

    Kendall's tau-b is (correct - wrong pairs) / sqrt(pairs untied in scores * pairs untied in values).
    """
    untied_scores, untied_values = _untied_pairs(scores), _untied_pairs(values)
    if not untied_scores:
        return 0.5
    return float((1 + kendalltau(scores, values).statistic * np.sqrt(untied_scores / untied_values)) / 2)


def _untied_pairs(values: Float[np.ndarray, " n"]) -> int:
    counts = np.unique(values, return_counts=True)[1]
    return (len(values) ** 2 - int((counts**2).sum())) // 2
