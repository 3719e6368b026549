"""Votes: which of two photos has more of an attribute, kept in a file; the axis they speak for; what to ask next.

The model is Bradley and Terry's (1952): the first of two photos wins with probability sigmoid(w . (u1 - u2)), u the
photos' unit vectors. The weights w have a Gaussian prior of the same width in every direction, around the text axis
where there is one, so that no votes mean the text's own ranking and each vote moves it. The posterior is Laplace's
approximation. It differs from the prior only within the span of the voted differences, and is computed there: the
width of the embedding costs next to nothing.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy.special import expit, ndtr

from pcclip.errors import PcclipError
from pcclip.stats.vectors import unit

# How far the text alone, and all that it does not say, are believed to move a typical pair, in logits. Among 1/4 to 4
# these did best over three texts and up to 40 votes on training photos of the stamps: with a weaker prior the first
# votes can spoil a good text's order, with a stronger one they are not heard. The evidence's own choice did no better.
_STRENGTH = _WIDTH = 1.0
_ROWS = 2**14  # held at once in float64
_NOTHING = 1e-6  # of the prior's width: no farther than rounding


@dataclass(frozen=True)
class VoteAxis:
    """The posterior of the weights w, in logits per unit of the embedding.

    mean (d,); outside the span of `basis` (d, r) their standard deviation is `width` in every direction; inside it
    their covariance is `covariance` (r, r). `strength` is the length of the prior's mean.
    """

    mean: Float[np.ndarray, " d"]
    basis: Float[np.ndarray, "d r"]
    covariance: Float[np.ndarray, "r r"]
    width: float
    strength: float

    @property
    def axis(self) -> Float[np.ndarray, " d"]:
        """The posterior mean, scaled to length one."""
        return unit(self.mean[None])[0].astype(np.float32)

    @property
    def length(self) -> float:
        """Logits per unit along the axis: what turns deviations into the unit of projections on it.

        Raises PcclipError where all that was said cancels out, so that there is no axis.
        """
        length = float(np.linalg.norm(self.mean))
        if length < _NOTHING * self.width:
            raise PcclipError("votes: they cancel out and there is no text axis; give a text, or vote on another pair")
        return length

    def scores(self, matrix: Float[np.ndarray, "n d"]) -> Float[np.ndarray, " n"]:
        """Posterior mean of each photo's score; the difference of two is the log odds of a vote between them."""
        return matrix @ self.mean.astype(matrix.dtype)

    def deviations(self, matrix: Float[np.ndarray, "n d"]) -> Float[np.ndarray, " n"]:
        """Posterior standard deviation of each row's score.

        Only differences of scores are ever voted on, so give rows a reference: matrix - matrix.mean(axis=0) for how
        sure a photo's score is among the others', matrix[i] - matrix[j] for pairs.
        """
        if len(matrix) > _ROWS:
            return np.concatenate([self.deviations(matrix[k : k + _ROWS]) for k in range(0, len(matrix), _ROWS)])
        matrix = np.asarray(matrix, dtype=np.float64)
        inside = matrix @ self.basis
        outside = np.maximum((matrix**2).sum(axis=1) - (inside**2).sum(axis=1), 0)
        return np.sqrt(self.width**2 * outside + ((inside @ self.covariance) * inside).sum(axis=1))

    def chances(self, differences: Float[np.ndarray, "m d"]) -> Float[np.ndarray, " m"]:
        """Probability that the first photo of a pair would be voted to have more, uncertainty of w included."""
        spread = 1 + np.pi / 8 * self.deviations(differences) ** 2  # MacKay (1992)
        return expit(self.scores(np.asarray(differences, dtype=np.float64)) / np.sqrt(spread))


def vote_axis(
    differences: Float[np.ndarray, "m d"],
    outcomes: Float[np.ndarray, " m"],
    prior: Float[np.ndarray, " d"] | None = None,
    matrix: Float[np.ndarray, "n d"] | None = None,
    strength: float = _STRENGTH,
    width: float = _WIDTH,
) -> VoteAxis:
    """What votes, and the text axis where one is given, say about the attribute's axis.

    Args:
        differences: first minus second vector of each vote.
        outcomes: 1 the first has more, 0 the second, 0.5 a tie.
        prior: the text axis, of length one.
        matrix: the photos that are ranked, which tell how much a typical pair differs; without it the voted pairs do.
        strength: how far the text axis alone moves a typical pair, in logits.
        width: the same for everything that the text does not say, as a standard deviation.

    Raises:
        PcclipError: neither a text axis nor a vote, or shapes that do not fit.
    """
    x, y = np.asarray(differences, dtype=np.float64), np.asarray(outcomes, dtype=np.float64)
    if x.ndim != 2 or len(x) != len(y) or (prior is not None and prior.shape != x.shape[1:]):
        raise PcclipError(f"votes: differences {x.shape}, outcomes {y.shape} and the text axis do not fit each other")
    if prior is None and (y == 0.5).all():
        raise PcclipError("votes: no text axis, and no vote that prefers a photo; give a text, or vote on a pair")
    prior = np.zeros(x.shape[1]) if prior is None else np.asarray(prior, dtype=np.float64)
    along, across = _typical(x if matrix is None else _pairs_of(matrix), prior)
    basis = np.linalg.qr(x.T)[0]  # everything the votes say is in the span of their differences
    strength, width = strength / along * prior.any(), width / across
    mode, covariance = _laplace(x @ basis, y, strength * x @ prior, width)
    return VoteAxis(strength * prior + basis @ mode, basis, covariance, float(width), float(strength))


