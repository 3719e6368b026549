"""Text vectors that are encoded once: every part of stage 05 needs some of the same texts."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from pcclip.encoders.dual_encoder import Encoder


class TextMemory:
    """An Encoder that keeps the vector of every text it has encoded."""

    def __init__(self, model: Encoder):
        self.model = model
        self._vectors: dict[str, Float[np.ndarray, " d"]] = {}

    def encode_texts(self, texts: Sequence[str]) -> Float[np.ndarray, "n d"]:
        """Unit text vectors, as Encoder.encode_texts; only new texts are encoded."""
        if new := [text for text in dict.fromkeys(texts) if text not in self._vectors]:
            self._vectors.update(zip(new, self.model.encode_texts(new), strict=True))
        return np.stack([self._vectors[text] for text in texts]) if len(texts) else self.model.encode_texts([])


def with_memory(models: dict[str, Encoder]) -> dict[str, TextMemory]:
    """The base and the finetuned model, each with a memory of its texts; peers are compared in stage 04 alone."""
    return {name: TextMemory(models[name]) for name in ("base", "finetuned")}
