"""How fast an order learns from votes: a simulated voter knows the true values, and errs in one answer of ten.

For each seed half of the groups of photos (say, concepts) are voted on. Judged are these photos, which are those that a
person wants in order, and the other half, which were never voted on. The voter answers a tie where values are equal.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float

from pcclip.errors import PcclipError
from pcclip.ranking.posterior import LEARN, Ballot, Order, learnt_order, next_pair
from pcclip.runs.progress import Meter
from pcclip.stats.random_streams import stream
from pcclip.stats.rank_measures import pairwise_accuracy

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
                    judged = {"voted": (voted, order.logits), "other": (~voted, matrix[~voted] @ order.mean)}
                    for photos, (half, scores) in judged.items():
                        items = pd.DataFrame({"score": scores, "reference": values[half]})
                        rows.append((prior_name, strategy, photos, count, seed, pairwise_accuracy(items, 1, 0).value))
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
) -> Iterator[tuple[int, Order]]:
    """The number of votes and the order at each number in VOTES.

    Args:
        strategy: 'next_pair' asks about the most informative pair, 'random' about any.
    """
    pairs: list[tuple[int, int]] = []
    outcomes: list[float] = []
    for count in range(max(VOTES) + 1):
        asked_pairs = {(min(pair), max(pair)) for pair in pairs}
        votes = Ballot(np.array(pairs, dtype=np.int64).reshape(-1, 2), np.array(outcomes), asked_pairs)
        if count in VOTES:
            yield count, learnt_order(matrix, votes, matrix[:0], prior)
        if count < max(VOTES):
            order = learnt_order(matrix, votes, matrix[:0], prior, LEARN) if strategy == "next_pair" else None
            first, second = next_pair(order, len(matrix), asked_pairs, rng)
            sign = np.sign(values[first] - values[second]) * (1 if rng.random() >= WRONG else -1)
            pairs.append((first, second))
            outcomes.append(float(sign + 1) / 2)
