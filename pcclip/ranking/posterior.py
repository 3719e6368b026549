"""The axis that examples and votes speak for, how uncertain it is, and the pair whose vote would teach most.

The model is Bradley and Terry's (1952): the first of two photos is preferred with probability sigmoid(w . (u1 - u2)),
where u are the photos' unit vectors. The weights w have a Gaussian prior of the same width in every direction. Its mean
is the text direction where there is one, so that without votes the order is the text's own, and each vote moves it. The
posterior is Laplace's approximation. It differs from the prior only within the span of the voted differences and is
computed there, so that the width of the embedding costs next to nothing.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy.special import expit, ndtr

from pcclip.errors import PcclipError
from pcclip.ranking.votes import Vote
from pcclip.stats.random_streams import stream
from pcclip.stats.vectors import unit

# By how much the text direction, and every other direction, are believed to move a typical pair, in logits. Of 1/4 to 4
# these did best for three texts and up to 40 votes on training photos of the stamps: with a weaker prior the first
# votes can spoil a good text's order, with a stronger one votes are not heard. Maximising the evidence did no better.
_STRENGTH = _WIDTH = 1.0
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

    def score_deviations(self, matrix: Float[np.ndarray, "n d"], mean: Float[np.ndarray, " d"]) -> np.ndarray:
        """Standard deviation of each photo's score against the mean photo, in the unit of projections on `direction`.

        Raises PcclipError when the axis has no length.
        """
        return self.deviations(matrix - mean) / self.length

    def chances(self, differences: Float[np.ndarray, "m d"]) -> Float[np.ndarray, " m"]:
        """Probability that the first photo of each pair is voted to have more, averaged over w (MacKay, 1992)."""
        spread = 1 + np.pi / 8 * self.deviations(differences) ** 2
        return expit(self.scores(np.asarray(differences, dtype=np.float64)) / np.sqrt(spread))


@dataclass(frozen=True)
class Ballot:
    """Votes on the rows of a matrix, as numbers.

    A class of its own because the posterior, the choice of the next pair and the counts each need another part.

    Attributes:
        differences: first minus second vector of each vote.
        outcomes: 1 where the first has more, 0 where the second has, 0.5 for a tie.
        asked_pairs: row pairs (lower, higher) that were voted on or skipped.
        unknown: number of votes that name a photo without a row.
    """

    differences: Float[np.ndarray, "m d"]
    outcomes: Float[np.ndarray, " m"]
    asked_pairs: set[tuple[int, int]]
    unknown: int


def ballot(votes: Iterable[Vote], matrix: Float[np.ndarray, "n d"], *names: Sequence[str]) -> Ballot:
    """The votes on the rows of `matrix`; `names` are parallel to its rows, e.g. the ids and the paths.

    A vote that names one photo in two ways compares nothing and is left out.
    """
    row = {name: i for column in names for i, name in enumerate(column)}
    votes = list(votes)
    known = [(row[v.first], row[v.second], v.choice) for v in votes if v.first in row and v.second in row]
    cast = [(first, second, choice) for first, second, choice in known if first != second]
    chosen = [vote for vote in cast if vote[2] in _OUTCOME]
    firsts, seconds = np.array([vote[:2] for vote in chosen], dtype=np.int64).reshape(-1, 2).T
    outcomes = np.array([_OUTCOME[choice] for *_, choice in chosen], dtype=np.float64)
    pairs = {(min(first, second), max(first, second)) for first, second, _ in cast}
    return Ballot(matrix[firsts] - matrix[seconds], outcomes, pairs, len(votes) - len(known))


def learnt_axis(
    matrix: Float[np.ndarray, "n d"],
    ballot: Ballot,
    examples: Float[np.ndarray, "e d"],
    text: Float[np.ndarray, " d"] | None,
) -> Axis:
    """The axis from a text direction, votes and examples, each example being a vote for the first side.

    Args:
        matrix: unit vectors of the ranked photos.
        examples: differences as `examples.example_differences` makes them.
    """
    differences = np.concatenate([ballot.differences, examples])
    return vote_axis(differences, np.append(ballot.outcomes, np.ones(len(examples))), text, matrix)


def vote_axis(
    differences: Float[np.ndarray, "m d"],
    outcomes: Float[np.ndarray, " k"],
    text: Float[np.ndarray, " c"] | None = None,
    matrix: Float[np.ndarray, "n d"] | None = None,
    strength: float = _STRENGTH,
) -> Axis:
    """The axis from votes and, where given, a text direction.

    Args:
        differences: first minus second unit vector of each vote.
        outcomes: 1 where the first has more, 0 where the second has, 0.5 for a tie.
        text: the text direction, of length one, which is the prior's mean.
        matrix: the ranked photos, whose pairs say how far a typical pair lies apart; by default the voted pairs do.
        strength: by how much the text direction moves a typical pair, in logits.

    Raises:
        PcclipError: neither a text direction nor a vote that prefers a photo, or shapes that do not fit.
    """
    x, y = np.asarray(differences, dtype=np.float64), np.asarray(outcomes, dtype=np.float64)
    if x.ndim != 2 or len(x) != len(y) or (text is not None and text.shape != x.shape[1:]):
        raise PcclipError(f"votes: differences {x.shape}, outcomes {y.shape} and the text axis do not fit each other")
    if text is None and (y == 0.5).all():
        raise PcclipError("votes: no text axis, and no vote that prefers a photo; give a text, or vote on a pair")
    prior = np.zeros(x.shape[1]) if text is None else np.asarray(text, dtype=np.float64)
    along, across = _typical_distances(x if matrix is None else _typical_pairs(matrix), prior)
    basis = np.linalg.qr(x.T)[0]
    strength, width = (strength / along if prior.any() else 0.0), _WIDTH / across
    mode, covariance = _laplace(x @ basis, y, strength * x @ prior, width)
    return Axis(strength * prior + basis @ mode, basis, covariance, float(width), float(strength))


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


def _typical_distances(differences: Float[np.ndarray, "p d"], prior: Float[np.ndarray, " d"]) -> tuple[float, float]:
    """Root mean square of the differences along the prior's direction, and of their lengths; 1 where these are zero."""
    if not len(differences):
        return 1.0, 1.0
    along = np.sqrt(((differences @ prior) ** 2).mean())
    across = np.sqrt((differences**2).sum(axis=1).mean())
    return float(along) if along > 1e-9 else 1.0, float(across) if across > 1e-9 else 1.0