def _laplace(z: np.ndarray, y: np.ndarray, offset: np.ndarray, width: float) -> tuple[np.ndarray, np.ndarray]:
    """Mode (r,) and covariance (r, r) of v in sigmoid(offset + z v), where v has a centred prior of `width`."""
    v, precision = np.zeros(z.shape[1]), np.eye(z.shape[1]) / width**2

    def cost(v: np.ndarray) -> float:
        logits = offset + z @ v
        return float((np.logaddexp(0, logits) - y * logits).sum() + (v**2).sum() / (2 * width**2))

    def curvature(chance: np.ndarray) -> np.ndarray:
        return precision + (z.T * (chance * (1 - chance))) @ z

    for _ in range(100):  # Newton; the cost is convex, so halving the step always gets there
        chance = expit(offset + z @ v)
        step = np.linalg.solve(curvature(chance), z.T @ (y - chance) - v / width**2)
        if np.abs(step).max(initial=0) < 1e-9 * width:
            break
        size, before = 1.0, cost(v)
        while size > 1e-8 and cost(v + size * step) > before:
            size /= 2
        v = v + size * step
    return v, np.linalg.inv(curvature(expit(offset + z @ v)))


def _typical(differences: np.ndarray, prior: np.ndarray) -> tuple[float, float]:
    """How far a typical pair lies apart along the text axis, and along a direction that is like any other."""
    if not len(differences):
        return 1.0, 1.0
    along = np.sqrt(((differences @ prior) ** 2).mean())
    across = np.sqrt((differences**2).sum(axis=1).mean())
    return along if along > 1e-9 else 1.0, across if across > 1e-9 else 1.0


def _pairs_of(matrix: np.ndarray, pairs: int = 2000) -> np.ndarray:
    """Differences of some pairs, the same ones each time."""
    rng = np.random.default_rng(0)
    return (
        np.asarray(matrix[rng.integers(len(matrix), size=pairs)], dtype=np.float64)
        - matrix[rng.integers(len(matrix), size=pairs)]
    )


def next_pair(
    posterior: VoteAxis | None,
    matrix: Float[np.ndarray, "n d"],
    asked: set[tuple[int, int]],
    rng: np.random.Generator,
    candidates: int = 1000,
) -> tuple[int, int]:
    """The rows of the pair whose answer teaches most, among `candidates` pairs drawn at random.

    Most: the largest mutual information between the answer and w (BALD, Houlsby et al. 2011, their closed form).
    Before the first vote, posterior = vote_axis(no differences, no outcomes, text axis, matrix).

    Args:
        posterior: what is known; None (neither words nor votes) asks any pair.
        asked: pairs (lower row, higher row) that are not to be asked again.

    Raises:
        PcclipError: fewer than two photos, or every pair was asked.
    """
    n = len(matrix)
    if len(asked) >= n * (n - 1) // 2:
        raise PcclipError(f"every pair of the {n} photos was asked; add photos, or stop voting")
    if n * (n - 1) // 2 <= candidates:
        drawn = np.stack(np.triu_indices(n, 1), axis=1)
    else:
        drawn = np.sort(rng.integers(n, size=(2 * candidates, 2)), axis=1)
    fresh = [pair for pair in map(tuple, drawn.tolist()) if pair[0] != pair[1] and pair not in asked][:candidates]
    if not fresh:
        raise PcclipError(f"nearly every pair of the {n} photos was asked; add photos, or stop voting")
    if posterior is None:
        one, two = fresh[int(rng.integers(len(fresh)))]
    else:
        pairs = np.array(fresh)
        differences = matrix[pairs[:, 0]] - matrix[pairs[:, 1]]
        gain = _information(posterior.scores(differences), posterior.deviations(differences))
        one, two = fresh[int(gain.argmax())]
    return (one, two) if rng.random() < 0.5 else (two, one)  # nobody shall learn that the left one is more likely


def _information(means: np.ndarray, deviations: np.ndarray) -> np.ndarray:
    """Bits that a vote tells about w: entropy of the answer less its mean entropy when w is known."""
    scale = np.pi / 8  # a logistic curve is nearly a normal's
    mean, variance, c = means * np.sqrt(scale), deviations**2 * scale, np.sqrt(np.pi * np.log(2) / 2)
    chance = np.clip(ndtr(mean / np.sqrt(variance + 1)), 1e-12, 1 - 1e-12)
    entropy = -chance * np.log2(chance) - (1 - chance) * np.log2(1 - chance)
    return entropy - c / np.sqrt(variance + c**2) * np.exp(-(mean**2) / (2 * (variance + c**2)))
