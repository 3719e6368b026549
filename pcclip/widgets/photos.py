"""The photos that notebook 06 ranks: a run's own or those of any folder, with vectors, captions and models."""

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from jaxtyping import Float

from pcclip.data import ImageSet, load_images
from pcclip.data import folder as captioned
from pcclip.data.labelled import unlabelled
from pcclip.embed import FOLDER as EMBED
from pcclip.embed import embed, embed_labelled
from pcclip.errors import PcclipError
from pcclip.models import load_model
from pcclip.models.encoder import DualEncoder
from pcclip.params import Config, Data, resolve
from pcclip.ranking import find_photos
from pcclip.stage import read_manifest

FOLDER = "06_rank"


@dataclass(frozen=True)
class Photos:
    """Photos that can be read, row by row, and the models that rank them.

    Attributes:
        ids: what votes call them: the image set's ids, or paths within the folder.
        paths, captions: parallel to ids; a photo without a caption has its file's name.
        matrix: unit image vectors, shared by all models.
        models: name -> model, 'base' first.
        unreadable: id, path, reason of the others.
        images: the run's image set, with true values where it has them; None for a folder.
    """

    ids: list[str]
    paths: list[str]
    captions: list[str]
    matrix: Float[np.ndarray, "n d"]
    models: dict[str, DualEncoder]
    unreadable: pd.DataFrame
    images: ImageSet | None = None

    def summary(self) -> pd.Series:
        """How many photos, how many cannot be read, and the models."""
        return pd.Series({"photos": len(self.ids), "unreadable": len(self.unreadable), "width": self.matrix.shape[1],
                          "models": ", ".join(self.models)}, name="photos").to_frame().T

    def known(self, attribute: str | None) -> tuple[np.ndarray, np.ndarray, list[str]] | None:
        """Vectors, true values and concepts of the held-out photos whose attribute is known; None without any."""
        if self.images is None or attribute not in self.images.attributes:
            return None
        table = self.images.held_out.dropna(subset=[attribute])
        row = {name: k for k, name in enumerate(self.ids)}
        table = table[table["id"].isin(row)]
        rows = [row[name] for name in table["id"]]
        return (self.matrix[rows], table[attribute].to_numpy(dtype=float), list(table.concept)) if rows else None


def load(config: Config) -> Photos:
    """The photos of config.rank.photos, else the run's. Vectors are made once and kept in the run's folder.

    The finetuned model is there when 03 has finished. Raises PcclipError: no photos, none readable, vectors of another
    model.
    """
    models = {"base": load_model(config.model)}
    if read_manifest(config.tuned_folder / "03_finetune"):
        models["finetuned"] = load_model(str(config.tuned_folder), config.evaluate.alpha)
    if len({model.image_fingerprint() for model in models.values()}) > 1:
        raise PcclipError(f"model: {config.tuned_folder} was not finetuned from {config.model}; name its base")
    return _of_a_folder(config, models) if config.rank.photos else _of_the_run(config, models)


def _of_the_run(config: Config, models: dict[str, DualEncoder]) -> Photos:
    images = load_images(config)
    vectors, bad = embed(config, images, models["base"])
    caption = images.table.set_index("id").caption
    return Photos(vectors.ids, vectors.paths, list(caption.loc[vectors.ids]), vectors.matrix, models, bad, images)


def _of_a_folder(config: Config, models: dict[str, DualEncoder]) -> Photos:
    asked = config.rank.photos
    place = resolve(asked) if resolve(asked).exists() else asked  # a glob is none
    found = [os.path.abspath(path) for path in find_photos(place)]  # a link keeps its own name and place
    plain, how = unlabelled("photos", pd.DataFrame({"id": found, "path": found}), 1.0), config.embed
    vectors, bad = embed_labelled(config.folder / FOLDER / EMBED, plain, models["base"], how.batch_size, how.workers,
                                  how.shard)
    known, home = {}, Path(place)
    if home.is_dir():
        ids = [os.path.relpath(path, home) for path in vectors.paths]
        if not captioned.missing(Data(source="folder", path=str(home))):
            rows, _, _ = captioned.read(Data(source="folder", path=str(home)))
            known = dict(zip(rows.path, rows.caption, strict=True))
    else:
        ids = vectors.paths
    captions = [known.get(os.path.realpath(path)) or Path(path).stem for path in vectors.paths]
    return Photos(ids, vectors.paths, captions, vectors.matrix, models, bad)
