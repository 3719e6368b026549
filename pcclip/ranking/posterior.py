"""The axis that examples and votes speak for, how uncertain it is, and the pair whose vote would teach most.

The model is Bradley and Terry's (1952): the first of two photos is preferred with probability sigmoid(w . (u1 - u2)),
where u are the photos' unit vectors. The weights w have a Gaussian prior of the same width in every direction. Its mean
is the text direction where there is one, so that without votes the order is the text's own, and each vote moves it. The
posterior is Laplace's approximation. It differs from the prior only within the span of the voted differences and is
computed there, so that the width of the embedding costs next to nothing. Each photo has besides a score of its own, which
no vector knows (a Gaussian process with a linear and a per-photo part): LOG.md has what it gains.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from scipy.special import expit, ndtr

from pcclip.errors import PcclipError
from pcclip.ranking.photo_index import PhotoIndex
from pcclip.ranking.votes import Vote
from pcclip.stats.random_streams import stream
from pcclip.stats.vectors import unit

# By how much the text direction, and every other direction, are believed to move a typical pair, in logits. Of 1/4 to 4
# these did best for three texts and up to 40 votes on training photos of the stamps: with a weaker prior the first
# votes can spoil a good text's order, with a stronger one votes are not heard. Maximising the evidence did no better.
_STRENGTH = _WIDTH = 1.0
_OWN = np.sqrt(0.5)  # logits that a photo's own part moves it, so that it moves a pair by one
_ZERO_LENGTH = 1e-6  # of an axis, as a fraction of the prior's width: no longer than rounding
_TYPICAL_PAIRS = 2000
_OUTCOME = {"first": 1.0, "second": 0.0, "tie": 0.5}
ROWS_AT_ONCE = 2**14  # vectors converted to float64 at a time


@dataclass(frozen=True)
class Axis:
    """The posterior of the weights w, in logits per unit of the embedding.

    Attributes:
        mean: posterior mean.
        basis: orthonormal basis of the span of the voted differences.
        covariance: posterior covariance of w within that span.
        width: standard deviation of w in every direction outside the span.
        strength: length of the prior mean.
    """

    mean: Float[np.ndarray, " d"]
    basis: Float[np.ndarray, "d r"]
    covariance: Float[np.ndarray, "r r"]
    width: float
    strength: float

    @property
    def direction(self) -> Float[np.ndarray, " d"]:
        """The posterior mean scaled to length one."""
        return unit(self.mean[None])[0].astype(np.float32)

    @property
    def length(self) -> float:
        """Logits per unit along the direction. Raises PcclipError when all votes cancel out and there is no text."""
        length = float(np.linalg.norm(self.mean))
        if length < _ZERO_LENGTH * self.width:
            raise PcclipError("votes: they cancel out and there is no text axis; give a text, or vote on another pair")
        return length

    def scores(self, matrix: Float[np.ndarray, "n d"]) -> Float[np.ndarray, " n"]:
        """Posterior mean score of each photo, in logits: score differences are the log odds of a vote."""
        return matrix @ self.mean.astype(matrix.dtype)

    def deviations(self, matrix: Float[np.ndarray, "n d"]) -> Float[np.ndarray, " n"]:
        """Posterior standard deviation of each row's score, in logits.

        Votes determine only differences of scores, so the rows should be differences: matrix[i] - matrix[j] for
        pairs, matrix - matrix.mean(axis=0) for photos against the mean photo.
        """
        if len(matrix) > ROWS_AT_ONCE:
            starts = range(0, len(matrix), ROWS_AT_ONCE)
            return np.concatenate([self.deviations(matrix[k : k + ROWS_AT_ONCE]) for k in starts])
        matrix = np.asarray(matrix, dtype=np.float64)
        inside = matrix @ self.basis
        outside = np.maximum((matrix**2).sum(axis=1) - (inside**2).sum(axis=1), 0)
        return np.sqrt(self.width**2 * outside + ((inside @ self.covariance) * inside).sum(axis=1))


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
    """What words, votes and examples say about the photos of a matrix.

    A class of its own because a voted photo moves by more than its vector says: people rank the very photos that they
    vote on, so each voted photo has a part of its own.

    Attributes:
        axis: the posterior, of the vectors with the voted photos' own parts.
        features: the vectors with these parts.
        own: (n,) for each photo the standard deviation, in logits, of an own part that is not among the features.
    """

    axis: Axis
    features: Float[np.ndarray, "n f"]
    own: Float[np.ndarray, " n"]

    @property
    def scores(self) -> Float[np.ndarray, " n"]:
        """Projection of each photo on the axis."""
        return self.features @ self.axis.direction

    @property
    def deviations(self) -> Float[np.ndarray, " n"]:
        """Standard deviation of each photo's score against the mean photo. Raises PcclipError: no length."""
        spread = self.axis.deviations(self.features - self.features.mean(axis=0))
        return np.sqrt(spread**2 + self.own**2) / self.axis.length

    def gaps(self, pairs: Int[np.ndarray, "m 2"]) -> tuple[Float[np.ndarray, " m"], Float[np.ndarray, " m"]]:
        """By how many logits the first photo of each pair is ahead: mean and standard deviation."""
        first, second = pairs.T
        differences = self.features[first] - self.features[second]
        spread = self.axis.deviations(differences) ** 2 + self.own[first] ** 2 + self.own[second] ** 2
        return self.axis.scores(differences), np.sqrt(spread)

    def chances(self, pairs: Int[np.ndarray, "m 2"]) -> Float[np.ndarray, " m"]:
        """Probability that the first photo of each pair is voted to have more, averaged over w (MacKay, 1992)."""
        means, deviations = self.gaps(pairs)
        return expit(means / np.sqrt(1 + np.pi / 8 * deviations**2))


