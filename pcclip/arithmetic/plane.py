"""Photos on a plane with the directions of differences: the first two principal components of image vectors."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
from jaxtyping import Float
from sklearn.decomposition import PCA

from pcclip.arithmetic.texts import TextMemory
from pcclip.embedding.vectors import Vectors

MODEL = "finetuned"  # whose image tower the plane shows


def plane_of(vectors: Float[np.ndarray, "n d"]) -> PCA:
    """The plane of the first two principal components; the largest loading of each axis is positive."""
    return PCA(2, svd_solver="full").fit(vectors.astype(np.float64))


def share_of(plane: PCA) -> float:
    """Fraction of the variance that the plane shows."""
    return float(plane.explained_variance_ratio_.sum())


def points_of(vectors: Vectors, table: pd.DataFrame, plane: PCA) -> pd.DataFrame:
    """A row for each photo: id, path, caption, label, x, y."""
    x, y = plane.transform(vectors.matrix[vectors.rows(table["id"])]).T
    return table[["id", "path", "caption", "label"]].assign(x=x, y=y).reset_index(drop=True)


def arrows_of(
    vectors: Vectors, pairs: pd.DataFrame, models: Mapping[str, TextMemory], plane: PCA, strength: float
) -> pd.DataFrame:
    """From the second photo of each pair: the step to the first photo, and strength * f(d) of each model.

    The plane is of the finetuned model's image tower; a model with another image tower gets no arrows.

    Returns:
        Columns pair, what ('photos' or a model), x, y (the start), dx, dy.
    """
    own = vectors.seen_by(MODEL)
    first, second = own.rows(pairs["first"]), own.rows(pairs["second"])
    x, y = plane.components_ @ (own.matrix[second] - plane.mean_).T  # PCA.transform refuses no rows
    steps = {"photos": own.matrix[first] - own.matrix[second]}
    for name, model in models.items():
        if vectors.seen_by(name) is own:
            steps[name] = strength * model.encode_texts(list(pairs.difference))
    parts = []
    for name, step in steps.items():
        dx, dy = plane.components_ @ step.T  # a difference has a direction, but no place
        parts.append(pd.DataFrame({"pair": np.arange(len(pairs)), "what": name, "x": x, "y": y, "dx": dx, "dy": dy}))
    return pd.concat(parts, ignore_index=True)
