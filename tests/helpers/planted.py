"""Not a test: what the tests of stage 05 plant, texts whose vectors are known and photos that have none."""

import numpy as np
from torch import nn

from pcclip.encoders.dual_encoder import Encoder
from pcclip.stats.vectors import unit

N, WIDTH = 40, 256  # wide enough that random photos are nearly orthogonal


class Fake(Encoder):
    """An encoder that knows a vector for every text."""

    def __init__(self, vectors: dict):
        nn.Module.__init__(self)  # it has no towers
        self.vectors = vectors

    def encode_texts(self, texts):
        width = len(next(iter(self.vectors.values())))
        return np.array([self.vectors[text] for text in texts], dtype=np.float32).reshape(len(texts), width)


def orthogonal(rng, n: int = N, width: int = WIDTH) -> np.ndarray:
    """n rows of length one, all at right angles."""
    return np.linalg.qr(rng.normal(size=(width, n)))[0].T.astype(np.float32)


def differences(u: np.ndarray) -> dict:
    """'i not j' is unit(u_i - u_j), for all rows i and j; 'caption i' is u_i."""
    return {
        **{f"caption {i}": u[i] for i in range(len(u))},
        **{f"{i} not {j}": unit(u[i] - u[j]) for i in range(len(u)) for j in range(len(u))},
    }
