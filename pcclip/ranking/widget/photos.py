"""The photos that notebook 06 ranks, a run's own or those of any folder, with vectors, captions and models."""

import os
from dataclasses import dataclass
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
from pcclip.finetuning.stage import FOLDER as FINETUNE
from pcclip.images import as_text
from pcclip.ranking.rank import find_photos
from pcclip.runs.progress import say
from pcclip.runs.stage import read_manifest

FOLDER = "06_rank"


@dataclass(frozen=True)
class Photos:
    """Readable photos and the models that rank them.

    A class of its own because a folder's photos have vectors and captions, but none of the splits of an ImageSet.

    Attributes:
        vectors: of the readable photos; votes name photos by these ids (the image set's, or paths in the folder).
        captions: parallel to the vectors; a photo without a caption has its file's name.
        models: name -> model, 'base' first.
        unreadable: columns id, path, reason of the other photos.
        images: the run's image set, whose attributes are true values; None for a folder.
    """

    vectors: Vectors
    captions: list[str]
    models: dict[str, Encoder]
    unreadable: pd.DataFrame
    images: ImageSet | None = None

    def matrix(self, model: str) -> Float[np.ndarray, "n d"]:
        """Unit image vectors by the image tower of the model with this name."""
        return self.vectors.seen_by(model).matrix

    def summary(self) -> pd.DataFrame:
        """One row: the number of photos, of unreadable ones, the width of the vectors, and the models."""
        row = {
            "photos": len(self.captions),
            "unreadable": len(self.unreadable),
            "width": self.vectors.matrix.shape[1],
            "models": ", ".join(self.models),
        }
        return pd.DataFrame([row], index=["photos"])

    def true_values(
        self, attribute: str | None, model: str = "base"
    ) -> tuple[Float[np.ndarray, "k d"], Float[np.ndarray, " k"], list[str]] | None:
        """Vectors, true values and concepts of the held-out photos whose attribute is known; None without any."""
        if self.images is None or attribute not in self.images.attributes:
            return None
        table = self.vectors.of(self.images.held_out.dropna(subset=[attribute]))
        if table.empty:
            return None
        matrix = self.matrix(model)[self.vectors.rows(table["id"])]
        return matrix, table[attribute].to_numpy(dtype=float), list(table.concept)


def votes_file(config: Config) -> Path:
    """config.rank.votes, or votes.jsonl in the run's folder."""
    return resolve(config.rank.votes) if config.rank.votes else config.folder / FOLDER / "votes.jsonl"


def load_photos(config: Config) -> Photos:
    """The photos of config.rank.photos, by default the run's. Vectors are made once and kept in the run's folder.

    The finetuned model is included when stage 03 has finished. Raises PcclipError: no photos, none readable, vectors of
    another model, or a finetuned model of another base.
    """
    models = {"base": load_model(config.model)}
    if read_manifest(config.tuned_folder / FINETUNE):
        models["finetuned"] = load_model(str(config.tuned_folder), config.evaluate.alpha)
        if models["finetuned"].tuned_from != models["base"].image_fingerprint():
            raise PcclipError(f"model: {config.tuned_folder} was not finetuned from {config.model}; name its base")
    if config.rank.photos:
        return _of_a_folder(config, str(config.rank.photos), models)
    return _of_the_run(config, models)


def _of_the_run(config: Config, models: dict[str, Encoder]) -> Photos:
    images = load_images(config)
    vectors, unreadable = embed(config, images, models["base"])
    vectors = with_towers(config.source_folder / EMBED, vectors, models, config.embed)
    captions = list(images.table.set_index("id").caption.loc[vectors.ids])
    return Photos(vectors, captions, models, unreadable, images)


def _of_a_folder(config: Config, place: str, models: dict[str, Encoder]) -> Photos:
    """The photos of a folder, with the captions of its captions file where it has one, or of a glob."""
    folder = resolve(place)
    paths = find_photos(folder if folder.exists() else place)
    paths = [as_text(os.path.abspath(path)) for path in paths]  # a link keeps its own name and place
    photos, settings = images_only("photos", pd.DataFrame({"id": paths, "path": paths}), 1.0), config.embed
    stage = config.folder / FOLDER / EMBED
    vectors, unreadable = embed_benchmark(stage, photos, models["base"], settings)
    vectors = with_towers(stage, vectors, models, settings)
    caption_of = {}
    if folder.is_dir():
        vectors = _renamed(vectors, [os.path.relpath(path, folder) for path in vectors.paths])
        source = Data(source="folder", path=str(folder))
        if not captioned.missing(source):
            try:
                table, _, _ = captioned.read(source)
                caption_of = {
                    row.path: row.captions[0] for row in table.itertuples() if isinstance(row.captions[0], str)
                }
            except PcclipError as error:
                say(f"photos are shown without captions: {error}")
    captions = [caption_of.get(os.path.realpath(path)) or Path(path).stem for path in vectors.paths]
    return Photos(vectors, captions, models, unreadable)


def _renamed(vectors: Vectors, ids: list[str]) -> Vectors:
    """The vectors of every image tower with other ids."""
    others = {model: _renamed(tower, ids) for model, tower in vectors.others.items()}
    return Vectors(ids, vectors.paths, vectors.matrix, vectors.fingerprint, others)
