"""How fast an axis learns from votes: a simulated voter who knows the true values, judged on photos never voted on.

Half of the groups of photos (concepts, say) are voted on, the other half is judged, in another way for each seed. The
voter answers by the true values: a tie where they are equal.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from jaxtyping import Float

from pcclip.errors import PcclipError
from pcclip.ranking.posterior import VoteAxis, next_pair, vote_axis
from pcclip.runs.progress import Meter

VOTES = (0, 1, 2, 5, 10, 20, 40)
ASKED = ("next_pair", "random")
_JUDGED = 20_000  # pairs at most: the share is then known to 0.7 points at worst (95%)


def learning_curve(
    matrix: Float[np.ndarray, "n d"],
    values: Float[np.ndarray, " n"],
    groups: Sequence,
    prior: Float[np.ndarray, " d"],
    votes: Sequence[int] = VOTES,
    seeds: Sequence[int] = range(10),
) -> pd.DataFrame:
    """Pairwise accuracy after so many votes, with the text axis as the prior and without, by pairs asked.

    Args:
        matrix, values, groups: the photos' vectors, true values and groups; photos of one group stay together.
        prior: the text axis, of length one.
        votes: after how many votes the axis is judged.
        seeds: one split and one voter for each.

    Returns:
        Columns prior ('text', 'none'), asked ('next_pair', 'random'), votes, seed, accuracy (share of the judged pairs
        of unequal value in the right order, a tied score for half; 0.5 before anything is known). Of more than 20,000
        pairs a fixed draw of so many is judged.

    Raises:
        PcclipError: fewer than four groups, or a half whose values are all the same, or whose pairs run out.
    """
    values, groups = np.asarray(values, dtype=float), np.asarray(groups)
    rows, meter = [], Meter(4 * len(seeds), "learning curves")
    for seed in seeds:
        taught = _half(groups, values, seed)
        for name, axis in (("text", prior), ("none", None)):
            for asked in ASKED:
                voter = _Voter(matrix[taught], values[taught], axis, asked, np.random.default_rng([seed, 1]))
                for count, posterior in voter.after(votes):
                    score = None if posterior is None else matrix[~taught] @ posterior.axis
                    rows.append((name, asked, count, seed, 0.5 if score is None else _accuracy(score, values[~taught])))
                meter.add()
    return pd.DataFrame(rows, columns=["prior", "asked", "votes", "seed", "accuracy"])


def _half(groups: np.ndarray, values: np.ndarray, seed: int) -> np.ndarray:
    """True for the photos of half of the groups."""
    names = np.unique(groups)
    if len(names) < 4:
        raise PcclipError(f"a learning curve needs four groups of photos, not {len(names)}; give more photos")
    taught = np.isin(groups, np.random.default_rng(seed).permutation(names)[: len(names) // 2])
    if np.ptp(values[taught]) == 0 or np.ptp(values[~taught]) == 0:
        raise PcclipError("a learning curve needs values that differ in both halves; give more photos")
    return taught


class _Voter:
    """Who answers by the true values, and what was made of the answers."""

    def __init__(self, matrix, values, prior, asked: str, rng: np.random.Generator):
        self._matrix, self._values, self._prior, self._rng = matrix, values, prior, rng
        self._by_information = asked == "next_pair"
        self._first, self._second, self._asked = [], [], set()

    def after(self, counts: Sequence[int]):
        """(count, posterior or None) for each of the counts, in order."""
        for count in sorted(counts):
            while len(self._first) < count:
                self._vote()
            yield count, self._posterior()

    def _posterior(self) -> VoteAxis | None:
        first, second = (np.array(rows, dtype=np.int64) for rows in (self._first, self._second))
        outcomes = (np.sign(self._values[first] - self._values[second]) + 1) / 2
        if self._prior is None and (outcomes == 0.5).all():
            return None
        return vote_axis(self._matrix[first] - self._matrix[second], outcomes, self._prior, self._matrix)

    def _vote(self) -> None:
        posterior = self._posterior() if self._by_information else None
        one, two = next_pair(posterior, self._matrix, self._asked, self._rng)
        self._asked.add((min(one, two), max(one, two)))
        self._first.append(one)
        self._second.append(two)


def _accuracy(score: np.ndarray, values: np.ndarray) -> float:
    first, second = _judged(values)
    agree = np.sign(score[first] - score[second]) * np.sign(values[first] - values[second])
    return float(((agree + 1) / 2).mean())


def _judged(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows of the pairs of unequal value; of many pairs the same draw each time, every such pair equally likely."""
    n = len(values)
    if n * (n - 1) // 2 <= _JUDGED:
        first, second = np.triu_indices(n, 1)
        unequal = values[first] != values[second]
        return first[unequal], second[unequal]
    rng, order = np.random.default_rng(0), np.argsort(values, kind="stable")
    start = np.searchsorted(values[order], values[order])
    equal = np.searchsorted(values[order], values[order], side="right") - start
    first = rng.choice(n, _JUDGED, p=(n - equal) / (n - equal).sum())
    second = rng.integers(n - equal[first])  # among the others, those of equal value left out
    return order[first], order[second + equal[first] * (second >= start[first])]