def _typical_pairs(matrix: Float[np.ndarray, "n d"]) -> Float[np.ndarray, "p d"]:
    """Differences of pairs drawn at random, the same ones each time."""
    rng = stream("typical pairs", 0)
    first = np.asarray(matrix[rng.integers(len(matrix), size=_TYPICAL_PAIRS)], dtype=np.float64)
    return first - matrix[rng.integers(len(matrix), size=_TYPICAL_PAIRS)]


def next_pair(
    axis: Axis | None,
    matrix: Float[np.ndarray, "n d"],
    asked_pairs: set[tuple[int, int]],
    rng: np.random.Generator,
    candidates: int = 1000,
) -> tuple[int, int]:
    """Rows of the pair whose vote teaches most, among `candidates` pairs drawn at random.

    It has the largest mutual information between the vote and w (BALD; closed form of Houlsby et al., 2011).

    Args:
        axis: the present posterior; with None (neither text nor votes) any pair may be asked.
        asked_pairs: pairs (lower row, higher row) that are not to be asked again.

    Raises:
        PcclipError: fewer than two photos, or every pair was asked.
    """
    n = len(matrix)
    if len(asked_pairs) >= n * (n - 1) // 2:
        raise PcclipError(f"every pair of the {n} photos was asked; add photos, or stop voting")
    if n * (n - 1) // 2 <= candidates:
        drawn = np.stack(np.triu_indices(n, 1), axis=1)
    else:
        drawn = np.sort(rng.integers(n, size=(2 * candidates, 2)), axis=1)
    distinct = [(low, high) for low, high in drawn.tolist() if low != high]
    fresh = [pair for pair in distinct if pair not in asked_pairs][:candidates]
    if not fresh:
        raise PcclipError(f"nearly every pair of the {n} photos was asked; add photos, or stop voting")
    if axis is None:
        left, right = fresh[int(rng.integers(len(fresh)))]
    else:
        rows = np.array(fresh)
        differences = matrix[rows[:, 0]] - matrix[rows[:, 1]]
        bits = _information(axis.scores(differences), axis.deviations(differences))
        left, right = fresh[int(bits.argmax())]
    return (left, right) if rng.random() < 0.5 else (right, left)  # so that neither side is preferred more often


def _information(means: Float[np.ndarray, " m"], deviations: Float[np.ndarray, " m"]) -> Float[np.ndarray, " m"]:
    """Mutual information of a vote and w in bits: entropy of the vote minus its mean entropy when w is known."""
    scale = np.pi / 8  # a logistic curve is close to a normal distribution's with this scale
    mean, variance, c = means * np.sqrt(scale), deviations**2 * scale, np.sqrt(np.pi * np.log(2) / 2)
    chance = np.clip(ndtr(mean / np.sqrt(variance + 1)), 1e-12, 1 - 1e-12)
    entropy = -chance * np.log2(chance) - (1 - chance) * np.log2(1 - chance)
    return entropy - c / np.sqrt(variance + c**2) * np.exp(-(mean**2) / (2 * (variance + c**2)))
