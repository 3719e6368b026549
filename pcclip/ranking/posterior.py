"""The order that words, examples and votes speak for, how uncertain it is, and the pair whose vote would teach most.

The model is Bradley and Terry's (1952): the first of two photos is preferred with probability sigmoid(f1 - f2). The scores
f are a Gaussian process: the words' direction is their mean, so that without votes the order is the words' own; a part
that is linear in the photos' vectors carries a vote to similar photos; and each photo has a part of its own, which no
vector knows, because people rank the very photos that they vote on. The posterior is Laplace's approximation, computed
over the votes, so that neither the width of the embedding nor the number of photos costs much.

How much each part counts is one of two settings, whichever has the larger marginal likelihood: LEARN, or WORDS, in which
votes hardly move good words. LOG.md has what both gain.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int
from scipy.sparse import csr_array
from scipy.special import expit, ndtr

from pcclip.errors import PcclipError
from pcclip.ranking.photo_index import PhotoIndex
from pcclip.ranking.votes import Vote
from pcclip.stats.random_streams import stream

_ZERO_LENGTH = 1e-6  # of an axis, as a fraction of the prior's width: no longer than rounding
_SAMPLE = 5000  # photos that are enough for their typical distance
_OUTCOME = {"first": 1.0, "second": 0.0, "tie": 0.5}
_NORMAL = 1.96  # deviations on either side of the mean within which 95% lie
_FEW = 5  # fewer votes do not show whether they help
ROWS_AT_ONCE = 2**14  # rows whose covariance with the votes is held at a time


class Parts(NamedTuple):
    """By how many logits the words, the linear part and the photos' own parts move a typical pair."""

    words: float
    linear: float
    own: float


LEARN, WORDS = Parts(1.0, 1.0, 1.0), Parts(2.0, 0.25, 0.25)


@dataclass(frozen=True)
class Ballot:
    """Votes on the rows of a matrix, as numbers.

    A class of its own because the posterior, the choice of the next pair and the counts each need another part.

    Attributes:
        pairs: rows of the first and of the second photo of each vote.
        outcomes: 1 where the first has more, 0 where the second has, 0.5 for a tie.
        asked_pairs: row pairs (lower, higher) that were voted on or skipped.
        unknown: number of votes that name a photo without a row.
    """

    pairs: Int[np.ndarray, "m 2"]
    outcomes: Float[np.ndarray, " m"]
    asked_pairs: set[tuple[int, int]]
    unknown: int = 0


def ballot(votes: Iterable[Vote], index: PhotoIndex) -> Ballot:
    """The votes on the photos that `index` finds.

    A vote that names one photo in two ways compares nothing and is left out.
    """
    rows = [
        (index.row(vote.first, vote.first_content), index.row(vote.second, vote.second_content), vote.choice)
        for vote in votes
    ]
    known = [(first, second, choice) for first, second, choice in rows if first is not None and second is not None]
    cast = [(first, second, choice) for first, second, choice in known if first != second]
    chosen = [vote for vote in cast if vote[2] in _OUTCOME]
    pairs = np.array([vote[:2] for vote in chosen], dtype=np.int64).reshape(-1, 2)
    outcomes = np.array([_OUTCOME[choice] for *_, choice in chosen], dtype=np.float64)
    asked_pairs = {(min(first, second), max(first, second)) for first, second, _ in cast}
    return Ballot(pairs, outcomes, asked_pairs, len(rows) - len(known))


