"""Stage 02: images to vectors. Decoding, encoding and writing overlap; unreadable images are recorded and counted.

Vectors are stored with id, path and the fingerprint of the image tower that made them, in one Parquet table.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
from jaxtyping import Float

from pcclip.encoders.dual_encoder import Encoder
from pcclip.errors import PcclipError
from pcclip.runs.files import read_parquet

TABLE = "vectors.parquet"


@dataclass(frozen=True)
class Vectors:
    """Unit image vectors with the ids and paths they belong to, row by row.

    Attributes:
        matrix: by the base's image tower.
        fingerprint: that tower's.
        others: by name, of models with another image tower: the same images, row by row, by theirs.
    """

    ids: list[str]
    paths: list[str]
    matrix: Float[np.ndarray, "n d"]
    fingerprint: str = ""
    others: Mapping[str, "Vectors"] = field(default_factory=dict)

    def __post_init__(self):
        if not len(self.ids) == len(self.paths) == len(self.matrix):
            raise PcclipError("ids, paths and vectors are out of step")
        object.__setattr__(self, "row", {image: i for i, image in enumerate(self.ids)})

    def seen_by(self, model: str) -> "Vectors":
        """The same images, row by row, by the image tower of the model of this name: where it has none of its own, the
        base's."""
        return self.others.get(model, self)

    def check(self, models: Mapping[str, Encoder]) -> None:
        """Raise PcclipError when one of these models has another image tower than the one its vectors are of."""
        for which, fingerprint in fingerprints(models).items():
            made_by = self.seen_by(which).fingerprint
            if made_by != fingerprint:
                raise PcclipError(
                    f"{which}: its own image tower is {fingerprint}, and these vectors are of "
                    f"{made_by or 'an unknown one'}; read them by pcclip.embed.own_vectors"
                )

    def rows(self, ids) -> np.ndarray:
        """Row numbers of `ids`. Raises PcclipError for an id without a vector."""
        missing = [image for image in ids if image not in self.row]
        if missing:
            raise PcclipError(f"{len(missing)} images have no vector, e.g. {missing[0]!r}")
        return np.array([self.row[image] for image in ids], dtype=np.int64)

    def of(self, table: pd.DataFrame) -> pd.DataFrame:
        """The rows of an image table that have a vector, numbered anew."""
        return table[self.has(table["id"])].reset_index(drop=True)

    def has(self, *columns) -> np.ndarray:
        """True where every one of the parallel id columns has a vector."""
        return np.array([all(image in self.row for image in ids) for ids in zip(*columns, strict=True)], dtype=bool)


def fingerprints(models: Mapping[str, Encoder]) -> dict[str, str]:
    """What each one's image vectors depend on; an image tower that several share is hashed once."""
    known = {model.image_tower: model for model in models.values()}
    known = {tower: model.image_fingerprint() for tower, model in known.items()}
    return {which: known[model.image_tower] for which, model in models.items()}


def load_vectors(folder: Path, model: Encoder) -> Vectors:
    """Read vectors of this very model. Raises PcclipError when another image tower made them."""
    table, fingerprint = read_parquet(Path(folder) / TABLE), model.image_fingerprint()
    made_by = set(table["fingerprint"].to_pylist())
    if made_by != {fingerprint}:
        advice = (
            "they are its base's, and its own image tower was tuned: pcclip.embed.own_vectors makes its own"
            if made_by == {model.tuned_from}
            else "run notebook 02 with this model"
        )
        raise PcclipError(
            f"{folder}: vectors of another model ({', '.join(sorted(made_by))}, not {fingerprint} of "
            f"{model.spec}); {advice}"
        )
    flat = table["vector"].combine_chunks().flatten().to_numpy()
    return Vectors(
        table["id"].to_pylist(), table["path"].to_pylist(), flat.reshape(table.num_rows, -1).copy(), fingerprint
    )


def vector_table(part: pd.DataFrame, matrix: np.ndarray) -> pa.Table:
    vectors = pa.FixedSizeListArray.from_arrays(pa.array(matrix.ravel()), matrix.shape[1])
    return pa.table({"id": pa.array(part.id.astype(str)), "path": pa.array(part.path.astype(str)), "vector": vectors})
