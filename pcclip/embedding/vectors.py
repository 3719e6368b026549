"""Unit image vectors, row by row with the ids and paths of their images, and the table that stores them."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Bool, Float, Int

from pcclip.encoders.dual_encoder import Encoder
from pcclip.errors import PcclipError
from pcclip.runs.files import read_parquet
from pcclip.runs.stage import output

TABLE = "vectors.parquet"


@dataclass(frozen=True)
class Vectors:
    """Unit image vectors with the ids and paths of their images, row by row.

    Attributes:
        matrix: (n, d), made by the base model's image tower.
        fingerprint: identifies that tower.
        others: for each model with another image tower its own vectors of the same images, by the model's name.
    """

    ids: list[str]
    paths: list[str]
    matrix: Float[np.ndarray, "n d"]
    fingerprint: str = ""
    others: Mapping[str, "Vectors"] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not len(self.ids) == len(self.paths) == len(self.matrix):
            raise PcclipError("ids, paths and vectors are out of step")

    @cached_property
    def row(self) -> dict[str, int]:
        """The row of each id."""
        return {image: row for row, image in enumerate(self.ids)}

    def seen_by(self, model: str) -> "Vectors":
        """The vectors of the same images by the image tower of the model with this name."""
        return self.others.get(model, self)

    def check(self, models: Mapping[str, Encoder]) -> None:
        """Raise PcclipError when a model's image tower is not the tower that made its vectors."""
        for name, fingerprint in fingerprints(models).items():
            made_by = self.seen_by(name).fingerprint
            if made_by != fingerprint:
                raise PcclipError(
                    f"{name}: its own image tower is {fingerprint}, and these vectors are of "
                    f"{made_by or 'an unknown one'}; read them by pcclip.embedding.stage.own_vectors"
                )

    def rows(self, ids: Iterable[str]) -> Int[np.ndarray, " m"]:
        """Row numbers of `ids`. Raises PcclipError for an id without a vector."""
        ids = list(ids)
        if missing := [image for image in ids if image not in self.row]:
            raise PcclipError(f"{len(missing)} images have no vector, e.g. {missing[0]!r}")
        return np.array([self.row[image] for image in ids], dtype=np.int64)

    def of(self, table: pd.DataFrame) -> pd.DataFrame:
        """The rows of an image table that have a vector, numbered from 0."""
        return table[self.has(table["id"])].reset_index(drop=True)

    def has(self, *columns: Iterable[str]) -> Bool[np.ndarray, " m"]:
        """True in each row where all of the parallel id columns have a vector."""
        return np.array([all(image in self.row for image in ids) for ids in zip(*columns, strict=True)], dtype=bool)


def fingerprints(models: Mapping[str, Encoder]) -> dict[str, str]:
    """The fingerprint of each model's image tower; a tower that several models share is hashed once."""
    towers = {model.image_tower: model for model in models.values()}
    by_tower = {tower: model.image_fingerprint() for tower, model in towers.items()}
    return {name: by_tower[model.image_tower] for name, model in models.items()}


def load_vectors(folder: Path, model: Encoder) -> Vectors:
    """Read the vectors that this model's image tower made.

    Raises PcclipError when another tower made them, their stage has not finished, or the file has changed since.
    """
    path, fingerprint = output(Path(folder), TABLE), model.image_fingerprint()
    table = read_parquet(path, ["id", "path", "vector", "fingerprint"])
    made_by = set(table["fingerprint"].to_pylist())
    if made_by != {fingerprint}:
        advice = (
            "they are its base's, and its own image tower was tuned: pcclip.embedding.stage.own_vectors makes its own"
            if made_by == {model.tuned_from}
            else "run notebook 02 with this model"
        )
        raise PcclipError(
            f"{folder}: vectors of another model ({', '.join(sorted(made_by))}, not {fingerprint} of "
            f"{model.spec}); {advice}"
        )
    matrix = vector_matrix(table["vector"].combine_chunks(), path, model.width).copy()
    return Vectors(table["id"].to_pylist(), table["path"].to_pylist(), matrix, fingerprint)


def vector_matrix(column: pa.Array, path: str | Path, width: int) -> Float[np.ndarray, "n d"]:
    """The vectors in a column of a table. Raises PcclipError for one that is missing, of another width, or no numbers."""
    lists = pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list
    if not (any(is_kind(column.type) for is_kind in lists) and pa.types.is_floating(column.type.value_type)):
        raise PcclipError(f"{path}: its column vector holds {column.type}, not lists of numbers; run notebook 02 again")
    widths = pc.list_value_length(column).fill_null(0).to_numpy(zero_copy_only=False)
    other = np.flatnonzero(widths != width)
    if len(other):
        raise PcclipError(
            f"{path}: vectors of width {widths[other[0]]}, not {width} (row {other[0]}); run notebook 02 with this model"
        )
    matrix = column.flatten().to_numpy(zero_copy_only=False).reshape(-1, width)
    unknown = np.flatnonzero(~np.isfinite(matrix.sum(axis=1)))
    if len(unknown):
        raise PcclipError(
            f"{path}: the vector in row {unknown[0]} holds values that are no numbers; run notebook 02 again"
        )
    return matrix


def vector_table(images: pd.DataFrame, matrix: Float[np.ndarray, "n d"]) -> pa.Table:
    """The stored form: columns id and path of the images, and vector."""
    vectors = pa.FixedSizeListArray.from_arrays(pa.array(matrix.ravel()), matrix.shape[1])
    columns = {name: pa.array(images[name].astype(str)) for name in ("id", "path")}
    return pa.table({**columns, "vector": vectors})
