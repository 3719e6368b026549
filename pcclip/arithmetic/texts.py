"""Text vectors that are made once: every part of stage 05 asks for some of the same texts."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from pcclip.encoders.dual_encoder import Encoder


class Remembered:
    """An encoder whose text vectors are kept by text."""

    def __init__(self, model: Encoder):
        self.model, self._vectors = model, {}

    def encode_texts(self, texts: Sequence[str]) -> Float[np.ndarray, "n d"]:
        """As Encoder.encode_texts; only texts that were not asked for before are encoded."""
        new = [text for text in dict.fromkeys(texts) if text not in self._vectors]
        if new:
            self._vectors.update(zip(new, self.model.encode_texts(new), strict=True))
        return np.stack([self._vectors[text] for text in texts]) if len(texts) else self.model.encode_texts([])
