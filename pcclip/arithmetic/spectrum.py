"""The shape of a cloud of vectors: how far two modalities lie apart, how much of the space it fills."""

import numpy as np
from jaxtyping import Float


def modality_gap(images: Float[np.ndarray, "n d"], texts: Float[np.ndarray, "m d"]) -> float:
    """Distance of the two means (Liang et al., 2022): 0 to 2 for unit vectors."""
    return float(np.linalg.norm(images.mean(axis=0) - texts.mean(axis=0)))


def anisotropy(vectors: Float[np.ndarray, "n d"]) -> float:
    """Mean inner product of two different rows (Ethayarajh, 2019): 1 where unit rows are all the same, 0 all round."""
    n = len(vectors)
    total = vectors.sum(axis=0, dtype=np.float64)
    return float((total @ total - (vectors.astype(np.float64) ** 2).sum()) / (n * (n - 1)))


def spectrum(vectors: Float[np.ndarray, "n d"]) -> Float[np.ndarray, " k"]:
    """Shares of the variance about the mean along the principal components, largest first; they add up to 1."""
    centred = (vectors - vectors.mean(axis=0)).astype(np.float64)
    gram = centred @ centred.T if len(centred) < centred.shape[1] else centred.T @ centred
    power = np.maximum(np.linalg.eigvalsh(gram)[::-1], 0)
    return power / max(power.sum(), 1e-300)


def effective_rank(vectors: Float[np.ndarray, "n d"]) -> float:
    """exp of the entropy of the spectrum (Roy and Vetterli, 2007): k for variance alike in k directions."""
    shares = spectrum(vectors)
    shares = shares[shares > 1e-12]
    return float(np.exp(-(shares * np.log(shares)).sum()))


def random_directions(n: int, width: int, seed: int) -> Float[np.ndarray, "n d"]:
    """As many unit vectors of the same width with no structure at all: what the figures above are against chance."""
    drawn = np.random.default_rng(seed).normal(size=(n, width))
    return (drawn / np.linalg.norm(drawn, axis=1, keepdims=True)).astype(np.float32)