@dataclass(frozen=True)
class Order:
    """The posterior of the photos' scores.

    Attributes:
        matrix: unit vectors of the photos.
        parts: the setting, as it was chosen.
        mean: posterior mean of the weights of the vectors, in logits per unit.
        width, own: standard deviations of the linear part in every direction and of a photo's own part, in logits.
        votes: difference of the vectors in each vote.
        sides: which photo is first (1) and second (-1) in each vote; examples have neither.
        shifts: by how many logits each photo's own part moves it.
        half: what each vote takes away from the variance, as a square root.
        evidence: logarithm of the marginal likelihood of the votes.
    """

    matrix: Float[np.ndarray, "n d"]
    parts: Parts
    mean: Float[np.ndarray, " d"]
    width: float
    own: float
    votes: Float[np.ndarray, "m d"]
    sides: csr_array
    shifts: Float[np.ndarray, " n"]
    half: Float[np.ndarray, "m m"]
    evidence: float

    @property
    def length(self) -> float:
        """Logits per unit along the mean. Raises PcclipError: no text, and no votes but ties or ones that cancel out."""
        length = float(np.linalg.norm(self.mean))
        if length < _ZERO_LENGTH * self.width:
            raise PcclipError(
                "votes: they are ties, or cancel out, and there are no words; give words, or vote on another pair"
            )
        return length

    @cached_property
    def logits(self) -> Float[np.ndarray, " n"]:
        """Posterior mean score of each photo: differences are the log odds of a vote."""
        return self.matrix @ self.mean.astype(self.matrix.dtype) + self.shifts

    @property
    def scores(self) -> Float[np.ndarray, " n"]:
        """Score of each photo in the unit of a projection on the words' direction. Raises PcclipError: no length."""
        return self.logits / self.length

    @property
    def deviations(self) -> Float[np.ndarray, " n"]:
        """Standard deviation of each photo's score against the mean photo. Raises PcclipError: no length."""
        middle, own, step = self.matrix.mean(axis=0), self.sides.T.tocsr(), ROWS_AT_ONCE
        memory = np.empty_like(self.matrix, shape=(step, len(middle)))  # fresh memory would cost more than the sum
        spreads = [
            self.spread(np.subtract(part, middle, out=memory[: len(part)]), own[start : start + step], 1)
            for start in range(0, len(self.matrix), step)
            for part in [self.matrix[start : start + step]]
        ]
        return np.concatenate(spreads) / self.length

    def spread(self, vectors: Float[np.ndarray, "k d"], sides: csr_array, photos: int) -> Float[np.ndarray, " k"]:
        """Posterior standard deviation, in logits, of sums of scores of so many photos each, by their vectors and sides."""
        linear = (self.width**2 * self.votes.T @ self.half.T).astype(vectors.dtype)
        taken = vectors @ linear + (self.own**2 * sides @ self.half.T).astype(vectors.dtype)
        prior = self.width**2 * np.vecdot(vectors, vectors) + photos * self.own**2
        return np.sqrt(np.maximum(prior - np.vecdot(taken, taken), 0))

    def gaps(self, pairs: Int[np.ndarray, "p 2"]) -> tuple[Float[np.ndarray, " p"], Float[np.ndarray, " p"]]:
        """By how many logits the first photo of each pair is ahead: mean and standard deviation."""
        (first, second), own = pairs.T, self.sides.T.tocsr()
        vectors = self.matrix[first] - self.matrix[second]
        means = vectors @ self.mean.astype(vectors.dtype) + self.shifts[first] - self.shifts[second]
        return means, self.spread(vectors, own[first] - own[second], 2)

    @property
    def unhelpful(self) -> str:
        """Why votes do not help so far, in a sentence; '' where they do, or are too few to tell.

        The marginal likelihood is the product of how likely each vote was after the ones before.
        """
        if len(self.votes) < _FEW:
            return ""
        if self.evidence < len(self.votes) * np.log(0.5):
            return "So far a coin foretells these answers as well as words and photos do: they help no other photos."
        return "So far these answers say what the words say, and hardly move the order." if self.parts == WORDS else ""

    def chances(self, pairs: Int[np.ndarray, "p 2"]) -> Float[np.ndarray, " p"]:
        """Probability that the first photo of each pair is voted to have more, averaged over the scores (MacKay, 1992)."""
        means, deviations = self.gaps(pairs)
        return expit(means / np.sqrt(1 + np.pi / 8 * deviations**2))


def rank_interval(scores: Float[np.ndarray, " n"], deviations: Float[np.ndarray, " n"]) -> Int[np.ndarray, "2 n"]:
    """The best and the worst rank of each photo in its 95% interval; the others' scores are drawn, being uncertain, too."""
    n, order = len(scores), np.argsort(scores)
    drawn = np.sort(scores + deviations * stream("ranks of photos", 0).standard_normal(n))
    scores, deviations = scores[order], deviations[order]  # sorted values are searched for several times as fast
    rank = n - np.searchsorted(scores, scores, side="right") + 1
    above, below = (n - np.searchsorted(drawn, scores + sign * _NORMAL * deviations) for sign in (1, -1))
    return np.stack([np.minimum(above + 1, rank), np.maximum(below, rank)])[:, np.argsort(order)]


