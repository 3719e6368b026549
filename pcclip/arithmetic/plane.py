"""Photos on a plane, and on the same plane where differences point: principal components of the image vectors."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Float

from pcclip.arithmetic.texts import Remembered
from pcclip.embedding.vectors import Vectors


@dataclass(frozen=True)
class Plane:
    """The first two principal components of some vectors.

    Attributes:
        mean: (d,); axes: (2, d), orthonormal; share: of the variance that the plane shows.
    """

    mean: Float[np.ndarray, " d"]
    axes: Float[np.ndarray, "2 d"]
    share: float

    def places(self, vectors: Float[np.ndarray, "n d"]) -> Float[np.ndarray, "n 2"]:
        return (vectors - self.mean) @ self.axes.T

    def steps(self, differences: Float[np.ndarray, "m d"]) -> Float[np.ndarray, "m 2"]:
        """Differences have no place, only a direction and a length."""
        return differences @ self.axes.T


def plane_of(vectors: Float[np.ndarray, "n d"]) -> Plane:
    """Fitted to these rows; the sign of an axis is such that its largest loading is positive."""
    mean = vectors.mean(axis=0)
    _, power, axes = np.linalg.svd((vectors - mean).astype(np.float64), full_matrices=False)
    axes = axes[:2] * np.sign(axes[:2][np.arange(len(axes[:2])), np.abs(axes[:2]).argmax(axis=1)])[:, None]
    return Plane(mean, axes, float((power[:2] ** 2).sum() / max((power**2).sum(), 1e-300)))


def points_of(vectors: Vectors, table: pd.DataFrame, plane: Plane) -> pd.DataFrame:
    """A row for each photo: id, path, caption, label, x, y."""
    x, y = plane.places(vectors.matrix[vectors.rows(table["id"])]).T
    return table[["id", "path", "caption", "label"]].assign(x=x, y=y).reset_index(drop=True)


def arrows_of(
    vectors: Vectors,
    pairs: pd.DataFrame,
    models: dict[str, Remembered],
    plane: Plane,
    strength: float,
    seen_by: str = "finetuned",
) -> pd.DataFrame:
    """From the second photo of each pair towards the first: what the photos say, and what each model's f(d) says.

    Columns pair, what ('photos' or a model), x, y (where it starts), dx, dy. A text's arrow is strength * f(d). The
    plane is of the vectors that the model `seen_by` has; of models with another image tower there are no arrows.
    """
    own = vectors.seen_by(seen_by)
    models = {which: model for which, model in models.items() if vectors.seen_by(which) is own}
    first, second = own.rows(pairs["first"]), own.rows(pairs["second"])
    x, y = plane.places(own.matrix[second]).T
    steps = {"photos": own.matrix[first] - own.matrix[second]}
    steps |= {which: strength * model.encode_texts(list(pairs.difference)) for which, model in models.items()}
    return pd.concat(
        [
            pd.DataFrame(
                {
                    "pair": np.arange(len(pairs)),
                    "what": what,
                    "x": x,
                    "y": y,
                    "dx": plane.steps(step)[:, 0],
                    "dy": plane.steps(step)[:, 1],
                }
            )
            for what, step in steps.items()
        ],
        ignore_index=True,
    )