def learnt_order(
    matrix: Float[np.ndarray, "n d"],
    ballot: Ballot,
    examples: Float[np.ndarray, "e d"],
    text: Float[np.ndarray, " d"] | None,
) -> Order:
    """The order by a text direction, votes and examples, each example being a vote for the first side.

    Args:
        matrix: unit vectors of the ranked photos.
        examples: differences as `examples.example_differences` makes them.
        text: the text direction, of length one; None orders by votes and examples alone.
    """
    voted = np.unique(ballot.pairs)
    own = np.zeros((len(matrix), len(voted)), np.float32)
    own[voted, np.arange(len(voted))] = _OWN * _typical_length(np.linalg.norm(_typical_pairs(matrix), axis=1)) / _WIDTH
    features = np.hstack([matrix, own])

    def widened(vectors: Float[np.ndarray, "m d"]) -> Float[np.ndarray, "m f"]:
        return np.hstack([vectors, np.zeros((len(vectors), len(voted)), np.float32)])

    first, second = ballot.pairs.T
    differences = np.concatenate([features[first] - features[second], widened(examples)])
    outcomes = np.append(ballot.outcomes, np.ones(len(examples)))
    axis = vote_axis(differences, outcomes, None if text is None else widened(text[None])[0], matrix)
    return Order(axis, features, np.where(np.isin(np.arange(len(matrix)), voted), 0.0, _OWN))


def vote_axis(
    differences: Float[np.ndarray, "m f"],
    outcomes: Float[np.ndarray, " m"],
    text: Float[np.ndarray, " f"] | None,
    matrix: Float[np.ndarray, "n d"],
    strength: float = _STRENGTH,
) -> Axis:
    """The axis from votes and, where given, a text direction.

    Args:
        differences: first minus second unit vector of each vote.
        outcomes: 1 where the first has more, 0 where the second has, 0.5 for a tie.
        text: the text direction, of length one, which is the prior's mean.
        matrix: the ranked photos, whose pairs say how far a typical pair lies apart; without own parts.
        strength: by how much the text direction moves a typical pair, in logits.

    Raises:
        PcclipError: neither a text direction nor a vote that prefers a photo.
    """
    x, y = np.asarray(differences, dtype=np.float64), np.asarray(outcomes, dtype=np.float64)
    if text is None and (y == 0.5).all():
        raise PcclipError("votes: no text axis, and no vote that prefers a photo; give a text, or vote on a pair")
    prior = np.zeros(x.shape[1]) if text is None else np.asarray(text, dtype=np.float64)
    pairs = _typical_pairs(matrix)
    strength = strength / _typical_length(pairs @ prior[: pairs.shape[1]]) if prior.any() else 0.0
    width = _WIDTH / _typical_length(np.linalg.norm(pairs, axis=1))
    basis = np.linalg.qr(x.T)[0]
    mode, covariance = _laplace(x @ basis, y, strength * x @ prior, width)
    return Axis(strength * prior + basis @ mode, basis, covariance, width, strength)


def _laplace(
    z: Float[np.ndarray, "m r"], y: Float[np.ndarray, " m"], offset: Float[np.ndarray, " m"], width: float
) -> tuple[Float[np.ndarray, " r"], Float[np.ndarray, "r r"]]:
    """Mode and covariance of v in sigmoid(offset + z v), with a centred Gaussian prior of this width."""
    v, precision = np.zeros(z.shape[1]), np.eye(z.shape[1]) / width**2

    def cost(v: np.ndarray) -> float:
        logits = offset + z @ v
        return float((np.logaddexp(0, logits) - y * logits).sum() + (v**2).sum() / (2 * width**2))

    def curvature(chance: np.ndarray) -> np.ndarray:
        return precision + (z.T * (chance * (1 - chance))) @ z

    for _ in range(100):  # Newton's method; the cost is convex, so that halving a step finds a lower cost
        chance = expit(offset + z @ v)
        step = np.linalg.solve(curvature(chance), z.T @ (y - chance) - v / width**2)
        if np.abs(step).max(initial=0) < 1e-9 * width:
            break
        size, before = 1.0, cost(v)
        while size > 1e-8 and cost(v + size * step) > before:
            size /= 2
        v = v + size * step
    return v, np.linalg.inv(curvature(expit(offset + z @ v)))


def _typical_length(lengths: Float[np.ndarray, " p"]) -> float:
    """Root mean square, or 1 where that is zero."""
    length = float(np.sqrt((lengths**2).mean()))
    return length if length > 1e-9 else 1.0


def _typical_pairs(matrix: Float[np.ndarray, "n d"]) -> Float[np.ndarray, "p d"]:
    """Differences of pairs drawn at random, the same ones each time."""
    rng = stream("typical pairs", 0)
    first = np.asarray(matrix[rng.integers(len(matrix), size=_TYPICAL_PAIRS)], dtype=np.float64)
    return first - matrix[rng.integers(len(matrix), size=_TYPICAL_PAIRS)]


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