def learnt_order(
    matrix: Float[np.ndarray, "n d"],
    ballot: Ballot,
    examples: Float[np.ndarray, "e d"],
    text: Float[np.ndarray, " d"] | None,
    parts: Parts | None = None,
) -> Order:
    """The order by a text direction, votes and examples, each example being a vote for the first side.

    Args:
        matrix: unit vectors of the ranked photos.
        examples: differences as `examples.example_differences` makes them.
        text: the text direction, of length one; None orders by votes and examples alone.
        parts: the setting; by default the more likely one of LEARN and WORDS.
    """
    if parts is None:
        settings = [LEARN] if text is None else [LEARN, WORDS]
        orders = [learnt_order(matrix, ballot, examples, text, setting) for setting in settings]
        return max(orders, key=lambda order: order.evidence)  # the first of equal ones
    outcomes = np.append(ballot.outcomes, np.ones(len(examples)))
    first, second = ballot.pairs.T
    votes = np.concatenate([matrix[first] - matrix[second], examples])
    ends = np.repeat([1.0, -1.0], len(first)), (np.tile(np.arange(len(first)), 2), np.append(first, second))
    sides = csr_array(ends, shape=(len(votes), len(matrix)))
    prior = np.zeros(matrix.shape[1]) if text is None else np.asarray(text, dtype=np.float64)
    sample = matrix[:: -(-len(matrix) // _SAMPLE)]
    strength = parts.words / _typical_gap(sample @ prior[:, None].astype(sample.dtype))
    width, own = parts.linear / _typical_gap(sample), parts.own / 2**0.5
    x = votes.astype(np.float64)
    gram = width**2 * x @ x.T + own**2 * (sides @ sides.T).toarray()
    weights, slopes, cost = _laplace(gram, strength * x @ prior, outcomes)
    root = np.linalg.cholesky(np.eye(len(x)) + np.sqrt(slopes)[:, None] * gram * np.sqrt(slopes))
    return Order(
        matrix,
        parts,
        strength * prior + width**2 * weights @ x,
        width,
        own,
        votes,
        sides,
        own**2 * (sides.T @ weights),
        np.linalg.solve(root, np.diag(np.sqrt(slopes))),
        -cost - float(np.log(np.diag(root)).sum()),
    )


def _laplace(
    gram: Float[np.ndarray, "m m"], offset: Float[np.ndarray, " m"], outcomes: Float[np.ndarray, " m"]
) -> tuple[Float[np.ndarray, " m"], Float[np.ndarray, " m"], float]:
    """Weight of each vote at the mode of sigmoid(offset + gram @ weights), slopes of the likelihood there, and its cost."""
    weights = np.zeros(len(gram))

    def cost(weights: np.ndarray) -> float:
        logits = offset + gram @ weights
        return float((np.logaddexp(0, logits) - outcomes * logits).sum() + weights @ gram @ weights / 2)

    for _ in range(100):  # Newton's method; the cost is convex, so that halving a step finds a lower cost
        chances = expit(offset + gram @ weights)
        slopes = chances * (1 - chances)
        target = np.linalg.solve(
            np.eye(len(gram)) + slopes[:, None] * gram, slopes * (gram @ weights) + outcomes - chances
        )
        size, step, before = 1.0, target - weights, cost(weights)
        while size > 1e-8 and cost(weights + size * step) > before:
            size /= 2
        weights = weights + size * step
        if np.abs(step).max(initial=0) < 1e-9:
            break
    return weights, slopes, cost(weights)


def _typical_gap(vectors: Float[np.ndarray, "n d"]) -> float:
    """Root mean square of the distance between two photos, or 1 where that is zero."""
    centred = vectors - vectors.mean(axis=0)
    gap = float(np.sqrt(2 * np.vecdot(centred, centred).mean(dtype=np.float64)))
    return gap if gap > 1e-9 else 1.0


def next_pair(
    order: Order | None, n: int, asked_pairs: set[tuple[int, int]], rng: np.random.Generator, candidates: int = 1000
) -> tuple[int, int]:
    """Rows of the pair whose vote teaches most, among `candidates` pairs drawn at random.

    It has the largest mutual information between the vote and the scores (BALD; closed form of Houlsby et al., 2011).

    Args:
        order: the present posterior; with None (neither text nor votes) any pair may be asked.
        n: number of photos.
        asked_pairs: pairs (lower row, higher row) that are not to be asked again.

    Raises:
        PcclipError: fewer than two photos, or every pair was asked.
    """
    if n * (n - 1) // 2 <= candidates:
        drawn = np.stack(np.triu_indices(n, 1), axis=1)
    else:
        drawn = np.sort(rng.integers(n, size=(2 * candidates, 2)), axis=1)
    fresh = [(low, high) for low, high in drawn.tolist() if low != high and (low, high) not in asked_pairs]
    if not fresh:
        raise PcclipError(f"every pair of the {n} photos was asked; add photos, or stop voting")
    rows = np.array(fresh[:candidates])
    best = rng.integers(len(rows)) if order is None else _information(*order.gaps(rows)).argmax()
    left, right = rows[best].tolist()
    return (left, right) if rng.random() < 0.5 else (right, left)  # so that neither side is preferred more often


def _information(means: Float[np.ndarray, " m"], deviations: Float[np.ndarray, " m"]) -> Float[np.ndarray, " m"]:
    """Mutual information of a vote and w in bits: entropy of the vote minus its mean entropy when w is known."""
    scale = np.pi / 8  # a logistic curve is close to a normal distribution's with this scale
    mean, variance, c = means * np.sqrt(scale), deviations**2 * scale, np.sqrt(np.pi * np.log(2) / 2)
    chance = np.clip(ndtr(mean / np.sqrt(variance + 1)), 1e-12, 1 - 1e-12)
    entropy = -chance * np.log2(chance) - (1 - chance) * np.log2(1 - chance)
    return entropy - c / np.sqrt(variance + c**2) * np.exp(-(mean**2) / (2 * (variance + c**2)))
