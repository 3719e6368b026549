"""The photos that notebook 06 ranks: a run's own or those of any folder, with vectors, captions and models."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
from jaxtyping import Float

from pcclip.benchmarks.benchmark import images_only
from pcclip.config import Config, Data, resolve
from pcclip.data.image_set import ImageSet, load_images
from pcclip.data.sources import folder as captioned
from pcclip.embedding.stage import FOLDER as EMBED
from pcclip.embedding.stage import embed, embed_benchmark, with_towers
from pcclip.embedding.vectors import Vectors
from pcclip.encoders import load_model
from pcclip.encoders.dual_encoder import Encoder
from pcclip.errors import PcclipError
from pcclip.ranking.rank import find_photos
from pcclip.runs.stage import read_manifest

FOLDER = "06_rank"


@dataclass(frozen=True)
class Photos:
    """Photos that can be read, row by row, and the models that rank them.

    Attributes:
        ids: what votes call them: the image set's ids, or paths within the folder.
        paths, captions: parallel to ids; a photo without a caption has its file's name.
        matrix: unit image vectors, by the base's image tower.
        models: name -> model, 'base' first.
        unreadable: id, path, reason of the others.
        images: the run's image set, with true values where it has them; None for a folder.
        others: the image vectors of models with another image tower, by name.
    """

    ids: list[str]
    paths: list[str]
    captions: list[str]
    matrix: Float[np.ndarray, "n d"]
    models: dict[str, Encoder]
    unreadable: pd.DataFrame
    images: ImageSet | None = None
    others: Mapping[str, Float[np.ndarray, "n d"]] = field(default_factory=dict)

    def seen_by(self, model: str) -> Float[np.ndarray, "n d"]:
        """Unit image vectors, row by row, by the image tower of the model of this name."""
        return self.others.get(model, self.matrix)

    def summary(self) -> pd.Series:
        """How many photos, how many cannot be read, and the models."""
        return (
            pd.Series(
                {
                    "photos": len(self.ids),
                    "unreadable": len(self.unreadable),
                    "width": self.matrix.shape[1],
                    "models": ", ".join(self.models),
                },
                name="photos",
            )
            .to_frame()
            .T
        )

    def known(self, attribute: str | None, model: str = "base") -> tuple[np.ndarray, np.ndarray, list[str]] | None:
        """A model's vectors, true values and concepts of the held-out photos whose attribute is known; None without
        any."""
        if self.images is None or attribute not in self.images.attributes:
            return None
        table = self.images.held_out.dropna(subset=[attribute])
        row = {name: k for k, name in enumerate(self.ids)}
        table = table[table["id"].isin(row)]
        rows = [row[name] for name in table["id"]]
        values = table[attribute].to_numpy(dtype=float)
        return (self.seen_by(model)[rows], values, list(table.concept)) if rows else None


def load(config: Config) -> Photos:
    """The photos of config.rank.photos, else the run's. Vectors are made once and kept in the run's folder.

    The finetuned model is there when 03 has finished. Raises PcclipError: no photos, none readable, vectors of another
    model, or a finetuned model of another base.
    """
    models = {"base": load_model(config.model)}
    if read_manifest(config.tuned_folder / "03_finetune"):
        models["finetuned"] = load_model(str(config.tuned_folder), config.evaluate.alpha)
        if models["finetuned"].tuned_from != models["base"].image_fingerprint():
            raise PcclipError(f"model: {config.tuned_folder} was not finetuned from {config.model}; name its base")
    return _of_a_folder(config, models) if config.rank.photos else _of_the_run(config, models)


def _of_the_run(config: Config, models: dict[str, Encoder]) -> Photos:
    images = load_images(config)
    vectors, bad = embed(config, images, models["base"])
    vectors = with_towers(config.source_folder / EMBED, vectors, models, config.embed)
    caption = images.table.set_index("id").caption
    return Photos(
        vectors.ids,
        vectors.paths,
        list(caption.loc[vectors.ids]),
        vectors.matrix,
        models,
        bad,
        images,
        _matrices(vectors),
    )


def _of_a_folder(config: Config, models: dict[str, Encoder]) -> Photos:
    asked = config.rank.photos
    place = resolve(asked) if resolve(asked).exists() else asked  # a glob is none
    found = [os.path.abspath(path) for path in find_photos(place)]  # a link keeps its own name and place
    plain, how = images_only("photos", pd.DataFrame({"id": found, "path": found}), 1.0), config.embed
    stage = config.folder / FOLDER / EMBED
    vectors, bad = embed_benchmark(stage, plain, models["base"], how)
    vectors = with_towers(stage, vectors, models, how)
    known, home = {}, Path(place)
    if home.is_dir():
        ids = [os.path.relpath(path, home) for path in vectors.paths]
        if not captioned.missing(Data(source="folder", path=str(home))):
            rows, _, _ = captioned.read(Data(source="folder", path=str(home)))
            known = dict(zip(rows.path, rows.caption, strict=True))
    else:
        ids = vectors.paths
    captions = [known.get(os.path.realpath(path)) or Path(path).stem for path in vectors.paths]
    return Photos(ids, vectors.paths, captions, vectors.matrix, models, bad, None, _matrices(vectors))


def _matrices(vectors: Vectors) -> dict[str, Float[np.ndarray, "n d"]]:
    return {which: own.matrix for which, own in vectors.others.items()}
