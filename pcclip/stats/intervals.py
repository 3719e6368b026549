"""The bootstrap over images that every measure draws from, and what comes of it: a value with its draws.

Pairs share images, so pairs are not independent: every bootstrap here draws images with replacement, and a pair counts
as often as both its images were drawn (pigeonhole bootstrap, Owen 2007). A single-image item counts as often as its
image was drawn. Intervals are the 2.5% and 97.5% percentiles.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

FEW = 2000  # up to so many images the draws are a multinomial's; beyond, where that is slow, they are counted indices
CELLS = 2**22  # values held at once, whatever the number of images and draws


@dataclass(frozen=True)
class Estimate:
    """A value, its bootstrap draws (for paired differences), and the number of items behind it."""

    value: float
    draws: Float[np.ndarray, " b"]
    n: int

    @property
    def interval(self) -> tuple[float, float]:
        low, high = np.nanpercentile(self.draws, [2.5, 97.5])
        return float(low), float(high)


def resamples(n: int, draws: int, seed: int) -> Iterator[Float[np.ndarray, "k n"]]:
    """How often each of n images is drawn in each resample, some resamples at a time, (draws, n) in all.

    Depends on n, draws and seed alone: models scored on the same images see the same resamples.
    """
    rng = np.random.default_rng(seed)
    for size in chunks(draws, n):
        if n <= FEW:
            counts = rng.multinomial(n, np.full(n, 1 / n), size)
        else:
            counts = np.stack([np.bincount(rng.integers(0, n, n), minlength=n) for _ in range(size)])
        yield counts.astype(np.float64)


def chunks(total: int, width: int) -> Iterator[int]:
    """Sizes that add up to `total`, so that so many rows of `width` values stay below CELLS."""
    step = max(1, CELLS // max(1, width))
    for start in range(0, total, step):
        yield min(step, total - start)


def ratio(right: Float[np.ndarray, "*b"], total: Float[np.ndarray, "*b"]) -> Float[np.ndarray, "*b"]:
    """right / total; NaN for a resample that drew no item."""
    return np.divide(right, total, out=np.full(right.shape, np.nan), where=total > 0)
