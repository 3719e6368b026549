"""The held-out accuracies on the curve of stage 03, from whatever vectors the model has at that step."""

from collections.abc import Callable

import numpy as np
from jaxtyping import Float, Int

from pcclip.config import Config
from pcclip.encoders.dual_encoder import Encoder
from pcclip.encoders.tokens import Tokens
from pcclip.finetuning.batches import TrainingData
from pcclip.stats.vectors import beats, cosines, image_differences, zero_shot


class HeldOut:
    """Held-out comparisons and labelled images, and the texts of their classes as tokens.

    Args:
        rows: the rows of the run's vectors that the caller will give image vectors of, ascending; None means all.
            Labelled images outside `rows` are left out.
    """

    def __init__(self, config: Config, data: TrainingData, model: Encoder, rows: Int[np.ndarray, " n"] | None = None):
        images, vectors, pairs = data.images, data.vectors, data.held_out_pairs
        self.rows = np.arange(len(vectors.ids)) if rows is None else rows
        assert pairs.second is not None, "comparisons have two images"
        self.pairs, self.first, self.second = pairs, self.places(pairs.first), self.places(pairs.second)
        labelled = vectors.of(images.held_out[images.held_out.label.notna()])
        image_rows = vectors.rows(labelled["id"])
        kept = np.isin(image_rows, self.rows)
        self.images, self.labels = self.places(image_rows[kept]), labelled.label.to_numpy()[kept]
        self.classes = np.array(images.classes)
        self.prompts = model.tokenised([config.evaluate.zero_shot_prompt.format(name) for name in images.classes])

    def places(self, rows: Int[np.ndarray, " m"]) -> Int[np.ndarray, " m"]:
        """Where rows of the run's vectors are within `self.rows`."""
        return np.searchsorted(self.rows, rows)

    def accuracies(
        self, u: Float[np.ndarray, "n d"], encode: Callable[[Tokens], Float[np.ndarray, "m d"]]
    ) -> dict[str, float]:
        """`difference_accuracy` and `zero_shot_accuracy`, each where there is something to measure it on.

        Args:
            u: unit image vectors of `self.rows`.
            encode: unit vectors of texts.
        """
        accuracies = {}
        if len(self.pairs):
            v = image_differences(u, self.first, self.second)
            accuracies["difference_accuracy"] = float(beats(cosines(encode(self.pairs.tokens), v), 0.0).mean())
        if len(self.classes) and len(self.images):
            predictions = self.classes[zero_shot(u[self.images], encode(self.prompts))]
            accuracies["zero_shot_accuracy"] = float((predictions == self.labels).mean())
        return accuracies
